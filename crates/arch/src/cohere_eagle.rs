//! The EAGLE head of Cohere North Mini Code: a few dense layers of Cohere2 (`cohere2`) over
//! `fc([embedding of the next token, final-normed hidden state])`.
//!
//! Reference implementation: `models/cohere_eagle.py` of vLLM 0.32. Layers are parallel blocks with
//! the model's kind of norm; the final norm is a LayerNorm in any case, and what it gives is the
//! hidden state for the next guess. Sliding layers rotate queries and keys and see
//! `sliding_window + 1` keys; full-attention layers do neither. No matrix has a bias but `fc`: the
//! reference leaves others out that a checkpoint may carry.

use backstop_kernels::backend::{DraftBackend, MatrixId, Norm, Rope, RopePairing, VectorId};
use backstop_weights::StrictFields;
use serde_json::{Map, Value};

use crate::attention::{Attention, HeadsPlan};
use crate::config::{self, DecoderShape, ShapeDefaults};
use crate::draft_head::{DraftHead, DraftHeadSpec};
use crate::families::cohere2_moe;
use crate::kv_groups::KvGroups;
use crate::mlp::Mlp;
use crate::parallel_block::{self, ParallelBlock};
use crate::registry::ArchError;
use crate::rope::{self, RopeDefaults};
use crate::{KvGroup, ModelSpec, WeightMap};

const ARCHITECTURE: &str = "cohere2 (EAGLE head)";
/// Whose hidden states it continues.
const MODEL: &str = "cohere2_moe";

const DEFAULTS: ShapeDefaults = ShapeDefaults {
    tied: true,
    ..ShapeDefaults::new(8192)
};

/// The head: its description and the weights of its layers.
#[derive(Debug)]
pub(crate) struct CohereEagle {
    spec: DraftHeadSpec,
    norm: Norm,
    fc: MatrixId,
    fc_bias: VectorId,
    layers: Vec<ParallelBlock>,
    final_norm: (VectorId, Norm),
    embedding: MatrixId,
    head: MatrixId,
    logit_scale: f32,
}

impl<B: DraftBackend> DraftHead<B> for CohereEagle {
    fn spec(&self) -> &DraftHeadSpec {
        &self.spec
    }

    fn forward(&self, backend: &mut B, hidden: &B::Activation, rows: &[u32]) -> B::Activation {
        let embedded = backend.embed(self.embedding);
        let pairs = backend.concatenate(&embedded, hidden, rows);
        let fused = backend.linear(&pairs, self.fc, Some(self.fc_bias));
        let normed =
            parallel_block::forward(backend, fused, &self.layers, self.norm, self.final_norm);
        backend.head(&normed, self.head, self.logit_scale);
        normed
    }
}

/// `config.json`, read and checked.
#[derive(Debug)]
struct Config {
    shape: DecoderShape,
    width: usize,
    norm: Norm,
    final_norm: Norm,
    rope: Rope,
    /// Keys that each layer sees, if not all.
    windows: Vec<Option<u32>>,
    logit_scale: f32,
}

impl Config {
    /// Defaults are those of transformers' class for `cohere2`.
    fn read(fields: &mut StrictFields<'_>) -> Self {
        let shape = DecoderShape::read(fields, DEFAULTS);
        if !shape.tied {
            fields.problem("tie_word_embeddings must be true: the head has the model's embedding");
        }
        let pattern = fields.optional_u32("sliding_window_pattern").unwrap_or(4);
        if pattern == 0 {
            fields.problem("sliding_window_pattern must be positive");
        }
        let sliding = config::sliding_layers(fields, shape.num_layers);
        let window = fields.optional_u32("sliding_window").unwrap_or(4096);
        let windows = shape.layers(|index| {
            let derived = || !(index + 1).is_multiple_of(pattern.max(1) as usize);
            let slides = sliding.as_ref().map_or_else(derived, |kinds| kinds[index]);
            slides.then_some(window.saturating_add(1))
        });
        let final_norm = Norm::LayerWithoutBias {
            epsilon: fields.optional_f64("layer_norm_eps").unwrap_or(1e-5) as f32,
        };
        let logit_scale = fields.optional_f64("logit_scale").unwrap_or(0.0625) as f32;
        if logit_scale.is_nan() || logit_scale <= 0.0 {
            fields.problem("logit_scale must be positive");
        }
        cohere2_moe::refuse_unimplemented(fields);
        Self {
            width: config::width(fields, "intermediate_size"),
            norm: cohere2_moe::read_norm(fields),
            final_norm,
            rope: rope::read(
                fields,
                RopeDefaults {
                    pairing: RopePairing::Interleaved,
                    ..RopeDefaults::halves(&shape, 10_000.0)
                },
            ),
            windows,
            logit_scale,
            shape,
        }
    }
}

impl CohereEagle {
    /// Reads the configuration, compares it with the model and lays out the weights.
    pub(crate) fn from_config(
        config: &Map<String, Value>,
        model: &ModelSpec,
    ) -> Result<Self, ArchError> {
        let config = config::read_all(ARCHITECTURE, config, cohere2_moe::UNREAD, Config::read)?;
        let shape = &config.shape;
        let hidden = shape.hidden;
        let kv = KvGroups::new(&config.windows, shape.attention);
        let table_groups = match check_model(shape, model).as_slice() {
            [] => table_groups(&kv.groups, model),
            problems => Err(problems.to_vec()),
        };
        let table_groups = table_groups.map_err(|problems| ArchError::Config {
            architecture: ARCHITECTURE,
            problems,
        })?;
        let mut weights = WeightMap::default();
        let fc = weights.matrix(&[("model.fc.weight".to_owned(), hidden)], 2 * hidden);
        let fc_bias = weights.bias(&[("model.fc.bias".to_owned(), hidden)]);
        let layers = (0..config.windows.len())
            .map(|index| layer(&config, &kv, index, &mut weights))
            .collect();
        let final_norm = weights.vector("model.norm.weight", hidden);
        ignore_unused(&config, &mut weights);
        let shared = weights.matrices.len() as u32;
        Ok(Self {
            norm: config.norm,
            fc,
            fc_bias,
            layers,
            final_norm: (final_norm, config.final_norm),
            embedding: MatrixId(shared),
            head: MatrixId(shared + 1),
            logit_scale: config.logit_scale,
            spec: DraftHeadSpec {
                weights,
                kv_groups: kv.groups,
                table_groups,
            },
        })
    }
}

/// What keeps the head from continuing this model.
fn check_model(shape: &DecoderShape, model: &ModelSpec) -> Vec<String> {
    if model.architecture != MODEL {
        let architecture = model.architecture;
        return vec![format!(
            "it continues models of type {MODEL}, and this one is {architecture}"
        )];
    }
    let embedding = &model.weights.matrices[model.embedding.0 as usize];
    let sizes = [
        ("hidden_size", shape.hidden, embedding.columns),
        ("vocab_size", shape.vocabulary as usize, embedding.rows()),
    ];
    let differ = sizes.iter().filter(|(_, own, theirs)| own != theirs);
    let problem =
        |(name, own, theirs): &_| format!("{name} is {own}, and that of the model is {theirs}");
    differ.map(problem).collect()
}

/// For each group of the head a group of the model that keeps what it sees, sliding if possible.
fn table_groups(own: &[KvGroup], model: &ModelSpec) -> Result<Vec<usize>, Vec<String>> {
    let find = |group: &KvGroup| {
        let keeps = |(_, theirs): &(usize, &KvGroup)| theirs.span.covers(group.span);
        let found = model.kv_groups.iter().enumerate().rfind(keeps);
        found.map(|(index, _)| index).ok_or_else(|| {
            vec!["the model keeps fewer positions than the layers of the head see".to_owned()]
        })
    };
    own.iter().map(find).collect()
}

fn layer(config: &Config, kv: &KvGroups, index: usize, weights: &mut WeightMap) -> ParallelBlock {
    let hidden = config.shape.hidden;
    let rope = config.windows[index].map(|_| config.rope);
    let plan = HeadsPlan::new(config.shape.attention, rope);
    let prefix = format!("model.layers.{index}");
    ParallelBlock::new(weights, &prefix, hidden, |weights, [attention, mlp]| {
        (
            Attention::heads(weights, attention, hidden, plan, kv.layers[index]),
            Mlp::dense(weights, mlp, hidden, config.width),
        )
    })
}

/// Tensors that checkpoints may carry beside those of the reference: biases, and copies of the
/// model's.
fn ignore_unused(config: &Config, weights: &mut WeightMap) {
    let shape = &config.shape;
    let biases = weights.matrices.iter().flat_map(|matrix| &matrix.parts);
    let biases = biases.filter(|part| part.name.starts_with("model.layers."));
    let biases = biases.map(|part| (part.name.replace(".weight", ".bias"), vec![part.rows]));
    let copies = ["model.embed_tokens.weight", "lm_head.weight"];
    let copies = copies.map(|name| {
        (
            name.to_owned(),
            vec![shape.vocabulary as usize, shape.hidden],
        )
    });
    let unused: Vec<_> = biases.chain(copies).collect();
    weights.ignored.extend(unused);
}
