//! What can go wrong in an agent: with one inference, and with the whole program.
//!
//! [`InferError`] knows no HTTP: each dialect spells it in its own file. Its text is for the caller and names no file; what
//! an operator needs is in a second field, for the log.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use adit_certs::CertsError;
use adit_common::id::{ModelName, Version, VersionLabel};
use adit_common::tunnel::TunnelError;
use adit_vision::{DeviceFault, VisionError};

/// Why an inference gave no answer. The text may be shown to the caller.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// No such model, or no such version of it.
    #[error("unknown model `{model}`{}", version.map(|number| format!(", version {number}")).unwrap_or_default())]
    NotFound {
        /// The model that was asked for, as it was written.
        model: String,
        /// The version, if one was asked for.
        version: Option<Version>,
    },
    /// No version of the model is called so.
    #[error("model `{model}` has no version labelled `{label}`")]
    NoLabel {
        /// The model that was asked for.
        model: ModelName,
        /// The label.
        label: VersionLabel,
    },
    /// The model needs more memory than all models together may take.
    #[error("model `{model}` does not fit into the memory that models may take")]
    NoMemory {
        /// The model that was asked for.
        model: ModelName,
    },
    /// The model is known but cannot be asked just now.
    #[error("model `{model}` is not ready: {reason}")]
    NotReady {
        /// The model that was asked for.
        model: ModelName,
        /// Loading, or not to be loaded.
        reason: &'static str,
    },
    /// The request itself is at fault.
    #[error("{0}")]
    Invalid(String),
    /// The queue is full.
    #[error("model `{model}` is overloaded: try again later")]
    Overloaded {
        /// The model whose queue is full.
        model: ModelName,
    },
    /// As far as can be told from what was measured, the answer would come after the deadline: it is not even begun.
    #[error("model `{model}` is too busy to answer in time: it would take {} ms at least", needed.as_millis())]
    TooLate {
        /// The model that is busy.
        model: ModelName,
        /// How long an answer would take.
        needed: Duration,
    },
    /// The time that the caller gave was over before the answer was there.
    #[error("the deadline of the request has passed")]
    DeadlineExceeded,
    /// The caller has gone. Nobody reads this but counters and logs.
    #[error("the request was cancelled")]
    Cancelled,
    /// The model failed.
    #[error("model `{model}` failed: {reason}")]
    Backend {
        /// The model that failed.
        model: ModelName,
        /// What happened, for the caller.
        reason: &'static str,
        /// What happened, for the log.
        detail: String,
    },
}

impl InferError {
    /// The outcome's name in metrics.
    pub const fn outcome(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::NoLabel { .. } => "not_found",
            Self::NotReady { .. } | Self::NoMemory { .. } => "not_ready",
            Self::Invalid(_) => "invalid",
            Self::Overloaded { .. } => "overloaded",
            Self::TooLate { .. } => "too_late",
            Self::DeadlineExceeded => "expired",
            Self::Cancelled => "cancelled",
            Self::Backend { .. } => "failed",
        }
    }
}

/// Why a model was not loaded or unloaded on request. The text names files: it is for whoever may change the agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No such model.
    #[error("unknown model `{0}`")]
    Unknown(ModelName),
    /// It is there, but it cannot be loaded, or not all of it.
    #[error("model `{model}` cannot be loaded: {reason}")]
    Failed {
        /// The model.
        model: ModelName,
        /// What is wrong with it, version by version.
        reason: String,
    },
    /// Too many such requests wait, or the agent stops.
    #[error("the agent takes no such request just now")]
    Busy,
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The configuration contradicts itself or lacks something.
    #[error("{0}")]
    Config(String),
    /// The agent's certificate, its key or the authority.
    #[error("the agent's identity cannot be used")]
    Identity(#[from] CertsError),
    /// The UDP socket of the tunnels.
    #[error("cannot set up the tunnel")]
    Tunnel(#[from] TunnelError),
    /// A local address is not to be had.
    #[error("cannot listen on {address} ({purpose})")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What was to be served there.
        purpose: &'static str,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A GPU that was asked for is not to be had.
    #[error(transparent)]
    Device(VisionError),
    /// The folder of models cannot be read.
    #[error("cannot read the models folder {}", path.display())]
    Models {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl AgentError {
    /// A device could not be opened. What the program or the machine lacks is there at no other start, until somebody mends it;
    /// a GPU may be, which the driver finds late.
    pub(crate) fn device(error: VisionError) -> Self {
        match error {
            VisionError::Device { reason: DeviceFault::NoGpu | DeviceFault::Other(_), .. } => Self::Device(error),
            error => Self::Config(error.to_string()),
        }
    }
}
