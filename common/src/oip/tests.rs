//! Messages as foreign clients write them, and properties of reading and writing.

use bytes::Bytes;
use proptest::prelude::*;

use super::datatype::Datatype;
use super::error::OipError;
use super::infer::{Classification, InferRequest, InferResponse, RequestedOutput};
use super::parameters::Parameters;
use super::tensor::{Tensor, TensorData};

fn parse(text: &str) -> Result<InferRequest, String> {
    InferRequest::parse(&Bytes::copy_from_slice(text.as_bytes()), None).map_err(|error| error.to_string())
}

#[test]
fn a_json_request_is_read_whatever_the_order_of_its_keys() {
    let request = parse(
        r#"{"outputs":[{"name":"probabilities","parameters":{"classification":2}}],"id":"42","unknown":[{}],
            "inputs":[{"data":["abc"],"shape":[1,1],"name":"image","datatype":"BYTES"}],
            "parameters":{"timeout":5000000,"binary_data_output":true}}"#,
    )
    .unwrap();
    assert_eq!(request.id.as_deref(), Some("42"));
    assert_eq!(request.inputs[0].to_elements().unwrap(), [Bytes::from_static(b"abc")]);
    let output = request.requested("probabilities").unwrap();
    assert_eq!(output.parameters.classification().unwrap(), Some(2));
    assert!(request.wants_binary("probabilities").unwrap());
    assert!(request.wants("probabilities") && !request.wants("features"));
}

#[test]
fn an_outputs_own_wish_for_binary_data_wins() {
    let text = r#"{"inputs":[],"parameters":{"binary_data_output":true},
                   "outputs":[{"name":"a","parameters":{"binary_data":false}},{"name":"b"}]}"#;
    let request = parse(text).unwrap();
    assert!(!request.wants_binary("a").unwrap());
    assert!(request.wants_binary("b").unwrap());
    assert!(!parse(r#"{"inputs":[]}"#).unwrap().wants_binary("a").unwrap());
}

#[test]
fn binary_tensors_are_slices_of_the_body_in_order() {
    let json = br#"{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":7}},{"name":"gain","shape":[1],"datatype":"FP32","data":[2]},{"name":"n","shape":[2],"datatype":"INT8","parameters":{"binary_data_size":2}}]}"#;
    let mut body = json.to_vec();
    body.extend_from_slice(b"\x03\0\0\0jpg\x01\xff");
    let body = Bytes::from(body);
    let request = InferRequest::parse(&body, Some(json.len())).unwrap();
    let image = &request.inputs[0].to_elements().unwrap()[0];
    assert_eq!(&image[..], b"jpg");
    assert_eq!(image.as_ptr(), body[json.len() + 4..].as_ptr(), "copied");
    assert_eq!(request.inputs[1].to_floats().unwrap(), [2.0]);
    assert_eq!(request.inputs[2].data(), &TensorData::Numbers(Bytes::from_static(&[1, 0xff])));
    assert!(request.inputs[0].parameters().is_empty(), "the size describes the message, not the tensor");
}

#[test]
fn sizes_must_add_up_exactly() {
    let tensor = |size: &str| {
        format!(
            r#"{{"inputs":[{{"name":"n","shape":[2],"datatype":"INT8","parameters":{{"binary_data_size":{size}}}}}]}}"#
        )
    };
    let read = |size: &str, bytes: &[u8]| {
        let json = tensor(size);
        let body = Bytes::from([json.as_bytes(), bytes].concat());
        InferRequest::parse(&body, Some(json.len())).map_err(|error| error.to_string())
    };
    assert!(read("2", b"ab").is_ok());
    assert_eq!(read("2", b"a").unwrap_err(), "1 bytes follow the JSON, but its tensors have 2");
    assert_eq!(read("2", b"abc").unwrap_err(), "3 bytes follow the JSON, but its tensors have 2");
    assert!(read("3", b"abc").unwrap_err().contains("needs 2 bytes"));
    assert!(read("18446744073709551615", b"abc").is_err());
    assert!(read("-1", b"").is_err());
    assert!(read("2", b"").is_err());
    let body = Bytes::from_static(b"{}");
    assert!(matches!(InferRequest::parse(&body, Some(3)), Err(OipError::HeaderBeyondBody { length: 3, body: 2 })));
}

#[test]
fn a_tensor_needs_data_once() {
    let both =
        r#"{"inputs":[{"name":"n","shape":[0],"datatype":"INT8","data":[],"parameters":{"binary_data_size":0}}]}"#;
    let neither = r#"{"inputs":[{"name":"n","shape":[1],"datatype":"INT8"}]}"#;
    for text in [both, neither] {
        assert!(parse(text).unwrap_err().contains("either data or the parameter binary_data_size"), "{text}");
    }
}

#[test]
fn a_raw_request_is_one_element_of_one_input() {
    let body = Bytes::from_static(b"\xff\xd8 a photo");
    let request = InferRequest::parse(&body, Some(0)).unwrap();
    assert_eq!(request.inputs[0].name(), "");
    assert_eq!(request.inputs[0].to_elements().unwrap(), [body]);
    assert!(request.wants_binary("anything").unwrap());
}

#[test]
fn the_number_of_tensors_is_bounded() {
    let input = r#"{"name":"n","shape":[0],"datatype":"INT8","data":[]}"#;
    let text = |count: usize| format!(r#"{{"inputs":[{}]}}"#, vec![input; count].join(","));
    assert!(parse(&text(64)).is_ok());
    assert!(parse(&text(65)).unwrap_err().contains("more than 64"));
    let outputs = vec![r#"{"name":"o"}"#; 65].join(",");
    assert!(parse(&format!(r#"{{"inputs":[],"outputs":[{outputs}]}}"#)).unwrap_err().contains("more than 64"));
    assert!(parse(r#"{"inputs":[{"name":"n","shape":[-1],"datatype":"INT8","data":[]}]}"#).is_err());
}

#[test]
fn an_answer_mixes_json_and_binary_outputs() {
    let classes = vec![Bytes::from_static(b"0.5:7:seven")];
    let response = InferResponse {
        model_name: "digits".into(),
        model_version: Some("1".into()),
        outputs: vec![
            Tensor::bytes("classes", &[1, 1], classes).unwrap(),
            Tensor::floats("probabilities", &[1, 2], &[0.5, 0.25]).unwrap(),
        ],
        ..InferResponse::default()
    };
    let encoded = response.encode(|name| name == "probabilities").unwrap();
    let length = encoded.header_length.unwrap();
    let json = r#"{"model_name":"digits","model_version":"1","outputs":[{"name":"classes","datatype":"BYTES","shape":[1,1],"data":["0.5:7:seven"]},{"name":"probabilities","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}]}"#;
    assert_eq!(std::str::from_utf8(&encoded.body[..length]).unwrap(), json);
    assert_eq!(encoded.content_type(), "application/octet-stream");
    assert_eq!(InferResponse::parse(&encoded.body, Some(length)).unwrap(), response);
    let plain = response.encode(|_| false).unwrap();
    assert_eq!((plain.header_length, plain.content_type()), (None, "application/json"));
    assert_eq!(InferResponse::parse(&plain.body, None).unwrap(), response);
}

#[test]
fn a_classification_keeps_the_colons_of_its_label() {
    let class = Classification { value: 0.875, index: 3, label: Some("time: noon".into()) };
    assert_eq!(class.to_string(), "0.875:3:time: noon");
    let output = Tensor::bytes("classes", &[1, 1], vec![class.to_string().into()]).unwrap();
    assert_eq!(Classification::read(&output).unwrap(), [class]);
    assert_eq!("1e-7:0".parse::<Classification>().unwrap().label, None);
    for bad in ["", "0.5", "a:1", "0.5:-1", "0.5:b:c"] {
        assert!(bad.parse::<Classification>().is_err(), "{bad}");
    }
}

fn any_tensor() -> impl Strategy<Value = Tensor> {
    let numbers = (0..13_usize, prop::collection::vec(0..4_usize, 0..4), any::<String>()).prop_flat_map(
        |(datatype, shape, name)| {
            let datatype = Datatype::ALL[datatype];
            let length = shape.iter().product::<usize>() * datatype.size().unwrap();
            prop::collection::vec(any::<u8>(), length)
                .prop_map(move |data| Tensor::numbers(&name, datatype, &shape, data.into()).unwrap())
        },
    );
    let bytes = (prop::collection::vec(any::<Vec<u8>>(), 0..4), any::<String>()).prop_map(|(elements, name)| {
        let elements: Vec<_> = elements.into_iter().map(Bytes::from).collect();
        Tensor::bytes(&name, &[elements.len()], elements).unwrap()
    });
    prop_oneof![numbers, bytes]
}

/// Tensors of the kinds that JSON can carry.
fn json_tensor() -> impl Strategy<Value = Tensor> {
    let floats = prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::ZERO, 0..6)
        .prop_map(|values| Tensor::floats("f", &[values.len(), 1], &values).unwrap());
    let whole = prop::collection::vec(any::<i64>(), 0..6).prop_map(|values| {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::numbers("i", Datatype::Int64, &[1, values.len()], data.into()).unwrap()
    });
    let texts = prop::collection::vec(any::<String>(), 0..4).prop_map(|texts| {
        let elements: Vec<_> = texts.into_iter().map(Bytes::from).collect();
        Tensor::bytes("b", &[elements.len()], elements).unwrap()
    });
    prop_oneof![floats, whole, texts]
}

fn request(inputs: Vec<Tensor>, id: Option<String>) -> InferRequest {
    let parameters = Parameters::default().with("timeout", 1000);
    let outputs = vec![RequestedOutput { name: "o".into(), parameters: parameters.clone() }];
    InferRequest { id, parameters, inputs, outputs: Some(outputs) }
}

proptest! {
    #[test]
    fn a_binary_request_is_read_back(inputs in prop::collection::vec(any_tensor(), 0..4), id: Option<String>) {
        let request = request(inputs, id);
        let encoded = request.encode(true).unwrap();
        prop_assert_eq!(InferRequest::parse(&encoded.body, encoded.header_length).unwrap(), request);
    }

    #[test]
    fn a_json_request_is_read_back(inputs in prop::collection::vec(json_tensor(), 0..4), id: Option<String>) {
        let request = request(inputs, id);
        let encoded = request.encode(false).unwrap();
        prop_assert_eq!(encoded.header_length, None);
        prop_assert_eq!(InferRequest::parse(&encoded.body, None).unwrap(), request);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(body: Vec<u8>, length in prop::option::of(0..300_usize)) {
        let body = Bytes::from(body);
        let _ = InferRequest::parse(&body, length);
        let _ = InferResponse::parse(&body, length);
    }

    /// Bytes that are nearly right reach deeper than random ones: one byte of a good message is changed, or its end cut.
    #[test]
    fn a_damaged_message_is_read_without_a_panic(
        inputs in prop::collection::vec(any_tensor(), 1..4),
        at: prop::sample::Index,
        byte: u8,
        cut: prop::sample::Index,
    ) {
        let encoded = request(inputs, None).encode(true).unwrap();
        let mut body = encoded.body.to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        let _ = InferRequest::parse(&Bytes::from(body.clone()), encoded.header_length);
        body.truncate(cut.index(body.len()));
        let _ = InferRequest::parse(&Bytes::from(body), encoded.header_length);
    }
}
