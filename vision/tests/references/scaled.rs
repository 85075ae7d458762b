//! What decoding JPEGs at a smaller scale does to the answers: the same photographs at full scale and scaled.

use adit_vision::Architecture;
use adit_vision::image::prepare;

use crate::{Model, data, decoded, decoded_for, files, json, most_likely, name, written};

/// How far a probability may be from the one at full scale.
const TOLERANCE: f32 = 0.02;

fn hold(architecture: Architecture) {
    let Some(data) = data() else { return };
    let model = Model::open(&data, architecture);
    let preprocess = written(&json(&model.folder.join("model.json"))["preprocessing"], "scaled");
    let (mut scaled, mut worst) = (0, 0.0_f32);
    for path in files(&data.join("images/photos")).into_iter().chain(files(&data.join("images/formats"))) {
        let (all, less) = (decoded(&path), decoded_for(&path, &preprocess));
        assert_eq!(all.size(), less.size(), "{}", name(&path));
        if all.width() == less.width() {
            assert_eq!(all, less, "{}", name(&path));
            continue;
        }
        let [all, less] = [all, less].map(|pixels| model.probabilities(&prepare(&pixels, &preprocess).unwrap()));
        let off = all.iter().zip(&less).map(|(all, less)| (all - less).abs()).fold(0.0, f32::max);
        println!("{architecture}: {}: {off:.4} off", name(&path));
        assert!(off < TOLERANCE, "{architecture}: {}: {off}", name(&path));
        assert_eq!(most_likely(&all).0, most_likely(&less).0, "{architecture}: {}", name(&path));
        (scaled, worst) = (scaled + 1, worst.max(off));
    }
    println!("{architecture}: {scaled} pictures were scaled, at most {worst:.4} off");
    assert!(scaled > 0);
}

#[test]
fn googlenet_sees_the_same_in_scaled_pictures() {
    hold(Architecture::GooglenetBn);
}

#[test]
fn mobilenet_sees_the_same_in_scaled_pictures() {
    hold(Architecture::Mobilenet);
}

#[test]
fn squeezenet_sees_the_same_in_scaled_pictures() {
    hold(Architecture::Squeezenet);
}
