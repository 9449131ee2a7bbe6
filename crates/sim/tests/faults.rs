//! The simulator is only worth what it catches: every planted fault must be found.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};

use backstop_kv::fault::{Fault, plant};
use backstop_sim::Simulation;

/// Turns within which a fault must be found.
const MAX_STEPS: u64 = 1_000_000;

#[test]
#[expect(clippy::print_stderr, reason = "shown on request and on failure")]
fn every_planted_fault_is_found() {
    // The panics to come are what the test wants.
    set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    let mut found = Vec::new();
    for fault in Fault::ALL {
        plant(Some(fault));
        let mut simulation = Simulation::new(1);
        let clean = catch_unwind(AssertUnwindSafe(|| {
            while simulation.report().steps < MAX_STEPS {
                simulation.run_episode();
            }
        }));
        plant(None);
        match clean {
            Ok(()) => missed.push(fault),
            Err(panic) => {
                let message = panic.downcast_ref::<String>().map(String::as_str);
                let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
                let line = message
                    .and_then(|message| message.lines().next())
                    .unwrap_or("?");
                let steps = simulation.report().steps;
                found.push(format!("{fault:?} after {steps} turns: {line}"));
            }
        }
    }
    drop(std::panic::take_hook());
    eprintln!("{}", found.join("\n"));
    assert!(missed.is_empty(), "not found: {missed:?}");
}
