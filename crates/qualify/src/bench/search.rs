//! Finds the highest load under which enough answers are good.

use backstop_load::{CapacitySearch, Scale};

use super::args::DatasetName;
use super::measuring::Measuring;
use super::plan::{Pacing, Point};
use super::result::RunReport;
use crate::QualifyError;

const RATE_MAX: f64 = 10_000.0;
const CLIENTS_MAX: f64 = 4096.0;
/// Requests of a load that is tried.
const REQUESTS_MIN: usize = 20;
const REQUESTS_MAX: usize = 20_000;
/// Requests of each client.
const ROUNDS: usize = 4;

/// Tries loads until the knee is known, or as many were tried as may be.
pub(super) async fn run(measuring: &mut Measuring<'_>, scale: Scale) -> Result<(), QualifyError> {
    let args = measuring.args();
    if args.prompts.dataset_name == DatasetName::TimedTrace {
        return Err(QualifyError::new(
            "recorded arrivals have the rate that they had: --find-capacity needs other prompts",
        ));
    }
    let goodput = &args.goodput;
    let (first, highest) = match scale {
        // What one client would ask.
        Scale::Rate => (1.0 / measuring.seconds_of_one(), RATE_MAX),
        Scale::Concurrency => (1.0, CLIENTS_MAX),
    };
    let probes = goodput.capacity_probes as usize;
    let mut search = CapacitySearch::new(scale, goodput.capacity_goodput, first, highest, probes);
    while let Some(load) = search.next() {
        let point = point(scale, load, goodput.capacity_probe_time.as_secs_f64());
        let run = measuring.run(&point).await?;
        match good_fraction(run, goodput.capacity_goodput) {
            Some(good) => search.learn(load, good),
            None => {
                tracing::warn!(
                    "the search ends here: of {}, nothing can be said",
                    run.label
                );
                break;
            }
        }
        measuring.found(search.capacity())?;
    }
    measuring.found(search.capacity())
}

/// From the planned time on. If the generator was late, answers that were bad from the sending time on were bad all the same;
/// if they were good, nothing is known.
fn good_fraction(run: &RunReport, needed: f64) -> Option<f64> {
    let summary = &run.summary;
    if run.valid {
        return summary.good_fraction_from_planned;
    }
    summary.good_fraction.filter(|good| *good < needed)
}

fn point(scale: Scale, load: f64, seconds: f64) -> Point {
    let requests = match scale {
        Scale::Rate => (load * seconds).ceil() as usize,
        Scale::Concurrency => load as usize * ROUNDS,
    };
    Point {
        pacing: match scale {
            Scale::Rate => Pacing::Rate(load),
            Scale::Concurrency => Pacing::Closed,
        },
        max_concurrency: match scale {
            Scale::Rate => None,
            Scale::Concurrency => Some(load as usize),
        },
        requests: requests.clamp(REQUESTS_MIN, REQUESTS_MAX),
    }
}
