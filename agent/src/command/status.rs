//! Exit codes that mean more than failure.

use std::process::ExitCode;

/// `EX_CONFIG` of sysexits.h: the configuration is wrong, and starting again will not mend it. The systemd unit knows it.
pub(crate) fn misconfigured() -> ExitCode {
    ExitCode::from(78)
}
