//! The logging and trace extensions: what a server writes down of its work.

use serde::{Deserialize, Serialize};

/// The answer to `GET` and `POST /v2/logging`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    /// The file that the log goes to; empty for standard error.
    pub log_file: String,
    /// Whether what is worth knowing is written.
    pub log_info: bool,
    /// Whether what may be wrong is written.
    pub log_warning: bool,
    /// Whether what is wrong is written.
    pub log_error: bool,
    /// How much detail is written besides; 0 for none.
    pub log_verbose_level: u32,
    /// How the head of a line is spelled.
    pub log_format: String,
}

/// The body of `POST /v2/logging`: what is absent stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogUpdate {
    /// The file that the log goes to.
    pub log_file: Option<String>,
    /// Whether what is worth knowing is written.
    pub log_info: Option<bool>,
    /// Whether what may be wrong is written.
    pub log_warning: Option<bool>,
    /// Whether what is wrong is written.
    pub log_error: Option<bool>,
    /// How much detail is written besides.
    pub log_verbose_level: Option<u32>,
    /// How the head of a line is spelled.
    pub log_format: Option<String>,
}

/// The answer to `GET` and `POST /v2[/models/{model}]/trace/setting`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceSettings {
    /// What is traced of a request; `OFF` for nothing.
    pub trace_level: Vec<String>,
    /// Of how many requests one is traced.
    pub trace_rate: String,
    /// How many more are traced; -1 for no end.
    pub trace_count: String,
    /// After how many a file is finished; 0 for never.
    pub log_frequency: String,
    /// The file that traces go to.
    pub trace_file: String,
    /// Whose format they have.
    pub trace_mode: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_spelled_as_clients_read_them() {
        let text = r#"{"log_file":"","log_info":true,"log_warning":true,"log_error":true,"log_verbose_level":0,"log_format":"default"}"#;
        assert_eq!(serde_json::to_string(&serde_json::from_str::<LogSettings>(text).unwrap()).unwrap(), text);
        let update: LogUpdate = serde_json::from_str(r#"{"log_verbose_level":1,"log_info":null}"#).unwrap();
        assert_eq!(update, LogUpdate { log_verbose_level: Some(1), ..LogUpdate::default() });
        assert!(serde_json::from_str::<LogUpdate>(r#"{"log_colour":true}"#).is_err());
        let text = r#"{"trace_level":["OFF"],"trace_rate":"1000","trace_count":"-1","log_frequency":"0","trace_file":"","trace_mode":"triton"}"#;
        assert_eq!(serde_json::to_string(&serde_json::from_str::<TraceSettings>(text).unwrap()).unwrap(), text);
    }
}
