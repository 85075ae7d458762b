//! Unusual and bad pictures, through relay and agent.

use std::fs;
use std::path::{Path, PathBuf};

use adit_e2e::{House, Plan, Version};
use adit_vision::image::{ImageLimits, Pixels, decode, digit_picture};
use anyhow::{Context as _, Result, ensure};
use http::StatusCode;
use serde_json::Value;

use crate::ask::{largest, raw};

/// How far a probability may be from that of the same picture, upright and RGB.
const TOLERANCE: f32 = 0.02;

const CLASSIFIERS: [&str; 3] = ["googlenet_bn", "mobilenet_v2", "squeezenet1_1"];

/// The bad files that are read all the same: what is broken of them is beside the picture (`panic.webp`, which broke a
/// decoder once, is whole). All others are refused.
const READ: [&str; 4] = ["hopper_bad_exif.jpg", "junk_jpeg_header.jpg", "panic.webp", "truncated_app14.jpg"];

fn data() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if !folder.is_dir() {
        println!("skipped: ../shared/data is not there");
        return None;
    }
    Some(folder.canonicalize().unwrap())
}

/// A folder of the classifiers, each as it is and once more with JPEGs decoded at a smaller scale.
fn folder(data: &Path, models: &[&str]) -> Result<tempfile::TempDir> {
    let root = tempfile::tempdir()?;
    for model in models {
        let spec =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(model).join("model.toml"))?;
        let spec = spec.replace("../../../../shared/data", &data.display().to_string());
        let scaled = spec.replace("decode = \"full\"", "decode = \"scaled\"");
        ensure!(scaled != spec, "{spec}");
        for (name, spec) in [((*model).to_owned(), spec), (format!("{model}_scaled"), scaled)] {
            fs::create_dir(root.path().join(&name))?;
            fs::write(root.path().join(&name).join("model.toml"), spec)?;
        }
    }
    Ok(root)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names: Vec<_> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Upright, RGB, nothing lost: rows of a BMP go upwards, and are filled up to four bytes.
fn bmp(pixels: &Pixels) -> Vec<u8> {
    let (width, height) = (pixels.width(), pixels.height());
    let row = (width as usize * 3).next_multiple_of(4);
    let mut file = b"BM".to_vec();
    let size = 54 + (row * height as usize) as u32;
    for number in [size, 0, 54, 40, width, height, 1 | 24 << 16, 0, 0, 0, 0, 0, 0] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    for source in pixels.rgb().chunks_exact(width as usize * 3).rev() {
        let end = file.len() + row;
        source.chunks_exact(3).for_each(|pixel| file.extend([pixel[2], pixel[1], pixel[0]]));
        file.resize(end, 0);
    }
    file
}

/// Holds probabilities against others; the largest difference. The first may be another only where first and second are
/// closer than the tolerance.
fn hold(found: &[f32], expected: &[f32], where_: &str) -> f32 {
    assert_eq!(found.len(), expected.len());
    let best = largest(expected);
    let second = (0..expected.len()).filter(|class| *class != best).map(|class| expected[class]).fold(0.0, f32::max);
    if expected[best] - second > TOLERANCE {
        assert_eq!(largest(found), best, "{where_}");
    }
    let off = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max);
    assert!(off < TOLERANCE, "{where_}: {off}");
    off
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_format_is_classified_as_its_upright_rgb_version() -> Result<()> {
    let Some(data) = data() else { return Ok(()) };
    let models = folder(&data, &CLASSIFIERS)?;
    let house = House::builder().agent(Plan::new("box").models(models.path())).open().await?;
    let mut client = house.client(Version::Http2).await?;
    let mut pictures: Vec<String> =
        names(&data.join("images/formats"))?.into_iter().map(|name| format!("images/formats/{name}")).collect();
    assert_eq!(pictures.len(), 12, "{pictures:?}");
    // None of those is so large that it would be scaled.
    pictures.push("images/photos/harbour_12mp.jpg".into());
    for model in CLASSIFIERS {
        let reference: Value =
            serde_json::from_slice(&fs::read(data.join("models").join(model).join("reference.json"))?)?;
        let mut worst = [0.0_f32; 3];
        for picture in &pictures {
            let file = fs::read(data.join(picture))?;
            let upright = bmp(&decode(&file, &ImageLimits::default())?);
            let expected = client.ask(raw(model, upright)).await?.probabilities()?;
            let full = client.ask(raw(model, file.clone())).await?.probabilities()?;
            let scaled = client.ask(raw(&format!("{model}_scaled"), file)).await?.probabilities()?;
            worst[0] = worst[0].max(hold(&full, &expected, &format!("{model}: {picture}")));
            worst[1] = worst[1].max(hold(&scaled, &expected, &format!("{model}: {picture}, scaled")));
            // And as another program saw it.
            for class in reference["images"][picture]["top5"].as_array().context("no top5")? {
                let index = usize::try_from(class["index"].as_u64().context("no index")?)?;
                let off = (full[index] - class["prob"].as_f64().context("no prob")? as f32).abs();
                assert!(off < TOLERANCE, "{model}: {picture}: class {index} is off by {off}");
                worst[2] = worst[2].max(off);
            }
        }
        let [full, scaled, other] = worst;
        println!("{model}: {full:.1e} off at full scale, {scaled:.1e} scaled, {other:.1e} from its reference");
    }
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_picture_is_answered_and_the_next_one_too() -> Result<()> {
    let Some(data) = data() else { return Ok(()) };
    let models = folder(&data, &["squeezenet1_1"])?;
    let house = House::builder().agent(Plan::new("box").models(models.path()).digits()).open().await?;
    let mut client = house.client(Version::Http2).await?;
    let bad = names(&data.join("images/bad"))?;
    assert_eq!(bad.len(), 12, "{bad:?}");
    for picture in bad {
        let file = fs::read(data.join("images/bad").join(&picture))?;
        for model in ["squeezenet1_1", "squeezenet1_1_scaled"] {
            let answer = client.ask(raw(model, file.clone())).await?;
            if READ.contains(&&*picture) {
                assert_eq!(answer.status, StatusCode::OK, "{picture}: {answer:?}");
                assert_eq!(answer.probabilities()?.len(), 1000);
            } else {
                assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{picture}: {answer:?}");
                println!("{picture}: {}", answer.error()?);
            }
        }
        let next = client.ask(raw("digits", digit_picture(4)?)).await?.probabilities()?;
        assert_eq!(largest(&next), 4, "after {picture}");
    }
    assert!(house.close().await);
    Ok(())
}
