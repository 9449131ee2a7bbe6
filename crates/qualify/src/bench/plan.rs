//! Which loads are run, and what is asked under each.

use std::path::Path;

use backstop_load::{
    Arrival, Backend, Lengths, Prefixes, Session, conversations, prefixed, prompts_of_file, random,
    recorded, trace_of_file,
};

use super::args::{DatasetName, LoadArgs, PromptArgs, ServeArgs};
use crate::QualifyError;

/// Requests in flight at once where nobody says how many may be.
pub(super) const IN_FLIGHT_MAX: usize = 4096;
/// Numbers of the runs that only warm up begin here.
const WARM_UPS: u64 = 1 << 20;

/// A load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) pacing: Pacing,
    /// Clients, or the most requests in flight.
    pub(super) max_concurrency: Option<usize>,
    pub(super) requests: usize,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pacing {
    /// When a client has its answer.
    Closed,
    /// At random times with so many a second.
    Rate(f64),
    /// When they once were.
    Recorded,
}

impl Point {
    /// For people.
    pub(super) fn label(&self) -> String {
        let clients = self.clients();
        let at_most = self
            .max_concurrency
            .map_or(String::new(), |most| format!(", at most {most} at once"));
        match self.pacing {
            Pacing::Closed if clients == 1 => "1 client".to_owned(),
            Pacing::Closed => format!("{clients} clients"),
            Pacing::Rate(rate) => format!("{rate} requests/s{at_most}"),
            Pacing::Recorded => format!("recorded arrivals{at_most}"),
        }
    }

    /// In a closed loop.
    pub(super) fn clients(&self) -> usize {
        let clients = self.max_concurrency.unwrap_or(self.requests);
        clients.min(IN_FLIGHT_MAX.max(self.max_concurrency.unwrap_or(0)))
    }

    /// In an open loop.
    pub(super) fn in_flight_max(&self) -> usize {
        self.max_concurrency.unwrap_or(IN_FLIGHT_MAX)
    }
}

/// All loads that the command line names, one after the other.
pub(super) fn points(args: &ServeArgs) -> Result<Vec<Point>, QualifyError> {
    let LoadArgs {
        num_prompts,
        max_concurrency,
        request_rate,
        ..
    } = &args.load;
    let is_recorded = args.prompts.dataset_name == DatasetName::TimedTrace;
    let pacings: Vec<Pacing> = match request_rate.as_slice() {
        [] if is_recorded => vec![Pacing::Recorded],
        [] => vec![Pacing::Closed],
        rates => rates
            .iter()
            .map(|rate| {
                if rate.is_finite() {
                    Pacing::Rate(*rate)
                } else {
                    Pacing::Closed
                }
            })
            .collect(),
    };
    let concurrencies: Vec<Option<usize>> = match max_concurrency.as_slice() {
        [] => vec![None],
        several => several.iter().map(|one| Some(*one as usize)).collect(),
    };
    let combined = pacings.into_iter().flat_map(|pacing| {
        let with = move |max_concurrency: &Option<usize>| Point {
            pacing,
            max_concurrency: *max_concurrency,
            requests: *num_prompts as usize,
        };
        concurrencies.iter().map(with).collect::<Vec<_>>()
    });
    let points: Vec<Point> = combined.collect();
    if points.len() > 256 {
        return Err(QualifyError::new(
            "at most 256 runs at a time: name fewer rates or numbers of clients",
        ));
    }
    Ok(points)
}

/// Where prompts come from. No two runs get the same, unless that is asked for.
pub(super) struct Source {
    prompts: PromptArgs,
    seed: u64,
    /// Of a file.
    sessions: Vec<Session>,
    used: usize,
    trace: Vec<Arrival>,
    runs: u64,
}

impl Source {
    /// Reads files, if there are some.
    pub(super) fn open(args: &ServeArgs, seed: u64) -> Result<Self, QualifyError> {
        let prompts = &args.prompts;
        let backend = Backend::from(args.server.backend);
        let load_error = |error: backstop_load::LoadError| QualifyError::new(error.to_string());
        let (mut sessions, mut trace) = (Vec::new(), Vec::new());
        match prompts.dataset_name {
            DatasetName::Custom => {
                let path = path_of(prompts)?;
                sessions = prompts_of_file(path, backend, prompts.custom_output_len, seed)
                    .map_err(load_error)?;
            }
            DatasetName::TimedTrace => {
                let path = path_of(prompts)?;
                let unit = prompts.timed_trace_sec_multiplier;
                trace = trace_of_file(path, unit, args.load.num_prompts as usize)
                    .map_err(load_error)?;
            }
            DatasetName::MultiTurn if backend == Backend::Completions => {
                return Err(QualifyError::new("multi_turn needs --backend openai-chat"));
            }
            DatasetName::Random | DatasetName::PrefixRepetition | DatasetName::MultiTurn => {}
        }
        Ok(Self {
            prompts: prompts.clone(),
            seed,
            sessions,
            used: 0,
            trace,
            runs: 0,
        })
    }

    /// The arrivals of a trace.
    pub(super) fn trace(&self) -> &[Arrival] {
        &self.trace
    }

    /// What is asked in the next run.
    pub(super) fn take(&mut self, requests: usize) -> Result<Vec<Session>, QualifyError> {
        let run = self.runs;
        self.runs += 1;
        if self.prompts.dataset_name == DatasetName::Custom {
            return self.take_of_file(requests);
        }
        Ok(self.made_up(requests, run))
    }

    /// What is asked before anything is measured; it is made up, so that a file's prompts stay new.
    pub(super) fn warm_up(&self, requests: usize) -> Vec<Session> {
        let lengths = match self.prompts.dataset_name {
            DatasetName::Custom => Lengths {
                output: self.prompts.custom_output_len,
                ..self.lengths()
            },
            _ => self.lengths(),
        };
        random(requests, lengths, 0, self.seed, WARM_UPS)
    }

    fn made_up(&self, requests: usize, run: u64) -> Vec<Session> {
        let (prompts, lengths, seed) = (&self.prompts, self.lengths(), self.seed);
        match prompts.dataset_name {
            DatasetName::Random | DatasetName::Custom => {
                random(requests, lengths, prompts.random_prefix_len, seed, run)
            }
            DatasetName::PrefixRepetition => {
                let prefixes = Prefixes {
                    count: prompts.prefix_repetition_num_prefixes,
                    tokens: prompts.prefix_repetition_prefix_len,
                };
                prefixed(requests, lengths, prefixes, seed, run)
            }
            DatasetName::MultiTurn => {
                let turns = prompts.multi_turn_num_turns as usize;
                conversations(requests, turns, lengths, seed, run)
            }
            DatasetName::TimedTrace => {
                let block = prompts.timed_trace_chunk_hash_size;
                recorded(&self.trace, lengths, block, seed, run)
            }
        }
    }

    fn lengths(&self) -> Lengths {
        let prompts = &self.prompts;
        let (input, output) = match prompts.dataset_name {
            DatasetName::PrefixRepetition => (
                prompts.prefix_repetition_suffix_len,
                prompts.prefix_repetition_output_len,
            ),
            _ => (prompts.random_input_len, prompts.random_output_len),
        };
        Lengths {
            input,
            output,
            range_ratio: prompts.random_range_ratio,
        }
    }

    fn take_of_file(&mut self, requests: usize) -> Result<Vec<Session>, QualifyError> {
        let left = self.sessions.len().saturating_sub(self.used);
        if requests > left && !self.prompts.reuse_prompts {
            return Err(QualifyError::new(format!(
                "{} has {} prompts, of which {left} are new to this run of {requests} requests: lower --num-prompts, or \
                 --reuse-prompts, which lets a prefix cache answer",
                path_of(&self.prompts)?.display(),
                self.sessions.len(),
            )));
        }
        let used = self.used;
        self.used += requests;
        let chosen = self
            .sessions
            .iter()
            .cycle()
            .skip(used % self.sessions.len());
        Ok(chosen.take(requests).cloned().collect())
    }
}

fn path_of(prompts: &PromptArgs) -> Result<&Path, QualifyError> {
    let missing = || {
        let name = prompts.dataset_name.name();
        QualifyError::new(format!("{name} needs a file: --dataset-path"))
    };
    prompts.dataset_path.as_deref().ok_or_else(missing)
}
