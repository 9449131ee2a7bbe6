//! Runs the simulation from the command line:
//! `cargo run --release -p backstop-sim --bin simulate -- --steps 10000000 --seed 1`.
//! With `--decode N` it measures instead what a step costs with N sequences that generate.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use backstop_sim::{DecodeLoad, Simulation};

const USAGE: &str = "usage: simulate [--steps N] [--seed S] [--decode SEQUENCES]";

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a command-line tool"
)]
fn main() -> ExitCode {
    let Some(Options {
        steps,
        seed,
        decode,
    }) = parse(std::env::args().skip(1))
    else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if decode > 0 {
        println!("{}", measure_decode(decode));
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    let mut simulation = Simulation::new(seed);
    while simulation.report().steps < steps {
        if catch_unwind(AssertUnwindSafe(|| simulation.run_episode())).is_err() {
            let faulty = simulation.next_seed() - 1;
            eprintln!("after {}", simulation.report());
            eprintln!("run the faulty episode alone with: simulate --steps 1 --seed {faulty}");
            return ExitCode::FAILURE;
        }
    }
    let steps_per_second = simulation.report().steps as f64 / started.elapsed().as_secs_f64();
    println!(
        "seed {seed}: {}, {steps_per_second:.0} steps/s",
        simulation.report()
    );
    ExitCode::SUCCESS
}

/// What to do.
struct Options {
    steps: u64,
    seed: u64,
    /// Sequences of the decode measurement; 0 for a simulation.
    decode: u32,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options {
        steps: 1_000_000,
        seed: 1,
        decode: 0,
    };
    while let Some(name) = arguments.next() {
        let value = arguments.next()?;
        match name.as_str() {
            "--steps" => options.steps = value.parse().ok()?,
            "--seed" => options.seed = value.parse().ok()?,
            "--decode" => options.decode = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(options)
}

/// Times steps of the scheduler alone.
fn measure_decode(num_sequences: u32) -> String {
    const STEPS: u32 = 2000;
    let mut load = DecodeLoad::new(num_sequences, 1000, STEPS);
    let mut times: Vec<_> = (0..STEPS)
        .map(|_| {
            let started = Instant::now();
            load.step();
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    let at = |per_mille: usize| times[times.len() * per_mille / 1000].as_secs_f64() * 1e6;
    let mean = times.iter().sum::<Duration>().as_secs_f64() * 1e6 / f64::from(STEPS);
    format!(
        "{num_sequences} sequences: plan and outcome take {mean:.1} us (mean), {:.1} us (median), \
         {:.1} us (p99)",
        at(500),
        at(990)
    )
}
