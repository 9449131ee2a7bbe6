//! The cases of experts.

mod device;

use std::sync::Arc;

use backstop_card::Device;
use backstop_kernels::backend::GatedActivation;
use backstop_kernels::ops::experts::{ExpertsArgs, scale_of};
use backstop_kernels::ops::router::Routing;
use backstop_kernels::random::{random_indices, random_values};
use backstop_kernels::{
    BlockFormat, CpuExperts, Element, ExpertMatrices, InputRows, InstructionSet, Product,
    WeightFormat, round_f8,
};

use crate::catalog::{Case, CaseSpec, Cost, DeviceResult, Tolerance};
use crate::ops::gated_mlp::activated_reference;
use crate::product;
use crate::weights::{random_experts, with_random_biases};

/// Naive experts; `out` is `[tokens, hidden]`.
pub fn reference(args: &ExpertsArgs<'_>, out: &mut [f32]) {
    args.check(out);
    let (hidden, width, top_k) = (args.experts.hidden, args.experts.width, args.routing.top_k);
    out.fill(0.0);
    for (token, out) in out.chunks_exact_mut(hidden).enumerate() {
        for slot in token * top_k..(token + 1) * top_k {
            let expert = args.routing.experts[slot] as usize;
            let input = &args.input[token * hidden..][..hidden];
            let mut gated = vec![0.0; 2 * width];
            reference_product(args, input, &args.experts.gate_up, expert, &mut gated);
            let inner = activated_reference(&gated, args.activation);
            let mut result = vec![0.0; hidden];
            reference_product(args, &inner, &args.experts.down, expert, &mut result);
            for (out, result) in out.iter_mut().zip(result) {
                *out += args.routing.weights[slot] * result;
            }
        }
    }
}

fn reference_product(
    args: &ExpertsArgs<'_>,
    input: &[f32],
    matrices: &ExpertMatrices,
    expert: usize,
    out: &mut [f32],
) {
    let weight = matrices.view(expert, [out.len(), input.len()]);
    let mut quantised = input.to_vec();
    let mut scales = [1.0];
    if args.experts.quantises() {
        scales[0] = scale_of(input);
        quantised
            .iter_mut()
            .for_each(|value| *value = round_f8(*value / scales[0]));
    }
    let input = InputRows {
        scales: Some(&scales),
        ..InputRows::all(&quantised, weight.columns())
    };
    let product = Product {
        weight_scales: matrices.scales_of(expert, weight.rows()),
        ..Product::new(weight, input)
    };
    product::reference(&product, out);
    let biases = matrices.biases_of(expert, weight.rows());
    for (out, bias) in out.iter_mut().zip(biases.unwrap_or_default()) {
        *out += bias;
    }
}

pub(crate) struct ExpertsCase {
    pub(super) input: Vec<f32>,
    pub(super) routing: Routing,
    pub(super) experts: CpuExperts,
    pub(super) activation: GatedActivation,
    arranged: bool,
}

impl ExpertsCase {
    /// Experts, experts per token, hidden size, width and number of tokens.
    pub(crate) fn random(
        [num_experts, top_k, hidden, width, tokens]: [usize; 5],
        format: impl Into<WeightFormat>,
    ) -> Self {
        Self {
            input: random_values(1, tokens * hidden, 1.0),
            routing: random_routing(tokens, top_k, num_experts),
            experts: random_experts(4, [num_experts, hidden, width], format),
            activation: GatedActivation::Swiglu,
            arranged: false,
        }
    }

    /// The same experts as they are after loading.
    fn arranged(self) -> Self {
        Self {
            experts: self.experts.arranged(),
            arranged: true,
            ..self
        }
    }

    /// The same as gpt-oss has it.
    fn clamped_and_biased(self) -> Self {
        let (alpha, limit) = (1.702, 1.5);
        Self {
            experts: with_random_biases(self.experts, 7),
            activation: GatedActivation::ClampedSwiglu { alpha, limit },
            ..self
        }
    }

    fn run(
        &self,
        tokens: std::ops::Range<usize>,
        run: impl FnOnce(&ExpertsArgs<'_>, &mut [f32]),
    ) -> Vec<f32> {
        let (hidden, top_k) = (self.experts.hidden, self.routing.top_k);
        let slots = tokens.start * top_k..tokens.end * top_k;
        let routing = Routing {
            top_k,
            experts: self.routing.experts[slots.clone()].to_vec(),
            weights: self.routing.weights[slots].to_vec(),
        };
        let input = &self.input[tokens.start * hidden..tokens.end * hidden];
        let mut out = vec![0.0; input.len()];
        run(
            &ExpertsArgs {
                input,
                routing: &routing,
                experts: &self.experts,
                activation: self.activation,
            },
            &mut out,
        );
        out
    }
}

impl Case for ExpertsCase {
    fn rows(&self) -> usize {
        self.input.len() / self.experts.hidden
    }

    fn reference(&self) -> Vec<f32> {
        self.run(0..self.rows(), reference)
    }

    fn cpu(&self, instructions: InstructionSet) -> Vec<f32> {
        self.run(0..self.rows(), |args, out| args.run(instructions, out))
    }

    fn cpu_row(&self, instructions: InstructionSet, row: usize) -> Vec<f32> {
        self.run(row..row + 1, |args, out| args.run(instructions, out))
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::of(match self.experts.gate_up.format {
            WeightFormat::Numbers(element) => element,
            // The intermediate activation is quantised, as with FP8.
            WeightFormat::Blocks(_) if self.arranged => Element::F8E4M3,
            // Widened exactly.
            WeightFormat::Blocks(_) => Element::F32,
        })
    }

    fn cost(&self) -> Cost {
        let weights = 3 * self.experts.width * self.experts.hidden;
        cost(weights, &self.routing, self.experts.gate_up.format)
    }

    fn device<'a>(&'a self, device: &'a Arc<dyn Device>) -> Option<DeviceResult<'a>> {
        device::device(self, device)
    }
}

/// Of experts of so many weights each.
pub(super) fn cost(weights: usize, routing: &Routing, format: WeightFormat) -> Cost {
    let mut used = routing.experts.clone();
    used.sort_unstable();
    used.dedup();
    Cost {
        multiply_adds: weights * routing.experts.len(),
        bytes: format.bytes_of(weights * used.len()),
    }
}

/// Shapes for which the products of E4M3 weights have token tiles of 16, 32 and 128; others have 8
/// and 64.
pub(super) const TILE_SHAPES: [(usize, usize, usize, usize, usize); 3] = [
    (4, 2, 160, 208, 20),
    (4, 2, 160, 208, 40),
    (4, 2, 160, 208, 110),
];

/// Experts, experts per token, hidden size, width and number of tokens.
pub fn cases() -> Vec<CaseSpec> {
    let shapes = [
        (1, 1, 1, 1, 1),
        (5, 2, 19, 7, 9),
        (4, 4, 32, 16, 0),
        (3, 2, 96, 50, 40),
        (9, 4, 2048, 768, 3),
    ];
    let large = [1, 8, 64, 256, 8192].map(|tokens| (128, 8, 2048, 768, tokens));
    let case = |shape: (usize, usize, usize, usize, usize), element: Element| {
        let (num_experts, top_k, hidden, width, tokens) = shape;
        let label = format!(
            "{element:?} {top_k} of {num_experts}, hidden {hidden}, width {width}, {tokens} tokens"
        );
        let shape = [num_experts, top_k, hidden, width, tokens];
        CaseSpec::new(label, move || ExpertsCase::random(shape, element))
    };
    let small = shapes.into_iter().flat_map(|shape| {
        [Element::F32, Element::BF16, Element::F8E4M3].map(|element| case(shape, element))
    });
    let small = small.chain(TILE_SHAPES.map(|shape| case(shape, Element::F8E4M3)));
    let large = large.into_iter().flat_map(|shape| {
        [Element::F8E4M3, Element::BF16].map(|element| {
            let (num_experts, top_k, hidden, width, tokens) = shape;
            let shape_of_device = [num_experts, top_k, hidden, width, tokens];
            let large = case(shape, element).only_for_benchmarks();
            large.made_on_device(move |device| {
                device::made_on_device(device, shape_of_device, element)
            })
        })
    });
    let gpt_oss = |[num_experts, top_k, hidden, width, tokens]: [usize; 5]| {
        let formats: [WeightFormat; 2] = [Element::BF16.into(), BlockFormat::Mxfp4.into()];
        formats.map(|format| {
            let label = format!(
                "{format:?} {top_k} of {num_experts}, clamped, with biases, hidden {hidden}, width \
                 {width}, {tokens} tokens"
            );
            let shape = [num_experts, top_k, hidden, width, tokens];
            CaseSpec::new(label, move || {
                ExpertsCase::random(shape, format).clamped_and_biased()
            })
        })
    };
    let clamped = [[3, 2, 96, 32, 11], [4, 4, 2880, 96, 2]];
    let arranged = [[3, 2, 96, 32, 11], [5, 2, 32, 64, 40], [9, 4, 2880, 96, 2]].map(|shape| {
        let [num_experts, top_k, hidden, width, tokens] = shape;
        let label = format!(
            "Mxfp4 in panels, {top_k} of {num_experts}, clamped, with biases, hidden {hidden}, \
             width {width}, {tokens} tokens"
        );
        CaseSpec::new(label, move || {
            let case = ExpertsCase::random(shape, BlockFormat::Mxfp4);
            case.clamped_and_biased().arranged()
        })
    });
    small
        .chain(clamped.into_iter().flat_map(gpt_oss))
        .chain(arranged)
        .chain(large)
        .collect()
}

/// Distinct experts for each token.
pub(super) fn random_routing(tokens: usize, top_k: usize, num_experts: usize) -> Routing {
    let starts = random_indices(2, tokens, num_experts);
    let experts = starts.iter().flat_map(|start| {
        (0..top_k as u32).map(move |rank| (start + rank * 5) % num_experts as u32)
    });
    let weights = random_values(3, tokens * top_k, 0.3)
        .into_iter()
        .map(f32::abs)
        .collect();
    Routing {
        top_k,
        experts: experts.collect(),
        weights,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_experts_with_weights_that_sum_to_one_are_one_expert() {
        let one = random_experts(9, [1, 48, 24], Element::BF16);
        let mut two = random_experts(9, [2, 48, 24], Element::BF16);
        for (one, two) in [(&one.gate_up, &mut two.gate_up), (&one.down, &mut two.down)] {
            let one = one.data.as_slice();
            let (first, second) = two.data.as_mut_slice().split_at_mut(one.len());
            first.copy_from_slice(one);
            second.copy_from_slice(one);
        }
        let input = random_values(1, 48, 1.0);
        let run = |experts: &CpuExperts, routing: &Routing| {
            let mut out = vec![0.0; 48];
            ExpertsArgs {
                input: &input,
                routing,
                experts,
                activation: GatedActivation::Swiglu,
            }
            .run(InstructionSet::detect(), &mut out);
            out
        };
        let single = Routing {
            top_k: 1,
            experts: vec![0],
            weights: vec![1.0],
        };
        let double = Routing {
            top_k: 2,
            experts: vec![1, 0],
            weights: vec![0.25, 0.75],
        };
        let (single, double) = (run(&one, &single), run(&two, &double));
        assert_eq!(Tolerance(1e-6).violation(&single, &double, 48), None);
    }
}
