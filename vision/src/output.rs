//! From heads to what a person reads: the likeliest classes with their labels.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use candle_core::{D, DType};

use crate::error::VisionError;
use crate::network::Heads;

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

    /// All labels, in order of their classes.
    #[must_use]
    pub fn all(&self) -> &[Arc<str>] {
        &self.0
    }
}

/// Probabilities of all classes, one row an image: softmax over the logits.
pub fn probabilities(heads: &Heads) -> Result<Vec<Vec<f32>>, VisionError> {
    let Heads::Classes(logits) = heads;
    let rows = candle_nn::ops::softmax(&logits.to_dtype(DType::F32)?, D::Minus1)?.to_vec2::<f32>()?;
    if rows.iter().flatten().any(|probability| !probability.is_finite()) {
        return Err(VisionError::NotFinite);
    }
    Ok(rows)
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
    fn labels_must_fit_their_network() {
        let labels = Labels::parse("cat\r\ndog").unwrap();
        assert_eq!(&*labels.all()[0], "cat");
        assert_eq!(labels.check(3).unwrap_err().to_string(), "labels: 2 labels for 3 classes");
        assert!(top(&[0.5, 0.3, 0.2], &labels, 1).is_err());
        assert!(Labels::parse(" \n").is_err());
    }
}
