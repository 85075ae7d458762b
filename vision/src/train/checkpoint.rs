//! The state of a training in a file: a safetensors file, so that it can be looked into, and replaced at once, so that a
//! power cut leaves the one before.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorView};

use crate::error::VisionError;
use crate::train::progress::Epoch;
use crate::train::publish::write;
use crate::weights::f32_bytes;

/// What the file says of itself; another layout gets another number.
const FORMAT: &str = "adit training 1";

/// A tensor, and the two moments that the optimiser keeps of it.
const PARTS: [&str; 3] = ["value", "first", "second"];

/// Numbers that an epoch's row of the curve has.
const COLUMNS: usize = 5;

/// Where a training stands.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Each tensor that is learned, with its two moments.
    pub(crate) learned: Vec<(String, [Tensor; 3])>,
    /// Steps that the optimiser has made.
    pub(crate) updates: usize,
    /// How many random numbers have been drawn.
    pub(crate) drawn: u128,
    /// Places of the images, in the order of the last shuffle.
    pub(crate) order: Vec<usize>,
    /// The epochs that are finished.
    pub(crate) curve: Vec<Epoch>,
    /// The best weights so far, as they will be stored; empty before the first epoch is finished.
    pub(crate) best: Vec<u8>,
    /// The epoch that is not finished.
    pub(crate) partial: Partial,
}

/// An epoch that is not finished.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Partial {
    /// Steps made.
    pub(crate) steps: usize,
    /// Sum of the losses of all images.
    pub(crate) losses: f32,
    /// Images read correctly.
    pub(crate) right: usize,
    /// Images seen.
    pub(crate) seen: usize,
}

impl State {
    /// Replaces the file.
    pub(crate) fn write(&self, path: &Path, recipe: &str) -> Result<(), VisionError> {
        let mut contents: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        for (name, tensors) in &self.learned {
            for (part, tensor) in PARTS.iter().zip(tensors) {
                contents.push((format!("{part}/{name}"), Dtype::F32, tensor.dims().to_vec(), f32_bytes(tensor)?));
            }
        }
        // Fewer than 2^32 images: their places fit.
        let order: Vec<u8> = self.order.iter().flat_map(|place| (*place as u32).to_le_bytes()).collect();
        contents.push(("order".to_owned(), Dtype::U32, vec![self.order.len()], order));
        contents.push(("best".to_owned(), Dtype::U8, vec![self.best.len()], self.best.clone()));
        let row = |epoch: &Epoch| {
            let best = f32::from(u8::from(epoch.best));
            [epoch.loss, epoch.accuracy, epoch.held_out_loss, epoch.held_out_accuracy, best]
        };
        let curve: Vec<u8> = self.curve.iter().flat_map(row).flat_map(f32::to_le_bytes).collect();
        contents.push(("curve".to_owned(), Dtype::F32, vec![self.curve.len(), COLUMNS], curve));
        let Partial { steps, losses, right, seen } = self.partial;
        let facts = [
            ("format", FORMAT.to_owned()),
            ("recipe", recipe.to_owned()),
            ("updates", self.updates.to_string()),
            ("drawn", self.drawn.to_string()),
            ("steps", steps.to_string()),
            // By its bits, so that it comes back as it was.
            ("losses", losses.to_bits().to_string()),
            ("right", right.to_string()),
            ("seen", seen.to_string()),
        ];
        let corrupt = |source| VisionError::CorruptWeights { origin: path.display().to_string(), source };
        let views = contents
            .iter()
            .map(|(name, kind, shape, bytes)| Ok((name.as_str(), TensorView::new(*kind, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(corrupt)?;
        let facts = facts.map(|(name, fact)| (name.to_owned(), fact));
        write(path, &safetensors::serialize(views, Some(HashMap::from(facts))).map_err(corrupt)?)
    }

    /// Reads the file, which must be of a training by the same recipe.
    pub(crate) fn read(path: &Path, recipe: &str, epochs: usize) -> Result<Self, VisionError> {
        let bytes = std::fs::read(path).map_err(|source| VisionError::Read { path: path.to_owned(), source })?;
        let refuse = |reason: String| VisionError::Checkpoint { path: path.to_owned(), reason };
        let corrupt = |source| VisionError::CorruptWeights { origin: path.display().to_string(), source };
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(corrupt)?;
        let file = SafeTensors::deserialize(&bytes).map_err(corrupt)?;
        let fact = |name: &str| fact(&metadata, name).ok_or_else(|| refuse(format!("it does not say its `{name}`")));
        if fact("format")? != FORMAT {
            return Err(refuse(format!("it is no checkpoint of the kind `{FORMAT}`")));
        }
        if fact("recipe")? != recipe {
            return Err(refuse(format!(
                "it is of another training: `{}`, and this one is `{recipe}`",
                fact("recipe")?
            )));
        }
        let number = |name: &str| {
            let text = fact(name)?;
            text.parse::<u128>().map_err(|_| refuse(format!("its `{name}` is `{text}`")))
        };
        let count =
            |name: &str| usize::try_from(number(name)?).map_err(|_| refuse(format!("its `{name}` is too large")));
        let words = |name: &str, kind: Dtype| -> Result<Vec<[u8; 4]>, VisionError> {
            let tensor = file.tensor(name).map_err(corrupt)?;
            if tensor.dtype() != kind {
                return Err(refuse(format!("its `{name}` is of the type {:?}", tensor.dtype())));
            }
            Ok(tensor.data().chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]).collect())
        };
        let order = words("order", Dtype::U32)?.into_iter().map(|word| u32::from_le_bytes(word) as usize).collect();
        let numbers: Vec<f32> = words("curve", Dtype::F32)?.into_iter().map(f32::from_le_bytes).collect();
        let curve = numbers.chunks_exact(COLUMNS).zip(1..).map(|(row, epoch)| Epoch {
            epoch,
            epochs,
            loss: row[0],
            accuracy: row[1],
            held_out_loss: row[2],
            held_out_accuracy: row[3],
            best: row[4] > 0.0,
        });
        let mut learned = Vec::new();
        for name in file.names().into_iter().filter_map(|name| name.strip_prefix("value/")) {
            let mut tensors = Vec::with_capacity(PARTS.len());
            for part in PARTS {
                let name = format!("{part}/{name}");
                let shape = file.tensor(&name).map_err(corrupt)?.shape().to_vec();
                let values: Vec<f32> = words(&name, Dtype::F32)?.into_iter().map(f32::from_le_bytes).collect();
                tensors.push(Tensor::from_vec(values, shape, &Device::Cpu)?);
            }
            if let Ok(tensors) = tensors.try_into() {
                learned.push((name.to_owned(), tensors));
            }
        }
        let losses = u32::try_from(number("losses")?).map_err(|_| refuse("its `losses` is too large".to_owned()))?;
        Ok(Self {
            learned,
            updates: count("updates")?,
            drawn: number("drawn")?,
            order,
            curve: curve.collect(),
            best: file.tensor("best").map_err(corrupt)?.data().to_vec(),
            partial: Partial {
                steps: count("steps")?,
                losses: f32::from_bits(losses),
                right: count("right")?,
                seen: count("seen")?,
            },
        })
    }
}

fn fact(metadata: &Metadata, name: &str) -> Option<String> {
    metadata.metadata().as_ref()?.get(name).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let tensor = |start: f32| Tensor::new(&[[start, 0.1], [f32::MIN_POSITIVE, -7.5]], &Device::Cpu).unwrap();
        let epoch = Epoch {
            epoch: 1,
            epochs: 9,
            loss: 0.1,
            accuracy: 0.3,
            held_out_loss: 1.0 / 3.0,
            held_out_accuracy: 0.7,
            best: true,
        };
        State {
            learned: vec![("a.weight".to_owned(), [tensor(1.0), tensor(2.0), tensor(3.0)])],
            updates: 77,
            drawn: u128::from(u64::MAX) + 5,
            order: vec![2, 0, 1],
            curve: vec![epoch, Epoch { epoch: 2, best: false, ..epoch }],
            best: vec![1, 2, 3],
            partial: Partial { steps: 4, losses: 0.1 + 0.2, right: 3, seen: 5 },
        }
    }

    #[test]
    fn all_of_it_comes_back_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/checkpoint");
        let before = state();
        before.write(&path, "a recipe").unwrap();
        let after = State::read(&path, "a recipe", 9).unwrap();
        assert_eq!((after.updates, after.drawn, &after.order), (before.updates, before.drawn, &before.order));
        assert_eq!((&after.curve, &after.best, after.partial), (&before.curve, &before.best, before.partial));
        assert_eq!(after.learned.len(), 1);
        for (one, other) in after.learned[0].1.iter().zip(&before.learned[0].1) {
            assert_eq!(one.to_vec2::<f32>().unwrap(), other.to_vec2::<f32>().unwrap());
        }
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_checkpoint_of_this_training_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        assert!(matches!(State::read(&path, "", 9), Err(VisionError::Read { .. })));
        state().write(&path, "seed 1").unwrap();
        let error = State::read(&path, "seed 2", 9).unwrap_err().to_string();
        assert!(error.contains("`seed 1`, and this one is `seed 2`"), "{error}");
        let bytes = std::fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(State::read(&path, "seed 1", 9).is_err(), "accepted {length} bytes");
        }
        std::fs::write(&path, safetensors::serialize(Vec::<(&str, TensorView<'_>)>::new(), None).unwrap()).unwrap();
        let error = State::read(&path, "seed 1", 9).unwrap_err().to_string();
        assert!(error.contains("does not say its `format`"), "{error}");
    }
}
