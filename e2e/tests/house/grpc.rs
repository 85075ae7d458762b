//! gRPC from end to end: through the relay's HTTP/2 front and the tunnel, to the agent that has the model.

use std::time::{Duration, Instant};

use adit_e2e::{Channel, Delays, House, LIMIT, Plan};
use adit_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use adit_proto::inference::model_infer_request::InferInputTensor;
use adit_proto::inference::{
    ModelInferRequest, ModelInferResponse, ModelReadyRequest, RepositoryIndexRequest, RepositoryModelLoadRequest,
    ServerLiveRequest, ServerMetadataRequest,
};
use adit_vision::image::digit_picture;
use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

use crate::ask::largest;

type Client = GrpcInferenceServiceClient<Channel>;

fn client(channel: Channel) -> Client {
    let origin = channel.origin();
    Client::with_origin(channel, origin)
}

async fn at(house: &House) -> Result<Client> {
    let scope = house.scope().child();
    Ok(client(Channel::secure(house.relay().addresses().https, house.ca(), Some(house.key()), scope).await?))
}

/// An image as Triton's client sends it: BYTES in raw contents.
fn image(model: &str, id: &str, picture: &[u8]) -> ModelInferRequest {
    let mut raw = (picture.len() as u32).to_le_bytes().to_vec();
    raw.extend(picture);
    asked(model, id, "BYTES", &[1, 1], raw)
}

/// What a stand-in looks at.
fn number(model: &str, id: &str) -> ModelInferRequest {
    asked(model, id, "FP32", &[1, 1, 1, 1], 1_f32.to_le_bytes().to_vec())
}

fn asked(model: &str, id: &str, datatype: &str, shape: &[i64], raw: Vec<u8>) -> ModelInferRequest {
    let name = if datatype == "BYTES" { "image" } else { "input" };
    let input =
        InferInputTensor { name: name.into(), datatype: datatype.into(), shape: shape.into(), ..Default::default() };
    ModelInferRequest {
        model_name: model.into(),
        id: id.into(),
        inputs: vec![input],
        raw_input_contents: vec![raw.into()],
        ..Default::default()
    }
}

fn digit(answer: &ModelInferResponse) -> usize {
    let values: Vec<f32> =
        answer.raw_output_contents[0].as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    assert_eq!(answer.outputs[0].shape, [1, 10]);
    largest(&values)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_is_classified_over_both_ways_in() -> Result<()> {
    let plan = Plan::new("box").digits().change(|config| config.local.listen = Some(([127, 0, 0, 1], 0).into()));
    let house = House::builder().agent(plan).open().await?;
    let local = house.agent("box")?.local_address().context("it listens")?;
    for mut client in [at(&house).await?, client(Channel::plain(local, house.scope().child()).await?)] {
        assert!(client.server_live(ServerLiveRequest {}).await?.get_ref().live);
        let metadata = client.server_metadata(ServerMetadataRequest {}).await?.into_inner();
        assert_eq!(metadata.name, "adit");
        let ready = ModelReadyRequest { name: "digits".into(), version: "1".into() };
        assert!(client.model_ready(ready).await?.get_ref().ready);
        let index = client.repository_index(RepositoryIndexRequest::default()).await?.into_inner();
        assert_eq!((index.models[0].name.as_str(), index.models[0].state.as_str()), ("digits", "READY"));
        let response = client.model_infer(image("digits", "r-1", &digit_picture(7)?)).await?;
        assert!(response.metadata().get("server-timing").context("a timing")?.to_str()?.contains("forward"));
        let answer = response.into_inner();
        assert_eq!((digit(&answer), answer.id.as_str(), answer.model_version.as_str()), (7, "r-1", "1"));
    }
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_goes_to_the_agent_that_has_the_model_its_message_names() -> Result<()> {
    let house = House::builder();
    let house = house.agent(Plan::new("one").stand_in("cats", Delays::default()));
    let house = house.agent(Plan::new("two").stand_in("dogs", Delays::default())).open().await?;
    let mut client = at(&house).await?;
    for model in ["cats", "dogs"].into_iter().cycle().take(20) {
        assert_eq!(client.model_infer(number(model, "")).await?.get_ref().model_name, model);
        let mut compressed = client.clone().send_compressed(tonic::codec::CompressionEncoding::Gzip);
        assert_eq!(compressed.model_infer(number(model, "")).await?.get_ref().model_name, model);
    }
    let unknown = client.model_infer(number("birds", "")).await.unwrap_err();
    assert_eq!((unknown.code(), unknown.message()), (Code::NotFound, "unknown model `birds`"));
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_error_is_a_status_of_grpc() -> Result<()> {
    let slow = Delays { forward: Duration::from_secs(5), ..Delays::default() };
    let house = House::builder().agent(Plan::new("box").digits()).agent(Plan::new("slow").stand_in("slow", slow));
    let house = house.open().await?;
    let scope = || house.scope().child();
    let relay = house.relay().addresses().https;
    let mut stranger = client(Channel::secure(relay, house.ca(), None, scope()).await?);
    let refused = stranger.server_live(ServerLiveRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");

    let mut client = at(&house).await?;
    let load = RepositoryModelLoadRequest { model_name: "digits".into(), ..Default::default() };
    assert_eq!(client.repository_model_load(load).await.unwrap_err().code(), Code::PermissionDenied);
    let wrong = client.model_infer(asked("digits", "", "FP32", &[1], vec![0; 4])).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument, "{wrong:?}");
    let mut other = tonic::client::Grpc::with_origin(
        Channel::secure(relay, house.ca(), Some(house.key()), scope()).await?,
        format!("https://{relay}").parse()?,
    );
    other.ready().await?;
    let path = http::uri::PathAndQuery::from_static("/inference.GRPCInferenceService/ModelRead");
    let codec = tonic_prost::ProstCodec::<ModelReadyRequest, ModelReadyRequest>::default();
    let unknown = other.unary(Request::new(ModelReadyRequest::default()), path, codec).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented, "{unknown:?}");

    let mut late = Request::new(number("slow", ""));
    late.set_timeout(Duration::from_millis(200));
    let began = Instant::now();
    assert_eq!(client.model_infer(late).await.unwrap_err().code(), Code::DeadlineExceeded);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_answers_in_order_and_survives_a_wrong_request() -> Result<()> {
    a_stream_answers_in_order(Plan::new("box")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_answers_in_order_over_tcp() -> Result<()> {
    a_stream_answers_in_order(Plan::new("box").at_front()).await
}

async fn a_stream_answers_in_order(plan: Plan) -> Result<()> {
    let house = House::builder().agent(plan.digits()).open().await?;
    let mut client = at(&house).await?;
    let (say, hear) = mpsc::channel(1);
    let pictures: Vec<Bytes> = (0..10).map(|digit| Ok(digit_picture(digit)?.into())).collect::<Result<_>>()?;
    // The first is sent before there is an answer, all others when the one before is answered: both ways at once.
    say.send(image("digits", "0", &pictures[0])).await?;
    let mut answers = timeout(LIMIT, client.model_stream_infer(ReceiverStream::new(hear))).await??.into_inner();
    for turn in 0..10 {
        let answer = timeout(LIMIT, answers.message()).await??.context("an answer")?;
        let inferred = answer.infer_response.context("a response")?;
        assert_eq!(inferred.id, turn.to_string());
        if turn == 4 {
            assert_eq!(answer.error_message, "unknown model `nothing`");
        } else {
            assert_eq!((digit(&inferred), answer.error_message.as_str()), (turn, ""));
        }
        if turn < 9 {
            let model = if turn + 1 == 4 { "nothing" } else { "digits" };
            say.send(image(model, &(turn + 1).to_string(), &pictures[turn + 1])).await?;
        }
    }
    drop(say);
    assert!(timeout(LIMIT, answers.message()).await??.is_none());
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_cancels_its_call() -> Result<()> {
    let slow = Delays { forward: Duration::from_secs(5), ..Delays::default() };
    let house = House::builder().agent(Plan::new("box").stand_in("slow", slow)).open().await?;
    let mut first = at(&house).await?;
    let running = tokio::spawn(async move { first.model_infer(number("slow", "")).await });
    house.until_busy("box", 1, 0).await?;
    let mut second = at(&house).await?;
    let waiting = tokio::spawn(async move { second.model_infer(number("slow", "")).await });
    house.until_busy("box", 2, 1).await?;
    waiting.abort();
    house.until_busy("box", 1, 0).await?;
    running.await??;
    assert!(house.close().await);
    Ok(())
}
