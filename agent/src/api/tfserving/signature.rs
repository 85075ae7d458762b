//! What a model takes and gives, as TensorFlow's clients are told: its signatures.
//!
//! Every model takes encoded pictures as `image`, DT_STRING `[N]`, and pictures as numbers, `[N, H, W, C]`, under the name that its
//! description gives them. TensorFlow's clients send all inputs of a signature, so that each has one: `serving_images` the first,
//! `serving_pixels` the second, and `serving_default` the numbers where the description names them, else the pictures. Whichever
//! is asked, either input is taken. A classifier has `serving_classify` besides, for `tf.Example`s.

use std::collections::HashMap;

use adit_proto::tensorflow::tensor_shape_proto::Dim;
use adit_proto::tensorflow::{DataType, SignatureDef, TensorInfo, TensorShapeProto};
use adit_vision::ImageShape;
use tonic::Status;

use super::outputs::{BOXES, CLASSES, ENTITIES, MANY, NUMBER, SCORES};
use crate::serving::{Card, IMAGE};

/// The signature of requests that name none.
pub(super) const DEFAULT: &str = "serving_default";

const IMAGES: &str = "serving_images";
const PIXELS: &str = "serving_pixels";
const CLASSIFY: &str = "serving_classify";

/// What `Classify` asks for.
pub(super) const CLASSIFIES: &str = "tensorflow/serving/classify";

/// What `Regress` asks for, and no model here has.
pub(super) const REGRESSES: &str = "tensorflow/serving/regress";

const PREDICTS: &str = "tensorflow/serving/predict";

/// All of a model's signatures by their names.
pub(super) fn signatures(card: &Card) -> HashMap<String, SignatureDef> {
    let given = outputs(card);
    let images = || info(IMAGE, DataType::DtString, &[-1]);
    let pixels = || {
        let ImageShape { channels, height, width } = card.shape;
        let side = |length: usize| i64::try_from(length).unwrap_or(-1);
        let mut shape = vec![-1, side(height), side(width)];
        if channels > 1 {
            shape.push(side(channels));
        }
        info(card.signature.input(), DataType::DtFloat, &shape)
    };
    let predicts = |input: (String, TensorInfo)| SignatureDef {
        inputs: HashMap::from([input]),
        outputs: given.clone(),
        method_name: PREDICTS.to_owned(),
    };
    let default = if card.signature.names_input() { pixels() } else { images() };
    let mut all = HashMap::from([
        (DEFAULT.to_owned(), predicts(default)),
        (IMAGES.to_owned(), predicts(images())),
        (PIXELS.to_owned(), predicts(pixels())),
    ]);
    if !card.detects {
        let classifies = SignatureDef {
            inputs: HashMap::from([info("inputs", DataType::DtString, &[-1])]),
            outputs: HashMap::from([
                info("classes", DataType::DtString, &[-1, -1]),
                info("scores", DataType::DtFloat, &[-1, -1]),
            ]),
            method_name: CLASSIFIES.to_owned(),
        };
        all.insert(CLASSIFY.to_owned(), classifies);
    }
    all
}

fn outputs(card: &Card) -> HashMap<String, TensorInfo> {
    if card.detects {
        return HashMap::from([
            info(BOXES, DataType::DtFloat, &[-1, MANY, 4]),
            info(SCORES, DataType::DtFloat, &[-1, MANY]),
            info(CLASSES, DataType::DtFloat, &[-1, MANY]),
            info(ENTITIES, DataType::DtString, &[-1, MANY]),
            info(NUMBER, DataType::DtFloat, &[-1]),
        ]);
    }
    let classes = i64::try_from(card.labels.all().len()).unwrap_or(-1);
    HashMap::from([info(card.signature.output(), DataType::DtFloat, &[-1, classes])])
}

fn info(name: &str, datatype: DataType, shape: &[i64]) -> (String, TensorInfo) {
    let dim = shape.iter().map(|size| Dim { size: *size, name: String::new() }).collect();
    let tensor_shape = Some(TensorShapeProto { dim, unknown_rank: false });
    // In a graph it would be called so; there is none.
    (name.to_owned(), TensorInfo { name: format!("{name}:0"), dtype: datatype.into(), tensor_shape })
}

/// Refuses a signature that the model has not.
pub(super) fn check(card: &Card, name: &str) -> Result<(), Status> {
    if name.is_empty() || [DEFAULT, IMAGES, PIXELS].contains(&name) || (name == CLASSIFY && !card.detects) {
        return Ok(());
    }
    let name: String = name.chars().take(80).collect();
    Err(Status::failed_precondition(format!("Serving signature key \"{name}\" not found.")))
}

/// Refuses what the model is no signature for: it may be asked with `Classify` where it tells classes, and never with `Regress`.
pub(super) fn check_method(card: &Card, name: &str, method: &str) -> Result<(), Status> {
    check(card, name)?;
    let kind = match method {
        CLASSIFIES if !card.detects => return Ok(()),
        CLASSIFIES => "classification",
        REGRESSES => "regression",
        other => {
            let other: String = other.chars().take(80).collect();
            return Err(Status::unimplemented(format!("Unsupported signature method_name: {other}")));
        }
    };
    let has = if name == CLASSIFY { CLASSIFIES } else { PREDICTS };
    Err(Status::invalid_argument(format!("Expected {kind} signature method_name to be {method}. Was: {has}")))
}
