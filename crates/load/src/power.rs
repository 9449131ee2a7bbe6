//! What this machine takes while a server on it works: of NVIDIA's cards through `nvidia-smi`, which asks NVML, and of
//! processors through RAPL.

mod cards;
mod processors;

use std::time::Instant;

use serde::{Deserialize, Serialize};

use cards::Cards;
use processors::Processors;

/// Measures from its making to [`PowerMeter::stop`].
pub struct PowerMeter {
    begun: Instant,
    cards: Option<Cards>,
    processors: Option<Processors>,
}

/// What was taken, for each source that could be asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    /// How long it was measured.
    pub seconds: f64,
    /// Cards and processors.
    pub sources: Vec<EnergySource>,
}

/// A card or a processor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnergySource {
    /// What it calls itself.
    pub name: String,
    /// `nvml` or `rapl`.
    pub interface: String,
    /// What it took.
    pub joules: f64,
}

impl PowerMeter {
    /// `None` if nothing here can be asked.
    pub async fn start() -> Option<Self> {
        let cards = Cards::start().await;
        let processors = Processors::start();
        (cards.is_some() || processors.is_some()).then(|| Self {
            begun: Instant::now(),
            cards,
            processors,
        })
    }

    /// What was taken since.
    pub async fn stop(self) -> Energy {
        let seconds = self.begun.elapsed().as_secs_f64();
        let mut sources = Vec::new();
        if let Some(processors) = self.processors {
            sources.extend(processors.stop());
        }
        if let Some(cards) = self.cards {
            sources.extend(cards.stop().await);
        }
        Energy { seconds, sources }
    }
}

impl Energy {
    /// Of all sources.
    pub fn joules(&self) -> f64 {
        self.sources.iter().map(|source| source.joules).sum()
    }

    /// Mean power of all sources.
    pub fn watts(&self) -> f64 {
        self.joules() / self.seconds
    }
}
