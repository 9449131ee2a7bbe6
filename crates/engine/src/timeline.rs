//! Where the time of a start went.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A part of a start, in the order in which they usually come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPhase {
    /// The settings are read, and what the process does not need is given up.
    Settings,
    /// The port is opened.
    Listening,
    /// The model's files are compared with their sizes, digests or signature.
    Verification,
    /// Configuration, tokenizer and chat templates are read.
    Texts,
    /// The device is chosen and opened.
    Device,
    /// Memory is divided.
    Planning,
    /// The digests of what is served are computed.
    Identity,
    /// Models that make vectors and scores are loaded.
    Encoders,
    /// Memory is taken: of the KV cache, and on a GPU of everything.
    Memory,
    /// Weights are read, and arranged as far as that is done on the way.
    Weights,
    /// Weights are brought into the order in which the device computes fastest.
    Arranging,
    /// The executor and the engine are started.
    Engine,
    /// A real generation proves the model.
    WarmUp,
}

impl StartPhase {
    /// For the log, metrics and `/ready`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Listening => "listening",
            Self::Verification => "verification",
            Self::Texts => "texts",
            Self::Device => "device",
            Self::Planning => "planning",
            Self::Identity => "identity",
            Self::Encoders => "encoders",
            Self::Memory => "memory",
            Self::Weights => "weights",
            Self::Arranging => "arranging",
            Self::Engine => "engine",
            Self::WarmUp => "warm_up",
        }
    }
}

/// What a start is at and how long each part of it took; cheap to clone, and the same for all clones. The parts
/// follow one another without gaps, so that they sum up to the whole.
#[derive(Clone, Debug)]
pub struct Timeline {
    parts: Arc<Mutex<Parts>>,
}

#[derive(Debug)]
struct Parts {
    past: Vec<(StartPhase, Duration)>,
    /// `None` once the start has ended.
    present: Option<(StartPhase, Instant)>,
}

impl Parts {
    fn add(&mut self, phase: StartPhase, took: Duration) {
        match self.past.iter_mut().find(|(past, _)| *past == phase) {
            Some((_, sum)) => *sum += took,
            None => self.past.push((phase, took)),
        }
    }
}

impl Timeline {
    /// A start that began at this moment with its settings.
    pub fn since(began: Instant) -> Self {
        let parts = Parts {
            past: Vec::new(),
            present: Some((StartPhase::Settings, began)),
        };
        Self {
            parts: Arc::new(Mutex::new(parts)),
        }
    }

    /// The present part ends, and this one begins or goes on. Says nothing after the end.
    pub fn begin(&self, phase: StartPhase) {
        let mut parts = self.lock();
        match parts.present {
            Some((present, began)) if present != phase => {
                let now = Instant::now();
                parts.add(present, now - began);
                parts.present = Some((phase, now));
            }
            _ => {}
        }
    }

    /// The start is over, well or not. Only the first call counts.
    pub fn end(&self) {
        let mut parts = self.lock();
        if let Some((present, began)) = parts.present.take() {
            parts.add(present, began.elapsed());
        }
    }

    /// Whether the start is over.
    pub fn has_ended(&self) -> bool {
        self.lock().present.is_none()
    }

    /// Each part with what it took so far, in the order in which they began.
    pub fn phases(&self) -> Vec<(StartPhase, Duration)> {
        let parts = self.lock();
        let mut all = Parts {
            past: parts.past.clone(),
            present: None,
        };
        if let Some((present, began)) = parts.present {
            all.add(present, began.elapsed());
        }
        all.past
    }

    /// All parts together.
    pub fn total(&self) -> Duration {
        self.phases().iter().map(|(_, took)| *took).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shorter parts are left out of the line for people.
const WORTH_TELLING: Duration = Duration::from_millis(5);

impl fmt::Display for Timeline {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phases = self.phases().into_iter();
        let told = phases.filter(|(_, took)| *took >= WORTH_TELLING);
        let told = told.map(|(phase, took)| {
            let name = phase.name().replace('_', "-");
            format!("{name} {:.2} s", took.as_secs_f64())
        });
        formatter.write_str(&told.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_one_another_and_sum_up_to_the_whole() {
        let began = Instant::now() - Duration::from_secs(60);
        let timeline = Timeline::since(began);
        timeline.begin(StartPhase::Texts);
        timeline.begin(StartPhase::Weights);
        timeline.begin(StartPhase::Weights);
        timeline.begin(StartPhase::Texts);
        timeline.end();
        let total = timeline.total();
        let names: Vec<&str> = timeline
            .phases()
            .iter()
            .map(|(phase, _)| phase.name())
            .collect();
        assert_eq!(names, ["settings", "texts", "weights"]);
        assert!(timeline.phases()[0].1 >= Duration::from_secs(60));
        assert!(total >= Duration::from_secs(60) && total <= began.elapsed());
        assert!(
            timeline.to_string().starts_with("settings 60."),
            "{timeline}"
        );
        assert!(!timeline.to_string().contains("texts"), "{timeline}");
    }

    #[test]
    fn nothing_is_added_after_the_end() {
        let timeline = Timeline::since(Instant::now());
        timeline.end();
        let before = timeline.phases();
        timeline.begin(StartPhase::Weights);
        timeline.end();
        assert_eq!(timeline.phases(), before);
    }
}
