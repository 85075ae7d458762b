//! TensorFlow Serving's gRPC services: `PredictionService` and `ModelService`.

use std::collections::HashMap;
use std::sync::Arc;

use adit_common::id::Version;
use adit_common::manifest::{Dialect, ModelState, Naming};
use adit_common::timing::{Stage, Stopwatch};
use adit_proto::tensorflow::serving as proto;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use http::{Extensions, Response as HttpResponse};
use prost::Message as _;
use proto::inference_result::Result as Inferred;
use proto::model_service_server::{ModelService, ModelServiceServer};
use proto::model_version_status::State as VersionState;
use proto::prediction_service_server::{PredictionService, PredictionServiceServer};
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request, Response, Status};

use super::super::grpc::{deadline, serve, started};
use super::super::paths::Paths;
use super::super::router::Api;
use super::ask::{Wanted, input};
use super::example;
use super::outputs::{self, classes, outputs};
use super::signature::{CLASSIFIES, REGRESSES, check, check_method, signatures};
use super::tensors::{grows_to, read, write};
use crate::serving::{Choice, Serving};

const PREDICTION: &str = "/tensorflow.serving.PredictionService";
const MODEL: &str = "/tensorflow.serving.ModelService";

/// What metadata can be asked for.
const SIGNATURES: &str = "signature_def";

/// Tasks of one `MultiInference`: there are two methods.
const MAX_TASKS: usize = 16;

/// What may be asked in this dialect over gRPC.
pub(crate) fn paths() -> Paths {
    let mut paths = Paths::of(Dialect::Grpc);
    for method in ["Predict", "Classify", "Regress", "GetModelMetadata"] {
        paths = paths.post(&format!("{PREDICTION}/{method}"), predict).named(Naming::Protobuf(vec![1, 1]));
    }
    paths
        .post(&format!("{PREDICTION}/MultiInference"), predict)
        .named(Naming::Protobuf(vec![1, 1, 1]))
        .post(&format!("{MODEL}/GetModelStatus"), model)
        .named(Naming::Protobuf(vec![1, 1]))
        .post(&format!("{MODEL}/HandleReloadConfigRequest"), model)
        .controls()
}

async fn predict(State(api): State<Arc<Api>>, request: HttpRequest) -> HttpResponse<Body> {
    let service = PredictionServiceServer::new(Prediction(api.clone()))
        .max_decoding_message_size(api.max_body())
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    serve(&api, service, request).await
}

async fn model(State(api): State<Arc<Api>>, request: HttpRequest) -> HttpResponse<Body> {
    let control = api.admit_control(request.extensions()).map_err(Status::from);
    let service = ModelServiceServer::new(Models { api: api.clone(), control })
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    serve(&api, service, request).await
}

type Answer<T> = Result<Response<T>, Status>;

/// An answer with its stopwatch.
fn timed<T>(answer: T, mut watch: Stopwatch) -> Response<T> {
    watch.lap(Stage::Encode);
    let mut response = Response::new(answer);
    response.extensions_mut().insert(watch);
    response
}

struct Prediction(Arc<Api>);

impl Prediction {
    /// What examples show, told as classes.
    async fn classify(
        &self,
        wanted: &mut Wanted,
        methods: &[&str],
        input: Option<proto::Input>,
        extensions: &Extensions,
        watch: &mut Stopwatch,
    ) -> Result<(proto::ClassificationResult, Version), Status> {
        let serving = &self.0.serving;
        let card = wanted.card(serving)?;
        wanted.choice = Choice::Version(card.version);
        for method in methods {
            check_method(&card, &wanted.signature, method)?;
        }
        let input = example::input(example::read(input)?, &card)?;
        let response = wanted.ask(serving, input, deadline(extensions), watch).await?;
        Ok((classes(response)?, card.version))
    }
}

#[tonic::async_trait]
impl PredictionService for Prediction {
    async fn predict(&self, request: Request<proto::PredictRequest>) -> Answer<proto::PredictResponse> {
        let (_, extensions, message) = request.into_parts();
        let mut watch = started(&extensions);
        let api = &self.0;
        let proto::PredictRequest { model_spec, inputs, output_filter } = message;
        let mut wanted = Wanted::of_spec(model_spec)?;
        let card = wanted.card(&api.serving)?;
        // Of one version all the way, whatever is loaded meanwhile.
        wanted.choice = Choice::Version(card.version);
        check(&card, &wanted.signature)?;
        outputs::check(&card, &output_filter)?;
        let mut inputs = inputs.into_iter();
        let (Some((name, tensor)), None) = (inputs.next(), inputs.next()) else {
            let message = format!("a request has one input, `image` or `{}`", card.signature.input());
            return Err(Status::invalid_argument(message));
        };
        // A few bytes may mean many: they count among all bodies before they are there.
        let _room = match grows_to(&tensor) {
            Some(bytes) if bytes > api.max_body() => {
                return Err(Status::resource_exhausted(format!("a tensor of more than {} bytes", api.max_body())));
            }
            Some(bytes) => Some(api.hold(bytes).map_err(Status::from)?),
            None => None,
        };
        let input = input(Some(&name), read(tensor)?, &card)?;
        let response = wanted.ask(&api.serving, input, deadline(&extensions), &mut watch).await?;
        let found = outputs(&card, response, &output_filter);
        let outputs: HashMap<_, _> = found.into_iter().map(|(name, tensor)| (name, write(tensor))).collect();
        let answer = proto::PredictResponse { outputs, model_spec: Some(wanted.answered_by(card.version)) };
        Ok(timed(answer, watch))
    }

    async fn classify(&self, request: Request<proto::ClassificationRequest>) -> Answer<proto::ClassificationResponse> {
        let (_, extensions, message) = request.into_parts();
        let mut watch = started(&extensions);
        let mut wanted = Wanted::of_spec(message.model_spec)?;
        let (result, version) =
            self.classify(&mut wanted, &[CLASSIFIES], message.input, &extensions, &mut watch).await?;
        let model_spec = Some(wanted.answered_by(version));
        Ok(timed(proto::ClassificationResponse { result: Some(result), model_spec }, watch))
    }

    async fn regress(&self, request: Request<proto::RegressionRequest>) -> Answer<proto::RegressionResponse> {
        let wanted = Wanted::of_spec(request.into_inner().model_spec)?;
        let card = wanted.card(&self.0.serving)?;
        check_method(&card, &wanted.signature, REGRESSES)?;
        Err(Status::unimplemented("no model here tells a number"))
    }

    async fn multi_inference(
        &self,
        request: Request<proto::MultiInferenceRequest>,
    ) -> Answer<proto::MultiInferenceResponse> {
        let (_, extensions, message) = request.into_parts();
        let mut watch = started(&extensions);
        let proto::MultiInferenceRequest { tasks, input } = message;
        if tasks.len() > MAX_TASKS {
            return Err(Status::invalid_argument(format!("more than {MAX_TASKS} tasks")));
        }
        let methods: Vec<_> = tasks.iter().map(|task| task.method_name.clone()).collect();
        let methods: Vec<_> = methods.iter().map(String::as_str).collect();
        let mut wanted =
            tasks.into_iter().map(|task| Wanted::of_spec(task.model_spec)).collect::<Result<Vec<_>, _>>()?;
        let Some((first, rest)) = wanted.split_first_mut() else {
            return Err(Status::invalid_argument("Tasks are empty."));
        };
        if rest.iter().any(|task| (&task.model, &task.choice) != (&first.model, &first.choice)) {
            let message = "All ModelSpecs in a MultiInferenceRequest must access the same model name.";
            return Err(Status::invalid_argument(message));
        }
        // All tasks look at the same with the same network: it is run once.
        let (result, version) = self.classify(first, &methods, input, &extensions, &mut watch).await?;
        let results = wanted.iter().map(|task| proto::InferenceResult {
            model_spec: Some(task.answered_by(version)),
            result: Some(Inferred::ClassificationResult(result.clone())),
        });
        Ok(timed(proto::MultiInferenceResponse { results: results.collect() }, watch))
    }

    async fn get_model_metadata(
        &self,
        request: Request<proto::GetModelMetadataRequest>,
    ) -> Answer<proto::GetModelMetadataResponse> {
        let message = request.into_inner();
        let wanted = Wanted::of_spec(message.model_spec)?;
        if message.metadata_field.is_empty() {
            let message = "GetModelMetadataRequest must specify at least one metadata_field";
            return Err(Status::invalid_argument(message));
        }
        if let Some(other) = message.metadata_field.iter().find(|field| *field != SIGNATURES) {
            let other: String = other.chars().take(80).collect();
            return Err(Status::invalid_argument(format!("Metadata field {other} is not supported")));
        }
        let card = wanted.card(&self.0.serving)?;
        let map = proto::SignatureDefMap { signature_def: signatures(&card) };
        let any = prost_types::Any {
            type_url: "type.googleapis.com/tensorflow.serving.SignatureDefMap".to_owned(),
            value: map.encode_to_vec(),
        };
        let mut model_spec = wanted.answered_by(card.version);
        model_spec.signature_name.clear();
        Ok(Response::new(proto::GetModelMetadataResponse {
            model_spec: Some(model_spec),
            metadata: HashMap::from([(SIGNATURES.to_owned(), any)]),
        }))
    }
}

struct Models {
    api: Arc<Api>,
    /// Whether this caller may change the agent.
    control: Result<(), Status>,
}

#[tonic::async_trait]
impl ModelService for Models {
    async fn get_model_status(
        &self,
        request: Request<proto::GetModelStatusRequest>,
    ) -> Answer<proto::GetModelStatusResponse> {
        let wanted = Wanted::of_spec(request.into_inner().model_spec)?;
        let model_version_status = statuses(&self.api.serving, &wanted)?;
        Ok(Response::new(proto::GetModelStatusResponse { model_version_status }))
    }

    async fn handle_reload_config_request(
        &self,
        _: Request<proto::ReloadConfigRequest>,
    ) -> Answer<proto::ReloadConfigResponse> {
        self.control.clone()?;
        Err(Status::unimplemented(
            "models are what the agent's models folder says, each with its own version policy and labels in its model.toml, which \
             is watched; /v2/repository/models/NAME/load and /unload load and unload them",
        ))
    }
}

/// How the versions of a model are, the newest first.
pub(super) fn statuses(serving: &Serving, wanted: &Wanted) -> Result<Vec<proto::ModelVersionStatus>, Status> {
    let catalogue = serving.catalogue();
    let model = &wanted.model;
    let version = match &wanted.choice {
        Choice::Newest => None,
        Choice::Version(version) => Some(*version),
        Choice::Label(label) => {
            let found = catalogue.labels(model).find(|(known, _)| *known == label).map(|(_, version)| version);
            let unknown = || Status::invalid_argument(format!("Unrecognized servable version label: {label}"));
            Some(found.ok_or_else(unknown)?)
        }
    };
    let report = catalogue.report();
    let meant = report.into_iter().rev().filter(|line| line.name == *model);
    let meant = meant.filter(|line| version.is_none_or(|version| line.version == version));
    let found: Vec<_> = meant
        .map(|line| {
            let (state, status) = match line.state {
                ModelState::Ready => (VersionState::Available, proto::StatusProto::default()),
                ModelState::Loading => (VersionState::Loading, proto::StatusProto::default()),
                ModelState::Unloading => (VersionState::Unloading, proto::StatusProto::default()),
                ModelState::Unavailable => {
                    let error_code = Code::Unavailable.into();
                    (VersionState::End, proto::StatusProto { error_code, error_message: line.reason })
                }
            };
            proto::ModelVersionStatus {
                version: i64::try_from(line.version.0).unwrap_or(i64::MAX),
                state: state.into(),
                status: Some(status),
            }
        })
        .collect();
    match (found.is_empty(), version) {
        (false, _) => Ok(found),
        (true, None) => Err(Status::not_found(format!("Could not find any versions of model {model}"))),
        (true, Some(version)) => Err(Status::not_found(format!("Could not find version {version} of model {model}"))),
    }
}
