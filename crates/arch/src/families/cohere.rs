//! Cohere (`cohere`), such as Command R and Aya 23: parallel blocks that all attend to everything and rotate neighbours.
//!
//! Reference implementation: `models/cohere` of Hugging Face transformers 5.23. Norms of queries and keys, which Command
//! R+ has, are refused.

use backstop_kernels::backend::{Norm, Rope, RopePairing};
use backstop_weights::{GgufConventions, GgufField, GgufNorm, StrictFields};
use serde_json::{Map, Value};

use super::cohere2_moe::refuse_unimplemented;
use crate::AnyModel;
use crate::config::{self, DecoderShape, ShapeDefaults, UnreadFields, WithUnread};
use crate::decoder::MlpPlan;
use crate::parallel_decoder::{ParallelDecoder, ParallelLayer, ParallelPlan};
use crate::registry::{ArchError, Architecture};
use crate::rope::{self, RopeDefaults};

pub(crate) const FAMILY: Family = Family;

const NAME: &str = "cohere";

/// The family, of one model type.
pub(crate) struct Family;

impl Architecture for Family {
    fn name(&self) -> &'static str {
        NAME
    }

    fn read(&self, config: &Map<String, Value>) -> Result<WithUnread<AnyModel>, ArchError> {
        let unread = UnreadFields {
            // The tokenizer's limit.
            inert: &["model_max_length"],
            ..UnreadFields::NONE
        };
        let read = config::read(NAME, config, unread, plan);
        read.map(|(plan, unread)| (ParallelDecoder::new(&plan).into(), unread))
    }

    fn gguf(&self) -> Option<GgufConventions> {
        Some(GGUF)
    }
}

/// As llama.cpp's converter writes it (`conversion/command_r.py`).
const GGUF: GgufConventions = GgufConventions {
    norm: GgufNorm::RmsOrLayer,
    fields: &[GgufField::number("logit_scale", "logit_scale")],
    ..GgufConventions::new("command-r", "CohereForCausalLM")
};

/// Defaults are those of the reference implementation's configuration class.
fn plan(fields: &mut StrictFields<'_>) -> ParallelPlan {
    let shape = DecoderShape::read(
        fields,
        ShapeDefaults {
            tied: true,
            ..ShapeDefaults::new(8192)
        },
    );
    refuse_unimplemented(fields);
    let layer = ParallelLayer {
        rope: true,
        visible_keys: None,
        mlp: MlpPlan::Dense(config::width(fields, "intermediate_size")),
    };
    ParallelPlan {
        name: NAME,
        chat_format: "plain",
        norm: read_layer_norm(fields),
        rope: read_rope(fields, &shape),
        layers: shape.layers(|_| layer),
        logit_scale: read_logit_scale(fields),
        shape,
    }
}

/// LayerNorm without biases.
pub(super) fn read_layer_norm(fields: &mut StrictFields<'_>) -> Norm {
    let epsilon = fields.optional_f64("layer_norm_eps").unwrap_or(1e-5);
    Norm::LayerWithoutBias {
        epsilon: epsilon as f32,
    }
}

/// Cohere's models rotate neighbours.
pub(super) fn read_rope(fields: &mut StrictFields<'_>, shape: &DecoderShape) -> Rope {
    let halves = RopeDefaults::halves(shape, 10_000.0);
    let defaults = RopeDefaults {
        pairing: RopePairing::Interleaved,
        ..halves
    };
    rope::read(fields, defaults)
}

pub(super) fn read_logit_scale(fields: &mut StrictFields<'_>) -> f32 {
    fields.optional_f64("logit_scale").unwrap_or(0.0625) as f32
}
