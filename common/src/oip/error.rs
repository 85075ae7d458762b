//! What can be wrong with a message of the protocol, and how the protocol says so.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong, for a person.
    pub error: String,
}

/// Why bytes are no message of the protocol, or a message cannot be written. All but [`OipError::Write`] are the sender's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OipError {
    /// The JSON is not JSON or not the message it should be.
    #[error("the JSON of the message is wrong: {}", brief(.0))]
    Json(#[source] serde_json::Error),
    /// The header that says where the JSON ends is not a number.
    #[error("inference-header-content-length must be a whole number")]
    HeaderLength,
    /// The JSON should be longer than the body.
    #[error("inference-header-content-length says {length}, but the body has {body} bytes")]
    HeaderBeyondBody {
        /// What the header says.
        length: usize,
        /// What there is.
        body: usize,
    },
    /// A datatype that the protocol does not have.
    #[error("{0:?} is not a datatype of the protocol")]
    Datatype(String),
    /// A shape with too many dimensions or elements.
    #[error("tensor {name:?} has a shape beyond the limits: {limit}")]
    Shape {
        /// Which tensor.
        name: String,
        /// What the limit is.
        limit: &'static str,
    },
    /// Shape, datatype and data do not agree.
    #[error("tensor {name:?} needs {wanted} by its shape and datatype, but has {found}")]
    Size {
        /// Which tensor.
        name: String,
        /// What shape and datatype ask for.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// A tensor has neither data nor a binary size, or both.
    #[error("tensor {name:?} must have either data or the parameter binary_data_size")]
    Data {
        /// Which tensor.
        name: String,
    },
    /// The JSON data of a tensor does not fit its datatype or shape.
    #[error("the data of tensor {name:?} is wrong: {}", brief(.source))]
    Values {
        /// Which tensor.
        name: String,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// Bytes behind the JSON belong to no tensor, or are missing.
    #[error("{found} bytes follow the JSON, but its tensors have {wanted}")]
    Binary {
        /// The sum of the tensors' binary sizes, or at least so much of it as was read.
        wanted: usize,
        /// What follows the JSON.
        found: usize,
    },
    /// The elements of a BYTES tensor are cut off.
    #[error("element {index} of tensor {name:?} is longer than what is left of its bytes")]
    Element {
        /// Which tensor.
        name: String,
        /// Which element.
        index: usize,
    },
    /// A parameter has a value of another kind.
    #[error("parameter {name:?} must be {wanted}")]
    Parameter {
        /// Which parameter.
        name: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// A tensor is of another datatype than the one it was asked for.
    #[error("tensor {name:?} has datatype {found}, not {wanted}")]
    Unlike {
        /// Which tensor.
        name: String,
        /// What was asked for.
        wanted: &'static str,
        /// What it has.
        found: &'static str,
    },
    /// Neither `VALUE:INDEX` nor `VALUE:INDEX:LABEL`.
    #[error("{0:?} is not a classification such as \"0.97:7:seven\"")]
    Classification(String),
    /// The message cannot be written as asked, such as a NaN as JSON.
    #[error("cannot write the message: {}", brief(.0))]
    Write(#[source] serde_json::Error),
}

/// As much of a foreign text as a person would read in an error.
pub(super) fn quote(text: &str) -> String {
    text.chars().take(80).collect()
}

/// The start of what the JSON reader says: it quotes a text that stands in the wrong place as a whole, megabytes if need be.
fn brief(error: &serde_json::Error) -> String {
    struct Start(String);

    impl std::fmt::Write for Start {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            let left = 200_usize.saturating_sub(self.0.chars().count());
            self.0.extend(text.chars().take(left));
            Ok(())
        }
    }

    let mut start = Start(String::new());
    // invariant: writing to a String cannot fail.
    let _ = write!(start, "{error}");
    start.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_text_in_the_wrong_place_is_not_quoted_as_a_whole() {
        let text = format!("{:?}", "x".repeat(1 << 20));
        let error = OipError::Json(serde_json::from_str::<u32>(&text).unwrap_err()).to_string();
        assert!(error.contains("invalid type: string \"xxx"), "{error}");
        assert!(error.len() < 300, "{}", error.len());
    }
}
