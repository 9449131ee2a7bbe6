//! The stages of the gate, and what each writes down.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use backstop_benches::report::Table;
use serde_json::{Map, Value, json};

/// Compilers and the host executor take their time.
const REHEARSAL_BUDGET: Duration = Duration::from_secs(1800);

/// A part of the gate that runs in a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// What the device is, and what its memory can do.
    Device,
    /// Every kernel against its reference.
    Kernels,
    /// How long kernels take on the shapes of a real model.
    Timing,
    /// Small models against the CPU.
    Models,
    /// A model of full size behind the server.
    Serving,
}

impl Stage {
    pub(crate) const ALL: [Self; 5] = [
        Self::Device,
        Self::Kernels,
        Self::Timing,
        Self::Models,
        Self::Serving,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Kernels => "kernels",
            Self::Timing => "timing",
            Self::Models => "models",
            Self::Serving => "serving",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }

    /// Time after which it is ended. On a card all together stay below nine minutes.
    pub(crate) fn budget(self, device: DeviceKind) -> Duration {
        if device == DeviceKind::Host {
            return REHEARSAL_BUDGET;
        }
        Duration::from_secs(match self {
            Self::Device => 25,
            Self::Kernels => 100,
            Self::Timing => 120,
            Self::Models => 80,
            Self::Serving => 205,
        })
    }

    /// Its bit in the exit status.
    pub(crate) fn bit(self) -> u8 {
        1 << Self::ALL
            .iter()
            .position(|&stage| stage == self)
            .unwrap_or_default()
    }
}

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceKind {
    /// The first card.
    Cuda,
    /// The host executor: a rehearsal, in which only small cases run.
    Host,
}

impl DeviceKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Host => "host",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Cuda, Self::Host]
            .into_iter()
            .find(|device| device.name() == name)
    }
}

/// What the command line asks for.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where results go.
    pub(crate) out: PathBuf,
    /// Where the server and its models are.
    pub(crate) pack: PathBuf,
    pub(crate) device: DeviceKind,
    pub(crate) stages: Vec<Stage>,
    /// A server that runs already, instead of one of ours.
    pub(crate) server: Option<SocketAddr>,
    /// Only these kernels; all if empty.
    pub(crate) kernels: Vec<String>,
}

/// A stage's results. What has been found is written again and again, so that a stage that is
/// ended leaves it behind.
pub(crate) struct Record {
    path: PathBuf,
    stage: Stage,
    budget: Duration,
    began: Instant,
    failures: Vec<String>,
    notes: Vec<String>,
    tables: Vec<Table>,
    measurements: Map<String, Value>,
}

impl Record {
    pub(crate) fn new(settings: &Settings, stage: Stage) -> io::Result<Self> {
        let record = Self {
            path: settings.out.join(format!("{}.json", stage.name())),
            stage,
            budget: stage.budget(settings.device),
            began: Instant::now(),
            failures: Vec::new(),
            notes: Vec::new(),
            tables: Vec::new(),
            measurements: Map::new(),
        };
        record.save(false)?;
        Ok(record)
    }

    /// Time left, with some to write the results.
    pub(crate) fn left(&self) -> Duration {
        let reserve = Duration::from_secs(3);
        self.budget.saturating_sub(self.began.elapsed() + reserve)
    }

    /// Something is wrong with what was tested.
    pub(crate) fn fail(&mut self, failure: impl Into<String>) {
        self.failures.push(failure.into());
    }

    /// Something that a reader should know.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds a table, or replaces the one with the same title.
    pub(crate) fn table(&mut self, table: Table) {
        match self.tables.iter_mut().find(|old| old.title == table.title) {
            Some(old) => *old = table,
            None => self.tables.push(table),
        }
    }

    pub(crate) fn measured(&mut self, name: &str, value: Value) {
        self.measurements.insert(name.to_owned(), value);
    }

    pub(crate) fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// Writes everything so far.
    pub(crate) fn save(&self, complete: bool) -> io::Result<()> {
        let document = json!({
            "stage": self.stage.name(),
            "passed": complete && self.failures.is_empty(),
            "complete": complete,
            "seconds": self.began.elapsed().as_secs_f64(),
            "failures": self.failures,
            "notes": self.notes,
            "measurements": self.measurements,
            "tables": self.tables.iter().map(Table::to_json).collect::<Vec<_>>(),
        });
        let text = serde_json::to_string_pretty(&document)? + "\n";
        std::fs::write(&self.path, text)
    }
}
