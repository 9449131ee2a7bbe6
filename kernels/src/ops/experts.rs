//! Routed experts: tokens sorted by expert, two grouped products with SwiGLU between them, and
//! the weighted sum of each token's experts in the order in which the router chose them.
#![expect(
    unsafe_code,
    reason = "tasks write disjoint parts of the intermediate activations"
)]

pub(crate) mod cuda;

use std::sync::Arc;

use crate::catalog::{
    Case, CaseSpec, Cost, DeviceResult, Tolerance, random_indices, random_values,
};
use crate::cpu::weights::CpuExperts;
use crate::cuda::Device;
use crate::element::{Element, F8_MAX, round_f8};
use crate::features::InstructionSet;
use crate::gemm::{InputRows, Operands, Product, rows_per_task};
use crate::ops::gated_mlp::{swiglu, swiglu_reference};
use crate::ops::router::Routing;
use crate::parallel::{self, SharedOutput};
use crate::scratch::with_scratch;
use crate::simd::{self, Program, Simd};

/// Arguments.
#[derive(Clone, Copy, Debug)]
pub struct ExpertsArgs<'a> {
    /// `[tokens, hidden]`.
    pub input: &'a [f32],
    /// Chosen experts and weights of each token.
    pub routing: &'a Routing,
    /// The layer's experts.
    pub experts: &'a CpuExperts,
}

impl ExpertsArgs<'_> {
    fn check(&self, out: &[f32]) {
        assert_eq!(self.input.len(), out.len(), "outputs of experts");
        let tokens = self.input.len() / self.experts.hidden;
        assert_eq!(
            self.routing.experts.len(),
            tokens * self.routing.top_k,
            "routing of experts"
        );
        assert_eq!(
            self.routing.experts.len(),
            self.routing.weights.len(),
            "weights of experts"
        );
        let num_experts = self.experts.num_experts as u32;
        assert!(
            self.routing
                .experts
                .iter()
                .all(|&expert| expert < num_experts),
            "experts"
        );
    }

    fn quantises(&self) -> bool {
        self.experts.element == Element::F8E4M3
    }

    /// Naive experts; `out` is `[tokens, hidden]`.
    pub fn reference(&self, out: &mut [f32]) {
        self.check(out);
        let (hidden, width, top_k) = (self.experts.hidden, self.experts.width, self.routing.top_k);
        out.fill(0.0);
        for (token, out) in out.chunks_exact_mut(hidden).enumerate() {
            for slot in token * top_k..(token + 1) * top_k {
                let expert = self.routing.experts[slot] as usize;
                let input = &self.input[token * hidden..][..hidden];
                let mut gated = vec![0.0; 2 * width];
                let scales = self.experts.gate_up_scales_of(expert);
                let view = self.experts.gate_up_view(expert);
                self.reference_product(input, view, scales, &mut gated);
                let mut result = vec![0.0; hidden];
                let scales = self.experts.down_scales_of(expert);
                let view = self.experts.down_view(expert);
                self.reference_product(&swiglu_reference(&gated), view, scales, &mut result);
                for (out, result) in out.iter_mut().zip(result) {
                    *out += self.routing.weights[slot] * result;
                }
            }
        }
    }

    fn reference_product(
        &self,
        input: &[f32],
        weight: crate::gemm::WeightView<'_>,
        weight_scales: Option<&[f32]>,
        out: &mut [f32],
    ) {
        let mut quantised = input.to_vec();
        let mut scales = [1.0];
        if self.quantises() {
            scales[0] = scale_of(input);
            quantised
                .iter_mut()
                .for_each(|value| *value = round_f8(*value / scales[0]));
        }
        let input = InputRows {
            scales: Some(&scales),
            ..InputRows::all(&quantised, weight.columns())
        };
        Product {
            weight_scales,
            ..Product::new(weight, input)
        }
        .reference(out);
    }

    /// The experts; `out` is `[tokens, hidden]`.
    pub fn run(&self, instructions: InstructionSet, out: &mut [f32]) {
        self.check(out);
        let (hidden, width) = (self.experts.hidden, self.experts.width);
        let groups = Groups::new(self.routing, self.experts.num_experts);
        let slots = self.routing.experts.len();
        with_scratch(slots * (3 * width + hidden), |scratch| {
            let (gated, rest) = scratch.split_at_mut(slots * 2 * width);
            let (inner, results) = rest.split_at_mut(slots * width);
            let input = Quantised::new(self.input, hidden, self.quantises(), instructions);
            self.grouped(instructions, &groups, Stage::GateUp(input.rows()), gated);
            swiglu(instructions, gated, width, inner);
            let inner = Quantised::new(inner, width, self.quantises(), instructions);
            self.grouped(instructions, &groups, Stage::Down(inner.rows()), results);

            let combine = Combine {
                routing: self.routing,
                groups: &groups,
                results,
            };
            parallel::for_each_rows(out, hidden, results.len(), |first, out| {
                let part = CombineRows {
                    combine: &combine,
                    hidden,
                    first,
                    out,
                };
                simd::dispatch(instructions, part);
            });
        });
    }

    /// One product for each expert that has tokens, all of them as one set of tasks.
    fn grouped(
        &self,
        instructions: InstructionSet,
        groups: &Groups,
        stage: Stage<'_>,
        out: &mut [f32],
    ) {
        let used: Vec<usize> = groups.used().collect();
        let (hidden, width) = (self.experts.hidden, self.experts.width);
        let (outputs, inputs) = match stage {
            Stage::GateUp(_) => (2 * width, hidden),
            Stage::Down(_) => (hidden, width),
        };
        let work = outputs * inputs * groups.tokens.len();
        let rows = rows_per_task(outputs, work, used.len());
        let tasks_per_expert = outputs.div_ceil(rows);
        let out = SharedOutput::new(out);
        parallel::for_each(used.len() * tasks_per_expert, work, |task| {
            let expert = used[task / tasks_per_expert];
            let first = task % tasks_per_expert * rows;
            let slots = groups.slots(expert);
            let product = self.product(groups, expert, stage);
            let start = slots.start * outputs;
            let range = first..(first + rows).min(outputs);
            let part = out.part(start..slots.end * outputs);
            // SAFETY: tasks have disjoint pairs of expert and output columns.
            unsafe { product.run_rows(instructions, Operands::default(), range, &part) }
        });
    }

    fn product<'a>(&'a self, groups: &'a Groups, expert: usize, stage: Stage<'a>) -> Product<'a> {
        let slots = groups.slots(expert);
        match stage {
            Stage::GateUp(input) => {
                let input = InputRows {
                    index: Some(&groups.tokens[slots]),
                    ..input
                };
                Product {
                    weight_scales: self.experts.gate_up_scales_of(expert),
                    ..Product::new(self.experts.gate_up_view(expert), input)
                }
            }
            Stage::Down(input) => {
                let input = InputRows {
                    index: Some(&groups.places[slots]),
                    ..input
                };
                Product {
                    weight_scales: self.experts.down_scales_of(expert),
                    ..Product::new(self.experts.down_view(expert), input)
                }
            }
        }
    }
}

/// Which of the two products.
#[derive(Clone, Copy)]
enum Stage<'a> {
    /// Inputs are the tokens.
    GateUp(InputRows<'a>),
    /// Inputs are the intermediate rows, sorted by expert.
    Down(InputRows<'a>),
}

/// Pairs of token and expert, sorted by expert, then token.
struct Groups {
    /// First pair of each expert, and the number of pairs at the end.
    starts: Vec<u32>,
    /// Token of each pair.
    tokens: Vec<u32>,
    /// `0, 1, 2, ..`: rows of activations that are sorted already.
    places: Vec<u32>,
    /// Pair of each routing slot.
    pair_of_slot: Vec<u32>,
}

impl Groups {
    /// A counting sort.
    fn new(routing: &Routing, num_experts: usize) -> Self {
        let slots = routing.experts.len();
        let mut starts = vec![0u32; num_experts + 1];
        for &expert in &routing.experts {
            starts[expert as usize + 1] += 1;
        }
        for expert in 0..num_experts {
            starts[expert + 1] += starts[expert];
        }
        let mut next = starts.clone();
        let (mut tokens, mut pair_of_slot) = (vec![0; slots], vec![0; slots]);
        for (slot, &expert) in routing.experts.iter().enumerate() {
            let pair = &mut next[expert as usize];
            tokens[*pair as usize] = (slot / routing.top_k) as u32;
            pair_of_slot[slot] = *pair;
            *pair += 1;
        }
        Self {
            starts,
            tokens,
            places: (0..slots as u32).collect(),
            pair_of_slot,
        }
    }

    fn slots(&self, expert: usize) -> std::ops::Range<usize> {
        self.starts[expert] as usize..self.starts[expert + 1] as usize
    }

    /// Experts that have tokens.
    fn used(&self) -> impl Iterator<Item = usize> {
        (0..self.starts.len() - 1).filter(|&expert| !self.slots(expert).is_empty())
    }
}

/// Activations, as they are or as E4M3 values with one scale for each row.
struct Quantised<'a> {
    original: &'a [f32],
    columns: usize,
    values: Vec<f32>,
    scales: Vec<f32>,
}

impl<'a> Quantised<'a> {
    fn new(
        original: &'a [f32],
        columns: usize,
        quantises: bool,
        instructions: InstructionSet,
    ) -> Self {
        let mut quantised = Self {
            original,
            columns,
            values: Vec::new(),
            scales: Vec::new(),
        };
        if quantises {
            quantised.quantise(instructions);
        }
        quantised
    }

    fn quantise(&mut self, instructions: InstructionSet) {
        let columns = self.columns;
        self.values = self.original.to_vec();
        self.scales = vec![0.0; self.original.len() / columns];
        let scales = SharedOutput::new(&mut self.scales);
        let work = self.original.len() * 4;
        parallel::for_each_rows(&mut self.values, columns, work, |first, values| {
            // SAFETY: chunks have disjoint rows, and each row one scale.
            let scales = unsafe { scales.range(first..first + values.len() / columns) };
            simd::dispatch(
                instructions,
                Quantise {
                    values,
                    columns,
                    scales,
                },
            );
        });
    }

    fn rows(&self) -> InputRows<'_> {
        if self.scales.is_empty() {
            return InputRows::all(self.original, self.columns);
        }
        InputRows {
            scales: Some(&self.scales),
            ..InputRows::all(&self.values, self.columns)
        }
    }
}

/// The scale that maps the largest magnitude of a row to the largest E4M3 value.
#[inline(always)]
fn scale_of(row: &[f32]) -> f32 {
    let mut largest = 0f32;
    for value in row {
        let magnitude = value.abs();
        // Written such that a NaN anywhere stays.
        largest = if magnitude > largest || magnitude.is_nan() {
            magnitude
        } else {
            largest
        };
    }
    if largest == 0.0 {
        1.0
    } else {
        largest / F8_MAX
    }
}

struct Quantise<'a> {
    values: &'a mut [f32],
    columns: usize,
    scales: &'a mut [f32],
}

impl Program for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (row, scale) in self.values.chunks_exact_mut(self.columns).zip(self.scales) {
            *scale = scale_of(row);
            for value in row {
                *value = round_f8(*value / *scale);
            }
        }
    }
}

/// Inputs of the weighted sum.
struct Combine<'a> {
    routing: &'a Routing,
    groups: &'a Groups,
    /// `[pairs, hidden]`.
    results: &'a [f32],
}

struct CombineRows<'a> {
    combine: &'a Combine<'a>,
    hidden: usize,
    first: usize,
    out: &'a mut [f32],
}

impl Program for CombineRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Combine {
            routing,
            groups,
            results,
        } = self.combine;
        for (row, out) in self.out.chunks_exact_mut(self.hidden).enumerate() {
            out.fill(0.0);
            for rank in 0..routing.top_k {
                let slot = (self.first + row) * routing.top_k + rank;
                let weight = routing.weights[slot];
                let pair = groups.pair_of_slot[slot] as usize;
                let result = &results[pair * self.hidden..][..self.hidden];
                for (out, &result) in out.iter_mut().zip(result) {
                    *out += weight * result;
                }
            }
        }
    }
}

pub(crate) struct ExpertsCase {
    input: Vec<f32>,
    routing: Routing,
    experts: CpuExperts,
}

impl ExpertsCase {
    /// Experts, experts per token, hidden size, width and number of tokens.
    pub(crate) fn random(
        [num_experts, top_k, hidden, width, tokens]: [usize; 5],
        element: Element,
    ) -> Self {
        Self {
            input: random_values(1, tokens * hidden, 1.0),
            routing: random_routing(tokens, top_k, num_experts),
            experts: CpuExperts::random(4, [num_experts, hidden, width], element),
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
        self.run(0..self.rows(), |args, out| args.reference(out))
    }

    fn cpu(&self, instructions: InstructionSet) -> Vec<f32> {
        self.run(0..self.rows(), |args, out| args.run(instructions, out))
    }

    fn cpu_row(&self, instructions: InstructionSet, row: usize) -> Vec<f32> {
        self.run(row..row + 1, |args, out| args.run(instructions, out))
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::of(self.experts.element)
    }

    fn cost(&self) -> Cost {
        let weights = 3 * self.experts.width * self.experts.hidden;
        let mut used = self.routing.experts.clone();
        used.sort_unstable();
        used.dedup();
        Cost {
            multiply_adds: weights * self.routing.experts.len(),
            bytes: weights * used.len() * self.experts.element.bytes(),
        }
    }

    fn device<'a>(&'a self, device: &'a Arc<dyn Device>) -> Option<DeviceResult<'a>> {
        cuda::device(self, device)
    }
}

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
    let large = large
        .into_iter()
        .flat_map(|shape| [Element::F8E4M3, Element::BF16].map(|element| case(shape, element)));
    small
        .chain(large.map(CaseSpec::only_for_benchmarks))
        .collect()
}

/// Distinct experts for each token.
fn random_routing(tokens: usize, top_k: usize, num_experts: usize) -> Routing {
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
    fn scales_map_the_largest_magnitude_to_the_largest_value() {
        assert_eq!(scale_of(&[0.0, -0.0]), 1.0);
        assert_eq!(scale_of(&[1.0, -896.0, 3.0]), 2.0);
        assert!(scale_of(&[1.0, f32::NAN, 3.0]).is_nan());
        for scale in [1e-30, 1e-3, 1.0, 1e20] {
            let row = random_values(1, 300, scale);
            let largest = row
                .iter()
                .fold(0f32, |largest, value| largest.max(value.abs()));
            let quantised = largest / scale_of(&row);
            assert_eq!(round_f8(quantised), F8_MAX, "{scale}");
        }
    }

    #[test]
    fn rows_are_sorted_by_expert_then_token() {
        let experts = vec![2, 0, 1, 2, 2, 0];
        let routing = Routing {
            top_k: 2,
            experts,
            weights: vec![1.0; 6],
        };
        let groups = Groups::new(&routing, 4);
        assert_eq!(groups.used().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(groups.tokens, [0, 2, 1, 0, 1, 2]);
        assert_eq!(groups.pair_of_slot, [3, 0, 2, 4, 5, 1]);
    }

    #[test]
    fn equal_experts_with_weights_that_sum_to_one_are_one_expert() {
        let one = CpuExperts::random(9, [1, 48, 24], Element::BF16);
        let mut two = CpuExperts::random(9, [2, 48, 24], Element::BF16);
        let (gate_up, down) = (one.gate_up.len(), one.down.len());
        two.gate_up.as_mut_slice()[..gate_up].copy_from_slice(one.gate_up.as_slice());
        two.gate_up.as_mut_slice()[gate_up..].copy_from_slice(one.gate_up.as_slice());
        two.down.as_mut_slice()[..down].copy_from_slice(one.down.as_slice());
        two.down.as_mut_slice()[down..].copy_from_slice(one.down.as_slice());
        let input = random_values(1, 48, 1.0);
        let run = |experts: &CpuExperts, routing: &Routing| {
            let mut out = vec![0.0; 48];
            ExpertsArgs {
                input: &input,
                routing,
                experts,
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
