//! How long who could answer may be missed for before a request fails.
//!
//! An agent that loses its tunnel dials again at once, and so do all agents of a relay that was started anew. What comes in that
//! moment waits for them: a restart is a pause then, and not a failure of every request.

use std::time::{Duration, Instant};

use crate::error::{Kind, ProxyError};

/// For how long agents are waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Absence {
    wait: Duration,
    started: Instant,
}

impl Absence {
    /// So long after the relay's start, and after each loss of an agent.
    pub(crate) const fn new(wait: Duration, started: Instant) -> Self {
        Self { wait, started }
    }

    /// Until when a request that failed like this is worth keeping, if it is. `lost` is when an agent was last lost.
    pub(super) fn until(&self, error: &ProxyError, lost: Option<Instant>, now: Instant) -> Option<Instant> {
        // A relay that has just started knows no names yet.
        let unknown = matches!(error.kind, Kind::UnknownModel | Kind::UnknownPath);
        let since = match lost.filter(|_| error.absent) {
            Some(lost) => lost.max(self.started),
            None if error.absent || unknown => self.started,
            None => return None,
        };
        Some(since + self.wait).filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_missed_is_waited_for_after_a_start_and_after_a_loss() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let absence = Absence::new(Duration::from_secs(2), start);
        let absent = ProxyError::new(Kind::NoAgent, "").absent();
        assert_eq!(absence.until(&absent, None, at(1)), Some(at(2)));
        assert_eq!(absence.until(&absent, None, at(2)), None);
        assert_eq!(absence.until(&absent, Some(at(60)), at(61)), Some(at(62)));
        assert_eq!(absence.until(&absent, Some(at(60)), at(62)), None);
    }

    #[test]
    fn a_name_is_unknown_at_once_unless_the_relay_has_just_started() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let absence = Absence::new(Duration::from_secs(2), start);
        let unknown = ProxyError::new(Kind::UnknownModel, "");
        assert_eq!(absence.until(&unknown, None, at(1)), Some(at(2)));
        assert_eq!(absence.until(&unknown, Some(at(60)), at(61)), None);
        assert_eq!(absence.until(&ProxyError::new(Kind::ModelNotReady, ""), Some(start), at(1)), None);
    }
}
