//! AdamW, whose state can be stored and taken up again.
//!
//! Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2017). Why not candle's own: it shows its moments to
//! nobody, and training that goes on without them is another training. The arithmetic is candle's to the bit.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use crate::error::VisionError;

/// How much of the first and of the second moment is kept at each step; what keeps a division from being one by zero; by
/// how much weights shrink: the values that the paper, PyTorch and candle have.
const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;
const DECAY: f64 = 0.01;

/// Something that is learned, with what the optimiser remembers of it.
#[derive(Debug)]
pub(crate) struct Learned {
    /// Name of its tensor.
    pub(crate) name: String,
    /// Shared with the network, which sees every change.
    pub(crate) value: Var,
    /// Running mean of its gradient, in its shape.
    pub(crate) first: Tensor,
    /// Running mean of its gradient's square, in its shape.
    pub(crate) second: Tensor,
}

/// The optimiser.
#[derive(Debug)]
pub(crate) struct AdamW {
    pub(crate) learned: Vec<Learned>,
    /// Steps made.
    pub(crate) steps: usize,
}

impl AdamW {
    pub(crate) fn new(variables: Vec<(String, Var)>) -> Result<Self, VisionError> {
        let fresh = |(name, value): (String, Var)| {
            let moment = value.as_tensor().zeros_like()?;
            Ok(Learned { name, value, first: moment.clone(), second: moment })
        };
        Ok(Self { learned: variables.into_iter().map(fresh).collect::<Result<_, VisionError>>()?, steps: 0 })
    }

    /// Moves everything that is learned along its gradient.
    pub(crate) fn step(&mut self, gradients: &GradStore, rate: f64) -> Result<(), VisionError> {
        self.steps += 1;
        let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let (scale_1, scale_2) = (1.0 / (1.0 - BETA_1.powi(steps)), 1.0 / (1.0 - BETA_2.powi(steps)));
        for Learned { value, first, second, .. } in &mut self.learned {
            let Some(gradient) = gradients.get(value) else { continue };
            let next_first = ((&*first * BETA_1)? + (gradient * (1.0 - BETA_1))?)?.detach();
            let next_second = ((&*second * BETA_2)? + (gradient.sqr()? * (1.0 - BETA_2))?)?.detach();
            let moved = ((&next_first * scale_1)? / ((&next_second * scale_2)?.sqrt()? + EPSILON)?)?;
            let shrunk = (value.as_tensor() * (1.0 - rate * DECAY))?;
            value.set(&(shrunk - (moved * rate)?)?)?;
            (*first, *second) = (next_first, next_second);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use candle_nn::optim::{Optimizer, ParamsAdamW};

    use super::*;

    #[test]
    fn it_is_candles_to_the_bit() {
        let start = Tensor::new(&[[0.3f32, -1.2], [2.5, 0.0]], &Device::Cpu).unwrap();
        let (ours, theirs) = (Var::from_tensor(&start).unwrap(), Var::from_tensor(&start.copy().unwrap()).unwrap());
        let mut our = AdamW::new(vec![("a".to_owned(), ours.clone())]).unwrap();
        let mut their = candle_nn::AdamW::new(vec![theirs.clone()], ParamsAdamW::default()).unwrap();
        let loss = |weights: &Var| (weights.sin().unwrap() * 3.0).unwrap().sqr().unwrap().sum_all().unwrap();
        for step in 1..=50 {
            let rate = 0.05 / f64::from(step);
            our.step(&loss(&ours).backward().unwrap(), rate).unwrap();
            their.set_learning_rate(rate);
            their.backward_step(&loss(&theirs)).unwrap();
            assert_eq!(ours.to_vec2::<f32>().unwrap(), theirs.to_vec2::<f32>().unwrap(), "step {step}");
        }
        assert_ne!(ours.to_vec2::<f32>().unwrap(), start.to_vec2::<f32>().unwrap());
    }
}
