//! Which models make room for another: a pure decision.
//!
//! Least recently used first, and only what nobody asks at this moment: a request that has its model keeps it.

/// One loaded version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loaded<K> {
    pub(super) key: K,
    /// What its weights take.
    pub(super) bytes: u64,
    /// When it was last asked, on a clock that counts requests.
    pub(super) used: u64,
    /// Whether a request has it, or waits for it.
    pub(super) busy: bool,
}

/// Whether there is room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Room<K> {
    /// There is, once these are put to sleep; none, if it is free already.
    After(Vec<K>),
    /// Not while those are busy that are.
    Later,
    /// It would not fit if it were alone.
    Never,
}

/// Room for `need` bytes within `budget`, beside what is loaded.
pub(super) fn room<K>(budget: u64, need: u64, mut loaded: Vec<Loaded<K>>) -> Room<K> {
    if need > budget {
        return Room::Never;
    }
    let mut taken: u64 = loaded.iter().map(|one| one.bytes).sum();
    loaded.retain(|one| !one.busy && one.bytes > 0);
    loaded.sort_by_key(|one| one.used);
    let mut evicted = Vec::new();
    for one in loaded {
        if taken + need <= budget {
            break;
        }
        taken -= one.bytes;
        evicted.push(one.key);
    }
    if taken + need <= budget { Room::After(evicted) } else { Room::Later }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(rows: &[(char, u64, u64, bool)]) -> Vec<Loaded<char>> {
        rows.iter().map(|&(key, bytes, used, busy)| Loaded { key, bytes, used, busy }).collect()
    }

    #[test]
    fn the_least_recently_used_go_first_and_no_more_than_needed() {
        let rows = loaded(&[('a', 30, 5, false), ('b', 30, 2, false), ('c', 30, 9, false)]);
        assert_eq!(room(100, 10, rows.clone()), Room::After(vec![]));
        assert_eq!(room(100, 40, rows.clone()), Room::After(vec!['b']));
        assert_eq!(room(100, 50, rows.clone()), Room::After(vec!['b', 'a']));
        assert_eq!(room(100, 100, rows), Room::After(vec!['b', 'a', 'c']));
    }

    #[test]
    fn who_is_asked_stays() {
        let rows = loaded(&[('a', 30, 1, true), ('b', 30, 2, false), ('c', 30, 3, true)]);
        assert_eq!(room(100, 40, rows.clone()), Room::After(vec!['b']));
        assert_eq!(room(100, 41, rows), Room::Later, "60 are busy");
    }

    #[test]
    fn what_is_too_large_alone_evicts_nobody() {
        assert_eq!(room(100, 101, loaded(&[('a', 30, 1, false)])), Room::Never);
        assert_eq!(room(100, 100, Vec::<Loaded<char>>::new()), Room::After(vec![]));
    }

    #[test]
    fn what_takes_nothing_is_left_alone() {
        let rows = loaded(&[('a', 0, 1, false), ('b', 90, 2, false)]);
        assert_eq!(room(100, 50, rows), Room::After(vec!['b']));
    }
}
