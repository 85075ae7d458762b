//! The threads that carry requests.
//!
//! They are few. A thread that has two things to do wakes another one to do the second, and on a machine that is not busy that takes
//! longer than doing both: with one thread instead of two, one small request at a time takes half as long through relay and agent to a
//! server behind them, and on two cores as many are carried. What takes long, such as decoding, has threads of its own.

use std::io;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};

/// A runtime of `wanted` threads; of one for each `part` cores where that is 0.
pub fn runtime(wanted: u8, part: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads(wanted, part)).enable_all().build()
}

fn threads(wanted: u8, part: usize) -> usize {
    match wanted {
        0 => (available_parallelism().map_or(1, usize::from) / part.max(1)).max(1),
        wanted => usize::from(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_as_wanted_or_a_part_of_the_cores_and_never_none() {
        let cores = available_parallelism().unwrap().get();
        assert_eq!((threads(3, 2), threads(0, 1), threads(0, 0), threads(0, 10_000)), (3, cores, cores, 1));
        assert_eq!(runtime(2, 1).unwrap().metrics().num_workers(), 2);
    }
}
