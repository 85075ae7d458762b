//! Networks of candle-transformers held against timm's and Transformers' own: both sides compute the same weights by a
//! formula. The other side stands in `../formula/borrowed.py`, its outputs beside it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use adit_vision::image::batch;
use adit_vision::{Architecture, Borrowed, Device, Heads, Network, Stop, Weights};
use serde_json::Value;

use crate::formula::{Stored, seed, tensor, uniform};

fn all() -> serde_json::Map<String, Value> {
    serde_json::from_str(include_str!("../formula/borrowed.json")).unwrap()
}

/// Builds the network with weights that `make` computes, and holds what it reads against the stored sum of all names and
/// shapes.
fn built(name: &str, make: impl Fn(&str, &[usize]) -> Vec<f32> + Send + Sync + 'static) -> Box<dyn Network> {
    let (count, sum): (usize, u64) = serde_json::from_value(all()["tensors"][name].clone()).unwrap();
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    let notes = asked.clone();
    let weights = Weights::made_by("a formula", move |name, shape| {
        let sides: Vec<String> = shape.iter().map(ToString::to_string).collect();
        notes.lock().unwrap().insert(format!("{name} {}", sides.join("x")));
        Some(make(name, shape))
    });
    let network = name.parse::<Architecture>().unwrap().build(&weights, &Device::Cpu).unwrap();
    let asked = asked.lock().unwrap();
    let found = asked.iter().fold(0, |sum: u64, one| sum.wrapping_add(seed(one)));
    assert_eq!((asked.len(), found), (count, sum), "{name} reads other tensors: {asked:?}");
    network
}

/// Runs the network on a batch whose last image is the stored one.
fn agrees(name: &str, images: usize) {
    let stored: Stored = serde_json::from_value(all()[name].clone()).unwrap();
    let gain = stored.gain;
    let network = built(name, move |name, shape| tensor(name, shape, gain));
    assert_eq!(network.classes(), stored.elements);

    let seeds = ["another input"; 8].into_iter().take(images - 1).chain(["input"]);
    let pictures: Vec<Vec<f32>> =
        seeds.map(|seed| uniform(seed, network.input().elements()).map(|value| value as f32).collect()).collect();
    let input = batch(&pictures, network.input(), &Device::Cpu).unwrap();
    let Heads::Classes(logits) = network.forward(&input, &Stop::never()).unwrap() else { panic!("a classifier") };
    let rows = logits.to_vec2::<f32>().unwrap();
    assert_eq!(rows.len(), images);
    stored.hold(name, &rows[images - 1]);
}

#[test]
fn convnexts_agree_with_timm() {
    agrees("convnext_atto", 2);
    agrees("convnextv2_atto", 2);
}

#[test]
fn mobilenets_agree_with_timm() {
    agrees("mobilenetv4_conv_small", 2);
    agrees("mobilenetv4_hybrid_medium", 2);
}

#[test]
fn fastvits_agree_with_timm() {
    agrees("fastvit_t8", 2);
    agrees("fastvit_sa12", 2);
}

#[test]
fn networks_of_folded_branches_agree_with_timm() {
    agrees("repvgg_a0", 2);
    agrees("mobileone_s1", 2);
}

#[test]
fn efficientnet_agrees_with_timm() {
    agrees("tf_efficientnet_b0", 2);
}

#[test]
fn vits_agree_with_timm() {
    agrees("vit_tiny_patch16_224", 2);
    agrees("deit3_small_patch16_224", 2);
}

#[test]
fn mix_transformers_agree_with_the_library_transformers() {
    agrees("mit_b0", 2);
}

#[test]
fn dino_agrees_with_timm() {
    agrees("vit_small_patch14_reg4_dinov2", 1);
    agrees("dinov2_vits14_lc", 1);
}

/// All whose outputs are stored.
#[test]
#[ignore = "takes minutes: for when a network of borrowed/, or candle-transformers, changes"]
fn all_agree() {
    for name in all().keys().filter(|name| *name != "tensors") {
        agrees(name, 1);
    }
}

/// Every size of every family asks for the tensors of the published network, and no others.
#[test]
#[ignore = "takes minutes, and the memory of the largest: for when a network of borrowed/, or candle-transformers, changes"]
fn all_read_the_published_tensors() {
    for borrowed in Borrowed::ALL {
        built(borrowed.name(), |_, shape| vec![0.5; shape.iter().product()]);
        println!("{}", borrowed.name());
    }
}
