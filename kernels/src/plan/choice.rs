//! How one convolution is computed, where there is a choice.

use std::fmt;
use std::str::FromStr;

use crate::error::KernelError;

/// How a convolution over all channels is computed. The number of blocks changes how long it takes and not one bit of the
/// result; Winograd's way changes the last bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Choice {
    /// As it is written down.
    Direct {
        /// Blocks of output channels at a time, 1 to 4.
        blocks: usize,
    },
    /// By Winograd's way, for kernels of 3 x 3 with stride 1.
    Winograd {
        /// Outputs along a tile's side, 2 or 4.
        tile: usize,
    },
}

/// `direct:2`, `winograd:4`.
impl fmt::Display for Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct { blocks } => write!(formatter, "direct:{blocks}"),
            Self::Winograd { tile } => write!(formatter, "winograd:{tile}"),
        }
    }
}

impl FromStr for Choice {
    type Err = KernelError;

    fn from_str(text: &str) -> Result<Self, KernelError> {
        let number = |number: &str| number.parse().ok();
        let choice = match text.split_once(':') {
            Some(("direct", blocks)) => number(blocks).map(|blocks| Self::Direct { blocks }),
            Some(("winograd", tile)) => number(tile).map(|tile| Self::Winograd { tile }),
            _ => None,
        };
        choice.ok_or_else(|| KernelError::ChoiceName(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_back() {
        for choice in [Choice::Direct { blocks: 3 }, Choice::Winograd { tile: 4 }] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        for text in ["", "direct", "direct:", "direct:x", "winograd:-1", "fft:2"] {
            assert_eq!(text.parse::<Choice>(), Err(KernelError::ChoiceName(text.to_owned())));
        }
    }
}
