//! Weights that are made up in the formats of GGUF files, mixed as quantisers mix them.

use std::fmt;

use backstop_arch::{MatrixRole, ModelSpec, VectorRole};
use backstop_kernels::BlockFormat;
use backstop_weights::{Checkpoint, ElementType, MadeNumbers, MadeTensor};

/// Which format each matrix has. Vectors and routers are F32, as converters leave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mixture {
    base: BlockFormat,
    /// What the head has, and for some layers the values and what leads out of MLPs.
    better: Option<BlockFormat>,
}

/// Mixtures by the names of files; all others have one format.
const MIXED: &[(&str, Mixture)] = &[
    ("q4_k_m", Mixture::new(BlockFormat::Q4K, BlockFormat::Q6K)),
    ("q5_k_m", Mixture::new(BlockFormat::Q5K, BlockFormat::Q6K)),
];

/// Where rows do not fill the longer blocks, quantisers take the next better of the shorter.
const SHORTER: &[(BlockFormat, BlockFormat)] = &[
    (BlockFormat::Q2K, BlockFormat::Iq4Nl),
    (BlockFormat::Q3K, BlockFormat::Iq4Nl),
    (BlockFormat::Iq4Xs, BlockFormat::Iq4Nl),
    (BlockFormat::Q4K, BlockFormat::Q5_0),
    (BlockFormat::Q5K, BlockFormat::Q5_1),
    (BlockFormat::Q6K, BlockFormat::Q8_0),
];

/// Why weights cannot be made up in a mixture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotMadeUp {
    /// Rows of this matrix are no whole blocks.
    Rows(String),
    /// These experts' rows take turns, and converters write them in another order.
    InTurns(String),
}

impl fmt::Display for NotMadeUp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(name) => write!(formatter, "rows of {name} are no whole blocks"),
            Self::InTurns(name) => {
                write!(
                    formatter,
                    "{name}: experts of this kind are made up as the checkpoint has them only"
                )
            }
        }
    }
}

impl Mixture {
    const fn new(base: BlockFormat, better: BlockFormat) -> Self {
        Self {
            base,
            better: Some(better),
        }
    }

    /// All names, in lower case.
    pub fn names() -> Vec<String> {
        let mixed = MIXED.iter().map(|(name, _)| (*name).to_owned());
        let plain = plain().map(|format| format.facts().name.to_ascii_lowercase());
        let mut names: Vec<String> = mixed.chain(plain).collect();
        names.sort();
        names
    }

    /// The one of this name, in whatever case.
    pub fn named(name: &str) -> Option<Self> {
        let is_meant = |known: &str| known.eq_ignore_ascii_case(name);
        let mixed = MIXED.iter().find(|(known, _)| is_meant(known));
        let one = || plain().find(|format| is_meant(format.facts().name));
        let alone = |base| Self { base, better: None };
        mixed
            .map(|(_, mixture)| *mixture)
            .or_else(|| one().map(alone))
    }

    /// Gives the checkpoint, which was opened without weights, those of the model.
    pub fn make_up(
        self,
        checkpoint: &mut Checkpoint,
        spec: &ModelSpec,
        seed: u64,
    ) -> Result<(), NotMadeUp> {
        checkpoint.make_weights(self.tensors(spec)?, seed);
        Ok(())
    }

    fn tensors(self, spec: &ModelSpec) -> Result<Vec<MadeTensor>, NotMadeUp> {
        let map = &spec.weights;
        let mut tensors = Vec::new();
        for vector in &map.vectors {
            let mean = match vector.role {
                VectorRole::Gain => 1.0,
                VectorRole::Bias => 0.0,
            };
            tensors.extend(vector.parts.iter().map(|part| MadeTensor {
                name: part.name.clone(),
                element_type: ElementType::F32,
                shape: vec![part.len],
                numbers: MadeNumbers::Around(mean),
            }));
        }
        let num_layers = layers(spec);
        for (index, matrix) in map.matrices.iter().enumerate() {
            let is_head = index == spec.head.0 as usize;
            for part in &matrix.parts {
                let shape = [part.rows, matrix.columns];
                tensors.push(match matrix.role {
                    MatrixRole::Router => MadeTensor {
                        name: part.name.clone(),
                        element_type: ElementType::F32,
                        shape: shape.to_vec(),
                        numbers: MadeNumbers::Router,
                    },
                    _ => self.matrix(&part.name, shape, is_head, num_layers)?,
                });
            }
        }
        for experts in &map.experts {
            if experts.alternating {
                return Err(NotMadeUp::InTurns(experts.prefix.clone()));
            }
            for tensor in experts.tensors(|_| false) {
                let shape = [tensor.rows, tensor.columns];
                tensors.push(self.matrix(&tensor.tensor.name, shape, false, num_layers)?);
            }
        }
        Ok(tensors)
    }

    fn matrix(
        self,
        name: &str,
        [rows, columns]: [usize; 2],
        is_head: bool,
        num_layers: usize,
    ) -> Result<MadeTensor, NotMadeUp> {
        let fits = |format: &BlockFormat| columns.is_multiple_of(format.numbers());
        let wanted = self.wanted(name, is_head, num_layers);
        let shorter = SHORTER.iter().find(|(longer, _)| *longer == wanted);
        let both = [Some(wanted), shorter.map(|(_, shorter)| *shorter)];
        let format = both.into_iter().flatten().find(fits);
        Ok(MadeTensor {
            name: name.to_owned(),
            element_type: ElementType::Block(
                format.ok_or_else(|| NotMadeUp::Rows(name.to_owned()))?,
            ),
            shape: vec![rows, columns],
            numbers: MadeNumbers::Weights,
        })
    }

    /// As llama.cpp's quantiser chooses (`llama_tensor_get_type`), for models that have not eight experts.
    fn wanted(self, name: &str, is_head: bool, num_layers: usize) -> BlockFormat {
        let Some(better) = self.better else {
            return self.base;
        };
        let sensitive = [".v_proj.", ".down_proj.", ".w2."]
            .iter()
            .any(|part| name.contains(part));
        let in_layer = layer(name).is_some_and(|layer| has_more_bits(layer, num_layers));
        match is_head || sensitive && in_layer {
            true => better,
            false => self.base,
        }
    }
}

/// Formats that a whole file may have. F16 is no block of several numbers.
fn plain() -> impl Iterator<Item = BlockFormat> {
    let all = BlockFormat::IN_GGUF.iter().copied();
    all.filter(|format| format.numbers() > 1)
}

/// The first and the last eighth of the layers, and every third between.
fn has_more_bits(layer: usize, num_layers: usize) -> bool {
    let eighth = num_layers / 8;
    layer < eighth || layer >= 7 * num_layers / 8 || (layer - eighth) % 3 == 2
}

/// The number of the layer that a tensor is in.
fn layer(name: &str) -> Option<usize> {
    let (_, behind) = name.split_once(".layers.")?;
    behind.split('.').next()?.parse().ok()
}

/// How many layers a model has.
fn layers(spec: &ModelSpec) -> usize {
    let matrices = spec.weights.matrices.iter();
    let names = matrices.flat_map(|matrix| matrix.parts.iter());
    let last = names.filter_map(|part| layer(&part.name)).max();
    last.map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(config: &serde_json::Value) -> ModelSpec {
        let config = config.as_object().expect("an object");
        backstop_arch::build(config)
            .expect("a model")
            .spec()
            .clone()
    }

    #[test]
    fn tensors_are_mixed_as_the_quantiser_mixes_them() {
        let model = spec(&serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512, "hidden_size": 256,
            "intermediate_size": 416, "num_hidden_layers": 16, "num_attention_heads": 4, "tie_word_embeddings": true,
        }));
        let tensors = Mixture::named("Q4_K_M")
            .expect("known")
            .tensors(&model)
            .expect("made");
        let format = |name: &str| {
            let found = tensors.iter().find(|tensor| tensor.name == name);
            found.expect("a tensor").element_type.name()
        };
        assert_eq!(format("model.embed_tokens.weight"), "Q6_K");
        assert_eq!(format("model.norm.weight"), "F32");
        for (layer, better) in [
            (0, true),
            (1, true),
            (2, false),
            (3, false),
            (4, true),
            (13, true),
            (15, true),
        ] {
            let value = format!("model.layers.{layer}.self_attn.v_proj.weight");
            assert_eq!(
                format(&value),
                if better { "Q6_K" } else { "Q4_K" },
                "{layer}"
            );
            // Rows of 416 numbers are no blocks of 256.
            let down = format!("model.layers.{layer}.mlp.down_proj.weight");
            assert_eq!(
                format(&down),
                if better { "Q8_0" } else { "Q5_0" },
                "{layer}"
            );
        }
        assert_eq!(format("model.layers.0.self_attn.q_proj.weight"), "Q4_K");
    }

    #[test]
    fn names_are_known_in_whatever_case() {
        for name in Mixture::names() {
            assert_eq!(
                Mixture::named(&name),
                Mixture::named(&name.to_uppercase()),
                "{name}"
            );
            assert!(Mixture::named(&name).is_some(), "{name}");
        }
        assert_eq!(Mixture::named("f16"), None);
    }
}
