//! Tensors of a checkpoint, widened to single precision. What is wrong with them is gathered, so that one start tells
//! all of it.

use std::cell::RefCell;
use std::collections::BTreeSet;

use backstop_weights::{Checkpoint, ElementType, TensorInfo};
use candle_core::{Device, Tensor};
use candle_nn::{LayerNorm, Linear};

use crate::EncoderError;

/// Where tensors come from and go to.
pub(crate) struct Weights<'a> {
    checkpoint: &'a Checkpoint,
    pub(crate) device: &'a Device,
    /// What the names of the network's own tensors begin with, in this checkpoint.
    prefix: &'static str,
    read: RefCell<BTreeSet<String>>,
    problems: RefCell<Vec<String>>,
}

impl<'a> Weights<'a> {
    /// The names of the network's tensors begin with the first of `prefixes` for which there is the tensor `probe`.
    pub(crate) fn new(
        checkpoint: &'a Checkpoint,
        device: &'a Device,
        prefixes: &[&'static str],
        probe: &str,
    ) -> Self {
        let has = |prefix: &&str| checkpoint.tensor(&format!("{prefix}{probe}")).is_some();
        let prefix = prefixes.iter().copied().find(has);
        Self {
            checkpoint,
            device,
            prefix: prefix.or(prefixes.first().copied()).unwrap_or_default(),
            read: RefCell::default(),
            problems: RefCell::default(),
        }
    }

    /// The whole name of one of the network's own tensors.
    pub(crate) fn own(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Whether there is a tensor of this whole name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.checkpoint.tensor(name).is_some()
    }

    /// A tensor of this shape.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, EncoderError> {
        self.to_device(self.numbers(name, shape), shape)
    }

    /// `{name}.weight` as `[outputs, inputs]`, and `{name}.bias`.
    pub(crate) fn linear(
        &self,
        name: &str,
        inputs: usize,
        outputs: usize,
        has_bias: bool,
    ) -> Result<Linear, EncoderError> {
        self.linears(&[name], inputs, outputs, has_bias)
    }

    /// Several layers with the same inputs as one, their outputs one behind another.
    pub(crate) fn linears(
        &self,
        names: &[&str],
        inputs: usize,
        outputs: usize,
        has_bias: bool,
    ) -> Result<Linear, EncoderError> {
        let together = |part: &str, shape: &[usize]| {
            // All are asked for before any is missed, so that every absent one is named.
            let parts: Vec<_> = names
                .iter()
                .map(|name| self.numbers(&format!("{name}.{part}"), shape))
                .collect();
            let mut whole_shape = shape.to_vec();
            whole_shape[0] *= names.len();
            let whole: Option<Vec<Vec<f32>>> = parts.into_iter().collect();
            self.to_device(whole.map(|parts| parts.concat()), &whole_shape)
        };
        let weight = together("weight", &[outputs, inputs])?;
        let bias = has_bias.then(|| together("bias", &[outputs])).transpose()?;
        Ok(Linear::new(weight, bias))
    }

    /// A norm over vectors of this width. Older checkpoints call its weight `gamma` and its bias `beta`.
    pub(crate) fn norm(
        &self,
        name: &str,
        width: usize,
        epsilon: f64,
        has_bias: bool,
    ) -> Result<LayerNorm, EncoderError> {
        let either = |usual: &str, older: &str| {
            let older = format!("{name}.{older}");
            let usual = format!("{name}.{usual}");
            let found = match !self.has(&usual) && self.has(&older) {
                true => older,
                false => usual,
            };
            self.tensor(&found, &[width])
        };
        let weight = either("weight", "gamma")?;
        // candle is faster with a bias than without.
        let bias = match has_bias {
            true => either("bias", "beta")?,
            false => weight.zeros_like()?,
        };
        Ok(LayerNorm::new(weight, bias, epsilon))
    }

    /// Records that something does not fit.
    pub(crate) fn problem(&self, problem: String) {
        self.problems.borrow_mut().push(problem);
    }

    /// Every problem, and each tensor of the network's layers, whose names begin with `layers`, that nobody has read.
    pub(crate) fn finish(self, layers: &str) -> Result<(), EncoderError> {
        let layers = self.own(layers);
        let read = self.read.into_inner();
        let mut problems = self.problems.into_inner();
        // Buffers that follow from the configuration.
        let is_buffer = |name: &str| name.ends_with("inv_freq") || name.ends_with("position_ids");
        let names = self.checkpoint.tensors().map(|tensor| &tensor.name);
        let left = names
            .filter(|name| name.starts_with(&layers) && !read.contains(*name) && !is_buffer(name));
        problems.extend(left.map(|name| {
            format!("the tensor {name} has no place in this architecture as it is supported")
        }));
        match problems.is_empty() {
            true => Ok(()),
            false => Err(EncoderError::Unsupported(problems)),
        }
    }

    /// A tensor on the device; one that could not be read is empty, and never computed with.
    fn to_device(
        &self,
        numbers: Option<Vec<f32>>,
        shape: &[usize],
    ) -> Result<Tensor, EncoderError> {
        Ok(match numbers {
            Some(numbers) => Tensor::from_vec(numbers, shape, self.device)?,
            None => Tensor::from_vec(Vec::<f32>::new(), 0, self.device)?,
        })
    }

    fn numbers(&self, name: &str, shape: &[usize]) -> Option<Vec<f32>> {
        self.read.borrow_mut().insert(name.to_owned());
        let read = match self.checkpoint.tensor(name) {
            None => Err(format!("the tensor {name} is absent")),
            Some(info) if info.shape != shape => Err(format!(
                "the tensor {name} has shape {:?}, and {shape:?} is expected",
                info.shape
            )),
            Some(info) => self.widened(info),
        };
        read.map_err(|problem| self.problem(problem)).ok()
    }

    fn widened(&self, info: &TensorInfo) -> Result<Vec<f32>, String> {
        let bytes = || {
            let read = self.checkpoint.read(&info.name);
            read.map_err(|problem| problem.to_string())
        };
        match info.element_type {
            ElementType::F32 => Ok(each(&bytes()?, f32::from_le_bytes)),
            ElementType::F16 => Ok(each(&bytes()?, |value| {
                half::f16::from_le_bytes(value).to_f32()
            })),
            ElementType::BF16 => Ok(each(&bytes()?, |value| {
                half::bf16::from_le_bytes(value).to_f32()
            })),
            other => Err(format!(
                "the tensor {} is of type {other}; only F32, F16 and BF16 are supported",
                info.name
            )),
        }
    }
}

fn each<const BYTES: usize>(bytes: &[u8], number: impl Fn([u8; BYTES]) -> f32) -> Vec<f32> {
    let (values, _) = bytes.as_chunks::<BYTES>();
    values.iter().map(|value| number(*value)).collect()
}
