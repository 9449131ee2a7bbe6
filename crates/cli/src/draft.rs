//! The draft head that `--speculative-config` names: found, read and started beside the model.

use backstop_arch::{DraftHead, KvGroup, ModelSpec, build_draft_head};
use backstop_executor::{Drafter, draft_kv_cache};
use backstop_kernels::{CpuBackend, CpuWeights, Element};
use backstop_loader::load_cpu_draft_head;
use backstop_types::KvSpec;
use backstop_weights::{Checkpoint, ModelLocator};

use crate::speculative::HeadChoice;

/// A draft head without its weights.
pub(crate) struct OpenHead {
    checkpoint: Checkpoint,
    head: Box<dyn DraftHead<CpuBackend>>,
    num_tokens: u32,
}

impl OpenHead {
    /// Finds the head and compares it with the model that it is to guess for.
    pub(crate) fn open(choice: HeadChoice<'_>, model: &ModelSpec) -> Result<Self, String> {
        let named = |error: String| format!("model in --speculative-config: {error}");
        let located = ModelLocator::from_environment().locate(choice.model);
        let directory = located.map_err(|error| named(error.to_string()))?.directory;
        let checkpoint =
            Checkpoint::open(&directory, &[]).map_err(|error| named(error.to_string()))?;
        let head = build_draft_head::<CpuBackend>(checkpoint.config(), model)
            .map_err(|error| named(format!("{}: {error}", directory.display())))?;
        Ok(Self {
            checkpoint,
            head,
            num_tokens: choice.num_tokens,
        })
    }

    /// Bytes of its weights.
    pub(crate) fn weights_bytes(&self) -> u64 {
        self.checkpoint.bytes_total()
    }

    /// Groups of the model with room for the head's keys and values.
    pub(crate) fn with_room(&self, model: &[KvGroup]) -> Vec<KvGroup> {
        self.head.spec().with_room(model)
    }

    /// Loads the weights.
    pub(crate) fn start(
        self,
        model: (&ModelSpec, &CpuWeights),
        kv: &KvSpec,
        element: Element,
    ) -> Result<Drafter, String> {
        let spec = self.head.spec();
        let weights = load_cpu_draft_head(&self.checkpoint, spec, model, &|_| {});
        let directory = self.checkpoint.directory().display();
        let weights = weights
            .map_err(|error| format!("model in --speculative-config: {directory}: {error}"))?;
        let cache = draft_kv_cache(spec, kv, element);
        tracing::info!(
            "{} tokens are guessed by the head in {directory}",
            self.num_tokens
        );
        let backend = CpuBackend::new(weights.into(), cache);
        Ok(Drafter::new(self.head, backend, self.num_tokens))
    }
}
