//! Cohere 2 (`cohere2`), such as Command R7B and Command A: parallel blocks, of which every fourth attends to everything
//! and has no position embedding, and the others slide.
//!
//! Reference implementation: `models/cohere2` of Hugging Face transformers 5.23. A window of `w` means `w` visible keys.

use backstop_weights::{GgufConventions, GgufField, GgufNorm, StrictFields};
use serde_json::{Map, Value};

use super::cohere::{read_layer_norm, read_logit_scale, read_rope};
use super::cohere2_moe::refuse_unimplemented;
use crate::AnyModel;
use crate::config::{self, DecoderShape, ShapeDefaults, UnreadFields, WithUnread};
use crate::decoder::MlpPlan;
use crate::parallel_decoder::{ParallelDecoder, ParallelLayer, ParallelPlan};
use crate::registry::{ArchError, Architecture};

pub(crate) const FAMILY: Family = Family;

const NAME: &str = "cohere2";

/// The family, of one model type.
pub(crate) struct Family;

impl Architecture for Family {
    fn name(&self) -> &'static str {
        NAME
    }

    fn read(&self, config: &Map<String, Value>) -> Result<WithUnread<AnyModel>, ArchError> {
        let read = config::read(NAME, config, UNREAD, plan);
        read.map(|(plan, unread)| (ParallelDecoder::new(&plan).into(), unread))
    }

    fn gguf(&self) -> Option<GgufConventions> {
        Some(GGUF)
    }
}

const UNREAD: UnreadFields = UnreadFields {
    inert: &[
        "cache_implementation",
        "order_of_interleaved_layers",
        "position_embedding_type",
        "rotary_pct",
        "use_embedding_sharing",
        "use_gated_activation",
        "use_parallel_embedding",
    ],
    ..UnreadFields::NONE
};

/// As llama.cpp's converter writes it (`conversion/command_r.py`).
const GGUF: GgufConventions = GgufConventions {
    norm: GgufNorm::RmsOrLayer,
    fields: &[
        GgufField::SlidingLayers {
            period: 4,
            full_first: false,
        },
        GgufField::number("logit_scale", "logit_scale"),
    ],
    ..GgufConventions::new(NAME, "Cohere2ForCausalLM")
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
    let period = fields.optional_u32("sliding_window_pattern").unwrap_or(4);
    if period == 0 {
        fields.problem("sliding_window_pattern must be positive");
    }
    let window = fields.optional_u32("sliding_window").unwrap_or(4096);
    let listed = config::sliding_layers(fields, shape.num_layers);
    let mlp = MlpPlan::Dense(config::width(fields, "intermediate_size"));
    let layers = shape.layers(|layer| {
        let derived = (layer + 1).checked_rem(period as usize) != Some(0);
        let slides = listed.as_ref().map_or(derived, |kinds| kinds[layer]);
        ParallelLayer {
            rope: slides,
            visible_keys: slides.then_some(window),
            mlp,
        }
    });
    ParallelPlan {
        name: NAME,
        chat_format: "plain",
        norm: read_layer_norm(fields),
        rope: read_rope(fields, &shape),
        layers,
        logit_scale: read_logit_scale(fields),
        shape,
    }
}
