//! All operations with their cases: one list for the property test, the benchmark, the comparison
//! of other devices with the references, and the documentation.

#[cfg(test)]
mod properties;

use std::sync::Arc;

use backstop_card::{Device, DeviceError};
use backstop_kernels::{Element, InstructionSet};

use crate::ops;

/// One operation.
pub struct Kernel {
    /// Its name, that of its file in `ops`.
    pub name: &'static str,
    /// Its cases: real model shapes besides ragged, off-by-one, empty and maximal ones.
    pub cases: fn() -> Vec<CaseSpec>,
}

/// All operations whose results are activations; sampling has tests of its own.
pub static ALL: &[Kernel] = &[
    Kernel {
        name: "embed",
        cases: ops::embed::cases,
    },
    Kernel {
        name: "norm",
        cases: ops::norm::cases,
    },
    Kernel {
        name: "linear",
        cases: ops::linear::cases,
    },
    Kernel {
        name: "head_norm",
        cases: ops::head_norm::cases,
    },
    Kernel {
        name: "latent",
        cases: ops::latent::cases,
    },
    Kernel {
        name: "rope",
        cases: ops::rope::cases,
    },
    Kernel {
        name: "kv_write",
        cases: ops::kv_write::cases,
    },
    Kernel {
        name: "attention",
        cases: ops::attention::cases,
    },
    Kernel {
        name: "indexer",
        cases: ops::indexer::cases,
    },
    Kernel {
        name: "router",
        cases: ops::router::cases,
    },
    Kernel {
        name: "experts",
        cases: ops::experts::cases,
    },
    Kernel {
        name: "gated_mlp",
        cases: ops::gated_mlp::cases,
    },
    Kernel {
        name: "add_scaled",
        cases: ops::add_scaled::cases,
    },
    Kernel {
        name: "concatenate",
        cases: ops::concatenate::cases,
    },
    Kernel {
        name: "head",
        cases: ops::head::cases,
    },
];

/// Operations that a card has kernels for, those first on which most depends.
pub const ON_DEVICE: &[&str] = &[
    "linear",
    "experts",
    "attention",
    "gated_mlp",
    "head",
    "norm",
    "router",
    "rope",
    "kv_write",
    "embed",
    "head_norm",
    "add_scaled",
];

/// A case whose data are yet to be made.
pub struct CaseSpec {
    /// Shapes and formats, for people.
    pub label: String,
    /// Too large for the naive reference: for benchmarks only.
    pub benchmark_only: bool,
    make: Box<dyn Fn() -> Box<dyn Case> + Send + Sync>,
    make_on_device: Option<Box<MakeOnDevice>>,
}

/// Makes a case's data where they are used.
type MakeOnDevice =
    dyn Fn(&Arc<dyn Device>) -> DeviceResult<'static, DeviceWork<'static>> + Send + Sync;

impl CaseSpec {
    /// A case for tests and benchmarks.
    pub fn new<C: Case + 'static>(
        label: impl Into<String>,
        make: impl Fn() -> C + Send + Sync + 'static,
    ) -> Self {
        let make = Box::new(move || -> Box<dyn Case> { Box::new(make()) });
        Self {
            label: label.into(),
            benchmark_only: false,
            make,
            make_on_device: None,
        }
    }

    /// The same case, for benchmarks only.
    pub fn only_for_benchmarks(self) -> Self {
        Self {
            benchmark_only: true,
            ..self
        }
    }

    /// The same case, which a device can make by itself: other data of the same shape.
    pub fn made_on_device(
        self,
        make: impl Fn(&Arc<dyn Device>) -> DeviceResult<'static, DeviceWork<'static>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            make_on_device: Some(Box::new(make)),
            ..self
        }
    }

    /// The case for measurements of time, with data that the device makes; `None` if they must
    /// come from the host.
    pub fn on_device(
        &self,
        device: &Arc<dyn Device>,
    ) -> Option<DeviceResult<'static, DeviceWork<'static>>> {
        self.make_on_device.as_ref().map(|make| make(device))
    }

    /// Makes the data, the same each time.
    pub fn make(&self) -> Box<dyn Case> {
        (self.make)()
    }
}

/// An operation with its input.
pub trait Case: Send + Sync {
    /// Rows of the output; each is computed independently of the others.
    fn rows(&self) -> usize;

    /// Output of the naive reference, row after row.
    fn reference(&self) -> Vec<f32>;

    /// Output of the CPU path, row after row.
    fn cpu(&self, instructions: InstructionSet) -> Vec<f32>;

    /// What its results may differ from the reference by.
    fn cpu_tolerance(&self, _: InstructionSet) -> Tolerance {
        self.tolerance()
    }

    /// One row of the output, computed in a batch of its own.
    fn cpu_row(&self, instructions: InstructionSet, row: usize) -> Vec<f32>;

    /// How far an output may be from the reference.
    fn tolerance(&self) -> Tolerance;

    /// What the operation costs.
    fn cost(&self) -> Cost;

    /// The same on a device; `None` if the device does not support the case's number format.
    fn device<'a>(&'a self, device: &'a Arc<dyn Device>) -> Option<DeviceResult<'a>> {
        let _ = device;
        None
    }
}

/// A case set up on a device, or why that failed.
pub type DeviceResult<'a, T = DeviceRun<'a>> = Result<T, DeviceError>;

/// A case without anything to compare it with.
pub struct DeviceWork<'a> {
    /// Queues the operation on the main stream.
    pub launch: Box<dyn Fn() -> Result<(), DeviceError> + 'a>,
    /// Rows of the output.
    pub rows: usize,
    /// What it costs.
    pub cost: Cost,
}

/// A case that has been set up on a device, with poisoned outputs.
pub struct DeviceRun<'a> {
    /// Queues the operation on the main stream. The benchmark calls it again and again.
    pub launch: Box<dyn Fn() -> Result<(), DeviceError> + 'a>,
    /// The output, row after row; waits for the work.
    pub read: Box<dyn Fn() -> Result<Vec<f32>, DeviceError> + 'a>,
    /// The reference, computed from inputs rounded as the device stores them.
    pub expected: Box<dyn Fn() -> Vec<f32> + 'a>,
    /// How far an output may be from the reference.
    pub tolerance: Tolerance,
}

/// Work and memory traffic of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Multiply-adds.
    pub multiply_adds: usize,
    /// Bytes of weights, or of keys and values, that must be read once.
    pub bytes: usize,
}

impl Cost {
    /// Of a product of so many outputs, inputs and rows.
    pub(crate) fn of_product([outputs, inputs, rows]: [usize; 3], weights: Element) -> Self {
        Self {
            multiply_adds: outputs * inputs * rows,
            bytes: outputs * inputs * weights.bytes(),
        }
    }
}

/// Largest difference from the reference, relative to the largest magnitude in the row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance(pub f32);

impl Tolerance {
    /// No difference at all.
    pub const EXACT: Self = Self(0.0);

    /// For results that are rounded to BF16, which keeps 8 bits.
    pub const BF16: Self = Self(1.0 / 256.0);

    /// For sums of products with weights of this format. BF16 is widened exactly, so that only
    /// the order of f32 additions matters; with FP8, the quantised intermediate activation may
    /// fall to either side of a rounding boundary.
    pub const fn of(weights: Element) -> Self {
        match weights {
            Element::F32 | Element::BF16 => Self(2e-5),
            Element::F8E4M3 => Self(2e-2),
        }
    }

    /// The first place where `actual` is too far from `expected`, given the length of a row.
    pub fn violation(self, expected: &[f32], actual: &[f32], columns: usize) -> Option<String> {
        if expected.len() != actual.len() {
            return Some(format!("{} numbers, not {}", actual.len(), expected.len()));
        }
        let columns = columns.max(1);
        let rows = expected.chunks(columns).zip(actual.chunks(columns));
        for (row, (expected, actual)) in rows.enumerate() {
            let largest = expected
                .iter()
                .fold(0f32, |largest, value| largest.max(value.abs()));
            for (column, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                let close = (expected - actual).abs() <= self.0 * largest;
                if !close && expected.to_bits() != actual.to_bits() {
                    return Some(format!("[{row}, {column}]: {actual}, not {expected}"));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn for_each_case(check: impl Fn(&str, &dyn Case)) {
        for kernel in ALL {
            for spec in (kernel.cases)().iter().filter(|spec| !spec.benchmark_only) {
                check(
                    &format!("{} {}", kernel.name, spec.label),
                    spec.make().as_ref(),
                );
            }
        }
    }

    #[test]
    fn every_instruction_set_agrees_with_the_reference() {
        for_each_case(|name, case| {
            let expected = case.reference();
            let columns = expected.len() / case.rows().max(1);
            for instructions in InstructionSet::available() {
                let actual = case.cpu(instructions);
                let tolerance = case.cpu_tolerance(instructions);
                let violation = tolerance.violation(&expected, &actual, columns);
                assert_eq!(violation, None, "{name} with {}", instructions.name());
            }
        });
    }

    #[test]
    fn a_row_alone_is_the_row_among_many_to_the_last_bit() {
        for_each_case(|name, case| {
            for instructions in InstructionSet::available() {
                let all = case.cpu(instructions);
                let columns = all.len() / case.rows().max(1);
                for row in 0..case.rows() {
                    let alone = case.cpu_row(instructions, row);
                    let among = &all[row * columns..(row + 1) * columns];
                    let differs = alone
                        .iter()
                        .zip(among)
                        .position(|(a, b)| a.to_bits() != b.to_bits());
                    assert_eq!(alone.len(), columns, "{name}");
                    assert_eq!(differs, None, "{name}, row {row}, {}", instructions.name());
                }
            }
        });
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let pool = |threads| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap()
        };
        let (one, five) = (pool(1), pool(5));
        for kernel in ALL {
            for spec in (kernel.cases)().iter().filter(|spec| !spec.benchmark_only) {
                let run = || {
                    let values = spec.make().cpu(InstructionSet::detect());
                    values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                };
                let same = one.install(run) == five.install(run);
                assert!(same, "{} {}", kernel.name, spec.label);
            }
        }
    }

    #[test]
    fn tolerances_notice_differences() {
        let tolerance = Tolerance(0.01);
        assert_eq!(tolerance.violation(&[1.0, 100.0], &[1.9, 100.0], 2), None);
        assert!(
            tolerance
                .violation(&[1.0, 100.0], &[1.9, 100.0], 1)
                .is_some()
        );
        assert!(tolerance.violation(&[1.0], &[f32::NAN], 1).is_some());
        assert!(tolerance.violation(&[1.0], &[1.0, 2.0], 1).is_some());
    }
}
