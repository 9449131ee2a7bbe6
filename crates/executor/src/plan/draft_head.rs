//! A draft head beside a model.

use std::sync::Arc;

use backstop_arch::{DraftHead, KvGroup, ModelSpec, build_draft_head};
use backstop_kernels::{CpuBackend, CpuWeights, Element};
use backstop_loader::{LoadFailure, fit_draft_head, load_cpu_draft_head};
use backstop_types::KvSpec;
use backstop_weights::Checkpoint;

use super::StartError;
use crate::{Drafter, draft_kv_cache};

/// A draft head without its weights.
#[expect(
    missing_debug_implementations,
    reason = "heads have no useful text form"
)]
pub struct DraftHeadSource {
    checkpoint: Checkpoint,
    head: Arc<dyn DraftHead<CpuBackend>>,
    num_tokens: u32,
}

impl DraftHeadSource {
    /// Compares a head with the model that it is to guess `num_tokens` tokens at once for.
    pub fn new(
        mut checkpoint: Checkpoint,
        model: &ModelSpec,
        num_tokens: u32,
    ) -> Result<Self, LoadFailure> {
        let head: Box<dyn DraftHead<CpuBackend>> = build_draft_head(checkpoint.config(), model)?;
        for warning in fit_draft_head(&mut checkpoint, head.spec())? {
            tracing::warn!("draft head {}: {warning}", checkpoint.directory().display());
        }
        Ok(Self {
            head: head.into(),
            checkpoint,
            num_tokens,
        })
    }

    /// Bytes of its weights.
    pub(super) fn weights_bytes(&self) -> u64 {
        self.checkpoint.bytes_total()
    }

    /// Groups of the model with room for the head's keys and values.
    pub(super) fn with_room(&self, model: &[KvGroup]) -> Vec<KvGroup> {
        self.head.spec().with_room(model)
    }

    /// Loads the weights.
    pub(super) fn start(
        &self,
        model: &ModelSpec,
        model_weights: &CpuWeights,
        kv: &KvSpec,
        element: Element,
    ) -> Result<Drafter, StartError> {
        let spec = self.head.spec();
        let directory = self.checkpoint.directory().display();
        let weights = load_cpu_draft_head(&self.checkpoint, spec, model, model_weights, &|_| {});
        let weights = weights.map_err(|failure| StartError::DraftHead {
            directory: directory.to_string(),
            failure: Box::new(failure),
        })?;
        let cache = draft_kv_cache(spec, kv, element);
        tracing::info!(
            "{} tokens are guessed by the head in {directory}",
            self.num_tokens
        );
        let backend = CpuBackend::new(weights.into(), cache);
        Ok(Drafter::new(
            Arc::clone(&self.head),
            backend,
            self.num_tokens,
        ))
    }
}
