//! From a relay's name to the addresses that are dialled, in the order in which they are.

use std::net::SocketAddr;

use super::failure::Failure;

/// All addresses of a name: the one that answered last first, then IPv6 and IPv4 in turn.
pub(super) async fn resolve(address: &str, last: Option<SocketAddr>) -> Result<Vec<SocketAddr>, Failure> {
    let found = tokio::net::lookup_host(address).await.map_err(|error| Failure::unresolved(address, &error))?;
    let addresses = in_turn(found, last);
    if addresses.is_empty() { Err(Failure::unresolved(address, &"it has no address")) } else { Ok(addresses) }
}

fn in_turn(found: impl Iterator<Item = SocketAddr>, last: Option<SocketAddr>) -> Vec<SocketAddr> {
    let (mut six, mut four) = (Vec::new(), Vec::new());
    for address in found {
        let family = if address.is_ipv6() { &mut six } else { &mut four };
        if !family.contains(&address) {
            family.push(address);
        }
    }
    let mut addresses = Vec::with_capacity(six.len() + four.len());
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    loop {
        let pair = [six.next(), four.next()];
        if pair == [None, None] {
            break;
        }
        addresses.extend(pair.into_iter().flatten());
    }
    if let Some(place) = last.and_then(|last| addresses.iter().position(|address| *address == last)) {
        addresses[..=place].rotate_right(1);
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_the_last_good_address_leads() {
        let found = addresses(&["[::1]:1", "[::2]:1", "[::1]:1", "[::3]:1", "1.1.1.1:1"]);
        let ordered = in_turn(found.iter().copied(), None);
        assert_eq!(ordered, addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]));
        let last = Some("[::2]:1".parse().unwrap());
        assert_eq!(in_turn(found.iter().copied(), last), addresses(&["[::2]:1", "[::1]:1", "1.1.1.1:1", "[::3]:1"]));
        let gone = Some("[::9]:1".parse().unwrap());
        assert_eq!(in_turn(found.into_iter(), gone), ordered);
    }
}
