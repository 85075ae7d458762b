//! TensorFlow Serving's dialect through the relay: paths that end in a verb, and calls that name their model in a message.

use std::collections::HashMap;

use adit_e2e::{Body, Channel, Delays, House, Plan, Version, full};
use adit_proto::tensorflow::serving::model_service_client::ModelServiceClient;
use adit_proto::tensorflow::serving::prediction_service_client::PredictionServiceClient;
use adit_proto::tensorflow::serving::{
    GetModelStatusRequest, InferenceTask, ModelSpec, MultiInferenceRequest, PredictRequest, ReloadConfigRequest,
};
use adit_proto::tensorflow::{DataType, TensorProto};
use adit_vision::image::digit_picture;
use anyhow::{Context as _, Result};
use http::{Method, Request};
use http_body::Body as _;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::Code;
use tower_service::Service as _;

use crate::ask::largest;

fn predict(model: &str, input: &str, tensor: TensorProto) -> PredictRequest {
    let model_spec = Some(ModelSpec { name: model.into(), ..ModelSpec::default() });
    PredictRequest { model_spec, inputs: HashMap::from([(input.to_owned(), tensor)]), output_filter: vec![] }
}

/// What a stand-in looks at.
fn number() -> TensorProto {
    TensorProto { dtype: DataType::DtFloat.into(), float_val: vec![1.0], ..TensorProto::default() }
}

async fn ask(house: &House, method: Method, path: &str, body: String) -> Result<(u16, Value)> {
    let mut client = house.client(Version::Http2).await?;
    let request: Request<Body> = Request::builder().method(method).uri(path).body(full(body))?;
    let answer = client.ask(request).await?;
    Ok((answer.status.as_u16(), serde_json::from_slice(&answer.body)?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_goes_to_the_agent_that_has_its_model() -> Result<()> {
    let house = House::builder();
    let house = house.agent(Plan::new("one").digits());
    let house = house.agent(Plan::new("two").stand_in("dogs", Delays::default())).open().await?;
    let channel =
        Channel::secure(house.relay().addresses().https, house.ca(), Some(house.key()), house.scope().child());
    let channel = channel.await?;
    let mut calls = PredictionServiceClient::with_origin(channel.clone(), channel.origin());
    let picture = TensorProto {
        dtype: DataType::DtString.into(),
        string_val: vec![digit_picture(7)?.into()],
        ..TensorProto::default()
    };
    let body = json!({ "instances": [[[[1.0]]]] }).to_string();
    for _ in 0..10 {
        let answer = calls.predict(predict("digits", "image", picture.clone())).await?.into_inner();
        assert_eq!(largest(&answer.outputs["dense"].float_val), 7);
        let answer = calls.predict(predict("dogs", "input", number())).await?.into_inner();
        assert_eq!(answer.outputs["probabilities"].float_val.len(), 10);
        let (status, answer) = ask(&house, Method::POST, "/v1/models/dogs:predict", body.clone()).await?;
        assert_eq!((status, answer["predictions"][0].as_array().context("a row")?.len()), (200, 10));
        let (status, answer) = ask(&house, Method::GET, "/v1/models/digits/versions/1", String::new()).await?;
        assert_eq!((status, &answer["model_version_status"][0]["state"]), (200, &json!("AVAILABLE")));
        let (status, _) = ask(&house, Method::GET, "/v1/models/dogs/versions/0/metadata", String::new()).await?;
        assert_eq!(status, 200, "nought is whichever is newest");
    }
    let spec = Some(ModelSpec { name: "dogs".into(), ..ModelSpec::default() });
    let mut models = ModelServiceClient::with_origin(channel.clone(), channel.origin());
    for _ in 0..10 {
        let status = models.get_model_status(GetModelStatusRequest { model_spec: spec.clone() }).await?;
        assert_eq!(status.get_ref().model_version_status.len(), 1);
        let task = InferenceTask { model_spec: spec.clone(), method_name: "tensorflow/serving/regress".into() };
        let request = MultiInferenceRequest { tasks: vec![task], input: None };
        let refused = calls.multi_inference(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    }
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_said_in_the_clients_own_words() -> Result<()> {
    let house = House::builder().agent(Plan::new("one").digits());
    let house = house.agent(Plan::new("two").stand_in("dogs", Delays::default())).open().await?;
    for (path, status, error) in [
        ("/v1/models/birds:predict", 404, "Servable not found for request: Latest(birds)"),
        ("/v1/models/dogs/versions/9:predict", 404, "Servable not found for request: Specific(dogs, 9)"),
        ("/v1/models/dogs", 400, "Malformed request: POST /v1/models/dogs"),
    ] {
        let found = ask(&house, Method::POST, path, json!({ "instances": [1.0] }).to_string()).await?;
        assert_eq!(found, (status, json!({ "error": error })), "{path}");
    }
    let channel =
        Channel::secure(house.relay().addresses().https, house.ca(), Some(house.key()), house.scope().child());
    let channel = channel.await?;
    let mut calls = PredictionServiceClient::with_origin(channel.clone(), channel.origin());
    let unknown = calls.predict(predict("birds", "x", number())).await.unwrap_err();
    let expected = (Code::NotFound, "Servable not found for request: Latest(birds)");
    assert_eq!((unknown.code(), unknown.message()), expected);
    // The head of an error is the whole of its answer: gRPC's own library takes anything behind it for an answer that broke off.
    let mut framed = vec![0, 0, 0, 0, 0];
    predict("birds", "x", number()).encode(&mut framed)?;
    framed[4] = u8::try_from(framed.len() - 5)?;
    let request = Request::post(format!("{}tensorflow.serving.PredictionService/Predict", channel.origin()));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    let response = channel.clone().call(request.body(tonic::body::Body::new(full(framed)))?).await?;
    assert_eq!(response.headers().get("grpc-status").context("a status")?, "5");
    assert!(response.body().is_end_stream(), "{response:?}");

    let mut models = ModelServiceClient::with_origin(channel.clone(), channel.origin());
    let refused = models.handle_reload_config_request(ReloadConfigRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "the key may only ask");
    assert!(house.close().await);
    Ok(())
}
