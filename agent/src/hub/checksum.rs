//! The hash that a hub states of a file: SHA-256 of large ones, and of small ones the name that git gives them.

use std::fmt::Write as _;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// What a file's hash must be, in small hexadecimal letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checksum {
    /// Of the content: files that the hub keeps outside of git, as all weights are.
    Sha256(String),
    /// A git blob's: SHA-1 of `blob LENGTH\0` and the content. Enough against damage, not against an attacker.
    Git(String),
}

impl Checksum {
    /// As the hub writes it; `None` if it is none.
    pub(super) fn sha256(text: &str) -> Option<Self> {
        hexadecimal(text, 64).map(Self::Sha256)
    }

    /// As the hub writes it; `None` if it is none.
    pub(super) fn git(text: &str) -> Option<Self> {
        hexadecimal(text, 40).map(Self::Git)
    }

    /// What it is called.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::Git(_) => "git hash",
        }
    }

    /// Its letters.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Sha256(text) | Self::Git(text) => text,
        }
    }

    /// Something to hash a file of `size` bytes with.
    pub(super) fn begin(&self, size: u64) -> Context {
        match self {
            Self::Sha256(_) => Context::new(&SHA256),
            Self::Git(_) => {
                let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {size}\0").as_bytes());
                context
            }
        }
    }

    /// Whether this is it; else what was found.
    pub(super) fn check(&self, context: Context) -> Result<(), String> {
        let mut found = String::new();
        for byte in context.finish().as_ref() {
            // Writing into a string cannot fail.
            let _ = write!(found, "{byte:02x}");
        }
        if found == self.text() { Ok(()) } else { Err(found) }
    }
}

/// As text in small letters, if it is a hexadecimal number of so many digits.
pub(super) fn hexadecimal(text: &str, digits: usize) -> Option<String> {
    let is = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is.then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf 'hello\n' | sha256sum`, and `printf 'hello\n' | git hash-object --stdin`.
    const SHA256_HELLO: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    const GIT_HELLO: &str = "ce013625030ba8dba906f756967f9e9ca394464a";

    #[test]
    fn both_hashes_are_the_ones_that_other_programs_find() {
        for stated in [Checksum::sha256(SHA256_HELLO).unwrap(), Checksum::git(GIT_HELLO).unwrap()] {
            let mut context = stated.begin(6);
            context.update(b"hel");
            context.update(b"lo\n");
            assert_eq!(stated.check(context), Ok(()));
            let mut other = stated.begin(6);
            other.update(b"hallo\n");
            assert!(stated.check(other).is_err());
        }
    }

    #[test]
    fn what_is_no_hash_is_not_taken_for_one() {
        assert_eq!(Checksum::sha256(GIT_HELLO), None);
        assert_eq!(Checksum::git("../../../../etc/passwd/../../../../etc/pa"), None);
        assert_eq!(Checksum::sha256(&SHA256_HELLO.to_uppercase()), Checksum::sha256(SHA256_HELLO));
    }
}
