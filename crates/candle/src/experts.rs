//! Routed experts: the tokens of each are computed together.

use backstop_kernels::{CpuExperts, ExpertMatrices, F8_MAX, GatedActivation};
use candle_core::{D, DType, Result, Tensor};

use crate::device::CandleDevice;
use crate::matrix::CandleMatrix;
use crate::router::CandleRouting;

/// A layer's experts.
#[derive(Debug)]
pub(crate) struct CandleExperts {
    /// `[2 * width, hidden]` of each, gate rows before up rows.
    gate_up: Vec<ExpertMatrix>,
    /// `[hidden, width]` of each.
    down: Vec<ExpertMatrix>,
}

/// A matrix of one expert.
#[derive(Debug)]
struct ExpertMatrix {
    weights: CandleMatrix,
    /// One factor for each row of E4M3 codes, whose inputs are rounded to E4M3 as well.
    scales: Option<Tensor>,
    /// One addend for each row.
    biases: Option<Tensor>,
    rounds_inputs: bool,
}

impl CandleExperts {
    pub(crate) fn new(experts: &CpuExperts, device: &CandleDevice) -> Result<Self> {
        let matrices = |matrices: &ExpertMatrices, shape: [usize; 2]| {
            let experts = 0..experts.num_experts;
            let matrices = experts.map(|expert| ExpertMatrix::new(matrices, expert, shape, device));
            matrices.collect::<Result<Vec<_>>>()
        };
        Ok(Self {
            gate_up: matrices(&experts.gate_up, [2 * experts.width, experts.hidden])?,
            down: matrices(&experts.down, [experts.hidden, experts.width])?,
        })
    }

    /// Weighted sum over each token's experts; `input` and the result are `[tokens, hidden]`.
    pub(crate) fn compute(
        &self,
        input: &Tensor,
        routing: &CandleRouting,
        activation: GatedActivation,
    ) -> Result<Tensor> {
        let by_expert = routing.slots_by_expert(self.gate_up.len())?;
        let mut outputs = Vec::with_capacity(by_expert.len());
        for (expert, slots) in &by_expert {
            let tokens = slots.iter().map(|slot| slot / routing.top_k as u32);
            let tokens = Tensor::from_iter(tokens, input.device())?;
            let gated = self.gate_up[*expert].product(&input.index_select(&tokens, 0)?)?;
            let inner = activate(&gated, activation)?;
            outputs.push(self.down[*expert].product(&inner)?);
        }
        // Back from the order of the experts to that of the tokens.
        let order: Vec<u32> = by_expert.into_iter().flat_map(|(_, slots)| slots).collect();
        let places = Tensor::new(inverse(&order), input.device())?;
        let (tokens, hidden) = input.dims2()?;
        let outputs = Tensor::cat(&outputs, 0)?.index_select(&places, 0)?;
        let outputs = outputs.reshape((tokens, routing.top_k, hidden))?;
        outputs
            .broadcast_mul(&routing.weights.unsqueeze(2)?)?
            .sum(1)
    }
}

impl ExpertMatrix {
    fn new(
        matrices: &ExpertMatrices,
        expert: usize,
        shape: [usize; 2],
        device: &CandleDevice,
    ) -> Result<Self> {
        let rows = shape[0];
        let numbers = |numbers: Option<&[f32]>| {
            let numbers = numbers.map(|numbers| Tensor::new(numbers, device.inner()));
            numbers.transpose()
        };
        Ok(Self {
            weights: CandleMatrix::new(matrices.view(expert, shape), device)?,
            scales: numbers(matrices.scales_of(expert, rows))?,
            biases: numbers(matrices.biases_of(expert, rows))?,
            rounds_inputs: matrices.are_fp8() && device.has_f8(),
        })
    }

    fn product(&self, input: &Tensor) -> Result<Tensor> {
        let mut output = if self.rounds_inputs {
            let (codes, scales) = rounded(input)?;
            self.weights.product(&codes)?.broadcast_mul(&scales)?
        } else {
            self.weights.product(input)?
        };
        if let Some(scales) = &self.scales {
            output = output.broadcast_mul(scales)?;
        }
        if let Some(biases) = &self.biases {
            output = output.broadcast_add(biases)?;
        }
        Ok(output)
    }
}

/// Rows as E4M3 values, with the scale that maps the largest magnitude of each to the largest value: dynamic
/// quantisation per token, as compressed-tensors' checkpoints ask for.
fn rounded(input: &Tensor) -> Result<(Tensor, Tensor)> {
    let largest = input.abs()?.max_keepdim(D::Minus1)?;
    let scales = (largest / f64::from(F8_MAX))?;
    // A row of zeros stays one.
    let divisors = scales.maximum(f32::MIN_POSITIVE)?;
    let codes = input.broadcast_div(&divisors)?.to_dtype(DType::F8E4M3)?;
    Ok((codes.to_dtype(DType::F32)?, scales))
}

/// Where each number of a permutation stands.
fn inverse(order: &[u32]) -> Vec<u32> {
    let mut places = vec![0; order.len()];
    for (place, &slot) in (0..).zip(order) {
        places[slot as usize] = place;
    }
    places
}

/// From gate and up side by side, `[rows, 2 * width]`, to `[rows, width]`.
pub(crate) fn activate(gated: &Tensor, activation: GatedActivation) -> Result<Tensor> {
    let halves = gated.chunk(2, D::Minus1)?;
    let (gate, up) = (&halves[0], &halves[1]);
    match activation {
        GatedActivation::Swiglu => gate.silu()? * up,
        GatedActivation::ClampedSwiglu { alpha, limit } => {
            let gate = gate.minimum(limit)?;
            let up = up.clamp(-limit, limit)?;
            let steep = candle_nn::ops::sigmoid(&(&gate * f64::from(alpha))?)?;
            (gate * steep)? * (up + 1.0)?
        }
    }
}
