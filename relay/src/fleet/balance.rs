//! Which agent takes a request: the better of two drawn at random.
//!
//! Asking all and taking the best would send every request of a moment to the same agent; two random choices spread load
//! almost as evenly without that. An agent without a free stream is passed over, never waited for.

use std::sync::Arc;
use std::time::Instant;

use adit_common::tunnel::{Caller, TunnelError};

use super::agent::{Agent, InFlight};

/// The agents that could answer a request: places in a list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidates<'a> {
    /// All agents.
    pub(crate) agents: &'a [Arc<Agent>],
    /// Those that could.
    pub(crate) among: &'a [u32],
}

/// An agent with an open stream.
#[derive(Debug)]
pub(crate) struct Picked {
    pub(crate) in_flight: InFlight,
    pub(crate) caller: Caller,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPick {
    /// Every one that is left has no free stream.
    Full,
    /// None is left.
    Nobody,
}

/// Picks an agent and opens a stream to it. Those in `tried` are passed over; it grows by those that were asked.
/// Also returns how many had no stream left.
pub(crate) fn pick(candidates: Candidates<'_>, tried: &mut Vec<u32>, now: Instant) -> (Result<Picked, NoPick>, u64) {
    let mut full = 0;
    loop {
        let agent = |index: usize| candidates.agents.get(candidates.among[index] as usize);
        let score = |index: usize| {
            let agent = agent(index).filter(|agent| !agent.is_retired())?;
            (!tried.contains(&candidates.among[index])).then(|| agent.score(now))
        };
        let choice = choose(candidates.among.len(), score, |below| rand::random_range(0..below));
        let Some((index, agent)) = choice.and_then(|index| Some((index, agent(index)?))) else {
            return (Err(if full > 0 { NoPick::Full } else { NoPick::Nobody }), full);
        };
        tried.push(candidates.among[index]);
        let Some(in_flight) = agent.begin(now) else { continue };
        match agent.session.open() {
            Ok(caller) => return (Ok(Picked { in_flight, caller }), full),
            Err(TunnelError::NoCredit) => full += 1,
            // It is about to leave the registry.
            Err(_) => {}
        }
    }
}

/// The better of two of `count`, drawn with `random` (a number below its argument). Those without a score cannot be
/// chosen; if the draw finds none, or none but ejected ones, the best of all is taken.
pub(super) fn choose<S: PartialOrd + Copy + Acceptable>(
    count: usize,
    score: impl Fn(usize) -> Option<S>,
    mut random: impl FnMut(usize) -> usize,
) -> Option<usize> {
    let better = |one: Option<(usize, S)>, other: Option<(usize, S)>| match (one, other) {
        (Some(one), Some(other)) => Some(if other.1 < one.1 { other } else { one }),
        (one, other) => one.or(other),
    };
    let scored = |index: usize| Some((index, score(index)?));
    let drawn = match count {
        0 => return None,
        1 => scored(0),
        _ => {
            let first = random(count);
            let second = random(count - 1);
            better(scored(first), scored(if second >= first { second + 1 } else { second }))
        }
    };
    match drawn {
        Some((index, score)) if score.is_acceptable() => Some(index),
        _ => (0..count).map(scored).fold(None, better).map(|(index, _)| index),
    }
}

/// Whether a score needs no look at the others.
pub(super) trait Acceptable {
    fn is_acceptable(&self) -> bool;
}

impl Acceptable for super::agent::Score {
    fn is_acceptable(&self) -> bool {
        !self.ejected
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::super::agent::Score;
    use super::*;

    fn score(cost: f64) -> Score {
        Score { ejected: false, cost }
    }

    #[test]
    fn the_worst_of_three_is_hardly_ever_chosen_and_the_others_share() {
        let mut random = StdRng::seed_from_u64(7);
        let costs = [0.1, 0.1, 5.0];
        let mut counts = [0; 3];
        for _ in 0..3000 {
            let index = choose(3, |index| Some(score(costs[index])), |below| random.random_range(0..below)).unwrap();
            counts[index] += 1;
        }
        assert_eq!(counts[2], 0, "it always loses against whoever is drawn with it");
        assert!(counts[0] > 900 && counts[1] > 900, "{counts:?}");
    }

    #[test]
    fn an_ejected_agent_is_taken_only_when_there_is_no_other() {
        let mut random = StdRng::seed_from_u64(7);
        let out = |cost| Score { ejected: true, cost };
        let scores = [out(0.001), out(0.002), out(0.003), score(9.0)];
        for _ in 0..100 {
            let draw = |below| random.random_range(0..below);
            assert_eq!(choose(4, |index| Some(scores[index]), draw), Some(3));
        }
        assert!(choose(3, |index| Some(scores[index]), |_| 0).is_some(), "a bad agent is better than none");
    }

    proptest! {
        #[test]
        fn whoever_can_be_chosen_is_found(
            scores in prop::collection::vec(prop::option::of((any::<bool>(), 0.0_f64..10.0)), 0..12),
            seed: u64,
        ) {
            let mut random = StdRng::seed_from_u64(seed);
            let scores: Vec<_> =
                scores.into_iter().map(|score| score.map(|(ejected, cost)| Score { ejected, cost })).collect();
            let chosen = choose(scores.len(), |index| scores[index], |below| random.random_range(0..below));
            prop_assert_eq!(chosen.is_some(), scores.iter().any(Option::is_some));
            if let Some(index) = chosen {
                let chosen = scores[index].unwrap();
                let some_good = scores.iter().flatten().any(|score| !score.ejected);
                prop_assert_eq!(chosen.ejected, !some_good);
                let costs = || scores.iter().flatten().filter(|score| score.ejected == chosen.ejected).map(|score| score.cost);
                // The better of two is never the one worst of all, unless all are alike or it is the only one.
                let (worst, count) = (costs().fold(0.0, f64::max), costs().count());
                let alone = costs().filter(|cost| *cost == worst).count() == count;
                let holes = scores.iter().any(|score| score.is_none_or(|score| score.ejected != chosen.ejected));
                prop_assert!(chosen.cost < worst || alone || holes);
            }
        }
    }
}
