//! Requests as the tests send them.

use adit_common::oip::{HEADER_LENGTH, InferRequest, Tensor};
use adit_e2e::{Body, full};
use anyhow::Result;
use base64::Engine as _;
use bytes::Bytes;
use http::Request;

/// Where a model is asked.
pub(crate) fn infer_path(model: &str) -> String {
    format!("/v2/models/{model}/infer")
}

/// An image as the whole body.
pub(crate) fn raw(model: &str, image: impl Into<Bytes>) -> Request<Body> {
    raw_body(model, full(image))
}

/// As [`raw`], in whatever pieces.
pub(crate) fn raw_body(model: &str, body: Body) -> Request<Body> {
    Request::post(infer_path(model)).header("content-type", "image/png").body(body).unwrap()
}

/// An image in base64 within JSON.
pub(crate) fn json(model: &str, image: &[u8]) -> Request<Body> {
    let text = base64::engine::general_purpose::STANDARD.encode(image);
    let body =
        serde_json::json!({ "inputs": [{ "name": "image", "datatype": "BYTES", "shape": [1, 1], "data": [text] }] });
    Request::post(infer_path(model)).header("content-type", "application/json").body(full(body.to_string())).unwrap()
}

/// An image by the binary extension.
pub(crate) fn binary(model: &str, image: impl Into<Bytes>) -> Result<Request<Body>> {
    let input = Tensor::bytes("image", &[1], vec![image.into()])?;
    let encoded = InferRequest { inputs: vec![input], ..InferRequest::default() }.encode(true)?;
    let request = Request::post(infer_path(model)).header("content-type", "application/octet-stream");
    let request = request.header(HEADER_LENGTH, encoded.header_length.unwrap_or_default());
    Ok(request.body(full(encoded.body))?)
}

/// A prepared input of one number: what a stand-in looks at.
pub(crate) fn prepared(model: &str, number: f32) -> Request<Body> {
    let body = serde_json::json!({ "inputs": [{ "name": "input", "datatype": "FP32", "shape": [1, 1, 1, 1], "data": [number] }] });
    Request::post(infer_path(model)).header("content-type", "application/json").body(full(body.to_string())).unwrap()
}

/// A request without a body.
pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).body(full("")).unwrap()
}

/// The class of the largest probability.
pub(crate) fn largest(row: &[f32]) -> usize {
    (0..row.len()).max_by(|one, two| row[*one].total_cmp(&row[*two])).unwrap()
}
