//! Who is asking, as far as taking turns needs to know.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};

/// One of those who share a tunnel: a number by which both ends of it know a client from the others, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Client(u32);

impl Client {
    /// The header by which a relay tells an agent.
    pub const HEADER: &'static str = "adit-client";

    /// Those of whom nothing was said.
    pub(in crate::tunnel) const UNKNOWN: Self = Self(0);

    /// Who came with the key of this name.
    pub fn with_key(name: &str) -> Self {
        Self::hashed(name)
    }

    /// Who came without a key, from this address.
    pub fn at(address: IpAddr) -> Self {
        Self::hashed(address)
    }

    /// Two clients in four billion are taken for one, and then share one turn.
    fn hashed(what: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        Self(hasher.finish() as u32)
    }

    /// The header's value.
    pub fn header(self) -> HeaderValue {
        HeaderValue::from(self.0)
    }

    /// Whose request this is; what is not a number is nobody in particular.
    pub(in crate::tunnel) fn of(headers: &HeaderMap) -> Self {
        let said = headers.get(Self::HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        said.map_or(Self::UNKNOWN, Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_know_a_client_from_the_others() {
        let (shop, office) = (Client::with_key("shop"), Client::with_key("office"));
        let somebody = Client::at(IpAddr::from([192, 0, 2, 7]));
        assert!(shop != office && shop != somebody && shop == Client::with_key("shop"));
        let mut headers = HeaderMap::new();
        assert_eq!(Client::of(&headers), Client::UNKNOWN);
        headers.insert(Client::HEADER, somebody.header());
        assert_eq!(Client::of(&headers), somebody);
        headers.insert(Client::HEADER, HeaderValue::from_static("somebody"));
        assert_eq!(Client::of(&headers), Client::UNKNOWN);
    }
}
