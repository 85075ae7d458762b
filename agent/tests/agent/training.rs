//! `adit-agent train`: what it publishes, what is left of a training that was cut off, and how it goes on.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::house::{LIMIT, folder};
use crate::program::{program, text, written};

/// A set in MNIST's format: `train` images and a few to test with, each a bar whose place is its class.
fn digits(folder: &Path, train: usize) {
    for (part, count) in [("train", train), ("t10k", 20)] {
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        let head =
            |numbers: &[u32], out: &mut Vec<u8>| numbers.iter().for_each(|number| out.extend(number.to_be_bytes()));
        head(&[0x0803, count as u32, 28, 28], &mut images);
        head(&[0x0801, count as u32], &mut labels);
        for number in 0..count {
            let class = number % 10;
            labels.push(class as u8);
            images.extend(
                (0..28 * 28).map(|at| if (4 + 2 * class..6 + 2 * class).contains(&(at % 28)) { 255_u8 } else { 0 }),
            );
        }
        std::fs::write(folder.join(format!("{part}-images-idx3-ubyte")), images).unwrap();
        std::fs::write(folder.join(format!("{part}-labels-idx1-ubyte")), labels).unwrap();
    }
}

#[test]
fn training_writes_a_version_that_the_agent_serves() {
    let spec = "architecture = \"lenet\"\n[preprocess]\nsize = [28, 28]\nresize = \"stretch\"\nchannels = \"grey\"\n";
    let (data, models) = (tempfile::tempdir().unwrap(), folder(&[("mine", spec)]));
    // 5,000 are held out; two steps are left to train on.
    digits(data.path(), 5128);
    let model = models.path().join("mine");
    written(&model, "labels.txt", "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    let folders = ["--data", data.path().to_str().unwrap(), "--model-path", model.to_str().unwrap()];
    let output = program(&["train", "digits", "--epochs", "1", "--version", "3"]).args(folders).output().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("epoch 1/1: loss ") && said.contains(" of 20 test images"), "{said}");
    let output = program(&["check", "--models", models.path().to_str().unwrap()]).output().unwrap();
    assert!(
        text(&output).contains("ok   model mine version 3: candle_lenet on cpu, 1x28x28 in, 10 classes"),
        "{}",
        text(&output)
    );
}

fn versions(model: &Path) -> Vec<String> {
    let names = fs::read_dir(model).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut versions: Vec<_> = names.filter(|name| name.parse::<u64>().is_ok()).collect();
    versions.sort();
    versions
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// Killed without warning after its first epoch, asked to end after another one, and gone on with: the same weights, to the
/// bit, as of a training that nobody disturbed.
#[test]
fn a_training_that_was_killed_goes_on_as_if_it_had_not_been() {
    let (data, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    digits(data.path(), 5256);
    let model = |name: &str| place.path().join(name);
    let train = |name: &str, more: &[&str]| {
        let mut command = program(&["train", "digits", "--epochs", "4", "--data", data.path().to_str().unwrap()]);
        command.arg("--model-path").arg(model(name)).args(more).env("RAYON_NUM_THREADS", "1");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let undisturbed = train("undisturbed", &[]).spawn().unwrap();

    let mut killed = train("disturbed", &[]).spawn().unwrap();
    let (checkpoint, begun) = (model("disturbed/.training/checkpoint.safetensors"), Instant::now());
    while !checkpoint.exists() {
        assert!(begun.elapsed() < 10 * LIMIT, "no checkpoint");
        thread::sleep(Duration::from_millis(5));
    }
    signal(&killed, "-KILL");
    assert!(!killed.wait().unwrap().success());
    assert_eq!(versions(&model("disturbed")), Vec::<String>::new(), "nothing that looks like a version");

    // Not by accident over what is there, and not on another set.
    let said = text(&train("disturbed", &[]).output().unwrap());
    assert!(said.contains("give --resume or --restart"), "{said}");
    let said = text(&train("disturbed", &["--resume", "--seed", "2"]).output().unwrap());
    assert!(said.contains("it is of another training"), "{said}");

    let mut asked = train("disturbed", &["--resume"]).spawn().unwrap();
    let mut lines = BufReader::new(asked.stderr.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    assert!(first.starts_with("epoch ") && !first.starts_with("epoch 1/"), "the first is done: {first}");
    signal(&asked, "-INT");
    let rest: Vec<String> = lines.collect();
    assert_eq!(asked.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.last().unwrap().contains("the same command with --resume goes on from there"), "{rest:?}");
    assert_eq!(versions(&model("disturbed")), Vec::<String>::new());

    let last = train("disturbed", &["--resume"]).output().unwrap();
    assert!(last.status.success(), "{}", text(&last));
    let undisturbed = undisturbed.wait_with_output().unwrap();
    assert!(undisturbed.status.success(), "{}", text(&undisturbed));
    let weights = |name: &str| fs::read(model(name).join("1/model.safetensors")).unwrap();
    assert!(weights("disturbed") == weights("undisturbed"));
    for file in ["1/learning.svg", "model.toml", "labels.txt"] {
        let read = |name: &str| fs::read_to_string(model(name).join(file)).unwrap();
        assert_eq!(read("disturbed"), read("undisturbed"), "{file}");
    }
    assert!(!model("disturbed").join(".training").exists(), "what is not needed any more is gone");
}

/// A picture of ink on paper, 40 x 40, as an uncompressed BMP.
fn picture(inked: impl Fn(i32, i32) -> bool) -> Vec<u8> {
    let size = 40_u32;
    let mut file = b"BM".to_vec();
    for number in [54 + size * size * 3, 0, 54, 40, size, size, 1 | (24 << 16), 0, size * size * 3, 0, 0, 0, 0] {
        file.extend(number.to_le_bytes());
    }
    for row in 0..size as i32 {
        for column in 0..size as i32 {
            file.extend([if inked(column, row) { 20 } else { 235 }; 3]);
        }
    }
    file
}

/// Bars that stand and bars that lie, each elsewhere.
fn bars(folder: &Path, count: i32) {
    for (class, lies) in [("lying", true), ("standing", false)] {
        fs::create_dir_all(folder.join(class)).unwrap();
        for number in 0..count {
            let bar = |across: i32, along: i32| {
                (across - 20 - number % 3).abs() < 3 && (along - 20 + number % 4).abs() < 12 + number % 5
            };
            let drawn = picture(|x, y| if lies { bar(y, x) } else { bar(x, y) });
            fs::write(folder.join(class).join(format!("{number}.bmp")), drawn).unwrap();
        }
    }
}

#[test]
fn a_model_for_ones_own_pictures_is_trained_published_and_asked() {
    let (data, models) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    bars(data.path(), 15);
    written(&data.path().join("lying"), "notes.txt", "no picture");
    let model = models.path().join("bars");
    let start = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/digits");
    let train = |more: &[&str]| {
        let mut command = program(&["train", "classifier", "--batch", "8", "--learning-rate", "0.01"]);
        command.arg("--data").arg(data.path()).arg("--base").arg(&start).arg("--model-path").arg(&model).args(more);
        command.output().unwrap()
    };
    let said = text(&train(&[]));
    assert!(said.contains("features of 31 files") && said.contains("of 6 held-out pictures, trained on 24"), "{said}");
    assert!(said.contains("  lying") && said.contains("notes.txt: not a JPEG"), "{said}");
    assert_eq!(fs::read_to_string(model.join("labels.txt")).unwrap(), "lying\nstanding\n");
    let curve = fs::read_to_string(model.join("1/learning.svg")).unwrap();
    assert!(curve.starts_with("<svg ") && curve.contains("bars: 100.00 % of the held-out pictures"), "{curve}");

    // An agent that is given the folder knows the classes, and tells new pictures apart.
    let lying = written(data.path(), "lying.bmp", picture(|x, y| (y - 15).abs() < 4 && (x - 21).abs() < 16));
    let standing = written(data.path(), "standing.bmp", picture(|x, y| (x - 25).abs() < 4 && (y - 19).abs() < 16));
    let folder = models.path().to_str().unwrap();
    let said = text(
        &program(&["infer", "--models", folder, "--model", "bars", "--top", "1", &lying, &standing]).output().unwrap(),
    );
    let found: Vec<&str> = said.lines().filter_map(|line| Some(line.split_once(" %  ")?.1)).collect();
    assert_eq!(found, ["lying", "standing"], "{said}");

    // Versions are counted up; none is overwritten unasked, and what describes the model stays as its owner wrote it.
    let description = format!("# mine\n{}", fs::read_to_string(model.join("model.toml")).unwrap());
    fs::write(model.join("model.toml"), &description).unwrap();
    let first = fs::read(model.join("1/model.safetensors")).unwrap();
    let said = text(&train(&["--version", "1", "--seed", "2"]));
    assert!(said.contains("bars/1 is there already"), "{said}");
    let again = train(&["--seed", "2"]);
    assert!(again.status.success() && text(&again).contains("bars/2/model.safetensors"), "{}", text(&again));
    assert_eq!(versions(&model), ["1", "2"]);
    assert!(fs::read(model.join("1/model.safetensors")).unwrap() == first);
    let forced = train(&["--version", "1", "--seed", "2", "--force"]);
    assert!(forced.status.success(), "{}", text(&forced));
    let read = |version: &str| fs::read(model.join(version).join("model.safetensors")).unwrap();
    assert!(read("1") == read("2") && read("1") != first);
    assert_eq!(fs::read_to_string(model.join("model.toml")).unwrap(), description);

    // Another set of classes would never be served from this folder.
    fs::create_dir(data.path().join("slanting")).unwrap();
    let said = text(&train(&[]));
    assert!(said.contains("labels.txt does not fit") && said.contains("3 folders of pictures"), "{said}");
    assert_eq!(versions(&model), ["1", "2"]);
}
