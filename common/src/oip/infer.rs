//! The question of a model and its answer.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::binary::{self, Encoded};
use super::datatype::Datatype;
use super::error::{OipError, quote};
use super::json::{self, DataText, TensorText};
use super::parameters::Parameters;
use super::tensor::Tensor;

/// The body of `POST /v2/models/{model}/infer`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct InferRequest {
    /// The caller's own name for the request, repeated in the answer.
    pub id: Option<String>,
    /// `timeout`, `priority`, `binary_data_output` and others.
    pub parameters: Parameters,
    /// What the model is given. One of no name comes from a raw request, which cannot say.
    pub inputs: Vec<Tensor>,
    /// Which outputs are wanted and how; all of them where absent.
    pub outputs: Option<Vec<RequestedOutput>>,
}

/// One output that a request asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestedOutput {
    /// The output's name.
    pub name: String,
    /// `binary_data`, `classification` and others.
    #[serde(default, skip_serializing_if = "Parameters::is_empty")]
    pub parameters: Parameters,
}

/// The answer to an [`InferRequest`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct InferResponse {
    /// The model that answered.
    pub model_name: String,
    /// Its version, as a text.
    pub model_version: Option<String>,
    /// The request's id.
    pub id: Option<String>,
    /// What else is said.
    pub parameters: Parameters,
    /// What the model gave.
    pub outputs: Vec<Tensor>,
}

impl InferRequest {
    /// Reads a body, of which the first `header_length` bytes are JSON, or all of it where the header is absent. A
    /// length of zero is a raw request: the whole body is the one element of the one input (of no name, shape `[1]`), and
    /// all outputs are wanted as binary data.
    pub fn parse(body: &Bytes, header_length: Option<usize>) -> Result<Self, OipError> {
        if header_length == Some(0) {
            let parameters = Parameters::default().with("binary_data_output", true);
            let input = Tensor::bytes("", &[1], vec![body.clone()])?;
            return Ok(Self { id: None, parameters, inputs: vec![input], outputs: None });
        }
        let (json, rest) = binary::split(body, header_length)?;
        let text: RequestText<'_> = serde_json::from_slice(&json).map_err(OipError::Json)?;
        let inputs = read_tensors(text.inputs, &rest)?;
        Ok(Self { id: text.id, parameters: text.parameters, inputs, outputs: text.outputs })
    }

    /// Writes the body, with the inputs behind the JSON where `binary` is true.
    pub fn encode(&self, binary: bool) -> Result<Encoded, OipError> {
        let json = RequestJson {
            id: self.id.as_deref(),
            parameters: &self.parameters,
            inputs: self.inputs.iter().map(|tensor| TensorJson::new(tensor, binary)).collect(),
            outputs: self.outputs.as_deref(),
        };
        let json = serde_json::to_vec(&json).map_err(OipError::Write)?;
        encode(json, &self.inputs, |_| binary)
    }

    /// Whether an output is wanted as binary data: as it says itself, or as the request says of all.
    pub fn wants_binary(&self, output: &str) -> Result<bool, OipError> {
        let own = self.requested(output).map(|output| output.parameters.binary_data()).transpose()?.flatten();
        Ok(own.or(self.parameters.binary_data_output()?).unwrap_or(false))
    }

    /// Whether the answer should have this output.
    pub fn wants(&self, output: &str) -> bool {
        self.outputs.as_ref().is_none_or(|outputs| outputs.is_empty()) || self.requested(output).is_some()
    }

    /// What was said of an output, if it was named.
    pub fn requested(&self, output: &str) -> Option<&RequestedOutput> {
        self.outputs.iter().flatten().find(|requested| requested.name == output)
    }
}

impl InferResponse {
    /// Reads a body, of which the first `header_length` bytes are JSON, or all of it where the header is absent.
    pub fn parse(body: &Bytes, header_length: Option<usize>) -> Result<Self, OipError> {
        let (json, rest) = binary::split(body, header_length)?;
        let text: ResponseText<'_> = serde_json::from_slice(&json).map_err(OipError::Json)?;
        let outputs = read_tensors(text.outputs, &rest)?;
        Ok(Self {
            model_name: text.model_name,
            model_version: text.model_version,
            id: text.id,
            parameters: text.parameters,
            outputs,
        })
    }

    /// Writes the body, with those outputs behind the JSON of which `binary` says so.
    pub fn encode(&self, binary: impl Fn(&str) -> bool) -> Result<Encoded, OipError> {
        let json = ResponseJson {
            model_name: &self.model_name,
            model_version: self.model_version.as_deref(),
            id: self.id.as_deref(),
            parameters: &self.parameters,
            outputs: self.outputs.iter().map(|tensor| TensorJson::new(tensor, binary(tensor.name()))).collect(),
        };
        let json = serde_json::to_vec(&json).map_err(OipError::Write)?;
        encode(json, &self.outputs, |tensor| binary(tensor.name()))
    }

    /// The output of this name.
    pub fn output(&self, name: &str) -> Option<&Tensor> {
        self.outputs.iter().find(|output| output.name() == name)
    }
}

fn encode(json: Vec<u8>, tensors: &[Tensor], binary: impl Fn(&Tensor) -> bool) -> Result<Encoded, OipError> {
    if let Some(tensor) = tensors.iter().find(|tensor| !binary::is_writable(tensor.data())) {
        return Err(OipError::Shape { name: quote(tensor.name()), limit: "an element of 4 GiB" });
    }
    let behind: Vec<_> = tensors.iter().filter(|tensor| binary(tensor)).map(Tensor::data).collect();
    Ok(binary::join(json, behind.into_iter()))
}

/// The tensors of a message, whose binary data is `rest` in their order, exactly.
fn read_tensors(texts: Vec<TensorText<'_>>, rest: &Bytes) -> Result<Vec<Tensor>, OipError> {
    let mut used = 0_usize;
    let mut tensors = Vec::with_capacity(texts.len());
    for TensorText { name, datatype, shape, mut parameters, data } in texts {
        let data = match (data, parameters.take_binary_data_size()?) {
            (Some(text), None) => json::read(&name, datatype, &shape, text)?,
            (None, Some(size)) => {
                let end = used.saturating_add(size);
                if end > rest.len() {
                    return Err(OipError::Binary { wanted: end, found: rest.len() });
                }
                let bytes = rest.slice(used..end);
                used = end;
                binary::read(&name, datatype, &shape, bytes)?
            }
            (Some(_), Some(_)) | (None, None) => return Err(OipError::Data { name: quote(&name) }),
        };
        tensors.push(Tensor::new(name, datatype, shape, parameters, data)?);
    }
    if used != rest.len() {
        return Err(OipError::Binary { wanted: used, found: rest.len() });
    }
    Ok(tensors)
}

#[derive(Deserialize)]
struct RequestText<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow, deserialize_with = "json::bounded")]
    inputs: Vec<TensorText<'a>>,
    #[serde(default, deserialize_with = "json::bounded_option")]
    outputs: Option<Vec<RequestedOutput>>,
}

#[derive(Deserialize)]
struct ResponseText<'a> {
    model_name: String,
    #[serde(default)]
    model_version: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow, deserialize_with = "json::bounded")]
    outputs: Vec<TensorText<'a>>,
}

#[derive(Serialize)]
struct RequestJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    parameters: &'a Parameters,
    inputs: Vec<TensorJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<&'a [RequestedOutput]>,
}

#[derive(Serialize)]
struct ResponseJson<'a> {
    model_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    parameters: &'a Parameters,
    outputs: Vec<TensorJson<'a>>,
}

#[derive(Serialize)]
struct TensorJson<'a> {
    name: &'a str,
    datatype: Datatype,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    parameters: Parameters,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<DataText<'a>>,
}

impl<'a> TensorJson<'a> {
    fn new(tensor: &'a Tensor, binary: bool) -> Self {
        let mut parameters = tensor.parameters().clone();
        if binary {
            parameters.set("binary_data_size", binary::size(tensor.data()));
        }
        let data = (!binary).then_some(DataText(tensor));
        Self { name: tensor.name(), datatype: tensor.datatype(), shape: tensor.shape(), parameters, data }
    }
}

/// One class of a `classification` output, which travels as the text `VALUE:INDEX` or `VALUE:INDEX:LABEL`.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// How sure the model is; a probability where it gives those.
    pub value: f32,
    /// The class's number, from 0.
    pub index: usize,
    /// What it is called.
    pub label: Option<String>,
}

impl fmt::Display for Classification {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.value, self.index)?;
        self.label.as_ref().map_or(Ok(()), |label| write!(out, ":{label}"))
    }
}

impl FromStr for Classification {
    type Err = OipError;
    fn from_str(text: &str) -> Result<Self, OipError> {
        // A label may have colons of its own.
        let mut parts = text.splitn(3, ':');
        let value = parts.next().and_then(|value| value.parse().ok());
        let index = parts.next().and_then(|index| index.parse().ok());
        match (value, index) {
            (Some(value), Some(index)) => Ok(Self { value, index, label: parts.next().map(str::to_owned) }),
            _ => Err(OipError::Classification(quote(text))),
        }
    }
}

impl Classification {
    /// The classes of an output that was asked for with `classification`, row by row.
    pub fn read(output: &Tensor) -> Result<Vec<Self>, OipError> {
        output.to_elements()?.iter().map(|element| String::from_utf8_lossy(element).parse()).collect()
    }
}
