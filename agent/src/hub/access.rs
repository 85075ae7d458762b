//! Which hub is asked, and as whom: the environment variables that all programs of the hub know.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use hf_hub::Cache;

use super::failure::PullError;

/// The hub that is asked where no other is named.
const ENDPOINT: &str = "https://huggingface.co";

/// Where and as whom.
#[derive(Clone)]
pub struct Access {
    pub(super) endpoint: String,
    pub(super) cache: Cache,
    pub(super) token: Option<String>,
}

impl Access {
    /// `HF_ENDPOINT` names another hub, `HF_TOKEN` says who asks; without that, the token counts that was stored by logging in,
    /// in `HF_HOME` or its default `~/.cache/huggingface`. `lookup` gives a variable's value.
    pub fn from_environment(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, PullError> {
        let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let text = |name: &str| -> Result<Option<String>, PullError> {
            let unreadable = |_| PullError::Wrong(format!("{name} is not text"));
            set(name).map(|value| value.into_string().map_err(unreadable)).transpose()
        };
        let endpoint = text("HF_ENDPOINT")?.unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(PullError::Wrong(format!(
                "HF_ENDPOINT is `{endpoint}`, not the address of a hub: https://..."
            )));
        }
        let home = set("HF_HOME").map(PathBuf::from).unwrap_or_else(|| {
            let caches = set("XDG_CACHE_HOME").map(PathBuf::from);
            let caches = caches.unwrap_or_else(|| PathBuf::from(set("HOME").unwrap_or_default()).join(".cache"));
            caches.join("huggingface")
        });
        let cache = Cache::new(home.join("hub"));
        let token = text("HF_TOKEN")?.map(|token| token.trim().to_owned()).or_else(|| cache.token());
        // It travels in a header's value.
        if token.as_deref().is_some_and(|token| token.bytes().any(|byte| !byte.is_ascii_graphic())) {
            return Err(PullError::Wrong(
                "the hub's token has characters that no token has: look at HF_TOKEN".to_owned(),
            ));
        }
        Ok(Self { endpoint, cache, token })
    }
}

/// Without the token.
impl fmt::Debug for Access {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Access").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn access(set: &[(&str, &str)]) -> Result<Access, PullError> {
        let set: HashMap<_, _> = set.iter().copied().collect();
        Access::from_environment(|name| set.get(name).map(OsString::from))
    }

    #[test]
    fn the_environment_says_where_and_as_whom() {
        let least = access(&[("HOME", "/nowhere")]).unwrap();
        assert_eq!((least.endpoint.as_str(), least.token), (ENDPOINT, None));
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "stored\n").unwrap();
        let home = home.path().to_str().unwrap();
        let stored = access(&[("HF_HOME", home), ("HF_ENDPOINT", "http://mirror.test:8080/")]).unwrap();
        assert_eq!((stored.endpoint.as_str(), stored.token.as_deref()), ("http://mirror.test:8080", Some("stored")));
        let given = access(&[("HF_HOME", home), ("HF_TOKEN", "given")]).unwrap();
        assert_eq!(given.token.as_deref(), Some("given"));
        assert!(!format!("{given:?}").contains("given"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (name, value, because) in
            [("HF_ENDPOINT", "mirror.test", "HF_ENDPOINT is `mirror.test`"), ("HF_TOKEN", "a\nb", "HF_TOKEN")]
        {
            let error = access(&[(name, value), ("HOME", "/nowhere")]).unwrap_err().to_string();
            assert!(error.contains(because), "{error}");
        }
    }
}
