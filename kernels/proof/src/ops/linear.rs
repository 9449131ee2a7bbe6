//! `input * weight^T + bias`: weights F32 or BF16, activations, bias and accumulation f32.

mod device;

pub(crate) use device::upload;

use std::sync::Arc;

use backstop_card::Device;
use backstop_kernels::ops::linear::LinearArgs;
use backstop_kernels::random::random_values;
use backstop_kernels::{CpuMatrix, Element, InstructionSet};

use crate::catalog::{Case, CaseSpec, Cost, DeviceResult, Tolerance};
use crate::product;
use crate::weights::random_matrix;

/// Naive product; `out` is `[tokens, outputs]`.
pub fn reference(args: &LinearArgs<'_>, out: &mut [f32]) {
    product::reference(&args.product(), out);
    args.add_bias(out);
}

pub(crate) struct LinearCase {
    input: Vec<f32>,
    weight: CpuMatrix,
    bias: Option<Vec<f32>>,
}

impl LinearCase {
    /// Outputs, inputs and tokens.
    pub(crate) fn random(
        (outputs, inputs, tokens): (usize, usize, usize),
        element: Element,
    ) -> Self {
        Self {
            input: random_values(1, tokens * inputs, 1.0),
            weight: random_matrix(2, outputs, inputs, element),
            bias: None,
        }
    }

    /// The same with a bias.
    fn with_bias(self) -> Self {
        let bias = Some(random_values(3, self.weight.rows(), 1.0));
        Self { bias, ..self }
    }

    fn run(&self, input: &[f32], run: impl FnOnce(&LinearArgs<'_>, &mut [f32])) -> Vec<f32> {
        let tokens = input.len() / self.weight.columns();
        let mut out = vec![0.0; tokens * self.weight.rows()];
        run(
            &LinearArgs {
                input,
                weight: self.weight.view(),
                bias: self.bias.as_deref(),
            },
            &mut out,
        );
        out
    }
}

impl Case for LinearCase {
    fn rows(&self) -> usize {
        self.input.len() / self.weight.columns()
    }

    fn reference(&self) -> Vec<f32> {
        self.run(&self.input, reference)
    }

    fn cpu(&self, instructions: InstructionSet) -> Vec<f32> {
        self.run(&self.input, |args, out| args.run(instructions, out))
    }

    fn cpu_row(&self, instructions: InstructionSet, row: usize) -> Vec<f32> {
        let columns = self.weight.columns();
        let input = &self.input[row * columns..][..columns];
        self.run(input, |args, out| args.run(instructions, out))
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::of(self.weight.view().element())
    }

    fn cost(&self) -> Cost {
        let shape = [self.weight.rows(), self.weight.columns(), self.rows()];
        Cost::of_product(shape, self.weight.view().element())
    }

    fn device<'a>(&'a self, device: &'a Arc<dyn Device>) -> Option<DeviceResult<'a>> {
        device::device(self, device)
    }
}

/// Shapes `[outputs, inputs]` and numbers of tokens.
pub fn cases() -> Vec<CaseSpec> {
    let ragged = [
        (1, 1, 1),
        (3, 5, 2),
        (8, 16, 0),
        (17, 33, 7),
        (12, 15, 6),
        (9, 16, 13),
        (31, 47, 3),
        (64, 64, 5),
        (65, 130, 29),
        (66, 130, 50),
    ];
    // Queries, keys and values; attention's output.
    let real = [
        (5120, 2048, 1),
        (5120, 2048, 3),
        (2048, 4096, 8),
        (256, 2048, 133),
    ];
    let large = [1, 8, 64, 256, 8192]
        .map(|tokens| [(5120, 2048, tokens), (2048, 4096, tokens)])
        .concat();
    let case = |shape: (usize, usize, usize), element: Element| {
        let (outputs, inputs, tokens) = shape;
        let label = format!("{element:?} [{outputs}, {inputs}], {tokens} tokens");
        CaseSpec::new(label, move || LinearCase::random(shape, element))
    };
    let small = ragged.into_iter().chain(real);
    let small = small.flat_map(|shape| [Element::F32, Element::BF16].map(|e| case(shape, e)));
    // Queries, keys and values of Qwen2.5-Coder-7B, and ragged ones.
    let biased = [(4608, 3584, 3), (64, 64, 5), (34, 33, 70)];
    let biased = biased.map(|shape| {
        let (outputs, inputs, tokens) = shape;
        let label = format!("bias, BF16 [{outputs}, {inputs}], {tokens} tokens");
        CaseSpec::new(label, move || {
            LinearCase::random(shape, Element::BF16).with_bias()
        })
    });
    let large = large.into_iter().map(|shape| {
        let large = case(shape, Element::BF16).only_for_benchmarks();
        large.made_on_device(move |device| device::made_on_device(device, shape))
    });
    small.chain(biased).chain(large).collect()
}
