//! A detector with two stages held against torchvision's, with weights that a formula makes: its levels number by number, and the boxes
//! at its end one by one, wherever they stand. Which of two regions that overlap counts may hang on a number's last bit.

use adit_vision::{Architecture, Candidates, Device, Network, Stop, Weights, candidates};
use serde::Deserialize;

use crate::formula::{Stored, input, numbers, tensor};

#[derive(Deserialize)]
struct Found {
    /// So many score enough, before those that overlap are left out.
    candidates: usize,
    /// Left, top, right, bottom, score, class.
    boxes: Vec<[f32; 6]>,
}

/// The heads' numbers are logits, and logarithms of sizes: their weights are smaller.
fn weights(gain: f64) -> Weights {
    let gain = move |name: &str| match name {
        "rpn.head.cls_logits.weight" => 0.5,
        "rpn.head.bbox_pred.weight" => 0.02,
        "roi_heads.box_predictor.cls_score.weight" => 2.0,
        "roi_heads.box_predictor.bbox_pred.weight" => 0.5,
        _ => gain,
    };
    Weights::made_by("a formula", move |name, shape| Some(tensor(name, shape, gain(name))))
}

fn overlap(left: &[f32], right: &[f32]) -> f32 {
    let area = |[left, top, right, bottom]: [f32; 4]| (right - left).max(0.0) * (bottom - top).max(0.0);
    let corners = |all: &[f32]| [all[0], all[1], all[2], all[3]];
    let (left, right) = (corners(left), corners(right));
    let shared = area([left[0].max(right[0]), left[1].max(right[1]), left[2].min(right[2]), left[3].min(right[3])]);
    shared / (area(left) + area(right) - shared)
}

/// Of a hundred boxes, at most two may have been left out before.
fn hold(name: &str, stored: &Found, image: &Candidates) {
    let rows: Vec<_> = image.corners.iter().zip(image.scores.chunks_exact(image.classes)).collect();
    let (least, most) = (stored.candidates * 99 / 100, stored.candidates * 101 / 100);
    assert!((least..=most).contains(&rows.len()), "{name}: {} candidates", rows.len());
    let is_there = |[.., score, class]: &[f32; 6], corners: &[f32]| {
        let same =
            |row: &(&[f32; 4], &[f32])| (row.1[*class as usize] - score).abs() < 1e-3 && overlap(row.0, corners) > 0.99;
        rows.iter().any(same)
    };
    let missing = stored.boxes.iter().filter(|stored| !is_there(stored, &stored[..4])).count();
    println!("{name}: {} candidates, {missing} of {} missing", rows.len(), stored.boxes.len());
    assert!(stored.boxes.len() == 100 && missing <= 2, "{name}: {missing} are missing");
}

#[test]
fn faster_rcnn_agrees_with_torchvision() {
    let architecture = Architecture::FasterRcnn;
    let stored = Stored::of(architecture.name());
    let all: serde_json::Value = serde_json::from_str(include_str!("../formula/outputs.json")).unwrap();
    let found: Found = serde_json::from_value(all[format!("{architecture} found")].clone()).unwrap();
    let network = architecture.detector(&weights(stored.gain), &Device::Cpu).unwrap();
    let picture = input(&network);
    let heads = network.forward(&picture, &Stop::never()).unwrap();
    hold(architecture.name(), &found, &candidates(&heads).unwrap()[0]);
    let compiled = network.compile().unwrap();
    let name = format!("{architecture} by kernels");
    let levels = compiled.outputs(&picture, &Stop::never()).unwrap();
    stored.hold(&name, &levels.iter().flat_map(numbers).collect::<Vec<f32>>());
    let heads = compiled.forward(&picture, &Stop::never()).unwrap();
    hold(&name, &found, &candidates(&heads).unwrap()[0]);
}
