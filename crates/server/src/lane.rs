//! Priority lanes: how large a share of a contended engine a request's key gets.

use std::fmt;
use std::str::FromStr;

/// What a request is for. Lanes are shares, not ranks: where all are busy, the engine takes eight
/// tokens' worth of interactive requests and four of standard ones for each of batch, so that no
/// lane ever stands still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Somebody sits and waits.
    Interactive,
    /// Everything that does not say.
    #[default]
    Standard,
    /// It can wait, and is the first to be refused in an outage.
    Batch,
}

impl Lane {
    /// What a token counts in this lane.
    pub(crate) fn cost(self) -> u64 {
        match self {
            Self::Interactive => 1,
            Self::Standard => 2,
            Self::Batch => 8,
        }
    }

    /// The lane that a request asks for by its `priority`, of which smaller is sooner.
    pub(crate) fn asked(priority: i32, default: Self) -> Self {
        match priority {
            ..0 => Self::Interactive,
            0 => default,
            1.. => Self::Batch,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Standard => "standard",
            Self::Batch => "batch",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Lane {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut lanes = [Self::Interactive, Self::Standard, Self::Batch].into_iter();
        lanes
            .find(|lane| lane.name() == text)
            .ok_or("must be interactive, standard or batch")
    }
}
