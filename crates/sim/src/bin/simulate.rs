//! Runs the simulation from the command line:
//! `cargo run --release -p backstop-sim --bin simulate -- --steps 10000000 --seed 1`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use backstop_sim::Simulation;

const USAGE: &str = "usage: simulate [--steps N] [--seed S]";

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a command-line tool"
)]
fn main() -> ExitCode {
    let Some((steps, seed)) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
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

/// Number of steps and seed.
fn parse(mut arguments: impl Iterator<Item = String>) -> Option<(u64, u64)> {
    let (mut steps, mut seed) = (1_000_000, 1);
    while let Some(name) = arguments.next() {
        let value = arguments.next()?.parse().ok()?;
        match name.as_str() {
            "--steps" => steps = value,
            "--seed" => seed = value,
            _ => return None,
        }
    }
    Some((steps, seed))
}
