//! The log: to standard error, as text for people or as JSON for machines.
//!
//! Standard error, because the service manager collects it and a program's answer on standard output stays clean. The
//! filter is `tracing`'s: `info`, or `info,adit_relay=debug`. While the program runs its [`Log`] can be made to tell more or less.

use std::fmt;
use std::io::IsTerminal as _;
use std::str::FromStr;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How a log line is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people; in colour on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl FromStr for LogFormat {
    type Err = TelemetryError;
    fn from_str(text: &str) -> Result<Self, TelemetryError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(TelemetryError::Format(text.chars().take(40).collect())),
        }
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// Neither of the two formats.
    #[error("{0:?} is not a log format: text or json")]
    Format(String),
    /// The filter cannot be read.
    #[error("{filter:?} is not a log filter such as \"info\" or \"info,adit_relay=debug\"")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process has a log already.
    #[error("the log is already set up")]
    Twice(#[source] tracing::subscriber::SetGlobalDefaultError),
    /// The log is there, but cannot be changed any more.
    #[error("the log cannot be changed")]
    Change(#[source] tracing_subscriber::reload::Error),
}

/// A running log, whose level can be changed.
pub struct Log {
    /// The filter as it was configured.
    filter: String,
    level: Mutex<LevelFilter>,
    reload: Box<dyn Fn(EnvFilter) -> Result<(), TelemetryError> + Send + Sync>,
}

impl fmt::Debug for Log {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Log").field("filter", &self.filter).field("level", &self.level).finish_non_exhaustive()
    }
}

/// The log that [`init`] has set up: a process has one.
static OF_PROCESS: OnceLock<Log> = OnceLock::new();

impl Log {
    /// The process's log, if it has been set up.
    pub fn of_process() -> Option<&'static Self> {
        OF_PROCESS.get()
    }

    /// How much it tells.
    pub fn level(&self) -> LevelFilter {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells more or less from now on. The level that was configured brings the configured filter back; details beyond `INFO`
    /// are those of this program, not those of the libraries below it, which would drown them.
    pub fn set_level(&self, level: LevelFilter) -> Result<(), TelemetryError> {
        let mut current = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let configured = read(&self.filter)?;
        let filter = match level {
            level if level == most(&configured) => configured,
            LevelFilter::DEBUG | LevelFilter::TRACE => read(&format!("info,adit={level}"))?,
            level => read(&level.to_string())?,
        };
        (self.reload)(filter)?;
        *current = level;
        Ok(())
    }
}

/// Sends the process's log to standard error; once a process.
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let colour = std::io::stderr().is_terminal();
    let (subscriber, log) = subscriber(format, filter, colour, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(TelemetryError::Twice)?;
    // There is none yet: that of another call would have been in the way above.
    let _ = OF_PROCESS.set(log);
    Ok(())
}

fn read(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(filter)
        .map_err(|source| TelemetryError::Filter { filter: filter.chars().take(200).collect(), source })
}

/// The most that a filter lets through of anything.
fn most(filter: &EnvFilter) -> LevelFilter {
    filter.max_level_hint().unwrap_or(LevelFilter::TRACE)
}

fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    colour: bool,
    writer: W,
) -> Result<(Box<dyn Subscriber + Send + Sync>, Log), TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let configured = read(filter)?;
    let level = Mutex::new(most(&configured));
    let builder = tracing_subscriber::fmt().with_env_filter(configured).with_writer(writer).with_ansi(colour);
    let filter = filter.to_owned();
    Ok(match format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let reload = Box::new(move |filter| handle.reload(filter).map_err(TelemetryError::Change));
            (Box::new(builder.finish()), Log { filter, level, reload })
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_current_span(false).with_filter_reloading();
            let handle = builder.reload_handle();
            let reload = Box::new(move |filter| handle.reload(filter).map_err(TelemetryError::Change));
            (Box::new(builder.finish()), Log { filter, level, reload })
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(format: LogFormat, filter: &str) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let (log, _) = subscriber(format, filter, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(log, || {
            let _span = tracing::info_span!("call", request = "r-1").entered();
            tracing::info!(status = 200, "answered");
            tracing::debug!("detail");
        });
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_carry_the_fields_and_the_request_of_their_span() {
        let text = log(LogFormat::Json, "info");
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!((&line["message"], &line["status"]), (&"answered".into(), &200.into()));
        assert_eq!((&line["level"], &line["spans"][0]["request"]), (&"INFO".into(), &"r-1".into()));
    }

    #[test]
    fn text_lines_are_filtered_and_uncoloured_off_a_terminal() {
        let text = log(LogFormat::Text, "warn,adit_common::daemon=debug");
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("call{request=\"r-1\"}") && !text.contains('\x1b'), "{text}");
    }

    #[test]
    fn a_running_log_tells_more_or_less_and_as_it_was_configured() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let memory = Memory::default();
            let writer = memory.clone();
            let configured = "info,elsewhere=off";
            let (subscriber, log) = subscriber(format, configured, false, move || writer.clone()).unwrap();
            tracing::subscriber::with_default(subscriber, || {
                let lines = || {
                    tracing::error!("error");
                    tracing::info!("info");
                    tracing::debug!("debug");
                    tracing::debug!(target: "quinn", "a library's");
                    tracing::info!(target: "elsewhere", "configured away");
                    std::mem::take(&mut *memory.0.lock().unwrap()).iter().filter(|byte| **byte == b'\n').count()
                };
                assert_eq!((log.level(), lines()), (LevelFilter::INFO, 2));
                for (level, told) in
                    [(LevelFilter::DEBUG, 4), (LevelFilter::ERROR, 1), (LevelFilter::OFF, 0), (LevelFilter::INFO, 2)]
                {
                    log.set_level(level).unwrap();
                    assert_eq!((log.level(), lines()), (level, told), "{format} {level}");
                }
            });
        }
    }

    #[test]
    fn a_wrong_format_or_filter_is_named() {
        assert!("xml".parse::<LogFormat>().unwrap_err().to_string().contains("text or json"));
        assert_eq!("json".parse::<LogFormat>().unwrap().to_string(), "json");
        let error = init(LogFormat::Text, "adit=loud=very").unwrap_err().to_string();
        assert!(error.contains("adit=loud=very"), "{error}");
    }
}
