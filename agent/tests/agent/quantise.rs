//! Models in int8: calibrated by the program, served after that, and refused without a calibration or with another's.

use std::path::{Path, PathBuf};

use adit_agent::serving::Spec;
use adit_agent::workbench::{Agreement, Quantised, quantise};
use adit_common::id::Version;

use crate::house::one;
use crate::program::{program, text, written};

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/digits");

/// A folder of models with one of digits in it, in int8, and its picture.
fn digits() -> (tempfile::TempDir, String) {
    let models = tempfile::tempdir().unwrap();
    let folder = models.path().join("mine");
    std::fs::create_dir_all(folder.join("1")).unwrap();
    std::fs::copy(format!("{DIGITS}/1/model.safetensors"), folder.join("1/model.safetensors")).unwrap();
    let spec = std::fs::read_to_string(format!("{DIGITS}/model.toml")).unwrap();
    let spec = format!("precision = \"int8\"\ndevice = \"cpu\"\nlabels = \"{DIGITS}/labels.txt\"\n{spec}");
    written(&folder, "model.toml", spec);
    let image = written(models.path(), "one.bmp", one());
    (models, image)
}

#[test]
fn a_model_computes_in_bytes_once_it_was_calibrated() {
    let (models, image) = digits();
    let place = models.path().to_str().unwrap();
    let run = |arguments: &[&str]| {
        let (command, rest) = arguments.split_first().unwrap();
        let output = program(&[&[*command, "--models", place], rest].concat()).output().unwrap();
        (output.status.success(), text(&output))
    };
    let (_, said) = run(&["list"]);
    assert!(said.contains("BROKEN: `int8` needs a calibration, and "), "{said}");
    assert!(
        said.contains("1/int8.json is not there: make it with `adit-agent quantise --models DIR --model NAME"),
        "{said}"
    );
    let (ok, said) = run(&["quantise", "--model", "mine", &format!("{place}/mine/model.toml")]);
    assert!(!ok && said.contains("none of the pictures can be read: the first, "), "{said}");
    assert!(!run(&["quantise", "--model", "yours", &image]).0);

    let (ok, said) = run(&["quantise", "--model", "mine", &image, &image, "/nowhere.png"]);
    assert!(ok && said.contains("mine version 1, 2 pictures") && said.contains("/nowhere.png: left out: "), "{said}");
    assert!(said.contains("likeliest class as in f32    2 of 2") && said.contains(" ms in int8"), "{said}");
    let (ok, said) = run(&["infer", "--model", "mine", "--top", "1", &image]);
    assert!(ok && said.lines().any(|line| line.ends_with("%  1")), "{said}");

    // Another file of weights: what its numbers are is not known.
    let weights = models.path().join("mine/1/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let (_, said) = run(&["list"]);
    assert!(
        said.contains("BROKEN: the calibration was made for other weights: make it anew with `adit-agent"),
        "{said}"
    );
    let calibration = models.path().join("mine/1/int8.json");
    for (content, because) in [
        (
            "{\"edition\":2,\"architecture\":\"lenet\",\"weights\":1,\"images\":1,\"ranges\":[]}",
            "is of edition 2, this program",
        ),
        (
            "{\"edition\":1,\"architecture\":\"vgg11\",\"weights\":1,\"images\":1,\"ranges\":[]}",
            "for the architecture vgg11",
        ),
        ("{\"edition\":1,", "is no calibration: "),
    ] {
        std::fs::write(&calibration, content).unwrap();
        let (_, said) = run(&["list"]);
        assert!(said.contains(because), "{because} is not in\n{said}");
    }
}

/// Calibrates a model of `e2e/models` over all photographs; nothing where they are not there.
fn over_the_photos(model: &str) -> Option<Quantised> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let weights = shared.join("models").join(model).join("1/model.safetensors");
    let Ok(photos) = std::fs::read_dir(shared.join("images/photos")) else {
        println!("skipped: ../shared/data is not there");
        return None;
    };
    let mut photos: Vec<PathBuf> = photos.map(|photo| photo.unwrap().path()).collect();
    photos.sort();
    let versions = tempfile::tempdir().unwrap();
    std::fs::create_dir(versions.path().join("1")).unwrap();
    std::os::unix::fs::symlink(weights.canonicalize().unwrap(), versions.path().join("1/model.safetensors")).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/models").join(model).join("model.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let other = format!("versions = {:?}", versions.path());
    let line = text.lines().find(|line| line.starts_with("versions = ")).unwrap();
    let spec = Spec::parse(&text.replace(line, &other), file.parent().unwrap()).unwrap();
    let made = quantise(&spec, Version(1), &photos, |_| ()).unwrap();
    println!("{model}: {:?}, {:?}", made.agreement, made.times);
    assert_eq!((made.images, made.unread.len()), (photos.len(), 0));
    Some(made)
}

#[test]
fn the_likeliest_class_of_a_photograph_is_that_of_f32() {
    // SqueezeNet sees 11.3 % of a Great Dane and 10.0 % of a Saluki in one photograph: less apart than int8 moves them.
    for (model, near) in [("googlenet_bn", 0), ("mobilenet_v2", 0), ("squeezenet1_1", 1)] {
        let Some(made) = over_the_photos(model) else { return };
        let Agreement::Classes { same, largest, mean } = made.agreement else { panic!("{model} tells classes") };
        assert!(same + near >= made.images, "{model}: {same} of {}", made.images);
        assert!(largest > 0.0 && largest < 0.1 && mean < 0.03, "{model}: {:?}", made.agreement);
    }
}

#[test]
fn faces_and_objects_are_found_where_they_are_in_f32() {
    for (model, least) in [("ultraface_rfb320", 0.9), ("yolox_nano", 0.85)] {
        let Some(made) = over_the_photos(model) else { return };
        let Agreement::Boxes { plain, bytes, same, overlap, mean, .. } = made.agreement else { panic!("boxes") };
        let wanted = least * plain.max(bytes) as f32;
        assert!(same as f32 >= wanted && overlap > 0.9 && mean < 0.05, "{model}: {:?}", made.agreement);
    }
}
