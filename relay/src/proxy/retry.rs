//! What may be sent again, and how much of that.
//!
//! A retry multiplies load just when an agent is in trouble, so beside the rule of what is safe there is a budget: one
//! retry for every five requests, and a small reserve. Pure but for its one atomic number.

use std::sync::atomic::{AtomicU32, Ordering};

use http::Method;

use crate::error::ProxyError;

/// Each request earns a fifth of a retry.
const EARNED: u32 = 1;
const COST: u32 = 5;

/// Ten retries at a standstill: enough for what was under way to one lost agent on a quiet relay.
const RESERVE: u32 = 10 * COST;

/// What may be sent again.
#[derive(Debug)]
pub(crate) struct RetryPolicy {
    attempts: u32,
    budget: AtomicU32,
}

impl RetryPolicy {
    /// At most `retries` for one request.
    pub(crate) fn new(retries: u32) -> Self {
        Self { attempts: retries.saturating_add(1), budget: AtomicU32::new(RESERVE) }
    }

    /// A request came.
    pub(crate) fn earn(&self) {
        if self.budget.load(Ordering::Relaxed) < RESERVE {
            self.budget.fetch_add(EARNED, Ordering::Relaxed);
        }
    }

    /// Whether a request without a body, which failed like this at its `attempt`th try, is sent again. A yes is charged.
    pub(crate) fn allows(&self, error: &ProxyError, method: &Method, attempt: u32) -> bool {
        let spend = |budget: u32| budget.checked_sub(COST);
        attempt < self.attempts
            && error.may_retry(method.is_safe())
            && self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use adit_common::tunnel::Sent;

    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_lost_get_is_sent_again_and_a_lost_post_is_not() {
        let policy = RetryPolicy::new(2);
        let lost = ProxyError::new(Kind::AgentLost, "").after(Sent::All);
        assert!(policy.allows(&lost, &Method::GET, 1) && policy.allows(&lost, &Method::GET, 2));
        assert!(!policy.allows(&lost, &Method::GET, 3), "two retries are three attempts");
        assert!(!policy.allows(&lost, &Method::POST, 1));
        assert!(!policy.allows(&ProxyError::new(Kind::DeadlineExceeded, ""), &Method::GET, 1));
        let rejected = ProxyError::new(Kind::AgentRejected, "").after(Sent::All);
        assert!(policy.allows(&rejected, &Method::POST, 1), "the agent says that it did not work on it");
    }

    #[test]
    fn retries_are_at_most_a_fifth_of_the_requests() {
        let policy = RetryPolicy::new(2);
        let lost = ProxyError::new(Kind::AgentLost, "");
        let mut retried = 0;
        for _ in 0..1000 {
            policy.earn();
            retried += u32::from(policy.allows(&lost, &Method::GET, 1));
        }
        assert!((200..=215).contains(&retried), "{retried}");
    }
}
