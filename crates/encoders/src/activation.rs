//! Activations, under the names that configurations give them.

use candle_core::{Result, Tensor};

/// A function of single numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    Identity,
    /// With the error function.
    Gelu,
    /// With a hyperbolic tangent in place of the error function.
    GeluTanh,
    Relu,
    Silu,
    Sigmoid,
    Tanh,
}

impl Activation {
    /// As transformers names them (`ACT2FN` of version 5.23).
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "gelu" | "gelu_python" => Self::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_python_tanh" => Self::GeluTanh,
            "relu" => Self::Relu,
            "silu" | "swish" => Self::Silu,
            "sigmoid" => Self::Sigmoid,
            "tanh" => Self::Tanh,
            "linear" => Self::Identity,
            _ => return None,
        })
    }

    /// The name of a class of torch, as sentence-transformers writes it: `torch.nn.modules.activation.Tanh`.
    pub(crate) fn of_class(path: &str) -> Option<Self> {
        let (module, class) = path.rsplit_once('.')?;
        if module != "torch.nn" && !module.starts_with("torch.nn.modules.") {
            return None;
        }
        Some(match class {
            "Identity" => Self::Identity,
            "GELU" => Self::Gelu,
            "ReLU" => Self::Relu,
            "SiLU" => Self::Silu,
            "Sigmoid" => Self::Sigmoid,
            "Tanh" => Self::Tanh,
            _ => return None,
        })
    }

    /// Of every number of `x`.
    pub(crate) fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Identity => Ok(x.clone()),
            Self::Gelu => x.gelu_erf(),
            Self::GeluTanh => x.gelu(),
            Self::Relu => x.relu(),
            Self::Silu => x.silu(),
            Self::Sigmoid => candle_nn::ops::sigmoid(x),
            Self::Tanh => x.tanh(),
        }
    }
}
