//! Every operation's cases on the host executor, compared with the reference: the CUDA kernels,
//! compiled for the processor. `scripts/card/sanitize_kernels` runs this under sanitizers.
#![expect(
    clippy::print_stderr,
    reason = "how many cases ran belongs into the test's output"
)]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use backstop_card::Device;
use backstop_proof::catalog::{self, CaseSpec, Kernel};
use backstop_proof::host::{HostDevice, build_library};

/// Environment variable: only cases whose "operation label" contains this.
const FILTER: &str = "BACKSTOP_KERNEL_CASES";
/// Environment variable: only cases with at most this many multiply-adds.
const LIMIT: &str = "BACKSTOP_KERNEL_MULTIPLY_ADDS";

/// What became of a case.
enum Outcome {
    /// It ran and was compared.
    Compared,
    /// The device has no such operation or number format.
    Unsupported,
    /// Excluded by [`FILTER`] or [`LIMIT`].
    Excluded,
    /// It failed or was too far from the reference.
    Wrong(String),
}

fn run(device: &Arc<dyn Device>, spec: &CaseSpec) -> Outcome {
    let case = spec.make();
    let limit = std::env::var(LIMIT).ok();
    let limit = limit.map(|text| text.parse::<usize>().expect("a number of multiply-adds"));
    if limit.is_some_and(|limit| case.cost().multiply_adds > limit) {
        return Outcome::Excluded;
    }
    let Some(set_up) = case.device(device) else {
        return Outcome::Unsupported;
    };
    let compare = || {
        let run = set_up.map_err(|error| error.to_string())?;
        (run.launch)().map_err(|error| error.to_string())?;
        let actual = (run.read)().map_err(|error| error.to_string())?;
        let expected = (run.expected)();
        let columns = expected.len() / case.rows().max(1);
        let violation = run.tolerance.violation(&expected, &actual, columns);
        violation.map_or(Ok(()), Err)
    };
    match compare() {
        Ok(()) => Outcome::Compared,
        Err(violation) => Outcome::Wrong(violation),
    }
}

/// Runs the operation's cases; says how many ran, and adds what was wrong.
fn run_all(device: &Arc<dyn Device>, kernel: &Kernel, wrong: &mut String) -> usize {
    let filter = std::env::var(FILTER).unwrap_or_default();
    let (mut compared, mut unsupported, mut excluded, mut for_benchmarks) = (0, 0, 0, 0);
    let begin = Instant::now();
    for spec in (kernel.cases)() {
        let name = format!("{} {}", kernel.name, spec.label);
        if spec.benchmark_only {
            for_benchmarks += 1;
            continue;
        }
        let outcome = if name.contains(&filter) {
            run(device, &spec)
        } else {
            Outcome::Excluded
        };
        match outcome {
            Outcome::Compared => compared += 1,
            Outcome::Unsupported => unsupported += 1,
            Outcome::Excluded => excluded += 1,
            Outcome::Wrong(violation) => {
                compared += 1;
                writeln!(wrong, "{name}: {violation}").expect("a string takes everything");
            }
        }
    }
    eprintln!(
        "{}: {compared} cases compared in {:.1} s, {unsupported} not for the device, {excluded} \
         excluded by {FILTER} or {LIMIT}, {for_benchmarks} for benchmarks only",
        kernel.name,
        begin.elapsed().as_secs_f32()
    );
    compared
}

#[test]
fn kernels_agree_with_the_references() {
    let device = HostDevice::for_tests().unwrap();
    let filtered = [FILTER, LIMIT]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    let mut wrong = String::new();
    for kernel in catalog::ALL {
        let compared = run_all(&device, kernel, &mut wrong);
        // At least one case of those that have kernels.
        let must_run = catalog::ON_DEVICE.contains(&kernel.name) && !filtered;
        if must_run && compared == 0 {
            writeln!(wrong, "{}: no case ran", kernel.name).expect("a string takes everything");
        }
        if compared > 0 && !catalog::ON_DEVICE.contains(&kernel.name) {
            writeln!(wrong, "{}: belongs into ON_DEVICE", kernel.name)
                .expect("a string takes everything");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn operations_with_kernels_are_in_the_catalog() {
    for name in catalog::ON_DEVICE {
        assert!(
            catalog::ALL.iter().any(|kernel| kernel.name == *name),
            "{name}"
        );
    }
}

/// Makes the library that `scripts/card/sanitize_kernels` lets [`kernels_agree_with_the_references`] use.
#[test]
#[ignore = "part of scripts/card/sanitize_kernels"]
fn build_the_sanitized_library() {
    let library = build_library(true).unwrap();
    eprintln!("sanitized library: {}", library.display());
}
