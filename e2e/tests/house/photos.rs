//! The classifiers of the test data, asked for every photograph, against what other programs made of the same weights.

use std::fs;
use std::path::{Path, PathBuf};

use adit_e2e::{House, Plan, Version};
use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::ask::{largest, raw};

/// How far a probability may be from the stored one.
const TOLERANCE: f32 = 1e-3;

fn data() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if !folder.is_dir() {
        println!("skipped: ../shared/data is not there");
        return None;
    }
    Some(folder)
}

/// The five likeliest classes of a picture, as they are stored.
fn stored(entry: &Value) -> Result<Vec<(usize, f32)>> {
    let classes = entry["top5"].as_array().context("no top5")?;
    classes
        .iter()
        .map(|class| {
            let index = class["index"].as_u64().context("no index")?;
            Ok((usize::try_from(index)?, class["prob"].as_f64().context("no prob")? as f32))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_classifier_sees_in_every_photo_what_its_reference_saw() -> Result<()> {
    let Some(data) = data() else { return Ok(()) };
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let house = House::builder().agent(Plan::new("box").models(models)).open().await?;
    let mut client = house.client(Version::Http2).await?;
    let mut photos: Vec<_> = fs::read_dir(data.join("images/photos"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    photos.sort();
    assert!(photos.len() >= 26, "{photos:?}");
    for model in ["googlenet_bn", "mobilenet_v2", "squeezenet1_1"] {
        let reference: Value =
            serde_json::from_slice(&fs::read(data.join("models").join(model).join("reference.json"))?)?;
        let mut worst = (0.0_f32, String::new());
        for photo in &photos {
            let entry = &reference["images"][format!("images/photos/{photo}")];
            let stored = stored(entry).with_context(|| format!("{model}: {photo}"))?;
            let image = fs::read(data.join("images/photos").join(photo))?;
            let found = client.ask(raw(model, image)).await?.probabilities()?;
            // Where the first and the second are closer than the tolerance, either may be first.
            if stored[0].1 - stored[1].1 > TOLERANCE {
                assert_eq!(largest(&found), stored[0].0, "{model}: {photo}");
            }
            for (index, probability) in stored {
                let off = (found[index] - probability).abs();
                assert!(off < TOLERANCE, "{model}: {photo}: class {index} is off by {off}");
                worst = if off > worst.0 { (off, photo.clone()) } else { worst };
            }
        }
        println!("{model}: {} photos, at most {:.2e} off ({})", photos.len(), worst.0, worst.1);
    }
    assert!(house.close().await);
    Ok(())
}
