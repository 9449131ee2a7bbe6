//! The model that generates: from its settings to where it serves.

use std::sync::Arc;

use backstop_engine::{EngineHandle, EngineThread, LifecycleState, StartPhase, Timeline};
use backstop_executor::PlannedCache;
use backstop_models::Canary;
use backstop_server::{ModelFacts, Provenance, ServedModel, Server};
use backstop_text::{ChatFormat, ControlTexts};
use backstop_types::TokenId;

use super::now_s;
use crate::args::{KvCacheDtype, ModelArgs, ServeArgs};
use crate::facts;
use crate::load::{self, ModelText, OpenModel};
use crate::provenance::provenance;
use crate::queue::Queues;
use crate::start::{self, Prepared};
use crate::warm_up::warm_up;
use crate::weight_cache;

/// A model that is to generate. Its weights are not loaded.
pub(super) struct Generating {
    args: ModelArgs,
    open: OpenModel,
    prepared: Prepared,
    max_waiting: u32,
    /// Names that requests may use for it.
    pub(super) names: Vec<String>,
    provenance: Provenance,
    cache: Option<Arc<PlannedCache>>,
}

impl Generating {
    /// Reads its text files and plans its memory.
    pub(super) fn open(
        args: &ServeArgs,
        queues: &Queues,
        timeline: &Timeline,
    ) -> Result<Self, String> {
        let open = load::open_timed(&args.model, timeline)?;
        tracing::info!("{}: {}", open.name, open.text.ends_told());
        let mut prepared = Prepared::new(&args.model, &open, timeline)?;
        timeline.begin(StartPhase::Identity);
        let provenance = provenance(args, &open, &prepared)?;
        let weights = provenance.origin().weights.as_deref();
        let cache = weight_cache::plan(args, &open, &mut prepared, weights.unwrap_or_default())?;
        Ok(Self {
            max_waiting: queues.engine_max_waiting(prepared.limits.sizes.max_num_seqs),
            names: served_names(args, &open),
            provenance,
            cache,
            args: args.model.clone(),
            open,
            prepared,
        })
    }

    /// What it is called by itself.
    pub(super) fn name(&self) -> &str {
        &self.open.name
    }

    /// Whether it is to be computed on a GPU.
    pub(super) fn on_gpu(&self) -> bool {
        self.prepared.on_gpu
    }

    /// Loads, warms up and installs it.
    pub(super) async fn bring_up(self, server: &Server) -> Result<EngineThread, String> {
        let Self {
            args,
            open,
            prepared,
            max_waiting,
            names,
            provenance,
            cache,
        } = self;
        let canary = comparable_canary(&args, &open);
        let prompt = open.warm_up_prompt()?;
        let identity = ModelIdentity::of(&open, &prepared, names, provenance)?;
        let lifecycle = server.lifecycle().clone();
        let running = tokio::task::spawn_blocking(move || {
            start::start(&args, open, prepared, max_waiting, &lifecycle)
        })
        .await
        .map_err(|error| format!("loading panicked: {error}"))??;
        server.lifecycle().advance(LifecycleState::Warming);
        // Installed before it is proved, so that a device that hangs already then is noticed.
        let engine = running.engine.clone();
        server.lifecycle().timeline().begin(StartPhase::WarmUp);
        server.install(identity.served(running.engine, running.max_model_len));
        warm_up(server, &engine, canary.as_ref(), &prompt).await?;
        if let Some(cache) = cache {
            weight_cache::write_when_idle(cache, engine);
        }
        Ok(running.thread)
    }
}

/// The recorded answer, unless the settings change what the model computes.
fn comparable_canary(args: &ModelArgs, open: &OpenModel) -> Option<Canary> {
    let canary = open
        .manifest
        .as_ref()
        .and_then(|manifest| manifest.canary.clone())?;
    let changed = if args.hf_overrides.is_some() {
        "--hf-overrides"
    } else if args.kv_cache_dtype == Some(KvCacheDtype::Fp8) {
        "--kv-cache-dtype fp8"
    } else {
        return Some(canary);
    };
    tracing::warn!("{changed} changes the answers: the recorded canary is not compared");
    None
}

/// What the server tells of a model and needs for its texts.
struct ModelIdentity {
    text: ModelText,
    chat_format: &'static ChatFormat,
    control_texts: Arc<ControlTexts>,
    vocab_size: u32,
    names: Vec<String>,
    root: String,
    provenance: Provenance,
    facts: ModelFacts,
}

impl ModelIdentity {
    fn of(
        open: &OpenModel,
        prepared: &Prepared,
        names: Vec<String>,
        provenance: Provenance,
    ) -> Result<Self, String> {
        let repository = open
            .manifest
            .as_ref()
            .and_then(|manifest| manifest.repository.clone());
        let templates = open.text.templates.as_ref();
        let sources = templates.map_or(Vec::new(), |templates| templates.sources());
        let controls = ControlTexts::new(&open.text.tokenizer, open.chat_format, &sources);
        let controls = controls.map_err(|error| format!("tokenizer of {}: {error}", open.name))?;
        Ok(Self {
            text: open.text.clone(),
            chat_format: open.chat_format,
            control_texts: Arc::new(controls),
            vocab_size: open.spec().vocabulary_size,
            names,
            root: repository.unwrap_or_else(|| open.name.clone()),
            provenance,
            facts: facts::of(open, prepared),
        })
    }

    fn served(self, engine: EngineHandle, max_model_len: u32) -> ServedModel {
        let is_known = |token: &TokenId| *token < self.vocab_size;
        let eos_token_ids = self.text.end_ids();
        let fim = self.text.fim.filter(|fim| fim.ends().iter().all(is_known));
        ServedModel {
            chat_format: self.chat_format,
            control_texts: self.control_texts,
            tokenizer: self.text.tokenizer,
            templates: self.text.templates,
            eos_token_ids,
            bos_token: self.text.bos_token,
            eos_token: self.text.eos_token,
            pad_token: self.text.pad_token,
            fim: fim.map(Arc::new),
            defaults: self.text.defaults,
            max_model_len,
            vocab_size: self.vocab_size,
            engine,
            names: self.names,
            root: self.root,
            provenance: self.provenance,
            facts: self.facts,
            created_s: now_s(),
        }
    }
}

fn served_names(args: &ServeArgs, open: &OpenModel) -> Vec<String> {
    let asked = &args.server.served_model_name;
    if asked.is_empty() {
        vec![open.name.clone()]
    } else {
        asked.clone()
    }
}
