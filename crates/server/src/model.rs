//! The model as the server sees it: how to speak to it and what it defaults to.

use std::fmt;
use std::sync::Arc;

use backstop_engine::EngineHandle;
use backstop_text::{ChatFormat, ChatTemplates, ControlTexts, FimTokens, Tokenizer};
use backstop_types::{AttentionSpan, TokenId};

use crate::constraint::Constraints;
use crate::metrics::RequestMetrics;
use crate::names::Names;
use crate::provenance::Provenance;
use crate::trial::GrammarWorker;

/// A loaded model with everything that turns requests into its tokens and back.
#[derive(Clone)]
pub struct ServedModel {
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Its chat templates; without any it serves completions only.
    pub templates: Option<Arc<ChatTemplates>>,
    /// How it marks reasoning, text and tool calls.
    pub chat_format: &'static ChatFormat,
    /// What contents may say without meaning it.
    pub control_texts: Arc<ControlTexts>,
    /// The tokens by which it fills in the middle, if it does.
    pub fim: Option<Arc<FimTokens>>,
    /// Tokens that end an answer, unless a request asks to ignore them.
    pub eos_token_ids: Vec<TokenId>,
    /// The token that begins a sequence, as templates write it.
    pub bos_token: String,
    /// The token that ends a sequence, as templates write it.
    pub eos_token: String,
    /// The token that fills unused positions, for clients that pad by themselves.
    pub pad_token: Option<String>,
    /// What requests that do not say get.
    pub defaults: GenerationDefaults,
    /// Prompt and answer together, in tokens.
    pub max_model_len: u32,
    /// Token ids that the model has an embedding for are below this.
    pub vocab_size: u32,
    /// The engine that runs it.
    pub engine: EngineHandle,
    /// Names that requests may use for it. The first one is the default and names the metrics; `"*"` among them
    /// answers to any name.
    pub names: Vec<String>,
    /// What it is called where no served name is: its repository or path.
    pub root: String,
    /// What answers say of where they come from.
    pub provenance: Provenance,
    /// When it was loaded, in seconds since 1970.
    pub created_s: u64,
    /// What clients are told of it.
    pub facts: ModelFacts,
}

/// What is told of a model to those who ask. Nothing depends on it; empty texts are what is not
/// known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelFacts {
    /// Name of the architecture, as in `model_type`.
    pub architecture: String,
    /// The files' format: `gguf` or `safetensors`.
    pub format: String,
    /// The number format that most bytes of the weights have.
    pub number_format: String,
    /// Bytes of the files' weights.
    pub file_bytes: u64,
    /// Bytes of memory for the weights.
    pub memory_bytes: u64,
    /// That memory is a GPU's.
    pub on_gpu: bool,
    /// What computes, in words.
    pub device: String,
    /// What is computed beside an answer never changes it.
    pub batch_invariant: bool,
}

impl fmt::Debug for ServedModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServedModel")
            .field("root", &self.root)
            .field("chat_format", &self.chat_format.id)
            .field("max_model_len", &self.max_model_len)
            .finish_non_exhaustive()
    }
}

impl ServedModel {
    /// Its served names.
    pub(crate) fn names(&self) -> Names<'_> {
        Names(&self.names)
    }

    /// The name under which metrics are kept and which requests without a name get.
    pub(crate) fn default_name(&self) -> &str {
        self.names().default_or(&self.root)
    }

    /// The source of the chat template of requests that no other is for.
    pub(crate) fn default_template_source(&self) -> Option<&str> {
        Some(self.templates.as_ref()?.default_template()?.source())
    }

    /// Lowers the context length to what the KV cache can hold of one sequence: a request that
    /// leaves the length of its answer open would otherwise ask for what never fits.
    pub(crate) fn limit_to_cache(&mut self) {
        let kv = self.engine.stats().kv;
        let full = kv
            .groups
            .iter()
            .filter(|group| group.span == AttentionSpan::Full);
        let capacity = full
            .map(|group| group.num_blocks.saturating_mul(kv.block_size))
            .min();
        if let Some(capacity) = capacity.filter(|capacity| *capacity < self.max_model_len) {
            tracing::warn!(
                max_model_len = self.max_model_len,
                capacity,
                "the KV cache is smaller than the context length, which is lowered to fit"
            );
            self.max_model_len = capacity;
        }
    }

    /// Whether the model can read this token.
    pub(crate) fn knows_token(&self, token: TokenId) -> bool {
        token < self.vocab_size && (token as usize) < self.tokenizer.vocab_size()
    }
}

/// Sampling settings from a model's generation config. `None` leaves a setting off.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    /// 1 if `None`, as the API has it.
    pub temperature: Option<f32>,
    /// Smallest set of tokens whose probability reaches this.
    pub top_p: Option<f32>,
    /// Most likely tokens kept.
    pub top_k: Option<u32>,
    /// Tokens at least this likely, relative to the most likely one.
    pub min_p: Option<f32>,
    /// Penalty on tokens that stand in prompt or output.
    pub repetition_penalty: Option<f32>,
}

/// A model and what the server keeps about it.
#[derive(Debug)]
pub(crate) struct InstalledModel {
    pub(crate) served: ServedModel,
    pub(crate) metrics: RequestMetrics,
    pub(crate) constraints: Constraints,
}

impl InstalledModel {
    pub(crate) fn new(
        served: ServedModel,
        metrics: RequestMetrics,
        worker: Option<GrammarWorker>,
    ) -> Arc<Self> {
        let model = Arc::new(Self {
            served,
            metrics,
            constraints: Constraints::new(worker),
        });
        model.sort_vocabulary();
        model
    }

    /// Sorts a large vocabulary before the first constrained request has to wait for it.
    fn sort_vocabulary(self: &Arc<Self>) {
        let model = Arc::clone(self);
        let work = move || model.constraints.warm_up(&model.served);
        let thread = std::thread::Builder::new().name("vocabulary".to_owned());
        // Without this thread the first constrained request does the work.
        if let Err(error) = thread.spawn(work) {
            tracing::warn!(%error, "no thread to sort the vocabulary on");
        }
    }
}
