//! Routed experts: tokens sorted by expert, two grouped products with an activation between them,
//! and the weighted sum of each token's experts in the order in which the router chose them.
#![expect(
    unsafe_code,
    reason = "tasks write disjoint parts of the intermediate activations"
)]

use std::ops::Range;

use crate::backend::GatedActivation;
use crate::cpu::weights::{CpuExperts, ExpertMatrices};
use crate::element::{F8_MAX, round_f8};
use crate::features::InstructionSet;
use crate::gemm::{InputRows, Operands, Product, rows_per_task};
use crate::ops::gated_mlp::activate;
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
    /// What is between their two products.
    pub activation: GatedActivation,
}

impl ExpertsArgs<'_> {
    /// Panics unless the parts agree.
    pub fn check(&self, out: &[f32]) {
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

    /// The experts; `out` is `[tokens, hidden]`.
    pub fn run(&self, instructions: InstructionSet, out: &mut [f32]) {
        self.check(out);
        let (hidden, width) = (self.experts.hidden, self.experts.width);
        let groups = Groups::new(self.routing, self.experts.num_experts);
        let slots = self.routing.experts.len();
        with_scratch(slots * (3 * width + hidden), |scratch| {
            let (gated, rest) = scratch.split_at_mut(slots * 2 * width);
            let (inner, results) = rest.split_at_mut(slots * width);
            let quantises = self.experts.quantises();
            let input = Quantised::new(self.input, hidden, quantises, instructions);
            let stage = Stage {
                matrices: &self.experts.gate_up,
                shape: [2 * width, hidden],
                input: input.rows(),
                source: &groups.tokens,
            };
            stage.run(instructions, &groups, gated);
            activate(instructions, self.activation, gated, width, inner);
            let inner = Quantised::new(inner, width, quantises, instructions);
            let stage = Stage {
                matrices: &self.experts.down,
                shape: [hidden, width],
                input: inner.rows(),
                source: &groups.places,
            };
            stage.run(instructions, &groups, results);

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
}

/// One of the two products.
struct Stage<'a> {
    matrices: &'a ExpertMatrices,
    /// `[outputs, inputs]` of each expert.
    shape: [usize; 2],
    input: InputRows<'a>,
    /// The row of `input` of each pair.
    source: &'a [u32],
}

impl Stage<'_> {
    /// One product for each expert that has tokens, all of them as one set of tasks.
    fn run(&self, instructions: InstructionSet, groups: &Groups, out: &mut [f32]) {
        let used: Vec<usize> = groups.used().collect();
        let [outputs, inputs] = self.shape;
        let work = outputs * inputs * groups.tokens.len();
        let rows = rows_per_task(outputs, work, used.len());
        let tasks_per_expert = outputs.div_ceil(rows);
        let out = SharedOutput::new(out);
        // All experts' activations are prepared at once.
        let all = self.product(0, 0..groups.tokens.len());
        Operands::with(&all, instructions, |operands| {
            parallel::for_each(used.len() * tasks_per_expert, work, |task| {
                let expert = used[task / tasks_per_expert];
                let first = task % tasks_per_expert * rows;
                let range = first..(first + rows).min(outputs);
                let pairs = groups.slots(expert);
                let part = out.part(pairs.start * outputs..pairs.end * outputs);
                let operands = operands.rows(pairs.clone());
                // SAFETY: tasks have disjoint pairs of expert and output columns.
                unsafe {
                    let product = self.product(expert, pairs.clone());
                    product.run_rows(instructions, operands, range.clone(), &part);
                    self.add_biases(expert, pairs.len(), range, &part);
                }
            });
        });
    }

    fn product(&self, expert: usize, pairs: Range<usize>) -> Product<'_> {
        let input = InputRows {
            index: Some(&self.source[pairs]),
            ..self.input
        };
        Product {
            weight_scales: self.matrices.scales_of(expert, self.shape[0]),
            ..Product::new(self.matrices.view(expert, self.shape), input)
        }
    }

    /// Adds the expert's biases to some columns of its `[pairs, outputs]`.
    ///
    /// # Safety
    /// No other task may access these columns at the same time.
    unsafe fn add_biases(
        &self,
        expert: usize,
        pairs: usize,
        columns: Range<usize>,
        out: &SharedOutput<'_, f32>,
    ) {
        let [outputs, _] = self.shape;
        let Some(biases) = self.matrices.biases_of(expert, outputs) else {
            return;
        };
        for pair in 0..pairs {
            let at = pair * outputs;
            // SAFETY: the caller's promise.
            let out = unsafe { out.range(at + columns.start..at + columns.end) };
            for (out, bias) in out.iter_mut().zip(&biases[columns.clone()]) {
                *out += bias;
            }
        }
    }
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

    fn slots(&self, expert: usize) -> Range<usize> {
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
pub fn scale_of(row: &[f32]) -> f32 {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::random_values;

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
}
