//! HTTP/3's codes, which the tunnel speaks of, and HTTP/2's, which it sends over TCP.

use h2::Reason;

use crate::tunnel::error::ResetCode;

/// What HTTP/2 calls it. It has fewer names for what a peer did wrong.
pub(super) const fn reason(code: ResetCode) -> Reason {
    match code {
        ResetCode::NO_ERROR => Reason::NO_ERROR,
        ResetCode::INTERNAL_ERROR => Reason::INTERNAL_ERROR,
        ResetCode::REQUEST_CANCELLED => Reason::CANCEL,
        ResetCode::REQUEST_REJECTED => Reason::REFUSED_STREAM,
        ResetCode::EXCESSIVE_LOAD => Reason::ENHANCE_YOUR_CALM,
        ResetCode::QPACK_DECOMPRESSION_FAILED => Reason::COMPRESSION_ERROR,
        _ => Reason::PROTOCOL_ERROR,
    }
}

/// What the tunnel calls it.
pub(super) fn code(reason: Reason) -> ResetCode {
    match reason {
        Reason::NO_ERROR => ResetCode::NO_ERROR,
        Reason::INTERNAL_ERROR => ResetCode::INTERNAL_ERROR,
        Reason::CANCEL => ResetCode::REQUEST_CANCELLED,
        Reason::REFUSED_STREAM => ResetCode::REQUEST_REJECTED,
        Reason::ENHANCE_YOUR_CALM => ResetCode::EXCESSIVE_LOAD,
        Reason::COMPRESSION_ERROR => ResetCode::QPACK_DECOMPRESSION_FAILED,
        _ => ResetCode::GENERAL_PROTOCOL_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_over_another_try_survives_the_way() {
        for kept in [
            ResetCode::NO_ERROR,
            ResetCode::INTERNAL_ERROR,
            ResetCode::REQUEST_CANCELLED,
            ResetCode::REQUEST_REJECTED,
            ResetCode::EXCESSIVE_LOAD,
        ] {
            assert_eq!(code(reason(kept)), kept);
        }
        assert_eq!(code(reason(ResetCode::MESSAGE_ERROR)), ResetCode::GENERAL_PROTOCOL_ERROR);
    }
}
