//! How a network's layers are run: in which type, and by whose loops.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::precision::Precision;

/// Whether the fused kernels of `adit-kernels` run a network, or candle's operations, one a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kernels {
    /// Where there are some: for graphs of our own layers, in f32, on a processor.
    #[default]
    Auto,
    /// Nowhere: candle's operations are slower, and are what the kernels are held against.
    Off,
}

impl fmt::Display for Kernels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Auto => "auto",
            Self::Off => "off",
        })
    }
}

/// What may be chosen of how a network is run: the defaults are right wherever nobody says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Execution {
    /// The type of weights and of what flows between layers.
    pub precision: Precision,
    /// Whose loops.
    pub kernels: Kernels,
}

impl From<Precision> for Execution {
    fn from(precision: Precision) -> Self {
        Self { precision, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_on_unless_somebody_says_otherwise() {
        assert_eq!(Execution::default(), Execution { precision: Precision::F32, kernels: Kernels::Auto });
        for kernels in [Kernels::Auto, Kernels::Off] {
            assert_eq!(serde_json::from_str::<Kernels>(&format!("\"{kernels}\"")).unwrap(), kernels);
        }
        let error = serde_json::from_str::<Kernels>("\"on\"").unwrap_err().to_string();
        assert!(error.contains("expected `auto` or `off`"), "{error}");
    }
}
