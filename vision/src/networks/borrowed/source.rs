//! Weights as candle-transformers asks for them: by its own names, through a `VarBuilder`.
//!
//! Why more than a lookup: candle-transformers takes many tensors only if they are there, and goes on without. A file
//! that lacks one would give wrong numbers without a word. So what is missing is remembered, unless the network is
//! known to lack it, and so is what was read: a tensor that nobody asked for says that the file is another network's.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::{SimpleBackend, VarBuilder};

use super::family::Spelling;
use crate::error::VisionError;
use crate::weights::Weights;

/// Weights under their published names, and which of them were read.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    weights: &'a Weights,
    device: &'a Device,
    read: Mutex<HashSet<String>>,
}

impl Reader<'_> {
    /// The tensor of this published name, f32, which must have this shape.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, VisionError> {
        let tensor = self.weights.tensor(name, shape, self.device)?;
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Ok(tensor)
    }

    /// Where tensors lie.
    pub(super) fn device(&self) -> &Device {
        self.device
    }
}

/// Answers candle-transformers' questions from weights.
#[derive(Debug)]
pub(super) struct Source<'a> {
    reader: Reader<'a>,
    spelling: Spelling,
    lacks: fn(&str, &[usize]) -> bool,
    /// The first question that had no answer.
    fault: Mutex<Option<VisionError>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(
        weights: &'a Weights,
        device: &'a Device,
        spelling: Spelling,
        lacks: fn(&str, &[usize]) -> bool,
    ) -> Self {
        let reader = Reader { weights, device, read: Mutex::default() };
        Self { reader, spelling, lacks, fault: Mutex::default() }
    }

    /// What candle-transformers reads from.
    pub(super) fn builder(&self) -> VarBuilder<'_> {
        VarBuilder::from_backend(Box::new(Questions(self)), DType::F32, self.reader.device.clone())
    }

    /// What `made` is worth, after all was read: the first fault, or a tensor of the file that nobody asked for.
    pub(super) fn judge<T>(self, made: candle_core::Result<T>) -> Result<T, VisionError> {
        if let Some(fault) = self.fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(fault);
        }
        let made = made?;
        let read = self.reader.read.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.reader.weights.all_read(&read)?;
        Ok(made)
    }

    fn answer(&self, name: &str, shape: &[usize]) -> candle_core::Result<Tensor> {
        // Of a kernel without extent: a layer that this size of the network does not have.
        if shape.contains(&0) || (self.lacks)(name, shape) {
            candle_core::bail!("the network has no tensor {name}");
        }
        (self.spelling)(&self.reader, name, shape).map_err(|fault| {
            let said = candle_core::Error::Msg(fault.to_string());
            self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
            said
        })
    }
}

struct Questions<'a>(&'a Source<'a>);

impl SimpleBackend for Questions<'_> {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, _: &Device) -> candle_core::Result<Tensor> {
        self.0.answer(name, shape.dims())?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("tensor {name} was asked for without a shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        // A network asks for what it needs, and hears when it is not there.
        false
    }
}
