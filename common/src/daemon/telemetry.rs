//! The log: to standard error, as text for people or as JSON for machines.
//!
//! Standard error, because the service manager collects it and a program's answer on standard output stays clean. The
//! filter is `tracing`'s: `info`, or `info,adit_relay=debug`.

use std::fmt;
use std::io::IsTerminal as _;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tracing::Subscriber;
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
}

/// Sends the process's log to standard error; once a process.
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let colour = std::io::stderr().is_terminal();
    let log = subscriber(format, filter, colour, std::io::stderr)?;
    tracing::subscriber::set_global_default(log).map_err(TelemetryError::Twice)
}

fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    colour: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter)
        .map_err(|source| TelemetryError::Filter { filter: filter.chars().take(200).collect(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colour);
    Ok(match format {
        LogFormat::Text => Box::new(builder.finish()),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).with_current_span(false).finish()),
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
        let log = subscriber(format, filter, false, move || writer.clone()).unwrap();
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
    fn a_wrong_format_or_filter_is_named() {
        assert!("xml".parse::<LogFormat>().unwrap_err().to_string().contains("text or json"));
        assert_eq!("json".parse::<LogFormat>().unwrap().to_string(), "json");
        let error = init(LogFormat::Text, "adit=loud=very").unwrap_err().to_string();
        assert!(error.contains("adit=loud=very"), "{error}");
    }
}
