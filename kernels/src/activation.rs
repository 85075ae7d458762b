//! What is applied to each element.

/// An activation. A NaN stays one: damaged weights are to be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Activation {
    /// x.
    #[default]
    Identity,
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// x, or this many times x below zero.
    Leaky(f32),
    /// 1 / (1 + exp(-x)).
    Sigmoid,
    /// x / (1 + exp(-x)).
    Silu,
    /// min(max(x + 3, 0), 6) / 6.
    HardSigmoid,
    /// x min(max(x + 3, 0), 6) / 6.
    HardSwish,
}

impl Activation {
    /// The smallest and the largest result, for those that are nothing but bounds.
    pub(crate) const fn bounds(self) -> Option<[f32; 2]> {
        match self {
            Self::Identity => Some([f32::NEG_INFINITY, f32::INFINITY]),
            Self::Relu => Some([0.0, f32::INFINITY]),
            Self::Relu6 => Some([0.0, 6.0]),
            _ => None,
        }
    }

    /// The activation of one number, as it is written down.
    #[must_use]
    pub fn of(self, x: f32) -> f32 {
        let below = |x: f32, high: f32| if x > high { high } else { x };
        let above = |x: f32| if x < 0.0 { 0.0 } else { x };
        match self {
            Self::Identity => x,
            Self::Relu => above(x),
            Self::Relu6 => below(above(x), 6.0),
            Self::Leaky(slope) => {
                if x < 0.0 {
                    slope * x
                } else {
                    x
                }
            }
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::HardSigmoid => below(above(x + 3.0), 6.0) / 6.0,
            Self::HardSwish => x * below(above(x + 3.0), 6.0) / 6.0,
        }
    }
}
