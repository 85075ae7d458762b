//! Open Inference Protocol over gRPC: `inference.GRPCInferenceService`, as Triton's clients call it.

use std::pin::Pin;
use std::sync::Arc;

use adit_common::deadline::Deadline;
use adit_common::id::ModelName;
use adit_common::manifest::{Dialect, Gather, ModelState, Naming};
use adit_common::timing::{Stage, Stopwatch};
use adit_proto::inference as proto;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use futures_util::{Stream, StreamExt as _};
use http::Response as HttpResponse;
use proto::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status, Streaming};

use super::super::grpc::{deadline, flow, serve, started, status};
use super::super::paths::Paths;
use super::super::reply::Refusal;
use super::super::router::Api;
use super::ask::{self, ask, input, invalid};
use super::control::not_taken;
use super::described;
use super::inform::{self, configuration};
use super::message;
use super::settings::{set_log, set_trace};
use super::statistics::statistics;
use crate::error::{ControlError, InferError};
use crate::serving::Choice;

const SERVICE: &str = "/inference.GRPCInferenceService";

/// Requests of one stream that are worked on at a time. Their answers keep the requests' order.
const AT_ONCE: usize = 16;

/// Methods whose first field is the model's name.
const OF_A_MODEL: [&str; 4] = ["ModelReady", "ModelMetadata", "ModelInfer", "ModelConfig"];

const OF_THE_SERVER: [&str; 3] = ["ServerLive", "ServerReady", "ServerMetadata"];

/// What the API has and an agent has not: it answers why.
const ABSENT: [&str; 6] = [
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
];

/// What may be asked in this dialect over gRPC.
pub(crate) fn paths() -> Paths {
    let path = |method: &str| format!("{SERVICE}/{method}");
    let mut paths = Paths::of(Dialect::Grpc);
    for method in OF_A_MODEL {
        paths = paths.post(&path(method), call).named(Naming::Protobuf(vec![1]));
    }
    for method in OF_THE_SERVER.into_iter().chain(ABSENT) {
        paths = paths.post(&path(method), call);
    }
    for method in ["RepositoryModelUnload", "RepositoryModelLoad"] {
        paths = paths.post(&path(method), call).named(Naming::Protobuf(vec![2])).controls().gathered(Gather::Every);
    }
    // What is asked is also changed by these.
    for method in ["TraceSetting", "LogSettings"] {
        paths = paths.post(&path(method), call).controls();
    }
    paths = paths.post(&path("RepositoryIndex"), call).gathered(Gather::Messages);
    let name = || Naming::Protobuf(vec![1]);
    paths = paths.post(&path("ModelStatistics"), call).named(name()).gathered(Gather::Messages);
    paths.post(&path("ModelStreamInfer"), stream).named(name())
}

fn service(api: &Arc<Api>, request: &HttpRequest) -> GrpcInferenceServiceServer<Inference> {
    let control = api.admit_control(request.extensions()).map_err(Status::from);
    let mut service = GrpcInferenceServiceServer::new(Inference { api: api.clone(), control })
        .max_decoding_message_size(api.max_body());
    for coding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        service = service.accept_compressed(coding).send_compressed(coding);
    }
    service
}

async fn call(State(api): State<Arc<Api>>, request: HttpRequest) -> HttpResponse<Body> {
    let service = service(&api, &request);
    serve(&api, service, request).await
}

async fn stream(State(api): State<Arc<Api>>, request: HttpRequest) -> HttpResponse<Body> {
    flow(service(&api, &request), request).await
}

struct Inference {
    api: Arc<Api>,
    /// Whether this caller may load and unload.
    control: Result<(), Status>,
}

type Answer<T> = Result<Response<T>, Status>;

fn of(error: InferError) -> Status {
    status(&error)
}

fn controlled(error: ControlError) -> Status {
    Status::from(Refusal::from(error))
}

/// The model and version that a message names; no version is the newest.
fn named(model: &str, version: &str) -> Result<(ModelName, Choice), Status> {
    ask::named(model, Some(version).filter(|version| !version.is_empty())).map_err(of)
}

async fn infer(
    api: &Api,
    message: proto::ModelInferRequest,
    deadline: Deadline,
    watch: &mut Stopwatch,
) -> Result<proto::ModelInferResponse, Status> {
    let (model, version) = named(&message.model_name, &message.model_version)?;
    let mut asked = message::request(message).map_err(of)?;
    let input = input(&std::mem::take(&mut asked.inputs)).map_err(of)?;
    let (answer, receipt) = ask(&api.serving, model, version, &asked, input, deadline, watch).await.map_err(of)?;
    let answer = message::response(answer).map_err(|error| of(invalid(error)))?;
    drop(receipt);
    watch.lap(Stage::Encode);
    Ok(answer)
}

fn absent<T>() -> Answer<T> {
    Err(Status::unimplemented("shared memory does not reach through a network: send tensors in the message"))
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(&self, _: Request<proto::ServerLiveRequest>) -> Answer<proto::ServerLiveResponse> {
        Ok(Response::new(proto::ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<proto::ServerReadyRequest>) -> Answer<proto::ServerReadyResponse> {
        Ok(Response::new(proto::ServerReadyResponse { ready: inform::readiness(&self.api).is_ok() }))
    }

    async fn model_ready(&self, request: Request<proto::ModelReadyRequest>) -> Answer<proto::ModelReadyResponse> {
        let proto::ModelReadyRequest { name, version } = request.into_inner();
        let ready = match inform::model_readiness(&self.api, &named(&name, &version)?) {
            Ok(()) => true,
            Err(InferError::NotReady { .. } | InferError::NoMemory { .. }) => false,
            Err(error) => return Err(of(error)),
        };
        Ok(Response::new(proto::ModelReadyResponse { ready }))
    }

    async fn server_metadata(&self, _: Request<proto::ServerMetadataRequest>) -> Answer<proto::ServerMetadataResponse> {
        let metadata = inform::server();
        Ok(Response::new(proto::ServerMetadataResponse {
            name: metadata.name,
            version: metadata.version,
            extensions: metadata.extensions,
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<proto::ModelMetadataRequest>,
    ) -> Answer<proto::ModelMetadataResponse> {
        let proto::ModelMetadataRequest { name, version } = request.into_inner();
        let metadata = inform::metadata(&self.api, &named(&name, &version)?).map_err(of)?;
        let tensors = |tensors: Vec<adit_common::oip::TensorMetadata>| {
            let tensor = |tensor: adit_common::oip::TensorMetadata| proto::model_metadata_response::TensorMetadata {
                name: tensor.name,
                datatype: tensor.datatype.name().to_owned(),
                shape: tensor.shape,
            };
            tensors.into_iter().map(tensor).collect()
        };
        Ok(Response::new(proto::ModelMetadataResponse {
            name: metadata.name,
            versions: metadata.versions,
            platform: metadata.platform,
            inputs: tensors(metadata.inputs),
            outputs: tensors(metadata.outputs),
        }))
    }

    async fn model_infer(&self, request: Request<proto::ModelInferRequest>) -> Answer<proto::ModelInferResponse> {
        let (_, extensions, message) = request.into_parts();
        let mut watch = started(&extensions);
        let answer = infer(&self.api, message, deadline(&extensions), &mut watch).await?;
        let mut response = Response::new(answer);
        response.extensions_mut().insert(watch);
        Ok(response)
    }

    type ModelStreamInferStream = Pin<Box<dyn Stream<Item = Result<proto::ModelStreamInferResponse, Status>> + Send>>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<proto::ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        let (_, extensions, messages) = request.into_parts();
        let (api, deadline) = (self.api.clone(), deadline(&extensions));
        // Whoever leaves takes no more of it, and answers what it has.
        let answers = messages.take_until(api.leaving()).map(move |message| {
            let api = api.clone();
            async move {
                let message = message?;
                let id = message.id.clone();
                // Held while it is worked on: the messages of all streams together are bounded like bodies.
                let length = message.raw_input_contents.iter().map(bytes::Bytes::len).sum();
                let answered = match api.hold(length) {
                    Ok(_room) => infer(&api, message, deadline, &mut Stopwatch::start()).await,
                    Err(refusal) => Err(Status::from(refusal)),
                };
                // One request's failure is its own: the stream goes on.
                Ok(match answered {
                    Ok(answer) => {
                        proto::ModelStreamInferResponse { error_message: String::new(), infer_response: Some(answer) }
                    }
                    Err(status) => proto::ModelStreamInferResponse {
                        error_message: status.message().to_owned(),
                        infer_response: Some(proto::ModelInferResponse { id, ..Default::default() }),
                    },
                })
            }
        });
        Ok(Response::new(Box::pin(answers.buffered(AT_ONCE))))
    }

    async fn repository_index(
        &self,
        request: Request<proto::RepositoryIndexRequest>,
    ) -> Answer<proto::RepositoryIndexResponse> {
        let listed = inform::index(&self.api, request.get_ref().ready).into_iter();
        let models = listed.map(|entry| proto::repository_index_response::ModelIndex {
            name: entry.name,
            version: entry.version,
            state: entry.state.map_or("", ModelState::name).to_owned(),
            reason: entry.reason,
        });
        Ok(Response::new(proto::RepositoryIndexResponse { models: models.collect() }))
    }

    async fn repository_model_load(
        &self,
        request: Request<proto::RepositoryModelLoadRequest>,
    ) -> Answer<proto::RepositoryModelLoadResponse> {
        self.control.clone()?;
        let proto::RepositoryModelLoadRequest { model_name, parameters, .. } = request.into_inner();
        if let Some(parameter) = parameters.keys().next() {
            return Err(Status::invalid_argument(not_taken(parameter)));
        }
        let (model, _) = named(&model_name, "")?;
        self.api.serving.load(&model).await.map_err(controlled)?;
        Ok(Response::new(proto::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<proto::RepositoryModelUnloadRequest>,
    ) -> Answer<proto::RepositoryModelUnloadResponse> {
        self.control.clone()?;
        let (model, _) = named(&request.get_ref().model_name, "")?;
        self.api.serving.unload(&model).await.map_err(controlled)?;
        Ok(Response::new(proto::RepositoryModelUnloadResponse {}))
    }

    async fn model_config(&self, request: Request<proto::ModelConfigRequest>) -> Answer<proto::ModelConfigResponse> {
        let proto::ModelConfigRequest { name, version } = request.into_inner();
        let config = configuration(&self.api, &named(&name, &version)?).map_err(of)?;
        Ok(Response::new(proto::ModelConfigResponse { config: Some(described::config(config)) }))
    }

    async fn model_statistics(
        &self,
        request: Request<proto::ModelStatisticsRequest>,
    ) -> Answer<proto::ModelStatisticsResponse> {
        let proto::ModelStatisticsRequest { name, version } = request.into_inner();
        // No name is every model.
        let target = (!name.is_empty()).then(|| named(&name, &version)).transpose()?;
        let counted = statistics(&self.api, target.as_ref()).map_err(of)?;
        let model_stats = counted.model_stats.into_iter().map(described::statistics).collect();
        Ok(Response::new(proto::ModelStatisticsResponse { model_stats }))
    }

    async fn trace_setting(&self, request: Request<proto::TraceSettingRequest>) -> Answer<proto::TraceSettingResponse> {
        self.control.clone()?;
        let update = described::trace_update(request.into_inner().settings);
        let settings = set_trace(&update).map_err(Status::invalid_argument)?;
        Ok(Response::new(described::traces(settings)))
    }

    async fn log_settings(&self, request: Request<proto::LogSettingsRequest>) -> Answer<proto::LogSettingsResponse> {
        self.control.clone()?;
        let update = described::log_update(request.into_inner().settings).map_err(Status::invalid_argument)?;
        let settings = set_log(&update).map_err(Status::invalid_argument)?;
        Ok(Response::new(described::log(settings)))
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<proto::SystemSharedMemoryStatusRequest>,
    ) -> Answer<proto::SystemSharedMemoryStatusResponse> {
        absent()
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<proto::SystemSharedMemoryRegisterRequest>,
    ) -> Answer<proto::SystemSharedMemoryRegisterResponse> {
        absent()
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<proto::SystemSharedMemoryUnregisterRequest>,
    ) -> Answer<proto::SystemSharedMemoryUnregisterResponse> {
        absent()
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<proto::CudaSharedMemoryStatusRequest>,
    ) -> Answer<proto::CudaSharedMemoryStatusResponse> {
        absent()
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<proto::CudaSharedMemoryRegisterRequest>,
    ) -> Answer<proto::CudaSharedMemoryRegisterResponse> {
        absent()
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<proto::CudaSharedMemoryUnregisterRequest>,
    ) -> Answer<proto::CudaSharedMemoryUnregisterResponse> {
        absent()
    }
}
