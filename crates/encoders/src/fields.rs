//! What the configurations of most encoders have in common. Names and defaults are those of the configuration classes
//! of transformers 5.23.

use backstop_weights::StrictFields;
use serde_json::{Map, Value, json};

use crate::EncoderError;
use crate::activation::Activation;

/// Layers that a model may have.
const LAYERS_MAX: u32 = 1024;
/// Widths of anything: no product of a few of them overflows.
const WIDTH_MAX: u32 = 1 << 20;
/// Positions that a model may have.
const POSITIONS_MAX: u32 = 1 << 20;
/// The largest known vocabularies have 2^18 tokens.
const VOCABULARY_MAX: u32 = 1 << 24;

/// A network's extents.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) vocabulary: usize,
    pub(crate) width: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    /// Of a perceptron's middle.
    pub(crate) intermediate: usize,
    pub(crate) positions: usize,
}

/// What an architecture calls the fields of [`Shape`], and what it assumes where nothing is said; the width, the
/// heads and so on must be said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShapeFields {
    pub(crate) width: &'static str,
    pub(crate) layers: &'static str,
    pub(crate) heads: &'static str,
    pub(crate) intermediate: &'static str,
    pub(crate) positions: &'static str,
    pub(crate) positions_by_default: u32,
}

/// As BERT calls them.
pub(crate) const BERT_FIELDS: ShapeFields = ShapeFields {
    width: "hidden_size",
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    intermediate: "intermediate_size",
    positions: "max_position_embeddings",
    positions_by_default: 512,
};

/// A configuration that is read. Fields that nobody asks for are left alone: checkpoints carry many that say nothing
/// about inference.
pub(crate) struct Fields<'a>(StrictFields<'a>);

impl<'a> Fields<'a> {
    pub(crate) fn new(config: &'a Map<String, Value>) -> Self {
        Self(StrictFields::new("config.json", config))
    }

    /// Reads the extents, and checks that they are possible.
    pub(crate) fn shape(&mut self, names: &ShapeFields) -> Shape {
        let vocabulary = self.counted("vocab_size", None, VOCABULARY_MAX);
        let width = self.counted(names.width, None, WIDTH_MAX);
        let heads = self.counted(names.heads, None, WIDTH_MAX);
        if crate::attention::head_width(width, heads).is_none() {
            let message = format!(
                "{} {width} is no multiple of {} {heads}",
                names.width, names.heads
            );
            self.problem(&message);
        }
        Shape {
            vocabulary,
            width,
            layers: self.counted(names.layers, None, LAYERS_MAX),
            heads,
            intermediate: self.counted(names.intermediate, None, WIDTH_MAX),
            positions: self.counted(
                names.positions,
                Some(names.positions_by_default),
                POSITIONS_MAX,
            ),
        }
    }

    /// That the numbers of a head can be rotated in pairs.
    pub(crate) fn rotates(&mut self, shape: &Shape) {
        let head = shape.width / shape.heads;
        if !head.is_multiple_of(2) {
            self.problem(&format!("heads of width {head} cannot be rotated"));
        }
    }

    /// A number from 1 to `max`.
    pub(crate) fn counted(&mut self, name: &str, by_default: Option<u32>, max: u32) -> usize {
        let value = match by_default {
            Some(by_default) => self.0.optional_u32(name).unwrap_or(by_default),
            None => self.0.u32(name),
        };
        if !(1..=max).contains(&value) && self.0.contains(name) {
            self.problem(&format!("{name} is {value}, which is not from 1 to {max}"));
        }
        value.clamp(1, max) as usize
    }

    pub(crate) fn number(&mut self, name: &str, by_default: f64) -> f64 {
        self.0.optional_f64(name).unwrap_or(by_default)
    }

    pub(crate) fn flag(&mut self, name: &str, by_default: bool) -> bool {
        self.0.optional_bool(name).unwrap_or(by_default)
    }

    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        self.0.optional_string(name)
    }

    pub(crate) fn id(&mut self, name: &str, by_default: u32) -> u32 {
        self.0.optional_u32(name).unwrap_or(by_default)
    }

    pub(crate) fn value(&mut self, name: &str) -> Option<&'a Value> {
        self.0.value(name)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    pub(crate) fn activation(&mut self, name: &str, by_default: Activation) -> Activation {
        let Some(text) = self.text(name) else {
            return by_default;
        };
        Activation::named(&text).unwrap_or_else(|| {
            self.problem(&format!("{name} {text} is not supported"));
            by_default
        })
    }

    /// Fields that would change the mathematics if they were anything else.
    pub(crate) fn only(&mut self, supported: &[(&str, Value)]) {
        for (name, value) in supported {
            self.0.only(name, value);
        }
    }

    /// That it is an encoder, and no decoder of the same name.
    pub(crate) fn encodes(&mut self) {
        self.only(&[
            ("is_decoder", json!(false)),
            ("add_cross_attention", json!(false)),
            ("quantization_config", Value::Null),
        ]);
    }

    pub(crate) fn problem(&mut self, message: &str) {
        self.0.problem(message);
    }

    /// An error if anything was wrong.
    pub(crate) fn check(&self) -> Result<(), EncoderError> {
        match self.0.problems() {
            [] => Ok(()),
            problems => Err(EncoderError::Unsupported(problems.to_vec())),
        }
    }
}
