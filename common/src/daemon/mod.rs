//! What a program needs to live under systemd, or anywhere else where it is started, asked to stop, and read from afar.
//!
//! A program's `main.rs` walks it once, top to bottom: [`load`] reads the configuration and points at what is wrong with it,
//! [`init`] sends the log to standard error, [`runtime`] makes the threads, every task is spawned in a [`Shutdown`] scope, [`Notifier`] tells the service
//! manager that the program is ready, alive or stopping, and [`signal`] says when to start draining.

mod config;
mod humane;
mod notify;
mod runtime;
mod shutdown;
mod telemetry;

pub use config::{ConfigError, load, parse};
pub use humane::{
    HumaneBytes, HumaneDuration, HumaneError, format_bytes, format_duration, humane_bytes, humane_duration,
    parse_bytes, parse_duration,
};
pub use notify::{Notifier, NotifyError};
pub use runtime::runtime;
pub use shutdown::{Shutdown, signal};
pub use telemetry::{Log, LogFormat, TelemetryError, init};
