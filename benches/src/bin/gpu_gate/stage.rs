//! The stages of the gate, and what each writes down.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use backstop_benches::report::Table;
use serde_json::{Map, Value, json};

use crate::settings::Settings;

/// Time that is kept to write the results.
const RESERVE: Duration = Duration::from_secs(2);

/// A part of the gate that runs in a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// What the device is, and what its memory can do.
    Device,
    /// Every kernel against its reference.
    Kernels,
    /// Small models against the CPU.
    Models,
    /// A model of full size behind the server.
    Serving,
    /// How long kernels take on the shapes of a real model: late, as it is easily run again.
    Timing,
    /// The card's log-probabilities beside candle's.
    Judge,
}

impl Stage {
    pub(crate) const ALL: [Self; 6] = [
        Self::Device,
        Self::Kernels,
        Self::Models,
        Self::Serving,
        Self::Timing,
        Self::Judge,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Kernels => "kernels",
            Self::Models => "models",
            Self::Serving => "serving",
            Self::Timing => "timing",
            Self::Judge => "judge",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }

    /// Time after which it is ended on a card, unless stages before it left some of theirs. All
    /// together stay below nine minutes, and below four if quick.
    pub(crate) fn seconds(self, quick: bool) -> u64 {
        let [full, short] = match self {
            Self::Device => [25, 8],
            Self::Kernels => [95, 40],
            Self::Models => [75, 40],
            Self::Serving => [205, 75],
            Self::Timing => [105, 60],
            Self::Judge => [30, 15],
        };
        if quick { short } else { full }
    }

    /// Its bit in the exit status.
    pub(crate) fn bit(self) -> u8 {
        1 << Self::ALL
            .iter()
            .position(|&stage| stage == self)
            .unwrap_or_default()
    }
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
    listings: Map<String, Value>,
}

impl Record {
    pub(crate) fn new(settings: &Settings, stage: Stage) -> io::Result<Self> {
        let record = Self {
            path: settings.out.join(format!("{}.json", stage.name())),
            stage,
            budget: settings.budget,
            began: Instant::now(),
            failures: Vec::new(),
            notes: Vec::new(),
            tables: Vec::new(),
            measurements: Map::new(),
            listings: Map::new(),
        };
        record.save(false)?;
        Ok(record)
    }

    /// Time left, with some to write the results.
    pub(crate) fn left(&self) -> Duration {
        self.budget.saturating_sub(self.began.elapsed() + RESERVE)
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

    /// What another program said.
    pub(crate) fn listing(&mut self, title: impl Into<String>, text: String) {
        self.listings.insert(title.into(), json!(text));
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
            "seconds_at_most": self.budget.as_secs_f64(),
            "failures": self.failures,
            "notes": self.notes,
            "measurements": self.measurements,
            "tables": self.tables.iter().map(Table::to_json).collect::<Vec<_>>(),
            "listings": self.listings,
        });
        let text = serde_json::to_string_pretty(&document)? + "\n";
        std::fs::write(&self.path, text)
    }
}
