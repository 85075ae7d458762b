//! From heads to what a person reads: the likeliest classes with their labels, or boxes with theirs.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use candle_core::{D, DType};

use crate::boxes::{Candidates, DetectOptions, Found, suppress};
use crate::error::VisionError;
use crate::image::Frame;
use crate::network::Heads;

/// What some detectors call the class of everything else; it is never found.
const BACKGROUND: &str = "background";

/// One class that a network thinks it sees.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Number of the class, from 0.
    pub index: usize,
    /// Its name.
    pub label: Arc<str>,
    /// From 0 to 1; over all classes of an image they add up to 1.
    pub probability: f32,
}

/// One thing that a detector sees.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// Number of its class, from 0.
    pub class: usize,
    /// The class's name.
    pub label: Arc<str>,
    /// From 0 to 1.
    pub score: f32,
    /// `[left, top, right, bottom]` in pixels of the picture, inside of it.
    pub corners: [f32; 4],
}

/// Names of a network's classes, in order: one a line in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels(Vec<Arc<str>>);

impl Labels {
    /// Reads a labels file.
    pub fn read(path: &Path) -> Result<Self, VisionError> {
        let bytes = fs::read(path).map_err(|source| VisionError::Read { path: path.to_owned(), source })?;
        let text = String::from_utf8(bytes)
            .map_err(|_| VisionError::Labels(format!("{} is not UTF-8 text", path.display())))?;
        Self::parse(&text).map_err(|_| VisionError::Labels(format!("{} is empty", path.display())))
    }

    /// Takes the text of a labels file: one label a line; spaces around it do not count, nor do empty lines at the
    /// end. An empty line before that is a class without a name.
    pub fn parse(text: &str) -> Result<Self, VisionError> {
        let labels: Vec<Arc<str>> = text.trim_end().lines().map(|line| Arc::from(line.trim())).collect();
        if labels.is_empty() { Err(VisionError::Labels("the text is empty".to_owned())) } else { Ok(Self(labels)) }
    }

    /// Fails unless there is exactly one label for each class.
    pub fn check(&self, classes: usize) -> Result<(), VisionError> {
        if self.0.len() == classes {
            return Ok(());
        }
        Err(VisionError::Labels(format!("{} labels for {classes} classes", self.0.len())))
    }

    /// The labels of things that can be found: all but those without a name and the background.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|label| &**label).filter(|label| !label.is_empty() && *label != BACKGROUND)
    }

    /// All labels, in order of their classes.
    #[must_use]
    pub fn all(&self) -> &[Arc<str>] {
        &self.0
    }
}

/// Probabilities of all classes, one row an image: softmax over the logits. Fails for what a detector gives.
pub fn probabilities(heads: &Heads) -> Result<Vec<Vec<f32>>, VisionError> {
    let Heads::Classes(logits) = heads else { return Err(VisionError::NoProbabilities) };
    let rows = candle_nn::ops::softmax(&logits.to_dtype(DType::F32)?, D::Minus1)?.to_vec2::<f32>()?;
    if rows.iter().flatten().any(|probability| !probability.is_finite()) {
        return Err(VisionError::NotFinite);
    }
    Ok(rows)
}

/// What a detector sees in each image. Fails for what a classifier gives.
pub fn candidates(heads: &Heads) -> Result<&[Candidates], VisionError> {
    let Heads::Boxes(images) = heads else { return Err(VisionError::NoBoxes) };
    let mut numbers = images.iter().flat_map(|image| image.corners.iter().flatten().chain(&image.scores));
    if numbers.any(|number| !number.is_finite()) {
        return Err(VisionError::NotFinite);
    }
    Ok(images)
}

/// What is worth reporting of one image's candidates, the best first. `frame` says where the picture lies in the
/// network's input.
pub fn detections(
    candidates: &Candidates,
    frame: &Frame,
    labels: &Labels,
    options: &DetectOptions,
) -> Result<Vec<Detection>, VisionError> {
    labels.check(candidates.classes)?;
    let detection = |found: Found| {
        let Found { class, score, corners } = found;
        // A box that lies wholly in a letterbox's border is none.
        let corners = frame.to_picture(corners)?;
        Some(Detection { class, label: Arc::clone(&labels.0[class]), score, corners })
    };
    Ok(suppress(candidates, options).into_iter().filter_map(detection).collect())
}

/// The `count` likeliest classes of one image's probabilities, the likeliest first; of equals, the lower index first.
pub fn top(probabilities: &[f32], labels: &Labels, count: usize) -> Result<Vec<Prediction>, VisionError> {
    labels.check(probabilities.len())?;
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|left, right| probabilities[*right].total_cmp(&probabilities[*left]).then(left.cmp(right)));
    let prediction =
        |index: usize| Prediction { index, label: Arc::clone(&labels.0[index]), probability: probabilities[index] };
    Ok(order.into_iter().take(count).map(prediction).collect())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::image::Preprocess;

    #[test]
    fn logits_become_ordered_probabilities() {
        let logits = Tensor::new(&[[0f32, 2., 1.], [1000., 0., 1000.]], &Device::Cpu).unwrap();
        let rows = probabilities(&Heads::Classes(logits)).unwrap();
        let labels = Labels::parse("cat\ndog\nbird\n\n").unwrap();
        let first = top(&rows[0], &labels, 2).unwrap();
        assert_eq!(first.iter().map(|p| (p.index, &*p.label)).collect::<Vec<_>>(), [(1, "dog"), (2, "bird")]);
        assert!((first[0].probability - 0.665_240_9).abs() < 1e-6);
        let tied = top(&rows[1], &labels, 9).unwrap();
        assert_eq!(tied.iter().map(|p| p.index).collect::<Vec<_>>(), [0, 2, 1], "large logits do not overflow");
    }

    #[test]
    fn damaged_weights_do_not_become_predictions() {
        let logits = Tensor::new(&[[f32::NAN, 1.]], &Device::Cpu).unwrap();
        assert!(matches!(probabilities(&Heads::Classes(logits)), Err(VisionError::NotFinite)));
    }

    #[test]
    fn candidates_become_detections_in_the_picture() {
        let section = r#"{ "size": [100, 100], "resize": { "letterbox": 114 } }"#;
        let frame = serde_json::from_str::<Preprocess>(section).unwrap().frame(200, 100).unwrap();
        let seen = Candidates {
            corners: vec![[10., 10., 30., 30.], [11., 10., 30., 30.], [10., 60., 30., 90.], [-5., 40., 50., 60.]],
            scores: vec![0., 0.8, 0., 0.9, 0., 0.9, 0., 0.4],
            classes: 2,
        };
        let heads = Heads::Boxes(vec![seen]);
        let labels = Labels::parse("background\nface").unwrap();
        let image = &candidates(&heads).unwrap()[0];
        let found = detections(image, &frame, &labels, &DetectOptions::default()).unwrap();
        let read: Vec<_> = found.iter().map(|found| (found.class, &*found.label, found.score, found.corners)).collect();
        assert_eq!(read, [(1, "face", 0.9, [22., 20., 60., 60.]), (1, "face", 0.4, [0., 80., 100., 100.])]);
        let three = Labels::parse("a\nb\nc").unwrap();
        assert!(detections(image, &frame, &three, &DetectOptions::default()).is_err());
    }

    #[test]
    fn a_head_is_not_read_as_another() {
        let boxes =
            |score| Heads::Boxes(vec![Candidates { corners: vec![[0., 0., 1., 1.]], scores: vec![score], classes: 1 }]);
        assert!(matches!(probabilities(&boxes(0.5)), Err(VisionError::NoProbabilities)));
        assert!(matches!(candidates(&boxes(f32::NAN)), Err(VisionError::NotFinite)));
        let logits = Tensor::new(&[[0f32, 1.]], &Device::Cpu).unwrap();
        assert!(matches!(candidates(&Heads::Classes(logits)), Err(VisionError::NoBoxes)));
    }

    #[test]
    fn labels_must_fit_their_network() {
        let labels = Labels::parse("cat\r\ndog").unwrap();
        assert_eq!(&*labels.all()[0], "cat");
        assert_eq!(labels.check(3).unwrap_err().to_string(), "labels: 2 labels for 3 classes");
        assert!(top(&[0.5, 0.3, 0.2], &labels, 1).is_err());
        assert!(Labels::parse(" \n").is_err());
    }
}
