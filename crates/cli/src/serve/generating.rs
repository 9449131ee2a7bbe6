//! The model that generates: from its settings to where it serves.

use std::sync::Arc;
use std::time::Instant;

use backstop_engine::{EngineHandle, EngineThread, LifecycleState, StartPhase, Timeline};
use backstop_executor::PlannedCache;
use backstop_models::Canary;
use backstop_server::{ModelFacts, Provenance, ServedModel, Server};
use backstop_text::{ChatFormat, ControlTexts};
use backstop_types::TokenId;
use backstop_weights::Fingerprint;

use super::now_s;
use crate::args::{KvCacheDtype, ModelArgs, ServeArgs};
use crate::facts;
use crate::load::{self, ModelText, OpenModel};
use crate::provenance::{provenance, weights_digest};
use crate::queue::Queues;
use crate::standby::{CanaryFile, CanaryKey, FirstProof, Prover, Standby};
use crate::start::{self, Prepared};
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
    pub(super) async fn bring_up(
        self,
        server: &Server,
        canary_file: Option<CanaryFile>,
    ) -> Result<(EngineThread, Standby), String> {
        let Self {
            args,
            open,
            prepared,
            max_waiting,
            names,
            provenance,
            cache,
        } = self;
        let mut canaries = Canaries::of(&args, &open, &prepared, canary_file)?;
        let first = canaries.first_proof(&open, &prepared)?;
        let identity = ModelIdentity::of(&open, &prepared, names, provenance)?;
        let lifecycle = server.lifecycle().clone();
        let started = Instant::now();
        let running = tokio::task::spawn_blocking(move || {
            start::start(&args, open, prepared, max_waiting, &lifecycle)
        })
        .await
        .map_err(|error| format!("loading panicked: {error}"))??;
        server.lifecycle().advance(LifecycleState::Warming);
        // Installed before it is proved, so that a device that hangs already then is noticed.
        let engine = running.engine.clone();
        server.lifecycle().timeline().begin(StartPhase::WarmUp);
        let loading = started.elapsed();
        server.install(identity.served(running.engine, running.max_model_len));
        let prover = Prover::first(server, &engine, first).await;
        let prover = prover.map_err(|reason| reason.to_string())?;
        canaries.keep(&prover);
        if let Some(cache) = cache {
            weight_cache::write_when_idle(cache, engine.clone());
        }
        let standby = Standby::new(server.clone(), engine, prover, loading);
        Ok((running.thread, standby))
    }
}

/// Tokens of an answer that is recorded.
const RECORDED_TOKENS: u32 = 8;
/// Tokens of one that is not: the prompt's step, one with a plan behind it, and one more.
const WARM_UP_TOKENS: u32 = 3;

/// The answers with which a model's are compared, from one start to the next.
struct Canaries {
    recorded: Option<Canary>,
    /// Where to record one, if there is none.
    file: Option<(CanaryFile, CanaryKey)>,
}

impl Canaries {
    fn of(
        args: &ModelArgs,
        open: &OpenModel,
        prepared: &Prepared,
        file: Option<CanaryFile>,
    ) -> Result<Self, String> {
        let recorded = comparable_canary(args, open);
        let (Some(mut file), None) = (file, &recorded) else {
            return Ok(Self {
                recorded,
                file: None,
            });
        };
        let key = canary_key(open, prepared)?;
        Ok(Self {
            recorded: file.recorded(&key),
            file: Some((file, key)),
        })
    }

    fn first_proof(&self, open: &OpenModel, prepared: &Prepared) -> Result<FirstProof, String> {
        Ok(FirstProof {
            recorded: self.recorded.clone(),
            prompt: open.warm_up_prompt()?,
            tokens: match &self.file {
                Some(_) => RECORDED_TOKENS,
                None => WARM_UP_TOKENS,
            },
            batch_invariant: prepared.batch_invariant,
        })
    }

    /// Records the first good answer of a model that had none recorded.
    fn keep(&mut self, prover: &Prover) {
        if let (None, Some((file, key))) = (&self.recorded, self.file.take()) {
            file.record(key, prover.canary());
        }
    }
}

/// What an answer depends on.
fn canary_key(open: &OpenModel, prepared: &Prepared) -> Result<CanaryKey, String> {
    let mut configuration = Fingerprint::new();
    let texts = open.source.checkpoint.add_texts(&mut configuration);
    texts.map_err(|error| error.to_string())?;
    Ok(CanaryKey {
        weights: weights_digest(open)?,
        configuration: configuration.digits(16),
        kv_cache: format!("{:?}", prepared.limits.sizes.kv_element),
        device: prepared.plan.arithmetic(),
    })
}

/// The manifest's answer, unless the settings change what the model computes.
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
