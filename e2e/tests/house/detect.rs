//! The detectors of the test data, asked for every photograph, against what other programs made of the same weights.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use adit_common::oip::{Datatype, HEADER_LENGTH, InferRequest, Parameters, RequestedOutput, Tensor, TensorData};
use adit_e2e::{Answer, Body, House, Plan, Version, full};
use anyhow::{Context as _, Result, ensure};
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::ask::{get, infer_path, json, raw};

/// Of a stored box and the one that is found in its place, at least this intersection over union.
const OVERLAP: f32 = 0.95;

/// How far a score may be from the stored one; so close to the least score that counts, a box may be there or not.
const TOLERANCE: f32 = 0.01;

/// A detector's name, the least score that its description lets count, and the label of boxes that are stored without.
const DETECTORS: [(&str, f32, &str); 2] = [("yolox_nano", 0.3, ""), ("ultraface_rfb320", 0.7, "face")];

#[derive(Debug, Clone, PartialEq)]
struct Found {
    label: String,
    class: i64,
    score: f32,
    corners: [f32; 4],
}

pub(crate) fn data() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if !folder.is_dir() {
        println!("skipped: ../shared/data is not there");
        return None;
    }
    Some(folder.canonicalize().unwrap())
}

/// A folder of the detectors alone, so that no other model takes a test's time.
pub(crate) fn folder(data: &Path) -> Result<tempfile::TempDir> {
    let root = tempfile::tempdir()?;
    for (model, ..) in DETECTORS {
        let spec =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(model).join("model.toml"))?;
        let there = "../../../../shared/data";
        ensure!(spec.contains(there), "{spec}");
        fs::create_dir(root.path().join(model))?;
        let spec = spec.replace(there, &data.display().to_string());
        fs::write(root.path().join(model).join("model.toml"), spec)?;
    }
    Ok(root)
}

/// All rows of an answer with all four outputs; what fills up a row must say so.
fn rows(answer: &Answer) -> Result<Vec<Vec<Found>>> {
    let inferred = answer.inferred()?;
    let output = |name: &str| inferred.output(name).with_context(|| format!("no {name}: {answer:?}"));
    let (boxes, scores, classes, labels) = (output("boxes")?, output("scores")?, output("classes")?, output("labels")?);
    let [images, most, 4] = *boxes.shape() else { panic!("{:?}", boxes.shape()) };
    for other in [scores, classes, labels] {
        assert_eq!(other.shape(), [images, most]);
    }
    assert_eq!(classes.datatype(), Datatype::Int64);
    let TensorData::Numbers(numbers) = classes.data() else { panic!("{classes:?}") };
    let (numbers, _) = numbers.as_chunks::<8>();
    let (corners, scores, labels) = (boxes.to_floats()?, scores.to_floats()?, labels.to_elements()?);
    let (corners, _) = corners.as_chunks::<4>();
    let mut rows = vec![Vec::new(); images];
    for place in 0..images * most {
        let label = String::from_utf8(labels[place].to_vec())?;
        let (class, score, corners) = (i64::from_le_bytes(numbers[place]), scores[place], corners[place]);
        if class < 0 {
            assert_eq!((class, &*label, score, corners), (-1, "", 0.0, [0.0; 4]));
        } else {
            rows[place / most].push(Found { label, class, score, corners });
        }
    }
    Ok(rows)
}

fn overlap(a: [f32; 4], b: [f32; 4]) -> f32 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let area = |corners: [f32; 4]| (corners[2] - corners[0]) * (corners[3] - corners[1]);
    width * height / (area(a) + area(b) - width * height)
}

/// What is stored of a photo; its boxes clamped to the picture, as answers are.
fn stored(reference: &Value, photo: &str, label: &str, size: [f32; 2]) -> Result<Vec<Found>> {
    let entry = &reference["images"][format!("images/photos/{photo}")];
    let list = entry.get("detections").unwrap_or(entry).as_array().with_context(|| format!("{photo} is not stored"))?;
    let read = |stored: &Value| {
        let side = |at: usize| stored["box_xyxy"][at].as_f64().map(|side| (side as f32).clamp(0.0, size[at % 2]));
        let corners = [side(0), side(1), side(2), side(3)].map(|side| side.unwrap_or(f32::NAN));
        let label = stored["label"].as_str().unwrap_or(label).to_owned();
        let score = stored["score"].as_f64().context("no score")? as f32;
        Ok(Found { label, class: 0, score, corners })
    };
    list.iter().map(read).collect()
}

/// Holds what was found against what is stored; the number of boxes, the least overlap and the largest difference of
/// scores.
fn hold(mut found: Vec<Found>, stored: &[Found], least: f32, where_: &str) -> (usize, f32, f32) {
    let (mut worst, mut off) = (1.0_f32, 0.0_f32);
    let mut held = 0;
    for stored in stored {
        let same =
            |found: &Found| if found.label == stored.label { overlap(found.corners, stored.corners) } else { 0.0 };
        let best = (0..found.len()).max_by(|one, two| same(&found[*one]).total_cmp(&same(&found[*two])));
        let Some(best) = best.filter(|best| same(&found[*best]) >= OVERLAP) else {
            assert!(stored.score < least + TOLERANCE, "{where_}: no {stored:?} among {found:?}");
            continue;
        };
        let best = found.remove(best);
        let difference = (best.score - stored.score).abs();
        assert!(difference < TOLERANCE, "{where_}: {best:?} for {stored:?}");
        (held, worst, off) = (held + 1, worst.min(overlap(best.corners, stored.corners)), off.max(difference));
    }
    found.retain(|found| found.score >= least + TOLERANCE);
    assert!(found.is_empty(), "{where_}: more than is stored: {found:?}");
    (held, worst, off)
}

fn size(image: &[u8]) -> Result<[f32; 2]> {
    let pixels = adit_vision::image::decode(image, &adit_vision::image::ImageLimits::default())?;
    Ok([pixels.width() as f32, pixels.height() as f32])
}

/// Images and wishes by the binary extension, both ways.
fn binary(model: &str, input: Tensor, outputs: &[&str]) -> Result<Request<Body>> {
    let outputs =
        outputs.iter().map(|name| RequestedOutput { name: (*name).into(), parameters: Parameters::default() });
    let parameters = Parameters::default().with("binary_data_output", true);
    let request =
        InferRequest { inputs: vec![input], outputs: Some(outputs.collect()), parameters, ..InferRequest::default() };
    let encoded = request.encode(true)?;
    let request = Request::post(infer_path(model)).header(HEADER_LENGTH, encoded.header_length.unwrap_or_default());
    Ok(request.body(full(encoded.body))?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_detector_finds_in_every_photo_what_its_reference_found() -> Result<()> {
    let Some(data) = data() else { return Ok(()) };
    let models = folder(&data)?;
    let house = House::builder().agent(Plan::new("box").models(models.path())).open().await?;
    let mut client = house.client(Version::Http2).await?;
    for (model, least, label) in DETECTORS {
        let reference: Value =
            serde_json::from_slice(&fs::read(data.join("models").join(model).join("reference.json"))?)?;
        let photos = reference["images"].as_object().context("no images")?;
        assert!(photos.len() >= 26, "{photos:?}");
        let (mut held, mut worst, mut off, mut bare) = (0, 1.0_f32, 0.0_f32, 0);
        for photo in photos.keys().filter_map(|path| path.strip_prefix("images/photos/")) {
            let image = fs::read(data.join("images/photos").join(photo))?;
            let stored = stored(&reference, photo, label, size(&image)?)?;
            let said = client.ask(json(model, &image)).await?;
            assert_eq!(said.header("content-type")?, "application/json");
            let found = rows(&said)?;
            let coded = client.ask(binary(model, Tensor::bytes("image", &[1], vec![image.into()])?, &[])?).await?;
            assert_eq!(coded.header("content-type")?, "application/octet-stream");
            assert_eq!(rows(&coded)?, found, "{model}: {photo}: JSON and binary differ");
            let [found] = &found[..] else { panic!("{found:?}") };
            assert!(found.is_sorted_by(|one, two| one.score >= two.score), "{found:?}");
            bare += usize::from(found.is_empty());
            let (boxes, least_overlap, difference) = hold(found.clone(), &stored, least, &format!("{model}: {photo}"));
            (held, worst, off) = (held + boxes, worst.min(least_overlap), off.max(difference));
        }
        println!(
            "{model}: {held} boxes on {} photos ({bare} without), overlap {worst:.3}, scores {off:.4} off",
            photos.len()
        );
        assert!(held > 15, "{model}: {held}");
    }
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detector_is_asked_as_a_detector() -> Result<()> {
    let Some(data) = data() else { return Ok(()) };
    let models = folder(&data)?;
    // By name, before the classifier.
    fs::create_dir(models.path().join("a_detector"))?;
    fs::copy(models.path().join("ultraface_rfb320/model.toml"), models.path().join("a_detector/model.toml"))?;
    let house = House::builder().agent(Plan::new("box").models(models.path()).digits()).open().await?;
    let mut client = house.client(Version::Http2).await?;
    let photo = |name: &str| fs::read(data.join("images/photos").join(name));
    let (crowd, face) = (photo("bike.jpg")?, photo("astronaut.png")?);

    let metadata = client.ask(get("/v2/models/yolox_nano")).await?.json()?;
    let output =
        |name: &str, datatype: &str, shape: &[i64]| json!({ "name": name, "datatype": datatype, "shape": shape });
    assert_eq!(metadata["platform"], "candle_yolox_nano");
    let told = [
        output("boxes", "FP32", &[-1, -1, 4]),
        output("scores", "FP32", &[-1, -1]),
        output("classes", "INT64", &[-1, -1]),
        output("labels", "BYTES", &[-1, -1]),
    ];
    assert_eq!(metadata["outputs"], json!(told));

    // Each image of a request in its own pixels, the shorter row filled up.
    let both = Tensor::bytes("image", &[2], vec![face.clone().into(), crowd.clone().into()])?;
    let together = rows(&client.ask(binary("ultraface_rfb320", both, &[])?).await?)?;
    assert!(together[0].len() < together[1].len(), "{together:?}");
    for (image, row) in [&face, &crowd].into_iter().zip(&together) {
        let alone = rows(&client.ask(json("ultraface_rfb320", image)).await?)?;
        assert_eq!(hold(row.clone(), &alone[0], 0.7, "together and alone").0, row.len());
    }
    let one = Tensor::bytes("image", &[1], vec![face.clone().into()])?;
    let few = client.ask(binary("yolox_nano", one, &["scores", "labels"])?).await?.inferred()?;
    assert_eq!(few.outputs.iter().map(Tensor::name).collect::<Vec<_>>(), ["scores", "labels"]);
    assert_eq!(few.outputs[1].to_elements()?[0], "person");

    // What the caller has prepared is answered in its own pixels: blue, green and red planes of a letterboxed picture.
    let sized = fs::read(data.join("models/yolox_nano/parity/dog.png"))?;
    let pixels = adit_vision::image::decode(&sized, &adit_vision::image::ImageLimits::default())?;
    let planes = [2, 1, 0].into_iter().flat_map(|plane| pixels.rgb().iter().skip(plane).step_by(3));
    let planes: Vec<f32> = planes.map(|byte| f32::from(*byte)).collect();
    let prepared = Tensor::floats("input", &[1, 3, 416, 416], &planes)?;
    let prepared = rows(&client.ask(binary("yolox_nano", prepared, &[])?).await?)?;
    let encoded = rows(&client.ask(raw("yolox_nano", sized)).await?)?;
    assert!(prepared[0].iter().any(|found| found.label == "dog"), "{prepared:?}");
    assert_eq!(hold(prepared[0].clone(), &encoded[0], 0.3, "prepared").0, prepared[0].len());

    // The photo dialect has no place for boxes: the classifier answers it, though a detector comes first by name.
    let mut ask = async |path: &str, body: Vec<u8>| client.ask(Request::post(path).body(full(body))?).await;
    let sentence = ask("/photo", face.clone()).await?.json()?["inference"].to_string();
    assert!(sentence.contains("Class = "), "{sentence}");
    let mut body = String::new();
    for (outputs, because) in [
        (r#"[{"name":"boxes","parameters":{"classification":5}}]"#, "`yolox_nano` finds objects and does not classify"),
        (r#"[{"name":"probabilities"}]"#, "`yolox_nano` finds objects and has no `probabilities`: ask for `boxes`"),
        (r#"[{"name":"faces"}]"#, "unknown output `faces`, expected `boxes`, `scores`, `classes`, `labels`"),
    ] {
        body.clear();
        let input = r#"{"name":"image","datatype":"BYTES","shape":[1],"data":["aGVsbG8="]}"#;
        write!(body, r#"{{"inputs":[{input}],"outputs":{outputs}}}"#)?;
        let refused = ask(&infer_path("yolox_nano"), body.clone().into_bytes()).await?;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.error()?.contains(because), "{}", refused.error()?);
    }
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_photo_dialect_says_what_to_ask_where_there_are_only_detectors() -> Result<()> {
    let Some(data) = data() else { return Ok(()) };
    let models = folder(&data)?;
    for default in [None, Some("yolox_nano")] {
        let plan = Plan::new("box").models(models.path()).change(move |config| {
            config.serving.default_model = default.map(|name| name.parse().unwrap());
        });
        let house = House::builder().agent(plan).open().await?;
        let mut client = house.client(Version::Http1).await?;
        let refused = client.ask(Request::post("/photo").body(full("anything"))?).await?;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        let (error, model) = (refused.error()?, default.unwrap_or("ultraface_rfb320"));
        assert!(error.contains(&format!("ask POST /v2/models/{model}/infer")), "{error}");
        assert!(house.close().await);
    }
    Ok(())
}
