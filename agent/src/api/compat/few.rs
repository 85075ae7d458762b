//! Lists in a JSON body, of which no more is kept than is taken anyway: a list of a million empty objects costs its sender two
//! megabytes, and would cost the reader a hundred.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

/// The first `MOST` elements of a list, and how many there are in all.
#[derive(Debug)]
pub(super) struct Few<T, const MOST: usize> {
    pub(super) first: Vec<T>,
    pub(super) all: usize,
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Few<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader<T, const MOST: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Reader<T, MOST> {
            type Value = Few<T, MOST>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut first = Vec::new();
                while first.len() < MOST {
                    let Some(element) = list.next_element()? else {
                        return Ok(Few { all: first.len(), first });
                    };
                    first.push(element);
                }
                let mut all = first.len();
                while list.next_element::<IgnoredAny>()?.is_some() {
                    all += 1;
                }
                Ok(Few { first, all })
            }
        }

        from.deserialize_seq(Reader(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_counted_only() {
        let few = |text: &str| serde_json::from_str::<Few<u8, 3>>(text).map(|few| (few.first, few.all));
        assert_eq!(few("[]").unwrap(), (vec![], 0));
        assert_eq!(few("[1,2]").unwrap(), (vec![1, 2], 2));
        assert_eq!(few("[1,2,3,\"no number\",{}]").unwrap(), (vec![1, 2, 3], 5));
        assert!(few("{}").is_err() && few("[1,\"2\"]").is_err() && few("[1,").is_err());
    }
}
