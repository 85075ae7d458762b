//! Log and trace settings, and who may change them.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;

use adit_agent::config::Config;
use http::StatusCode;
use serde_json::json;

use crate::house::{House, ask};
use crate::program::{Running, program, written};

fn control(config: &mut Config) {
    config.local.control = true;
}

#[tokio::test]
async fn settings_are_read_by_anyone_and_changed_by_few() {
    let house = House::new(&[], |_| ()).await;
    let trace = json!({
        "trace_level": ["OFF"], "trace_rate": "1000", "trace_count": "-1", "log_frequency": "0", "trace_file": "",
        "trace_mode": "triton",
    });
    for path in ["/v2/trace/setting", "/v2/models/digits/trace/setting"] {
        assert_eq!(house.get(path).await.json(), trace, "{path}");
        assert_eq!(house.post(path, "{}").await.status, StatusCode::FORBIDDEN, "{path}");
    }
    // Nothing is written by this process: it has set up no log.
    assert_eq!(house.get("/v2/logging").await.json()["log_error"], false);
    assert_eq!(house.post("/v2/logging", "{}").await.status, StatusCode::FORBIDDEN);
    assert_eq!(house.get("/v2/models/nobody/trace/setting").await.status, StatusCode::NOT_FOUND);

    let house = House::new(&[], control).await;
    for (path, body, because) in [
        ("/v2/trace/setting", r#"{"trace_level":["TIMESTAMPS"]}"#, "`trace_level` cannot be changed"),
        ("/v2/models/digits/trace/setting", r#"{"trace_rate":1}"#, "`trace_rate` cannot be changed"),
        ("/v2/trace/setting", "[]", "the JSON of the message is wrong"),
        ("/v2/logging", r#"{"log_colour":1}"#, "unknown field `log_colour`"),
        ("/v2/logging", r#"{"log_info":true}"#, "this process writes no log"),
        ("/v2/systemsharedmemory/region/one/register", r#"{"key":"/one"}"#, "there is no shared memory"),
        ("/v2/cudasharedmemory/unregister", "", "there is no shared memory"),
    ] {
        let answer = house.post(path, body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}: {answer:?}");
        assert!(answer.error().contains(because), "{path}: {}", answer.error());
    }
    assert!(house.get("/v2/cudasharedmemory/status").await.error().contains("there is no shared memory"));
    for body in [r#"{"trace_level":["OFF"],"trace_count":null}"#, ""] {
        assert_eq!(house.post("/v2/models/digits/trace/setting", body).await.json(), trace);
    }
}

#[tokio::test]
async fn a_running_program_logs_as_it_is_told() {
    let place = tempfile::tempdir().unwrap();
    let config = written(place.path(), "agent.toml", "[local]\nlisten = \"127.0.0.1:0\"\ncontrol = true\n");
    let mut child = program(&["run", "--config", &config]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let running = Running(child);
    let address: SocketAddr = loop {
        let line = lines.next().expect("a line that tells the address").unwrap();
        if let Some((_, rest)) = line.split_once("address=") {
            break rest.split_whitespace().next().unwrap().parse().unwrap();
        }
    };
    let log = place.path().join("log");
    let reading = std::thread::spawn({
        let log = log.clone();
        move || fs::write(log, lines.map_while(Result::ok).collect::<Vec<_>>().join("\n"))
    });
    let post = |body: &'static str| ask(address, http::Request::post("/v2/logging").body(body.into()).unwrap());
    let get = |path: &'static str| ask(address, http::Request::get(path).body(bytes::Bytes::new()).unwrap());
    let settings = |info, level| {
        json!({
            "log_file": "", "log_info": info, "log_warning": true, "log_error": true, "log_verbose_level": level,
            "log_format": "default",
        })
    };
    assert_eq!(get("/v2/logging").await.json(), settings(true, 0));
    get("/v2/before").await;
    assert_eq!(post(r#"{"log_verbose_level":1}"#).await.json(), settings(true, 1));
    get("/v2/detailed").await;
    assert_eq!(post(r#"{"log_info":false}"#).await.json(), settings(false, 0));
    get("/v2/quiet").await;
    assert!(post(r#"{"log_verbose_level":2}"#).await.error().contains("one scale"));
    assert_eq!(post(r#"{"log_info":true}"#).await.json(), settings(true, 0));
    get("/v2/after").await;
    drop(running);
    reading.join().unwrap().unwrap();
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("/v2/detailed"), "{log}");
    assert!(!["before", "quiet", "after"].iter().any(|path| log.contains(&format!("/v2/{path}"))), "{log}");
}
