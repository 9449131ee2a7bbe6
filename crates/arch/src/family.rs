//! Families of decoders that are Llama but for a few things: a file for each says what these are.

use backstop_weights::{GgufConventions, StrictFields};
use serde_json::{Map, Value};

use crate::AnyModel;
use crate::attention::{AttentionPlan, HeadsPlan};
use crate::config::{self, DecoderShape, ShapeDefaults, UnreadFields, WithUnread};
use crate::decoder::{Decoder, DecoderPlan, LayerPlan, MlpPlan};
use crate::registry::{ArchError, Architecture};
use crate::rope::{self, RopeDefaults};

/// What a family says where a configuration does not, and how its plan differs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) chat_format: &'static str,
    pub(crate) unread: UnreadFields,
    pub(crate) shape: ShapeDefaults,
    pub(crate) rms_norm_epsilon: f64,
    pub(crate) rope_theta: f64,
    /// Reads what is peculiar to the family, and changes a plan in which all layers attend to
    /// everything, without biases, and have one MLP of `intermediate_size`.
    pub(crate) differ: fn(&mut StrictFields<'_>, &mut DecoderPlan, &mut HeadsPlan),
    /// How GGUF files write it.
    pub(crate) gguf: Option<GgufConventions>,
}

impl Family {
    /// Llama under another name.
    pub(crate) const fn new(name: &'static str) -> Self {
        Self {
            name,
            chat_format: "plain",
            unread: UnreadFields::NONE,
            shape: ShapeDefaults::new(2048),
            rms_norm_epsilon: 1e-6,
            rope_theta: 10_000.0,
            differ: |_, _, _| {},
            gguf: None,
        }
    }

    fn plan(&self, fields: &mut StrictFields<'_>) -> DecoderPlan {
        let shape = DecoderShape::read(fields, self.shape);
        fields.only("hidden_act", &Value::from("silu"));
        let rope = rope::read(fields, RopeDefaults::halves(&shape, self.rope_theta));
        let mut heads = HeadsPlan::new(shape.attention, Some(rope));
        let mlp = MlpPlan::Dense(config::width(fields, "intermediate_size"));
        let norm = config::rms_norm(fields, self.rms_norm_epsilon);
        let mut plan = DecoderPlan {
            chat_format: self.chat_format,
            layers: shape.layers(|_| LayerPlan::new(mlp)),
            ..DecoderPlan::new(self.name, shape, norm, AttentionPlan::Heads(heads))
        };
        (self.differ)(fields, &mut plan, &mut heads);
        plan.attention = AttentionPlan::Heads(heads);
        plan
    }
}

impl Architecture for Family {
    fn name(&self) -> &'static str {
        self.name
    }

    fn read(&self, config: &Map<String, Value>) -> Result<WithUnread<AnyModel>, ArchError> {
        let read = config::read(self.name, config, self.unread, |fields| self.plan(fields));
        read.map(|(plan, unread)| (Decoder::new(&plan).into(), unread))
    }

    fn gguf(&self) -> Option<GgufConventions> {
        self.gguf
    }
}
