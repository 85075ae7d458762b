//! The client against a small server of the Open Inference Protocol over real TLS, in process and as a program.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, missing_docs)]

mod server;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use adit_client::{
    Arrivals, ClientError, Connector, Model, Options, Pacing, Plan, Protocol, Tally, Trust, classify, connect, measure,
};
use adit_common::daemon::Shutdown;
use adit_common::id::{ModelName, Version};
use adit_common::timing::Stage;
use bytes::Bytes;
use server::{KEY, Server};

fn options(server: &Server) -> Options {
    let key = Some(adit_client::Key::new(KEY).unwrap());
    let trust = Trust::Authorities(vec![server.authority.clone()]);
    Options { trust, key, timeout: Duration::from_secs(10), ..Options::new(server.url().parse().unwrap()) }
}

fn name(text: &str) -> ModelName {
    ModelName::new(text).unwrap()
}

/// What the error says, as a reader sees it.
async fn error(options: Options, model: &str, image: &'static str) -> String {
    let scope = Shutdown::new();
    let asked = async {
        let mut connection = connect(options, &scope).await?;
        let model = Model::learn(&mut connection, &name(model), None).await?;
        classify(&mut connection, &model, Bytes::from_static(image.as_bytes()), 3).await
    };
    asked.await.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_classified_over_both_versions_of_http() {
    let server = Server::start().await;
    for (http1_only, protocol) in [(false, Protocol::Http2), (true, Protocol::Http1)] {
        let scope = Shutdown::new();
        let mut connection = connect(Options { http1_only, ..options(&server) }, &scope).await.unwrap();
        assert_eq!(connection.protocol(), protocol);
        assert!(connection.setup().tls.is_some());
        let model = Model::learn(&mut connection, &name("digits"), Some(Version(1))).await.unwrap();
        // Twice: the connection is used again.
        for _ in 0..2 {
            let answer = classify(&mut connection, &model, Bytes::from_static(b"\xff\xd8photo"), 2).await.unwrap();
            let labels: Vec<_> = answer.predictions.iter().map(|class| class.label.as_deref().unwrap()).collect();
            assert_eq!(labels, ["seven", "class: one"]);
            assert_eq!((answer.predictions[0].index, answer.predictions[0].value), (7, 0.875));
            assert_eq!((answer.model.as_str(), answer.version.as_deref()), ("digits", Some("1")));
            let timing = answer.timing.as_ref().unwrap();
            assert_eq!(timing.stage(Stage::Forward), Some(Duration::from_micros(250)));
            assert_eq!(answer.network().unwrap() + timing.total(), answer.elapsed);
            assert_eq!(answer.request_id, "said-by-the-relay");
        }
        drop(connection);
        assert!(
            scope.finish(Duration::from_secs(5)).await,
            "a connection is still driven after its last handle is gone"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_name_the_fix() {
    let server = Server::start().await;
    let no_key = Options { key: None, ..options(&server) };
    let text = error(no_key, "digits", "x").await;
    assert_eq!(text, "the relay wants a key: pass --key or set ADIT_KEY (no key was given)");
    let wrong = Options { key: Some(adit_client::Key::new("wrong").unwrap()), ..options(&server) };
    let text = error(wrong, "digits", "x").await;
    assert!(text.starts_with("the relay does not know this key: pass --key or set ADIT_KEY"), "{text}");
    let text = error(options(&server), "absent", "x").await;
    assert_eq!(text, "there is no model absent, but digits 1, tensor 2");
    let text = error(options(&server), "tensor", "x").await;
    assert_eq!(text, "model tensor takes no encoded image, but pixels (FP32)");
    let text = error(options(&server), "digits", "busy").await;
    assert_eq!(text, "nobody can answer at the moment: no live agent; try again in 1 s");
    let text = error(options(&server), "digits", "page").await;
    assert_eq!(text, "the answer is not one of the Open Inference Protocol");
    let text = error(options(&server), "digits", "broken").await;
    assert_eq!(text, "the answer was 400 Bad Request: not an image [31m");
    let hasty = Options { timeout: Duration::from_secs(1), ..options(&server) };
    assert_eq!(error(hasty, "digits", "stall").await, "no answer within 1s: allow more with --timeout");

    let stranger = Options { trust: Trust::Authorities(vec![server::authority().0]), ..options(&server) };
    let text = error(stranger, "digits", "x").await;
    assert!(text.contains("of an authority that is not trusted here: pass its certificate with --ca FILE"), "{text}");
    let other_name = format!("https://127.0.0.1:{}", server.address.port()).parse().unwrap();
    let text = error(Options { target: other_name, ..options(&server) }, "digits", "x").await;
    assert!(text.contains("made out to") && text.contains("localhost"), "{text}");
    let plain = format!("https://localhost:{}", server::plain_port().await).parse().unwrap();
    let text = error(Options { target: plain, ..options(&server) }, "digits", "x").await;
    assert!(text.contains("does not speak TLS"), "{text}");
    let closed = format!("https://localhost:{}", server::closed_port().await).parse().unwrap();
    let text = error(Options { target: closed, ..options(&server) }, "digits", "x").await;
    assert!(text.contains("refuses connections: is a relay running there"), "{text}");
}

async fn measured(
    server: &Server,
    plan: Plan,
    image: &'static str,
    change: impl FnOnce(&mut Options),
) -> Result<Tally, ClientError> {
    let scope = Shutdown::new();
    let mut options = options(server);
    change(&mut options);
    let connector = Connector::new(options)?;
    let mut connection = connector.connect(&scope).await?;
    let model = Model::learn(&mut connection, &name("digits"), None).await?;
    let mut seen = 0;
    let tally = measure(&plan, &connector, &model, Bytes::from_static(image.as_bytes()), &scope, |_| seen += 1).await?;
    assert_eq!(seen, tally.ok + tally.failed());
    Ok(tally)
}

const PLAN: Plan =
    Plan { requests: 40, concurrency: 4, connections: 2, pacing: Pacing::Closed, warmup: 5, fresh: false };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_loop_asks_just_so_often_over_just_so_many_connections() {
    let server = Server::start().await;
    let tally = measured(&server, PLAN, "photo", |_| {}).await.unwrap();
    assert_eq!((tally.ok, tally.failed()), (40, 0));
    assert_eq!(server.inferences(), 45, "the warm-up is asked too, but not counted");
    assert_eq!(
        (server.connections(), tally.setup.total.count()),
        (3, 2),
        "one to learn of the model, two shared by four"
    );
    assert_eq!(tally.network.count(), 40);

    // Over HTTP/1.1 nothing can be shared: each asker has its own.
    let server = Server::start().await;
    let tally = measured(&server, PLAN, "photo", |options| options.http1_only = true).await.unwrap();
    assert_eq!((tally.ok, server.connections(), tally.setup.total.count()), (40, 5, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_connection_is_part_of_the_delay_and_told_apart() {
    let server = Server::start().await;
    let plan = Plan { requests: 10, concurrency: 2, warmup: 0, fresh: true, ..PLAN };
    let tally = measured(&server, plan, "photo", |options| options.resumption = false).await.unwrap();
    assert_eq!((tally.ok, server.connections(), tally.setup.total.count()), (10, 11, 10));
    assert_eq!(tally.setup.resumed, 0);
    assert!(tally.delay.sum() >= tally.service.sum() + tally.setup.total.sum(), "{tally:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_loop_keeps_its_schedule_and_counts_a_stall_for_all() {
    let server = Server::start().await;
    // 20 ms an answer at 100 a second with one asker: each has to wait longer than the one before.
    let pacing = Pacing::Open { rate: 100.0, arrivals: Arrivals::Constant };
    let plan = Plan { requests: 20, concurrency: 1, warmup: 0, pacing, ..PLAN };
    let tally = measured(&server, plan, "slow 20", |_| {}).await.unwrap();
    assert_eq!(tally.ok, 20);
    // The last was due after 190 ms and could not be answered before all the others were, 20 ms each.
    let alone = tally.delay.max().unwrap();
    assert!(
        alone >= Duration::from_millis(205) && alone + Duration::from_millis(195) >= tally.service.sum(),
        "{alone:?}"
    );

    // With askers to spare it keeps the rate: 20 at 100 a second take 190 ms and the last answer.
    let plan = Plan { requests: 20, concurrency: 16, connections: 16, warmup: 0, pacing, fresh: false };
    let tally = measured(&server, plan, "slow 20", |_| {}).await.unwrap();
    assert!(tally.window() >= Duration::from_millis(210), "{:?}", tally.window());
    assert!(tally.delay.quantile(0.5).unwrap() < alone, "{:?}", tally.delay);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_outs_and_refusals_are_counted_and_the_rest_goes_on() {
    let server = Server::start().await;
    let plan = Plan { requests: 12, concurrency: 2, warmup: 0, ..PLAN };
    for http1_only in [false, true] {
        let server = Server::start().await;
        let hasty =
            |options: &mut Options| (options.timeout, options.http1_only) = (Duration::from_millis(500), http1_only);
        let tally = measured(&server, plan.clone(), "every third stalls", hasty).await.unwrap();
        assert_eq!((tally.ok, tally.failures["time-out"].count), (8, 4), "{tally:?}");
        assert_eq!(tally.delay.count(), 12);
        assert!(tally.delay.max().unwrap() >= Duration::from_millis(500));
    }
    let tally = measured(&server, plan.clone(), "every third hangs up", |_| {}).await.unwrap();
    assert_eq!(tally.ok + tally.failures["connection closed"].count, 12);
    let warmed = Plan { warmup: 3, ..plan };
    let error = measured(&server, warmed, "busy", |_| {}).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Unavailable { .. }),
        "a warm-up without one answer is the whole result: {error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_ends_after_each_answer_fails_nobody() {
    let server = Server::start().await;
    let plan = Plan { requests: 30, concurrency: 3, warmup: 0, ..PLAN };
    let tally = measured(&server, plan, "last", |options| options.http1_only = true).await.unwrap();
    assert_eq!((tally.ok, tally.failed()), (30, 0), "{:?}", tally.failures);
    assert_eq!(tally.setup.total.count() + 1, server.connections());
    assert!(server.connections() >= 31, "{}", server.connections());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_the_measurement_with_what_there_is() {
    let server = Server::start().await;
    let scope = Shutdown::new();
    let connector = Connector::new(options(&server)).unwrap();
    let mut connection = connector.connect(&scope).await.unwrap();
    let model = Model::learn(&mut connection, &name("digits"), None).await.unwrap();
    for pacing in [Pacing::Closed, Pacing::Open { rate: 1000.0, arrivals: Arrivals::Poisson }] {
        let plan = Plan { requests: 1_000_000, warmup: 0, pacing, ..PLAN };
        let (scope, began, mut seen) = (scope.child(), Instant::now(), 0);
        let tally = measure(&plan, &connector, &model, Bytes::from_static(b"photo"), &scope, |_| {
            seen += 1;
            if seen == 20 {
                scope.begin();
            }
        });
        let tally = tally.await.unwrap();
        assert!((20..=60).contains(&tally.ok), "{}", tally.ok);
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

struct Program {
    server: Server,
    folder: tempfile::TempDir,
}

impl Program {
    async fn new() -> Self {
        let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("ca.pem"), &server.authority_pem).unwrap();
        std::fs::write(folder.path().join("seven.png"), "photo").unwrap();
        std::fs::write(folder.path().join("broken.png"), "broken").unwrap();
        Self { server, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, command: &str, rest: &str) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_adit"));
        program.arg(command).args(["--url", &self.server.url(), "--model", "digits", "--ca"]).arg(self.path("ca.pem"));
        program.args(rest.split_whitespace()).current_dir(self.folder.path()).env("ADIT_KEY", KEY);
        program
    }

    async fn run(&self, command: &str, rest: &str) -> Output {
        let mut program = self.command(command, rest);
        tokio::task::spawn_blocking(move || program.output().unwrap()).await.unwrap()
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_classifies_and_says_what_failed() {
    let program = Program::new().await;
    let output = program.run("classify", "seven.png").await;
    let out = text(&output.stdout);
    assert!(output.status.success(), "{out}{}", text(&output.stderr));
    assert!(
        out.starts_with("seven.png: digits version 1, HTTP/2\n   87.50 %  █████████████████▌       7  seven\n"),
        "{out}"
    );
    assert!(out.contains("  network    client ") && out.contains("  forward    agent       0.250"), "{out}");
    assert!(out.contains("request said-by-the-relay, trace "), "{out}");

    let output = program.run("classify", "broken.png seven.png gone.png").await;
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(errors.contains("broken.png: the answer was 400") && errors.contains("gone.png: cannot read"), "{errors}");
    assert!(text(&output.stdout).contains("  7  seven"), "the good one is printed");
    assert_eq!(program.server.connections(), 2, "one connection a run, whatever the number of images");

    let output = program.run("classify", "--json --top 1 seven.png broken.png").await;
    let lines: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["predictions"], serde_json::json!([{"label": "seven", "index": 7, "probability": 0.875}]));
    assert_eq!(lines[0]["stages_ms"]["forward"], 0.25);
    let (elapsed, network) = (lines[0]["elapsed_ms"].as_f64().unwrap(), lines[0]["network_ms"].as_f64().unwrap());
    assert!((elapsed - network - lines[0]["relay_total_ms"].as_f64().unwrap()).abs() < 0.002);
    assert!(lines[1]["error"].as_str().unwrap().contains("not an image"));
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_measures() {
    let program = Program::new().await;
    let output = program.run("test", "--image seven.png --requests 30 --concurrency 3").await;
    let out = text(&output.stdout);
    assert!(output.status.success(), "{out}{}", text(&output.stderr));
    assert!(out.contains("  30 of 30 answered in ") && out.contains("closed loop, 3 at a time"), "{out}");
    assert!(out.contains("forward    agent      0.250     0.250     0.250     0.250"), "{out}");
    assert_eq!(text(&output.stderr), "", "no progress is drawn where there is no terminal");

    let output = program.run("test", "--image seven.png -n 20 --rate 200 --arrivals constant --json").await;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["ok"], &report["pacing"]), (&20.into(), &"open, constant".into()));
    assert_eq!(report["delay_ms"]["count"], 20);

    let output = program.run("test", "--image broken.png --warmup 0 -n 3").await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("failed: 3 x 400 (the answer was 400"), "{}", text(&output.stdout));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_measurement_prints_what_there_is() {
    let program = Program::new().await;
    let mut command = program.command("test", "--image seven.png -n 1000000 --warmup 0");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while program.server.inferences() < 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(out.contains(" of 1000000 answered in ") && out.contains("delay  "), "{out}");
    assert!(errors.contains("stopping; what was measured follows"), "{errors}");
    assert_eq!(output.status.code(), Some(1));
}
