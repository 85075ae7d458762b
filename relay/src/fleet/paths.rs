//! What was learned of the paths to agents' addresses, so that a session begins where the last one from there ended.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use adit_common::tunnel::PathMemory;

/// Addresses that are remembered at the most: a thousand agents, each of which moved a few times.
const MOST: usize = 4096;

/// Memories by address. Agents behind one NAT share theirs, as they share the path.
#[derive(Debug, Default)]
pub(super) struct Paths {
    known: Mutex<HashMap<IpAddr, PathMemory>>,
}

impl Paths {
    /// The memory of an address, which a session from there reads and writes.
    pub(super) fn of(&self, address: IpAddr, now: Instant) -> PathMemory {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = known.get(&address) {
            return memory.clone();
        }
        if known.len() >= MOST {
            // Strangers are here too, for whoever asks is not known before the handshake: what taught nothing goes first.
            known.retain(|_, memory| memory.get().is_some_and(|path| path.is_fresh(now)));
        }
        if known.len() >= MOST {
            return PathMemory::none();
        }
        known.entry(address).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use adit_common::tunnel::KnownPath;

    use super::*;

    #[test]
    fn an_address_keeps_its_memory_and_strangers_push_nobody_out() {
        let (paths, now) = (Paths::default(), Instant::now());
        let home = IpAddr::from([192, 0, 2, 1]);
        let known = KnownPath { at: now, floor: Duration::from_millis(20), carried: 1 << 20 };
        paths.of(home, now).set(known);
        for stranger in 0..3 * MOST as u32 {
            let _ = paths.of(Ipv4Addr::from(stranger).into(), now);
        }
        assert_eq!(paths.of(home, now).get(), Some(known));
        assert!(paths.known.lock().unwrap().len() <= MOST);
    }
}
