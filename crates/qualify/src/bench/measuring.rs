//! Runs loads, one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backstop_load::{
    Backend, Calibration, Capacity, Objectives, Pace, PowerMeter, Progress, Prompts, Settings,
    Target, Wire, Workload, arrivals, calibrate, flaws, summarise,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use super::args::{DatasetName, PowerName, ServeArgs, TokenEvents};
use super::plan::{IN_FLIGHT_MAX, Pacing, Point, Source};
use super::result::{BenchReport, Measured, RunReport, Shown};
use super::server;
use super::writing::Writer;
use crate::QualifyError;
use crate::qualification::PROGRAM;

/// Clients that warm the server up.
const WARM_UP_CLIENTS: usize = 4;

/// A benchmark in progress.
pub(super) struct Measuring<'a> {
    args: &'a ServeArgs,
    target: Target,
    wire: Wire,
    source: Source,
    settings: Settings,
    report: BenchReport,
    writer: Writer<'a>,
    seconds_of_one: f64,
}

impl<'a> Measuring<'a> {
    /// Looks at the server, learns what it makes of prompts, and warms it up.
    pub(super) async fn start(args: &'a ServeArgs) -> Result<Self, QualifyError> {
        allow_connections();
        let seed = args.load.seed.unwrap_or_else(drawn_seed);
        let backend = Backend::from(args.server.backend);
        let source = Source::open(args, seed)?;
        let objectives =
            Objectives::parse(args.goodput.goodput.iter().map(String::as_str)).map_err(of_load)?;
        let most = args.load.max_concurrency.iter().max().copied();
        let kept = most.map_or(IN_FLIGHT_MAX, |most| most as usize);
        let (endpoint, subject) = server::meet(&args.server, kept).await?;
        let began_unix_s = unix_now_s();
        let writer = Writer::open(&args.output, &subject, began_unix_s)?;
        let target = Target {
            endpoint,
            path: args
                .server
                .endpoint
                .clone()
                .unwrap_or_else(|| backend.path().to_owned()),
            patience: args.server.request_timeout,
            events: args.goodput.token_events.into(),
        };
        let mut wire = Wire {
            backend,
            model: Some(subject.model.clone()),
            prompts: Prompts::Words { per_token: 1.0 },
            seed,
            ignore_eos: args.prompts.ignore_eos,
            extra: sampling(args),
        };
        let calibration = calibrate(&target, &wire).await.map_err(of_load)?;
        wire.prompts = calibration.prompts;
        let mut measuring = Self {
            args,
            target,
            source,
            settings: Settings {
                objectives,
                percents: args.output.metric_percentiles.clone(),
            },
            report: BenchReport {
                program: PROGRAM.to_owned(),
                began_unix_s,
                subject,
                settings: settings(args, &wire, &calibration),
                runs: Vec::new(),
                capacity: None,
            },
            wire,
            writer,
            seconds_of_one: 1.0,
        };
        measuring.warm_up().await?;
        Ok(measuring)
    }

    pub(super) fn args(&self) -> &'a ServeArgs {
        self.args
    }

    /// How long an answer takes when hardly anything else is asked.
    pub(super) fn seconds_of_one(&self) -> f64 {
        self.seconds_of_one
    }

    async fn warm_up(&mut self) -> Result<(), QualifyError> {
        let requests = self.args.load.num_warmups as usize;
        // A search wants to know how long an answer takes.
        let requests = if self.args.goodput.find_capacity.is_some() {
            requests.max(2)
        } else {
            requests
        };
        if requests == 0 {
            return Ok(());
        }
        let workload = self.workload(self.source.warm_up(requests));
        let pace = Pace::Closed {
            clients: WARM_UP_CLIENTS.min(requests),
        };
        let watch = progress("warm-up", requests);
        let outcome = backstop_load::run(&self.target, workload, &pace, watch)
            .await
            .map_err(of_load)?;
        let summary = summarise(&outcome.records, outcome.seconds, &self.settings);
        if let Some(e2el) = &summary.e2el_s {
            self.seconds_of_one = e2el.min.max(1e-4);
        }
        if summary.completed == 0 {
            let said = summary
                .messages
                .values()
                .next()
                .cloned()
                .unwrap_or_default();
            return Err(QualifyError::new(format!(
                "the server answered none of the first requests: {said}"
            )));
        }
        Ok(())
    }

    /// Runs a load.
    pub(super) async fn run(&mut self, point: &Point) -> Result<&RunReport, QualifyError> {
        let sessions = self.source.take(point.requests)?;
        let workload = self.workload(sessions);
        let pace = self.pace(point, &workload)?;
        let meter = if self.measures_power() {
            PowerMeter::start().await
        } else {
            None
        };
        let watch = progress(&point.label(), workload.requests());
        let outcome = backstop_load::run(&self.target, workload, &pace, watch)
            .await
            .map_err(of_load)?;
        let energy = match meter {
            Some(meter) => Some(meter.stop().await),
            None => None,
        };
        let summary = summarise(&outcome.records, outcome.seconds, &self.settings);
        let mut flaws = flaws(&outcome.records, &summary);
        if point.max_concurrency.is_none() && outcome.records.iter().any(|record| record.queued) {
            flaws.invalid.push(format!(
                "more than {IN_FLIGHT_MAX} requests were in flight: --max-concurrency says how many may be"
            ));
        }
        let measured = Measured {
            summary,
            flaws,
            energy,
            records: outcome.records,
        };
        let shown = Shown {
            metrics: &self.args.output.percentile_metrics,
            burstiness: self.args.load.burstiness.shape(),
            detailed: self.args.output.save_detailed,
        };
        let run = RunReport::new(point, measured, shown);
        for reason in &run.invalid_because {
            tracing::warn!("{}: {reason}", run.label);
        }
        self.report.runs.push(run);
        self.writer.write(&self.report)?;
        let missing = || QualifyError::new("internal error: no run");
        self.report.runs.last().ok_or_else(missing)
    }

    /// Notes what a search came to.
    pub(super) fn found(&mut self, capacity: Capacity) -> Result<(), QualifyError> {
        self.report.capacity = Some(capacity);
        self.writer.write(&self.report)
    }

    pub(super) fn into_report(self) -> BenchReport {
        self.report
    }

    fn workload(&self, sessions: Vec<backstop_load::Session>) -> Arc<Workload> {
        let think = match self.args.prompts.dataset_name {
            DatasetName::MultiTurn | DatasetName::Custom => self.args.prompts.multi_turn_think_time,
            _ => Duration::ZERO,
        };
        Arc::new(Workload {
            sessions,
            wire: self.wire.clone(),
            think,
        })
    }

    fn pace(&self, point: &Point, workload: &Workload) -> Result<Pace, QualifyError> {
        let arrivals = match point.pacing {
            Pacing::Closed => {
                return Ok(Pace::Closed {
                    clients: point.clients(),
                });
            }
            Pacing::Recorded => self
                .source
                .trace()
                .iter()
                .map(|arrival| arrival.after)
                .collect(),
            Pacing::Rate(rate) => {
                let count = workload.sessions.len();
                let load = &self.args.load;
                arrivals(count, rate, load.burstiness, self.wire.seed).map_err(of_load)?
            }
        };
        Ok(Pace::Open {
            arrivals,
            in_flight_max: point.in_flight_max(),
        })
    }

    fn measures_power(&self) -> bool {
        match self.args.output.power {
            PowerName::Auto => server::is_here(&self.args.server.url),
            PowerName::On => true,
            PowerName::Off => false,
        }
    }
}

/// Fields of requests that decide how tokens are chosen, and those that the user adds.
fn sampling(args: &ServeArgs) -> Map<String, Value> {
    let mut fields = Map::from_iter([("temperature".to_owned(), json!(args.prompts.temperature))]);
    if let Some(top_p) = args.prompts.top_p {
        fields.insert("top_p".to_owned(), json!(top_p));
    }
    fields.extend(args.prompts.extra_body.clone().unwrap_or_default());
    fields
}

/// All that decides what is asked.
fn settings(args: &ServeArgs, wire: &Wire, calibration: &Calibration) -> BTreeMap<String, Value> {
    let (load, prompts) = (&args.load, &args.prompts);
    let mut settings = json!({
        "backend": wire.backend.name(),
        "endpoint": args.server.endpoint,
        "num_prompts": load.num_prompts,
        "num_warmups": load.num_warmups,
        "burstiness": load.burstiness.shape(),
        "seed": wire.seed,
        "token_events": match args.goodput.token_events {
            TokenEvents::Choice => "choice",
            TokenEvents::Content => "content",
        },
        "request_timeout_s": args.server.request_timeout.as_secs_f64(),
        "dataset_name": prompts.dataset_name.name(),
        "dataset_path": prompts.dataset_path,
        "ignore_eos": prompts.ignore_eos,
        "sampling": wire.extra,
        "temperature": prompts.temperature,
        "goodput": args.goodput.goodput,
        "prompts": match wire.prompts {
            Prompts::TokenIds => json!("token ids"),
            Prompts::Words { per_token } => json!({"words_per_token": per_token}),
        },
        "template_tokens": calibration.overhead_tokens,
        "server_counts_tokens": calibration.has_usage,
    });
    let of_dataset = match prompts.dataset_name {
        DatasetName::Random | DatasetName::TimedTrace => json!({
            "random_input_len": prompts.random_input_len,
            "random_output_len": prompts.random_output_len,
            "random_range_ratio": prompts.random_range_ratio,
            "random_prefix_len": prompts.random_prefix_len,
            "timed_trace_sec_multiplier": prompts.timed_trace_sec_multiplier,
            "timed_trace_chunk_hash_size": prompts.timed_trace_chunk_hash_size,
        }),
        DatasetName::MultiTurn => json!({
            "random_input_len": prompts.random_input_len,
            "random_output_len": prompts.random_output_len,
            "random_range_ratio": prompts.random_range_ratio,
            "multi_turn_num_turns": prompts.multi_turn_num_turns,
            "multi_turn_think_time_s": prompts.multi_turn_think_time.as_secs_f64(),
        }),
        DatasetName::PrefixRepetition => json!({
            "prefix_repetition_num_prefixes": prompts.prefix_repetition_num_prefixes,
            "prefix_repetition_prefix_len": prompts.prefix_repetition_prefix_len,
            "prefix_repetition_suffix_len": prompts.prefix_repetition_suffix_len,
            "prefix_repetition_output_len": prompts.prefix_repetition_output_len,
        }),
        DatasetName::Custom => json!({
            "custom_output_len": prompts.custom_output_len,
            "reuse_prompts": prompts.reuse_prompts,
        }),
    };
    let mut all = BTreeMap::new();
    for fields in [settings.as_object_mut(), of_dataset.clone().as_object_mut()]
        .into_iter()
        .flatten()
    {
        all.extend(std::mem::take(fields));
    }
    all
}

/// A bar on the terminal, if standard error is one.
fn progress(label: &str, requests: usize) -> impl Fn(Progress) + Send + Sync + 'static {
    let bar = ProgressBar::new(requests as u64);
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {elapsed} {msg}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_prefix(label.to_owned());
    move |progress: Progress| {
        bar.set_position(progress.done as u64);
        if progress.failed > 0 {
            bar.set_message(format!("{} without an answer", progress.failed));
        }
        if progress.done == progress.total {
            bar.finish_and_clear();
        }
    }
}

/// Each request in flight is an open file.
fn allow_connections() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // With fewer files, requests fail and are counted as such.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// Another one each time, but no longer than people like to type.
fn drawn_seed() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn unix_now_s() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn of_load(error: backstop_load::LoadError) -> QualifyError {
    QualifyError::new(error.to_string())
}
