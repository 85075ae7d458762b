//! The protocol's messages over gRPC, to and from the same types that JSON is read into.

use std::collections::HashMap;

use adit_common::oip::{Datatype, InferRequest, InferResponse, OipError, Parameters, RequestedOutput, Tensor};
use adit_proto::inference as proto;
use bytes::{BufMut as _, Bytes, BytesMut};
use proto::infer_parameter::ParameterChoice;
use serde_json::Value;

use super::ask::invalid;
use crate::error::InferError;

/// How many parameters a message may have, of each tensor and of its own.
const MAX_PARAMETERS: usize = 64;

/// How many tensors; a model takes one.
const MAX_TENSORS: usize = 64;

/// Reads a request.
pub(super) fn request(message: proto::ModelInferRequest) -> Result<InferRequest, InferError> {
    let proto::ModelInferRequest { id, parameters: named, inputs, outputs, raw_input_contents, .. } = message;
    if inputs.len() > MAX_TENSORS || outputs.len() > MAX_TENSORS {
        return Err(InferError::Invalid(format!("more than {MAX_TENSORS} tensors")));
    }
    if !raw_input_contents.is_empty() && raw_input_contents.len() != inputs.len() {
        let message = format!(
            "raw_input_contents has {} elements for {} inputs: either one for each, or contents in all",
            raw_input_contents.len(),
            inputs.len()
        );
        return Err(InferError::Invalid(message));
    }
    let mut raw = raw_input_contents.into_iter();
    let inputs = inputs.into_iter().map(|input| tensor(input, raw.next())).collect::<Result<_, _>>()?;
    let requested = |output: proto::model_infer_request::InferRequestedOutputTensor| {
        Ok(RequestedOutput { name: output.name, parameters: parameters(output.parameters)? })
    };
    let outputs = outputs.into_iter().map(requested).collect::<Result<Vec<_>, InferError>>()?;
    Ok(InferRequest {
        id: (!id.is_empty()).then_some(id),
        parameters: parameters(named)?,
        inputs,
        outputs: (!outputs.is_empty()).then_some(outputs),
    })
}

fn tensor(input: proto::model_infer_request::InferInputTensor, raw: Option<Bytes>) -> Result<Tensor, InferError> {
    let datatype: Datatype = input.datatype.parse().map_err(invalid)?;
    let length = |length: &i64| {
        usize::try_from(*length)
            .map_err(|_| InferError::Invalid(format!("a shape has a length of {length}, which nothing has")))
    };
    let shape = input.shape.iter().map(length).collect::<Result<Vec<_>, _>>()?;
    let parameters = parameters(input.parameters)?;
    let data = match (raw, input.contents) {
        (Some(raw), None) => raw,
        (None, Some(contents)) => typed(datatype, contents),
        (Some(raw), Some(contents)) if contents == proto::InferTensorContents::default() => raw,
        (Some(_), Some(_)) => {
            return Err(InferError::Invalid("an input has contents, but raw_input_contents is there too".to_owned()));
        }
        (None, None) => Bytes::new(),
    };
    Tensor::raw(&input.name, datatype, &shape, parameters, data).map_err(invalid)
}

/// Typed contents as the bytes that they would be in `raw_input_contents`. Of a datatype that has no field of its own,
/// nothing.
fn typed(datatype: Datatype, contents: proto::InferTensorContents) -> Bytes {
    let mut out = BytesMut::new();
    match datatype {
        Datatype::Bool => contents.bool_contents.iter().for_each(|value| out.put_u8(u8::from(*value))),
        // Narrow numbers travel in wide fields: what does not fit is cut, as Triton cuts it.
        Datatype::Int8 => contents.int_contents.iter().for_each(|value| out.put_i8(*value as i8)),
        Datatype::Int16 => contents.int_contents.iter().for_each(|value| out.put_i16_le(*value as i16)),
        Datatype::Int32 => contents.int_contents.iter().for_each(|value| out.put_i32_le(*value)),
        Datatype::Int64 => contents.int64_contents.iter().for_each(|value| out.put_i64_le(*value)),
        Datatype::Uint8 => contents.uint_contents.iter().for_each(|value| out.put_u8(*value as u8)),
        Datatype::Uint16 => contents.uint_contents.iter().for_each(|value| out.put_u16_le(*value as u16)),
        Datatype::Uint32 => contents.uint_contents.iter().for_each(|value| out.put_u32_le(*value)),
        Datatype::Uint64 => contents.uint64_contents.iter().for_each(|value| out.put_u64_le(*value)),
        Datatype::Fp32 => contents.fp32_contents.iter().for_each(|value| out.put_f32_le(*value)),
        Datatype::Fp64 => contents.fp64_contents.iter().for_each(|value| out.put_f64_le(*value)),
        Datatype::Bytes => {
            for element in &contents.bytes_contents {
                // A message is far shorter than 4 GiB.
                out.put_u32_le(element.len() as u32);
                out.put_slice(element);
            }
        }
        Datatype::Fp16 | Datatype::Bf16 => {}
    }
    out.freeze()
}

fn parameters(from: HashMap<String, proto::InferParameter>) -> Result<Parameters, InferError> {
    if from.len() > MAX_PARAMETERS {
        return Err(InferError::Invalid(format!("more than {MAX_PARAMETERS} parameters")));
    }
    let mut parameters = Parameters::default();
    for (name, value) in from {
        let value = match value.parameter_choice {
            Some(ParameterChoice::BoolParam(value)) => Value::from(value),
            Some(ParameterChoice::Int64Param(value)) => Value::from(value),
            Some(ParameterChoice::Uint64Param(value)) => Value::from(value),
            Some(ParameterChoice::DoubleParam(value)) => Value::from(value),
            Some(ParameterChoice::StringParam(value)) => Value::from(value),
            None => continue,
        };
        parameters.set(&name, value);
    }
    Ok(parameters)
}

/// Writes an answer: all of its data raw, as every client reads it.
pub(super) fn response(answer: InferResponse) -> Result<proto::ModelInferResponse, OipError> {
    let mut outputs = Vec::with_capacity(answer.outputs.len());
    let mut raw = Vec::with_capacity(answer.outputs.len());
    for output in &answer.outputs {
        outputs.push(proto::model_infer_response::InferOutputTensor {
            name: output.name().to_owned(),
            datatype: output.datatype().name().to_owned(),
            shape: output.shape().iter().map(|length| *length as i64).collect(),
            ..Default::default()
        });
        raw.push(output.to_raw()?);
    }
    Ok(proto::ModelInferResponse {
        model_name: answer.model_name,
        model_version: answer.model_version.unwrap_or_default(),
        id: answer.id.unwrap_or_default(),
        parameters: HashMap::new(),
        outputs,
        raw_output_contents: raw,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, datatype: &str, shape: &[i64]) -> proto::model_infer_request::InferInputTensor {
        proto::model_infer_request::InferInputTensor {
            name: name.into(),
            datatype: datatype.into(),
            shape: shape.into(),
            ..Default::default()
        }
    }

    fn asked(inputs: Vec<proto::model_infer_request::InferInputTensor>, raw: Vec<Bytes>) -> proto::ModelInferRequest {
        proto::ModelInferRequest { inputs, raw_input_contents: raw, ..Default::default() }
    }

    #[test]
    fn typed_and_raw_contents_are_the_same_tensor() {
        let mut typed = input("input", "FP32", &[2]);
        typed.contents = Some(proto::InferTensorContents { fp32_contents: vec![1.5, -2.0], ..Default::default() });
        let raw: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let raw = request(asked(vec![input("input", "FP32", &[2])], vec![raw.into()])).unwrap();
        assert_eq!(request(asked(vec![typed], vec![])).unwrap().inputs, raw.inputs);

        let mut typed = input("image", "BYTES", &[1, 1]);
        let contents =
            proto::InferTensorContents { bytes_contents: vec![Bytes::from_static(b"GIF89a")], ..Default::default() };
        typed.contents = Some(contents);
        let read = request(asked(vec![typed], vec![])).unwrap();
        assert_eq!(read.inputs[0].to_elements().unwrap(), [&b"GIF89a"[..]]);
    }

    #[test]
    fn what_does_not_agree_is_refused() {
        for (message, because) in [
            (asked(vec![input("input", "FP32", &[2])], vec![Bytes::new()]), "needs 8 bytes"),
            (asked(vec![input("input", "FP32", &[-1])], vec![]), "a length of -1"),
            (asked(vec![input("input", "FP31", &[1])], vec![]), "\"FP31\" is not a datatype"),
            (asked(vec![input("input", "FP32", &[1])], vec![Bytes::new(), Bytes::new()]), "2 elements for 1 inputs"),
            (asked(vec![input("image", "BYTES", &[1])], vec![Bytes::from_static(b"\xff\0\0\0x")]), "element"),
        ] {
            let error = request(message).unwrap_err().to_string();
            assert!(error.contains(because), "{error}");
        }
    }

    #[test]
    fn parameters_keep_their_kinds() {
        let choice = |choice| proto::InferParameter { parameter_choice: Some(choice) };
        let mut message = asked(vec![], vec![]);
        message.parameters.insert("timeout".into(), choice(ParameterChoice::Int64Param(5_000)));
        message.parameters.insert("priority".into(), choice(ParameterChoice::Uint64Param(1)));
        let read = request(message).unwrap();
        assert_eq!(read.parameters.timeout().unwrap(), Some(std::time::Duration::from_millis(5)));
        assert_eq!(read.parameters.priority().unwrap(), 1);
    }
}
