//! The program itself: its commands, its exit codes, and what it tells the service manager.

#[cfg(not(feature = "cuda"))]
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::house::{LIMIT, folder, one, stand_in};

pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit-agent"));
    command.args(arguments);
    command
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) fn written(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Killed when a test fails, so that none stays behind.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_service_manager_hears_of_a_life_from_ready_to_stopping() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let config = written(place.path(), "agent.toml", "[local]\nlisten = \"127.0.0.1:0\"\n");
    let child = program(&["run", "--config", &config])
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "200000")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let hear = |wanted: &str| {
        let mut buffer = [0; 512];
        loop {
            let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
            if std::str::from_utf8(&buffer[..length]).unwrap() == wanted {
                break;
            }
        }
    };
    hear("READY=1");
    for _ in 0..3 {
        hear("WATCHDOG=1");
    }
    let killed = Command::new("kill").args(["-TERM", &running.0.id().to_string()]).status().unwrap();
    assert!(killed.success());
    hear("STOPPING=1");
    assert!(running.0.wait().unwrap().success());
}

#[test]
fn a_wrong_configuration_is_pointed_at_and_not_tried_again() {
    let place = tempfile::tempdir().unwrap();
    let config = written(place.path(), "agent.toml", "[local]\nlisen = \"127.0.0.1:0\"\n");
    let output = program(&["run", "--config", &config]).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
    assert!(
        text(&output).contains("agent.toml:2:1: ") && text(&output).contains("did you mean `listen`?"),
        "{}",
        text(&output)
    );
    let output = program(&["run"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
    assert!(text(&output).contains("there is nobody to serve"), "{}", text(&output));
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_gpu_that_the_program_was_not_built_for_is_not_tried_again() {
    let place = tempfile::tempdir().unwrap();
    let wanted = "[local]\nlisten = \"127.0.0.1:0\"\n[serving]\ndevice = \"cuda:0\"\n";
    let config = written(place.path(), "agent.toml", wanted);
    let output = program(&["run", "--config", &config]).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
    let because =
        "device `cuda:0` is not to be had: this program was built without the feature `cuda`: build it with cuda/build";
    assert!(text(&output).contains(because), "{}", text(&output));
    let image = written(place.path(), "one.bmp", one());
    for arguments in [&["bench", "--device", "cuda:0"][..], &["infer", "--device", "cuda:0", &image], &["list"]] {
        let mut command = program(arguments);
        if arguments == ["list"] {
            command.args(["--config", &config]);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(because), "{arguments:?}: {}", text(&output));
    }
    let output = program(&["bench", "--device", "gpu"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("unknown device `gpu`: it is `auto`, `cpu` or `cuda:N`"), "{}", text(&output));
}

#[cfg(not(feature = "cuda"))]
#[test]
fn without_a_gpu_it_serves_and_says_so() {
    let place = tempfile::tempdir().unwrap();
    let config = written(place.path(), "agent.toml", "[local]\nlisten = \"127.0.0.1:0\"\n");
    let child = program(&["run", "--config", &config]).stderr(Stdio::piped()).spawn().unwrap();
    let mut running = Running(child);
    let log = BufReader::new(running.0.stderr.take().unwrap());
    let mut until_ready: Vec<String> = Vec::new();
    for line in log.lines().map(Result::unwrap) {
        until_ready.push(line);
        if until_ready.last().is_some_and(|line| line.contains("model ready")) {
            break;
        }
    }
    let said = until_ready.iter().find(|line| line.contains("networks compute here"));
    let said = said.unwrap_or_else(|| panic!("not a word on it: {until_ready:#?}"));
    assert!(said.contains("device=\"cpu\"") && said.contains("built without the feature `cuda`"), "{said}");
}

#[test]
fn a_model_in_half_precision_answers_as_it_does_in_single() {
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/models/digits");
    let places = format!("versions = \"{digits}\"\nlabels = \"{digits}/labels.txt\"\n");
    let spec = std::fs::read_to_string(format!("{digits}/model.toml")).unwrap();
    let [single, half, brain] =
        ["f32", "f16", "bf16"].map(|name| format!("precision = \"{name}\"\ndevice = \"cpu\"\n{places}{spec}"));
    let models = folder(&[("single", &single), ("half", &half), ("brain", &brain)]);
    let image = written(models.path(), "one.bmp", one());
    let config = written(models.path(), "agent.toml", format!("[serving]\nmodels = {:?}\n", models.path()));
    let ask =
        |model| program(&["infer", "--config", &config, "--model", model, "--top", "2", &image]).output().unwrap();
    let [single, half] = ["single", "half"].map(|model| {
        let said = text(&ask(model));
        let line = said.lines().find(|line| line.ends_with("%  1")).unwrap_or_else(|| panic!("{said}"));
        line.trim().split('%').next().unwrap().trim().parse::<f64>().unwrap_or_else(|_| panic!("{said}"))
    });
    assert!((single - half).abs() < 0.2, "per cent: {single} and {half}");
    let output = program(&["list", "--config", &config]).output().unwrap();
    let said = text(&output);
    assert!(said.contains("BROKEN: `bf16` cannot be computed in: a processor"), "{said}");
}

#[test]
fn check_says_everything_that_is_wrong_at_once() {
    let models = folder(&[("broken", "architecture = \"lenet\"\n"), ("good", &stand_in("0ms", "0ms", "0ms"))]);
    let config = "tls_dir = \"/nowhere\"\n[[relay]]\naddress = \"relay.test:4433\"\n";
    let config = written(models.path(), "agent.toml", config);
    let output =
        program(&["check", "--config", &config, "--models", models.path().to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    for line in [
        "FAIL identity: /nowhere/",
        "ok   relay relay.test:4433 as relay.test",
        "FAIL model broken",
        "ok   model good version 1",
    ] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
}

#[test]
fn a_model_is_asked_without_a_relay() {
    let place = tempfile::tempdir().unwrap();
    let (image, text_file) = (written(place.path(), "one.bmp", one()), written(place.path(), "no.txt", "no image"));
    let output = program(&["infer", "--top", "2", &image]).output().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[1].ends_with("%  1") && lines[3].contains("forward;dur="), "{said}");
    let output = program(&["infer", &image, &text_file]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("no.txt: not a JPEG, PNG, WebP, BMP or GIF image"), "{}", text(&output));
}

#[test]
fn a_drawn_digit_is_read_back() {
    let place = tempfile::tempdir().unwrap();
    for digit in ["0", "7"] {
        let drawn = program(&["draw", digit]).output().unwrap();
        assert!(drawn.status.success(), "{}", text(&drawn));
        let image = written(place.path(), "digit.png", &drawn.stdout);
        let said = text(&program(&["infer", "--top", "1", &image]).output().unwrap());
        assert!(said.lines().nth(1).is_some_and(|line| line.ends_with(&format!("%  {digit}"))), "{said}");
    }
    assert_eq!(program(&["draw", "10"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn models_are_listed_with_what_is_wrong_with_them() {
    let models = folder(&[("broken", "architecture = \"lenet\"\n"), ("good", &stand_in("0ms", "0ms", "0ms"))]);
    let models = models.path().to_str().unwrap();
    let output = program(&["list", "--models", models]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(said.lines().nth(1).unwrap().ends_with("BROKEN: the section [preprocess] is missing"), "{said}");
    assert!(said.lines().nth(2).unwrap().starts_with("good          1  stand_in"), "{said}");
    let output = program(&["list", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&list[0]["name"], &list[0]["state"]), (&"digits".into(), &"ready".into()));
    let output = program(&["list", "--models", "/nowhere/models"]).output().unwrap();
    assert!(text(&output).contains("cannot read the models folder /nowhere/models: "), "{}", text(&output));
}

#[test]
fn a_model_is_measured_where_it_is() {
    let place = tempfile::tempdir().unwrap();
    let image = written(place.path(), "one.bmp", one());
    let output =
        program(&["bench", "--batch", "1,3", "--seconds", "0.05", "--image", &image, "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["model"], &report["architecture"]), (&"digits".into(), &"lenet".into()));
    let batches = report["batches"].as_array().unwrap();
    assert_eq!(batches.iter().map(|size| size["batch"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 3]);
    for size in batches {
        assert!(size["passes"].as_u64().unwrap() > 0 && size["images_per_second"].as_f64().unwrap() > 0.0, "{size}");
        for stage in ["decode", "prepare", "forward", "interpret"] {
            let (median, p90) = (&size["stages_ms"][stage]["p50"], &size["stages_ms"][stage]["p90"]);
            assert!(0.0 < median.as_f64().unwrap() && median.as_f64() <= p90.as_f64(), "{size}");
        }
    }
    let memory = &report["memory"];
    assert!(memory["weights_bytes"].as_u64().unwrap() > 100_000, "{memory}");
    if cfg!(target_os = "linux") {
        assert!(memory["resident_bytes"].as_u64().unwrap() <= memory["peak_bytes"].as_u64().unwrap(), "{memory}");
    }

    let output = program(&["bench", "--seconds", "0.02"]).output().unwrap();
    let said = text(&output);
    assert!(said.starts_with("digits version 1: lenet, 1x28x28 in, 10 classes, on cpu with "), "{said}");
    assert_eq!(said.lines().count(), 9, "a head, the picture, five rows, two lines below:\n{said}");
    for (arguments, because) in [
        (["--batch", "0"], "--batch takes numbers from 1"),
        (["--seconds", "nan"], "--seconds takes a number"),
        (["--model", "nobody"], "there is no model nobody"),
        (["--image", "/nowhere.png"], "cannot read /nowhere.png"),
    ] {
        let output = program(&["bench"]).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output).contains(because), "{}", text(&output));
    }
}

#[test]
fn every_command_shows_how_it_is_used() {
    for command in ["run", "check", "pull", "list", "bench", "quantise", "infer", "draw"] {
        let said = text(&program(&[command, "--help"]).output().unwrap());
        assert!(said.contains("Example") && said.contains(&format!("  adit-agent {command}")), "{said}");
    }
}
