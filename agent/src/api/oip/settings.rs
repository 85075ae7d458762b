//! What the server writes down of its work, and changes to that. Knows no transport.
//!
//! The log is the process's own: its level can be changed while it runs, until the next restart. Triton's three switches and its
//! verbose level are one scale here, from errors to every detail, so switches that leave a gap in it are refused.
//!
//! Traces are not written to files. Where a request's time went is told in its answer (`server-timing`), and spans carry the
//! caller's `traceparent`.

use std::collections::BTreeMap;

use adit_common::daemon::Log;
use adit_common::oip::{LogSettings, LogUpdate, TraceSettings};
use tracing::level_filters::LevelFilter;

/// How the head of a line is spelled: the one way there is.
const LOG_FORMAT: &str = "default";

/// The log's settings; nothing is written where the process has none.
pub(crate) fn log_settings() -> LogSettings {
    told(Log::of_process().map_or(LevelFilter::OFF, Log::level))
}

/// Changes the log, and tells how it is now. An error is for the caller.
pub(crate) fn set_log(update: &LogUpdate) -> Result<LogSettings, String> {
    let log = Log::of_process().ok_or_else(|| "this process writes no log".to_owned())?;
    let level = changed(log.level(), update)?;
    if level != log.level() {
        log.set_level(level).map_err(|error| error.to_string())?;
        tracing::info!(%level, "the log was changed on request");
    }
    Ok(told(log.level()))
}

fn told(level: LevelFilter) -> LogSettings {
    LogSettings {
        log_file: String::new(),
        log_info: level >= LevelFilter::INFO,
        log_warning: level >= LevelFilter::WARN,
        log_error: level >= LevelFilter::ERROR,
        log_verbose_level: u32::from(level >= LevelFilter::DEBUG) + u32::from(level >= LevelFilter::TRACE),
        log_format: LOG_FORMAT.to_owned(),
    }
}

/// The level that an update asks for. Whoever only says one thing means the rest to stay, so far as it can.
fn changed(level: LevelFilter, update: &LogUpdate) -> Result<LevelFilter, String> {
    if update.log_file.as_ref().is_some_and(|file| !file.is_empty()) {
        return Err("`log_file` cannot be changed: the log goes to standard error".to_owned());
    }
    if update.log_format.as_ref().is_some_and(|format| format != LOG_FORMAT) {
        return Err(format!(
            "`log_format` cannot be changed: it is `{LOG_FORMAT}`, or JSON where the agent is set up so"
        ));
    }
    let now = told(level);
    let [info, warning, error] = [
        update.log_info.unwrap_or(now.log_info),
        update.log_warning.unwrap_or(now.log_warning),
        update.log_error.unwrap_or(now.log_error),
    ];
    let verbose = update.log_verbose_level.unwrap_or(if info { now.log_verbose_level } else { 0 });
    match (error, warning, info, verbose) {
        (true, true, true, 0) => Ok(LevelFilter::INFO),
        (true, true, true, 1) => Ok(LevelFilter::DEBUG),
        (true, true, true, _) => Ok(LevelFilter::TRACE),
        (true, true, false, 0) => Ok(LevelFilter::WARN),
        (true, false, false, 0) => Ok(LevelFilter::ERROR),
        (false, false, false, 0) => Ok(LevelFilter::OFF),
        _ => Err("`log_error`, `log_warning`, `log_info` and `log_verbose_level` are one scale here: each needs those before it"
            .to_owned()),
    }
}

/// The settings of traces, of the server and of every model: there are none.
pub(crate) fn trace_settings() -> TraceSettings {
    TraceSettings {
        trace_level: vec!["OFF".to_owned()],
        trace_rate: "1000".to_owned(),
        trace_count: "-1".to_owned(),
        log_frequency: "0".to_owned(),
        trace_file: String::new(),
        trace_mode: "triton".to_owned(),
    }
}

/// Takes an update of traces that changes nothing, such as one that clears a setting (no values), and refuses every other. An
/// error is for the caller.
pub(crate) fn set_trace(update: &BTreeMap<String, Vec<String>>) -> Result<TraceSettings, String> {
    let now = trace_settings();
    for (name, wanted) in update {
        let single = |value: &String| vec![value.clone()];
        let present = match name.as_str() {
            "trace_level" => now.trace_level.clone(),
            "trace_rate" => single(&now.trace_rate),
            "trace_count" => single(&now.trace_count),
            "log_frequency" => single(&now.log_frequency),
            "trace_file" => single(&now.trace_file),
            "trace_mode" => single(&now.trace_mode),
            _ => return Err(format!("unknown trace setting `{}`", name.chars().take(80).collect::<String>())),
        };
        if !wanted.is_empty() && *wanted != present {
            return Err(format!(
                "`{name}` cannot be changed: requests are not traced to files, each answer's `server-timing` tells its stages"
            ));
        }
    }
    Ok(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_told_and_read_back() {
        for level in [
            LevelFilter::OFF,
            LevelFilter::ERROR,
            LevelFilter::WARN,
            LevelFilter::INFO,
            LevelFilter::DEBUG,
            LevelFilter::TRACE,
        ] {
            let LogSettings { log_file, log_info, log_warning, log_error, log_verbose_level, log_format } = told(level);
            let whole = LogUpdate {
                log_file: Some(log_file),
                log_info: Some(log_info),
                log_warning: Some(log_warning),
                log_error: Some(log_error),
                log_verbose_level: Some(log_verbose_level),
                log_format: Some(log_format),
            };
            for before in [LevelFilter::OFF, LevelFilter::INFO, LevelFilter::TRACE] {
                assert_eq!(changed(before, &whole), Ok(level));
                assert_eq!(changed(before, &LogUpdate::default()), Ok(before));
            }
        }
    }

    #[test]
    fn one_change_leaves_the_rest() {
        let verbose = LogUpdate { log_verbose_level: Some(1), ..LogUpdate::default() };
        assert_eq!(changed(LevelFilter::INFO, &verbose), Ok(LevelFilter::DEBUG));
        assert!(changed(LevelFilter::WARN, &verbose).unwrap_err().contains("one scale"));
        let quiet = LogUpdate { log_info: Some(false), ..LogUpdate::default() };
        assert_eq!(changed(LevelFilter::TRACE, &quiet), Ok(LevelFilter::WARN));
        let gap = LogUpdate { log_warning: Some(false), ..LogUpdate::default() };
        assert!(changed(LevelFilter::INFO, &gap).is_err());
        let file = LogUpdate { log_file: Some("/etc/passwd".to_owned()), ..LogUpdate::default() };
        assert!(changed(LevelFilter::INFO, &file).unwrap_err().contains("standard error"));
        let format = LogUpdate { log_format: Some("ISO8601".to_owned()), ..LogUpdate::default() };
        assert!(changed(LevelFilter::INFO, &format).unwrap_err().contains("log_format"));
    }

    #[test]
    fn traces_are_off_and_stay_so() {
        let update = |name: &str, values: &[&str]| {
            set_trace(&BTreeMap::from([(name.to_owned(), values.iter().map(|value| (*value).to_owned()).collect())]))
        };
        for (name, values) in [("trace_level", &["OFF"][..]), ("trace_rate", &[]), ("trace_count", &["-1"])] {
            assert_eq!(update(name, values), Ok(trace_settings()), "{name}");
        }
        assert!(update("trace_level", &["TIMESTAMPS"]).unwrap_err().contains("server-timing"));
        assert!(update("colour", &[]).unwrap_err().contains("unknown trace setting `colour`"));
    }
}
