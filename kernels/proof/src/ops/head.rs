//! Logits of the rows that the batch samples.

mod device;

use std::sync::Arc;

use backstop_card::Device;
use backstop_kernels::ops::head::HeadArgs;
use backstop_kernels::random::{random_indices, random_values};
use backstop_kernels::{CpuMatrix, Element, InstructionSet};

use crate::catalog::{Case, CaseSpec, Cost, DeviceResult, Tolerance};
use crate::product;
use crate::weights::random_matrix;

/// Naive logits; `out` is `[rows, vocabulary]`.
pub fn reference(args: &HeadArgs<'_>, out: &mut [f32]) {
    product::reference(&args.product(), out);
}

/// Factor on the logits of the cases.
const CASE_SCALE: f32 = 0.375;

struct HeadCase {
    input: Vec<f32>,
    rows: Vec<u32>,
    weight: CpuMatrix,
}

impl HeadCase {
    fn run(&self, rows: &[u32], run: impl FnOnce(&HeadArgs<'_>, &mut [f32])) -> Vec<f32> {
        self.run_on(&self.input, rows, run)
    }

    fn run_on(
        &self,
        input: &[f32],
        rows: &[u32],
        run: impl FnOnce(&HeadArgs<'_>, &mut [f32]),
    ) -> Vec<f32> {
        let mut out = vec![0.0; rows.len() * self.weight.rows()];
        let weight = self.weight.view();
        run(
            &HeadArgs {
                input,
                rows,
                weight,
                scale: CASE_SCALE,
            },
            &mut out,
        );
        out
    }
}

impl Case for HeadCase {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn reference(&self) -> Vec<f32> {
        self.run(&self.rows, reference)
    }

    fn cpu(&self, instructions: InstructionSet) -> Vec<f32> {
        self.run(&self.rows, |args, out| args.run(instructions, out))
    }

    fn cpu_row(&self, instructions: InstructionSet, row: usize) -> Vec<f32> {
        self.run(&self.rows[row..=row], |args, out| {
            args.run(instructions, out)
        })
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

/// Shapes `[vocabulary, hidden]`, numbers of tokens and of those that are sampled.
pub fn cases() -> Vec<CaseSpec> {
    let shapes = [
        (1, 1, 1, 1),
        (11, 7, 5, 0),
        (1000, 65, 9, 4),
        (4099, 2048, 3, 7),
    ];
    let large = [1, 64, 256].map(|rows| (262_144, 2048, rows, rows));
    let case = |(vocabulary, hidden, tokens, sampled)| {
        let label = format!("BF16 [{vocabulary}, {hidden}], {sampled} of {tokens} tokens");
        CaseSpec::new(label, move || HeadCase {
            input: random_values(1, tokens * hidden, 1.0),
            rows: random_indices(2, sampled, tokens),
            weight: random_matrix(3, vocabulary, hidden, Element::BF16),
        })
    };
    let large = large.into_iter().map(|shape| {
        let (vocabulary, hidden, _, rows) = shape;
        let large = case(shape).only_for_benchmarks();
        large.made_on_device(move |device| {
            device::made_on_device(device, [vocabulary, hidden, rows])
        })
    });
    shapes.into_iter().map(case).chain(large).collect()
}
