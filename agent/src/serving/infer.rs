//! `Serving::infer`: the walk of one inference.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_common::deadline::Deadline;
use adit_common::id::ModelName;
use adit_common::timing::{Stage, Stopwatch};
use adit_vision::Labels;
use adit_vision::image::{Frame, ImageLimits};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout_at;
use tracing::Span;

use super::catalogue::Catalogue;
use super::control::Control;
use super::decoders::Decoders;
use super::job::{Job, Ran};
use super::model::{Model, Prepared};
use super::progress::{Left, Progress};
use super::receipt::Receipt;
use super::repository::Repository;
use super::request::{InferRequest, InferResponse, Input};
use crate::error::{ControlError, InferError};
use crate::metrics::{Account, Failure, Metrics, Spent};

/// More numbers than this are normalised on the blocking pool: it takes a few nanoseconds each.
const MANY: usize = 1 << 15;

/// What one inference may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Images in one request.
    pub max_images: usize,
    /// Pixels of one image.
    pub max_pixels: u64,
    /// Images that are decoded or prepared at one time.
    pub decoders: usize,
}

/// Who answers requests that name no model, where the configuration says it.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    /// The model of dialects that tell classes.
    pub model: Option<ModelName>,
    /// The model of dialects that tell boxes.
    pub detector: Option<ModelName>,
}

/// The models and what is needed to ask them; clones are the same.
#[derive(Debug, Clone)]
pub struct Serving {
    catalogue: watch::Receiver<Catalogue>,
    control: Control,
    defaults: Defaults,
    pub(super) decoders: Decoders,
    pub(super) images: ImageLimits,
    max_images: usize,
    metrics: Arc<Metrics>,
}

impl Serving {
    /// Serves what is in the repository.
    pub fn new(repository: &Repository, defaults: Defaults, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            catalogue: repository.catalogue(),
            control: repository.control().clone(),
            defaults,
            decoders: Decoders::new(limits.decoders),
            images: ImageLimits { max_pixels: limits.max_pixels, ..ImageLimits::default() },
            max_images: limits.max_images,
            metrics,
        }
    }

    /// The models as they are now. Held briefly: loading waits for it.
    pub fn catalogue(&self) -> watch::Ref<'_, Catalogue> {
        self.catalogue.borrow()
    }

    /// The catalogue, as it changes.
    pub fn watch(&self) -> watch::Receiver<Catalogue> {
        self.catalogue.clone()
    }

    /// The model of dialects that name none: the configured one, else the first classifier by name that is ready. Where
    /// there is no classifier at all, the first detector, so that whoever asks can be told what to ask instead.
    pub fn default_model(&self) -> Option<ModelName> {
        if self.defaults.model.is_some() {
            return self.defaults.model.clone();
        }
        let catalogue = self.catalogue();
        let classifier = catalogue.first_classifier();
        // A classifier may still be on its way.
        classifier.or_else(|| catalogue.first_ready().filter(|_| catalogue.is_settled())).cloned()
    }

    /// The detector of dialects that name none: the configured one, else the first by name that is ready and tells more kinds of
    /// things than one; where there is none, the first that is ready. Only of those that `tells` is true of: it is given the
    /// detectors' labels.
    pub fn default_detector(&self, tells: impl Fn(&Labels) -> bool) -> Option<ModelName> {
        let catalogue = self.catalogue();
        let all: Vec<_> = catalogue.detectors().filter(|card| tells(&card.labels)).collect();
        let configured = all.iter().find(|card| Some(&card.name) == self.defaults.detector.as_ref());
        let broad = || all.iter().find(|card| card.labels.kinds().nth(1).is_some());
        configured.or_else(broad).or(all.first()).map(|card| card.name.clone())
    }

    /// How many images one request may have.
    pub const fn max_images(&self) -> usize {
        self.max_images
    }

    /// Whether a restart would make nothing better: no pass is silent for much longer than `patience` without anybody minding
    /// it, and not every model has been given up.
    pub fn is_alive(&self, patience: Duration) -> bool {
        self.catalogue().is_alive(patience)
    }

    /// Looks at the models folder now, and resolves when what has changed in it is loaded, or found not to be loadable.
    pub async fn rescan(&self) -> Result<(), ControlError> {
        self.control.look().await
    }

    /// Loads a model, and whatever of it could not be loaded before. Resolves when all of it serves.
    pub async fn load(&self, model: &ModelName) -> Result<(), ControlError> {
        self.control.load(model.clone()).await
    }

    /// Unloads a model until it is loaded again. Requests that have it already are answered.
    pub async fn unload(&self, model: &ModelName) -> Result<(), ControlError> {
        self.control.unload(model.clone()).await
    }

    /// Answers one request, and laps the stopwatch at each stage. Dropping the future cancels the inference: what waits is
    /// taken out of the queue, what runs stops between two layers.
    pub async fn infer(&self, request: InferRequest, watch: &mut Stopwatch) -> Result<InferResponse, InferError> {
        let known = self.catalogue().versions(&request.model).is_some();
        let label = if known { request.model.to_string() } else { String::new() };
        let mut visit = Visit {
            metrics: &self.metrics,
            model: label,
            account: None,
            begun: Instant::now(),
            progress: Progress::default(),
            seat: None,
            open: true,
        };
        let result = self.walk(request, &mut visit, watch).await;
        match &result {
            Ok(_) => visit.close("ok"),
            Err(error) => {
                match error {
                    InferError::Overloaded { .. } => self.metrics.overloaded.add(),
                    InferError::DeadlineExceeded => self.metrics.expired.add(),
                    InferError::Backend { detail, .. } => tracing::error!(detail, "{error}"),
                    _ => {}
                }
                visit.fail(failure(error));
                visit.close(error.outcome());
            }
        }
        result
    }

    async fn walk(
        &self,
        request: InferRequest,
        visit: &mut Visit<'_>,
        watch: &mut Stopwatch,
    ) -> Result<InferResponse, InferError> {
        let InferRequest { model, version, input, deadline, priority } = request;
        let before = laps(watch);
        let model = self.control.awake(&self.catalogue, &model, &version, deadline).await?;
        visit.account = Some(model.account().clone());
        let Prepared { input, frames } = self.prepare(&model, input, &visit.progress, deadline, watch).await?;
        let images = input.dim(0).unwrap_or(0);

        if deadline.expired(Instant::now()) {
            return Err(InferError::DeadlineExceeded);
        }
        let (reply, ran) = oneshot::channel();
        let queued = self.metrics.wait(model.card().name.as_str(), images).of(model.account());
        let (progress, span) = (visit.progress.clone(), Span::current());
        let job = Job { input, priority, deadline: deadline.instant(), progress, reply, span, queued };
        visit.seat = Some((model.clone(), model.submit(job)?));
        let answered = until(deadline, ran).await?.map_err(|_| model.failed("its workers have ended".to_owned()))?;
        visit.seat = None;
        let Ran { heads, begun, ended, batch } = answered.map_err(|lost| model.lost(lost))?;
        watch.lap_at(Stage::Queue, begun);
        watch.lap_at(Stage::Forward, ended);
        watch.note(format!("{} b={batch}", model.card().device));

        let sizes = frames.iter().map(Frame::size).collect();
        let findings = if model.is_detector() {
            // Thousands of places an image are looked through: too long for the runtime's threads.
            let reader = model.clone();
            let read = tokio::task::spawn_blocking(move || reader.interpret(&heads, &frames)).await;
            read.map_err(|error| model.failed(format!("reading its boxes failed: {error}")))??
        } else {
            model.interpret(&heads, &frames)?
        };
        watch.lap(Stage::Interpret);
        let spent = spent(before, laps(watch));
        Ok(InferResponse {
            model: model.card().name.clone(),
            version: model.card().version,
            findings,
            labels: model.card().labels.clone(),
            receipt: Receipt::new(model.account().clone(), images, batch, spent),
            sizes,
        })
    }

    /// The network's input, made on the blocking pool.
    async fn prepare(
        &self,
        model: &Arc<Model>,
        input: Input,
        progress: &Progress,
        deadline: Deadline,
        watch: &mut Stopwatch,
    ) -> Result<Prepared, InferError> {
        let images = match input {
            Input::Images(images) => images,
            Input::Tensor { shape, elements } => {
                self.admit(shape.first().copied().unwrap_or(0))?;
                let prepared = model.take(&shape, &elements)?;
                watch.lap(Stage::Decode);
                return Ok(prepared);
            }
            Input::Pixels { images, elements } => {
                self.admit(images)?;
                watch.lap(Stage::Decode);
                let prepared = if elements.len() > MANY {
                    let reader = model.clone();
                    let prepared = tokio::task::spawn_blocking(move || reader.normalise(images, &elements));
                    let prepared = until(deadline, prepared).await?;
                    prepared.map_err(|error| model.failed(format!("preparing failed: {error}")))??
                } else {
                    model.normalise(images, &elements)?
                };
                watch.lap(Stage::Prepare);
                return Ok(prepared);
            }
        };
        self.admit(images.len())?;
        watch.lap(Stage::Decode);
        until(deadline, self.look(model, images, progress, watch)).await?
    }

    fn admit(&self, images: usize) -> Result<(), InferError> {
        match images {
            0 => Err(InferError::Invalid("there is no image in the request".to_owned())),
            many if many > self.max_images => {
                Err(InferError::Invalid(format!("{many} images in one request, at most {} are taken", self.max_images)))
            }
            _ => Ok(()),
        }
    }
}

/// Waits for an answer, but not beyond the deadline.
pub(super) async fn until<F: Future>(deadline: Deadline, answer: F) -> Result<F::Output, InferError> {
    match deadline.instant() {
        Some(at) => timeout_at(at.into(), answer).await.map_err(|_| InferError::DeadlineExceeded),
        None => Ok(answer.await),
    }
}

/// What a stopwatch has given to the stages that are counted: a request may have come with a watch that has run before.
fn laps(watch: &Stopwatch) -> [Duration; 5] {
    [Stage::Queue, Stage::Decode, Stage::Prepare, Stage::Forward, Stage::Interpret].map(|stage| watch.lapped(stage))
}

fn spent(before: [Duration; 5], after: [Duration; 5]) -> Spent {
    let [queue, decode, prepare, infer, output] =
        std::array::from_fn(|stage| after[stage].saturating_sub(before[stage]));
    Spent { queue, input: decode + prepare, infer, output }
}

const fn failure(error: &InferError) -> Failure {
    match error {
        InferError::Overloaded { .. } | InferError::TooLate { .. } | InferError::DeadlineExceeded => Failure::Rejected,
        InferError::Cancelled => Failure::Canceled,
        InferError::Backend { .. } => Failure::Backend,
        _ => Failure::Other,
    }
}

/// One caller's presence. Dropped while it is open, the caller has left: then nothing of its inference may stay.
struct Visit<'a> {
    metrics: &'a Metrics,
    /// For metrics: empty where no such model is known.
    model: String,
    /// The model's, once it is known.
    account: Option<Arc<Account>>,
    begun: Instant,
    progress: Progress,
    /// Where it waits or runs.
    seat: Option<(Arc<Model>, u64)>,
    open: bool,
}

impl Visit<'_> {
    fn fail(&self, why: Failure) {
        if let Some(account) = &self.account {
            account.failed(why, self.begun.elapsed());
        }
    }

    /// The caller has its answer, or the reason why there is none.
    fn close(&mut self, outcome: &'static str) {
        self.open = false;
        self.metrics.finished(&self.model, outcome);
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        // Also after a deadline: what still waits or runs is of no use.
        let left = self.progress.leave();
        if let Some((model, number)) = self.seat.take() {
            model.withdraw(number);
        }
        if self.open {
            match left {
                Left::Waiting => self.metrics.cancelled_queued.add(),
                Left::Running => self.metrics.cancelled_running.add(),
            }
            self.fail(Failure::Canceled);
            self.metrics.finished(&self.model, "cancelled");
            tracing::debug!(?left, "the caller has left");
        }
    }
}
