//! Reads a TOML configuration, and where it is wrong points at the place and says what was probably meant.
//!
//! Every key of Adit has a default, so no file at all is a valid configuration; an unknown key is an error, because a
//! misspelt one would otherwise be a setting that silently does nothing.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file says something that is not understood.
    #[error("{name}:{line}:{column}: {message}{}", hint(.nearest.as_deref()))]
    Invalid {
        /// Which file.
        name: String,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
        /// The known key or word that is closest to an unknown one.
        nearest: Option<String>,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// Reads the file at `path`; without a path, every key has its default.
pub fn load<T: DeserializeOwned + Default>(path: Option<&Path>) -> Result<T, ConfigError> {
    let Some(path) = path else { return Ok(T::default()) };
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&path.display().to_string(), &text)
}

/// Reads `text`, which errors call `name`.
pub fn parse<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let (line, column) = place(text, start);
        let message = error.message().trim().replace('\n', ", ");
        let nearest = nearest(&message);
        ConfigError::Invalid { name: name.to_owned(), line, column, message, nearest }
    })
}

/// Line and column, both from 1, of a byte offset.
fn place(text: &str, offset: usize) -> (usize, usize) {
    // An offset inside a character or beyond the end counts up to the last whole character before it.
    let before: String = text.char_indices().take_while(|(at, _)| *at < offset).map(|(_, c)| c).collect();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

/// The known name closest to the unknown one, if the message names both as serde does:
/// "unknown field `lisen`, expected one of `listen`, `tls`".
fn nearest(message: &str) -> Option<String> {
    if !message.starts_with("unknown ") {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let wrong = quoted.next()?;
    let (distance, known) =
        quoted.map(|known| (strsim::damerau_levenshtein(wrong, known), known)).min_by_key(|(distance, _)| *distance)?;
    // More than a third of the letters apart, it is another word and not a slip.
    (distance * 3 <= wrong.chars().count().max(3)).then(|| known.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Config {
        front: Front,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Front {
        listen: String,
        #[serde(with = "crate::daemon::humane_duration")]
        idle_timeout: Duration,
    }

    fn error(text: &str) -> String {
        parse::<Config>("relay.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_is_pointed_at_and_the_nearest_known_one_named() {
        let message = error("[front]\n  lisen = \"0.0.0.0:443\"\n");
        assert!(message.starts_with("relay.toml:2:3: unknown field `lisen`"), "{message}");
        assert!(message.ends_with("did you mean `listen`?"), "{message}");
        let message = error("[fornt]\n");
        assert!(message.starts_with("relay.toml:1:2: "), "{message}");
        assert!(message.ends_with("did you mean `front`?"), "{message}");
    }

    #[test]
    fn another_word_gets_no_guess() {
        let message = error("[front]\nporridge = 1\n");
        assert!(message.contains("relay.toml:2:1: unknown field `porridge`"), "{message}");
        assert!(!message.contains("did you mean"), "{message}");
    }

    #[test]
    fn a_wrong_value_is_pointed_at() {
        let message = error("[front]\nidle_timeout = \"30\"\n");
        assert!(message.starts_with("relay.toml:2:16: \"30\" is not a duration such as"), "{message}");
        let message = error("[front]\n# höhö\nlisten = 5\n");
        assert!(message.starts_with("relay.toml:3:10: "), "{message}");
        assert!(error("[front\n").starts_with("relay.toml:1:"));
    }

    #[test]
    fn a_file_is_read_and_its_absence_told_apart_from_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.toml");
        assert_eq!(load::<Config>(None).unwrap(), Config::default());
        let message = load::<Config>(Some(&path)).unwrap_err().to_string();
        assert!(message.starts_with("cannot read ") && message.ends_with("relay.toml"), "{message}");
        std::fs::write(&path, "[front]\nidle_timeout = \"5m\"\n").unwrap();
        assert_eq!(load::<Config>(Some(&path)).unwrap().front.idle_timeout, Duration::from_secs(300));
    }

    #[test]
    fn a_place_is_counted_in_characters() {
        assert_eq!(place("", 0), (1, 1));
        assert_eq!(place("ab\nä=c", 6), (2, 3));
        assert_eq!(place("ab", 99), (1, 3));
    }
}
