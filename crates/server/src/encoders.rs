//! Models that encode: one for vectors and one for scores, beside the model that generates or without it.
//!
//! A request's texts become tokens as prompts do; then they wait in the [queue] of their encoder, whose
//! [worker] computes them in batches. A gate like the engine's, one for each encoder, bounds who may wait.

mod admission;
mod batch;
mod liveness;
mod queue;
mod tokenizing;
mod worker;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use backstop_protocol::{ApiError, ModelCard};
use backstop_types::{Encoder, EncoderFacts, EncoderInput, EncoderKind};

pub(crate) use self::admission::{Encoded, tokens_of};
pub(crate) use self::liveness::EncoderLiveness;
use self::queue::EncoderQueue;
pub(crate) use self::queue::QueueView;
pub(crate) use self::tokenizing::{Cut, Tokenizing, check_known, not_tokenized, strip};
use crate::gate::{DrainRate, Gate, QueueSample};
use crate::metrics::{EncoderMetrics, Metrics};
use crate::model::InstalledModel;
use crate::names::Names;
use crate::provenance::Provenance;
use crate::server::Server;

/// A loaded encoder, and what is told of it.
#[derive(Clone)]
pub struct ServedEncoder {
    /// What computes.
    pub encoder: Arc<dyn Encoder>,
    /// Names that requests may use for it; `"*"` among them answers to any name.
    pub names: Vec<String>,
    /// What it is called where no served name is: its path.
    pub root: String,
    /// When it was loaded, in seconds since 1970.
    pub created_s: u64,
    /// What its answers say of where they come from.
    pub provenance: Provenance,
}

impl fmt::Debug for ServedEncoder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServedEncoder")
            .field("root", &self.root)
            .field("facts", self.encoder.facts())
            .finish_non_exhaustive()
    }
}

/// What encoders are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EncoderTask {
    Embed,
    Rerank,
}

impl EncoderTask {
    const ALL: [Self; 2] = [Self::Embed, Self::Rerank];

    pub(crate) fn of(facts: &EncoderFacts) -> Self {
        match facts.kind {
            EncoderKind::Embedding { .. } => Self::Embed,
            EncoderKind::Relevance => Self::Rerank,
        }
    }

    /// One word for probes and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::Rerank => "rerank",
        }
    }

    /// Completes "No model that …".
    fn ability(self) -> &'static str {
        match self {
            Self::Embed => "makes embeddings",
            Self::Rerank => "ranks documents",
        }
    }

    /// The task of a route, if it is for encoders.
    fn of_route(path: &str) -> Option<Self> {
        match path {
            "/v1/embeddings" => Some(Self::Embed),
            "/rerank" | "/v1/rerank" | "/v2/rerank" => Some(Self::Rerank),
            _ => None,
        }
    }
}

/// An endpoint whose answer is made of what an encoder gives. A value of it is what one request asks for beside
/// its inputs.
pub(crate) trait Encoding: Sized + Send + 'static {
    /// Makes of a body what is to be encoded. It may take its time.
    fn prepare(server: &Server, body: &[u8]) -> Result<Encodable<Self>, ApiError>;

    /// Writes the answer of these rows, one for each input, as JSON. It may take its time.
    fn write(self, rows: Vec<Vec<f32>>) -> Result<String, ApiError>;
}

/// What is to be encoded.
pub(crate) struct Encodable<E> {
    pub(crate) encoder: Arc<InstalledEncoder>,
    /// At least one; each fits the encoder.
    pub(crate) inputs: Vec<EncoderInput>,
    pub(crate) priority: i32,
    pub(crate) endpoint: E,
}

/// An encoder and what the server keeps about it.
#[derive(Debug)]
pub(crate) struct InstalledEncoder {
    pub(crate) served: ServedEncoder,
    pub(crate) metrics: EncoderMetrics,
    queue: EncoderQueue,
    gate: Arc<Gate>,
    drain_rate: Mutex<DrainRate>,
}

impl InstalledEncoder {
    fn new(served: ServedEncoder, metrics: &Metrics, gate: Gate) -> io::Result<Self> {
        let queue = EncoderQueue::new(Arc::clone(&served.encoder))?;
        let name = Names(&served.names).default_or(&served.root);
        Ok(Self {
            metrics: metrics.install_encoder(name, queue.view()),
            queue,
            gate: Arc::new(gate),
            drain_rate: Mutex::default(),
            served,
        })
    }

    pub(crate) fn facts(&self) -> &EncoderFacts {
        self.served.encoder.facts()
    }

    pub(crate) fn task(&self) -> EncoderTask {
        EncoderTask::of(self.facts())
    }

    pub(crate) fn names(&self) -> Names<'_> {
        Names(&self.served.names)
    }

    pub(crate) fn liveness(&self) -> EncoderLiveness {
        self.queue.view().liveness()
    }

    /// The name that answers carry for a request that asks so.
    pub(crate) fn answering_name(&self, asked: Option<&str>) -> String {
        let default = self.names().default_or(&self.served.root);
        asked.unwrap_or(default).to_owned()
    }

    /// What a list of models says of it, under this name.
    pub(crate) fn card(&self, name: &str) -> ModelCard {
        let facts = self.facts();
        let dimensions = match facts.kind {
            EncoderKind::Embedding { dimensions, .. } => Some(dimensions),
            EncoderKind::Relevance => None,
        };
        let ServedEncoder {
            root,
            created_s,
            provenance,
            ..
        } = &self.served;
        ModelCard::of_encoder(
            name.to_owned(),
            root.clone(),
            *created_s,
            facts.max_tokens,
            dimensions,
        )
        .from(provenance.origin().clone())
    }

    /// Takes in how fast the queue empties.
    fn sample_queue(&self) {
        let liveness = self.liveness();
        let sample = QueueSample {
            at: Instant::now(),
            left: liveness.started,
            waiting: liveness.waiting,
        };
        self.drain_rate().sample(sample);
    }

    /// When a client that does not get a place now should come back.
    fn retry_after_s(&self) -> u32 {
        let waiting = self.liveness().waiting;
        self.drain_rate().retry_after_s(waiting)
    }

    fn drain_rate(&self) -> std::sync::MutexGuard<'_, DrainRate> {
        let rate = self.drain_rate.lock();
        rate.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The encoders of a server: at most one for each task.
#[derive(Debug, Default)]
pub(crate) struct Encoders {
    embedding: OnceLock<Arc<InstalledEncoder>>,
    reranker: OnceLock<Arc<InstalledEncoder>>,
}

impl Encoders {
    fn place(&self, task: EncoderTask) -> &OnceLock<Arc<InstalledEncoder>> {
        match task {
            EncoderTask::Embed => &self.embedding,
            EncoderTask::Rerank => &self.reranker,
        }
    }

    pub(crate) fn get(&self, task: EncoderTask) -> Option<&Arc<InstalledEncoder>> {
        self.place(task).get()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<InstalledEncoder>> {
        EncoderTask::ALL
            .into_iter()
            .filter_map(|task| self.get(task))
    }

    /// Only the first encoder for a task counts.
    pub(crate) fn install(
        &self,
        served: ServedEncoder,
        metrics: &Metrics,
        gate: Gate,
    ) -> io::Result<()> {
        let place = self.place(EncoderTask::of(served.encoder.facts()));
        if place.get().is_none() {
            let installed = InstalledEncoder::new(served, metrics, gate)?;
            place.get_or_init(|| Arc::new(installed));
        }
        Ok(())
    }

    /// The encoder that answers a route, if it is for encoders and there is one.
    pub(crate) fn of_route(&self, path: &str) -> Option<&Arc<InstalledEncoder>> {
        EncoderTask::of_route(path).and_then(|task| self.get(task))
    }

    /// The encoder that is listed under this very name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<InstalledEncoder>> {
        self.all().find(|encoder| encoder.names().list(name))
    }

    /// The gates of all.
    pub(crate) fn gates(&self) -> impl Iterator<Item = &Arc<Gate>> {
        self.all().map(|encoder| &encoder.gate)
    }

    pub(crate) fn sample_queues(&self) {
        self.all().for_each(|encoder| encoder.sample_queue());
    }
}

/// A model of either kind.
pub(crate) enum AnyModel<'a> {
    Generating(&'a InstalledModel),
    Encoder(&'a InstalledEncoder),
}

impl Server {
    /// The model that is meant by a name: who is listed under it comes before who answers to any.
    pub(crate) fn model_named(&self, name: &str) -> Result<AnyModel<'_>, ApiError> {
        let generating = self.installed();
        if let Some(model) = generating.filter(|model| model.served.names().list(name)) {
            return Ok(AnyModel::Generating(model));
        }
        if let Some(encoder) = self.encoders().named(name) {
            return Ok(AnyModel::Encoder(encoder));
        }
        if let Some(model) = generating.filter(|model| model.served.names().serve(name)) {
            return Ok(AnyModel::Generating(model));
        }
        let any = self
            .encoders()
            .all()
            .find(|encoder| encoder.names().serve(name));
        any.map(|encoder| AnyModel::Encoder(encoder))
            .ok_or_else(|| ApiError::model_not_found(&self.shown_names().join("', '")))
    }

    /// The model that a request is for which may be for any: the one that generates if it does not say.
    pub(crate) fn any_model(&self, asked: Option<&str>) -> Result<AnyModel<'_>, ApiError> {
        let encoders = || {
            self.encoders()
                .all()
                .map(|encoder| AnyModel::Encoder(encoder))
        };
        let generating = self.installed().map(|model| AnyModel::Generating(model));
        match asked.filter(|name| !name.is_empty()) {
            Some(name) => self.model_named(name),
            None => generating
                .or_else(|| encoders().next())
                .ok_or_else(ApiError::internal),
        }
    }

    /// The encoder for a task, if it is served under the name that was asked for; and the name that answers
    /// carry.
    pub(crate) fn encoder_for(
        &self,
        task: EncoderTask,
        asked: Option<String>,
    ) -> Result<(&Arc<InstalledEncoder>, String), ApiError> {
        let Some(encoder) = self.encoders().get(task) else {
            let served = self.shown_names();
            return Err(ApiError::no_model_that(task.ability(), &served));
        };
        let asked = asked.filter(|name| !name.is_empty());
        let name = encoder.answering_name(asked.as_deref());
        match asked.is_none_or(|asked| encoder.names().serve(&asked)) {
            true => Ok((encoder, name)),
            false => Err(ApiError::model_not_found(&encoder.answering_name(None))),
        }
    }
}
