//! Temporary directories and small checkpoints.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::{Checkpoint, GgufConventions, GgufExperts, GgufFamily, GgufField, WeightsError};

/// Families of GGUF files: with and without each thing that may be different.
pub(crate) const FAMILIES: &[GgufFamily] = &[
    GgufFamily {
        model_type: "llama",
        conventions: GgufConventions {
            pairs_together: true,
            ..GgufConventions::new("llama", "LlamaForCausalLM")
        },
    },
    GgufFamily {
        model_type: "mixtral",
        conventions: GgufConventions {
            experts: Some(GgufExperts {
                module: "block_sparse_moe",
                router: "gate",
                projections: ["w1", "w3", "w2"],
                shared: None,
            }),
            fields: &[GgufField::integer(
                "expert_used_count",
                "num_experts_per_tok",
            )],
            ..GgufConventions::new("llama", "MixtralForCausalLM")
        },
    },
    GgufFamily {
        model_type: "qwen2",
        conventions: GgufConventions {
            states_biases: false,
            ..GgufConventions::new("qwen2", "Qwen2ForCausalLM")
        },
    },
    GgufFamily {
        model_type: "qwen3_moe",
        conventions: GgufConventions {
            experts: Some(GgufExperts::USUAL),
            fields: &[
                GgufField::integer("expert_count", "num_experts"),
                GgufField::integer("expert_used_count", "num_experts_per_tok"),
                GgufField::integer("expert_feed_forward_length", "moe_intermediate_size"),
                GgufField::True("norm_topk_prob"),
            ],
            ..GgufConventions::new("qwen3moe", "Qwen3MoeForCausalLM")
        },
    },
];

/// A directory that goes away with its owner.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("backstop-weights-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A directory with an empty configuration, so that only the weights are missing.
    pub(crate) fn with_config() -> Self {
        let directory = Self::new();
        directory.write("config.json", "{}");
        directory
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    pub(crate) fn write_tensors(&self, name: &str, tensors: &[Tensor]) {
        self.write(name, serialize(tensors));
    }

    pub(crate) fn open(&self) -> Result<Checkpoint, WeightsError> {
        Checkpoint::open(&self.0, FAMILIES)
    }

    /// The message with which the directory cannot be opened.
    pub(crate) fn open_error(&self) -> String {
        self.open().unwrap_err().to_string()
    }
}

impl Deref for Directory {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// A tensor of zeros.
pub(crate) fn zeros(name: &str, dtype: Dtype, shape: &[usize]) -> Tensor {
    let bytes = vec![0; shape.iter().product::<usize>() * dtype.bitsize() / 8];
    Tensor {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
        bytes,
    }
}

pub(crate) fn floats(name: &str, values: &[f32]) -> Tensor {
    let bytes = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    Tensor {
        name: name.to_owned(),
        dtype: Dtype::F32,
        shape: vec![values.len()],
        bytes,
    }
}

pub(crate) fn serialize(tensors: &[Tensor]) -> Vec<u8> {
    let views = tensors.iter().map(|tensor| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).unwrap();
        (tensor.name.clone(), view)
    });
    safetensors::serialize(views, None).unwrap()
}

/// A file with the given header text and `data_bytes` zeros behind it.
pub(crate) fn raw_file(header: &[u8], data_bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.resize(file.len() + data_bytes, 0);
    file
}

/// Asserts that a message has every one of the parts.
#[track_caller]
pub(crate) fn assert_mentions(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}
