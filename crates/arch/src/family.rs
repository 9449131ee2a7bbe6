//! Families of decoders that are Llama but for a few things: a file for each says what these are.

use backstop_weights::StrictFields;
use serde_json::{Map, Value};

use crate::attention::{AttentionPlan, HeadsPlan};
use crate::config::{self, Shape, ShapeDefaults};
use crate::decoder::{Decoder, DecoderPlan, LayerPlan, MlpPlan};
use crate::registry::ArchError;
use crate::rope::{self, RopeDefaults};

/// What a family says where a configuration does not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    pub(crate) architecture: &'static str,
    /// Fields that change nothing, besides those of every family.
    pub(crate) inert: &'static [&'static str],
    pub(crate) shape: ShapeDefaults,
    pub(crate) rms_norm_epsilon: f64,
    pub(crate) rope_theta: f64,
}

impl Family {
    /// Llama under another name.
    pub(crate) const fn new(architecture: &'static str) -> Self {
        Self {
            architecture,
            inert: &[],
            shape: ShapeDefaults {
                head_dim: None,
                kv_heads: None,
                max_position_embeddings: 2048,
                tied: false,
            },
            rms_norm_epsilon: 1e-6,
            rope_theta: 10_000.0,
        }
    }

    /// Reads a configuration and lays out the weights. `differ` reads what is peculiar to the family, and changes a
    /// plan in which all layers attend to everything, without biases, and have one MLP of `intermediate_size`.
    pub(crate) fn read(
        self,
        config: &Map<String, Value>,
        differ: impl FnOnce(&mut StrictFields<'_>, &mut DecoderPlan, &mut HeadsPlan),
    ) -> Result<Decoder, ArchError> {
        let plan = config::read(self.architecture, config, self.inert, |fields| {
            let shape = Shape::read(fields, self.shape);
            fields.only("hidden_act", &Value::from("silu"));
            let rope = rope::read(fields, RopeDefaults::halves(&shape, self.rope_theta));
            let mut heads = HeadsPlan::new(shape.attention, Some(rope));
            let mlp = MlpPlan::Dense(config::width(fields, "intermediate_size"));
            let mut plan = DecoderPlan {
                architecture: self.architecture,
                chat_format: "plain",
                norm: config::rms_norm(fields, self.rms_norm_epsilon),
                attention: AttentionPlan::Heads(heads),
                layers: shape.layers(|_| LayerPlan::new(mlp)),
                sparse_name: "mlp",
                prediction_layers: 0,
                shape,
            };
            differ(fields, &mut plan, &mut heads);
            plan.attention = AttentionPlan::Heads(heads);
            plan
        })?;
        Ok(Decoder::new(&plan))
    }
}
