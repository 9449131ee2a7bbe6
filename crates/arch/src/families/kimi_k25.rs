//! Kimi K2.5 and later (`kimi_k25`): Kimi K2 beside an encoder of images and video, which is left out.
//!
//! Reference implementation: `models/kimi_k25` of Hugging Face transformers 5.23, which sees text alone. Its text model is
//! `models/deepseek_v3`, under a name of its own in the checkpoint.

use backstop_weights::StrictFields;
use serde_json::{Map, Value};

use super::deepseek_v3;
use crate::AnyModel;
use crate::config::{self, UnreadFields, WithUnread};
use crate::decoder::{Decoder, DecoderPlan};
use crate::registry::{ArchError, Architecture};

pub(crate) const FAMILY: KimiK25 = KimiK25;

const NAME: &str = "kimi_k25";
/// What the text model calls itself, in published configurations and in those that transformers writes.
const TEXT_TYPES: [&str; 2] = ["kimi_k2", "deepseek_v3"];
const TEXT: deepseek_v3::Family = deepseek_v3::Family {
    chat_format: "kimi_k2",
    ..deepseek_v3::Family::new(NAME)
};
/// Of what other things than text become, and of other programs.
const UNREAD: UnreadFields = UnreadFields {
    inert: &[
        "encoder_only",
        "ignore_index",
        "image_token_id",
        "language_only",
        "media_placeholder_token_id",
        "projection_hidden_size",
        "projection_layer_norm_eps",
        "use_unified_vision_chunk",
        "video_placeholder",
        "video_token_id",
        "vision_config",
        "vision_end_token_id",
        "vision_start_token_id",
    ],
    ..UnreadFields::NONE
};

/// The text model of Kimi K2.5.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KimiK25;

impl Architecture for KimiK25 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn read(&self, config: &Map<String, Value>) -> Result<WithUnread<AnyModel>, ArchError> {
        let (plan, unread) = config::read(NAME, config, UNREAD, plan)?;
        // Without a text model, reading it was an error.
        let plan = plan.expect("a text model");
        Ok((Decoder::new(&plan).into(), unread))
    }
}

fn plan(fields: &mut StrictFields<'_>) -> Option<DecoderPlan> {
    // What the text model says of its head counts for less: the head is not its own.
    let tied = fields.optional_bool("tie_word_embeddings").unwrap_or(true);
    let mut plan = config::read_text(fields, deepseek_v3::UNREAD, |text| {
        let text_type = text.optional_string("model_type");
        if text_type.is_some_and(|name| !TEXT_TYPES.contains(&name.as_str())) {
            text.problem(format!("model_type may be {}", TEXT_TYPES.join(" or ")));
        }
        TEXT.plan(text)
    })?;
    plan.prefix = "language_model.";
    plan.shape.tied = tied;
    Some(plan)
}
