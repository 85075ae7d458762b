//! One trace id along the whole path: W3C Trace Context's `traceparent`.
//!
//! A request's `traceparent` is accepted and passed through with a new parent id at each hop, and created when absent, so
//! that a client's own trace shows the relay and the agent as its children. `tracestate` travels as any other header.

use std::fmt;

/// The trace that a request belongs to, and the span that sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    parent: u64,
    flags: u8,
}

impl TraceContext {
    /// The header of every hop.
    pub const HEADER: &'static str = "traceparent";

    /// A new trace, not sampled by anybody yet.
    pub fn random() -> Self {
        Self { trace: nonzero_u128(), parent: nonzero_u64(), flags: 0 }
    }

    /// Reads a header's value: `None` for what the specification calls invalid, which is then replaced by a new trace.
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let version = hex(version, 2)? as u8;
        // Version 00 has exactly four parts; later versions may append, 0xff is forbidden.
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let context = Self { trace: hex(trace, 32)?, parent: hex(parent, 16)? as u64, flags: hex(flags, 2)? as u8 };
        (context.trace != 0 && context.parent != 0).then_some(context)
    }

    /// The same trace with a new parent id: what this hop sends on.
    #[must_use]
    pub fn child(self) -> Self {
        Self { parent: nonzero_u64(), ..self }
    }

    /// The trace id alone, as 32 hexadecimal digits: for log lines.
    pub fn trace_id(self) -> String {
        format!("{:032x}", self.trace)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "00-{:032x}-{:016x}-{:02x}", self.trace, self.parent, self.flags)
    }
}

/// `text` as `digits` lower-case hexadecimal digits; upper case is invalid by the specification.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let plain = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if plain { u128::from_str_radix(text, 16).ok() } else { None }
}

fn nonzero_u64() -> u64 {
    rand::random::<u64>().max(1)
}

fn nonzero_u128() -> u128 {
    rand::random::<u128>().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_child_keeps_the_trace_and_the_flags() {
        let parent = TraceContext::parse(EXAMPLE).unwrap();
        assert_eq!(parent.to_string(), EXAMPLE);
        let child = parent.child().to_string();
        assert_eq!((&child[..36], &child[52..]), (&EXAMPLE[..36], &EXAMPLE[52..]));
        assert_ne!(child, EXAMPLE);
    }

    #[test]
    fn what_the_specification_calls_invalid_is_refused() {
        for bad in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
        assert!(TraceContext::parse("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more").is_some());
    }
}
