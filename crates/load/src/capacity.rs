//! Finds the knee: the highest load under which enough answers are still good. It doubles the load until that fails, and then
//! halves the distance; whoever asks does the measuring.

use serde::{Deserialize, Serialize};

/// Where the search ends: highest good and lowest bad load this near.
const NEAR: f64 = 1.05;
/// The least rate that is tried is this part of the first.
const LEAST_PART: f64 = 1.0 / 1024.0;

/// What is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Requests a second.
    Rate,
    /// Clients at once.
    Concurrency,
}

/// A load that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Requests a second, or clients.
    pub load: f64,
    /// Good answers over all requests.
    pub good_fraction: f64,
    /// Whether that is enough.
    pub is_met: bool,
}

/// What a search came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// What was raised.
    pub scale: Scale,
    /// Good answers over all requests that are enough.
    pub needed: f64,
    /// The highest load under which they were; `None` if there was none.
    pub load: Option<f64>,
    /// The lowest above it under which they were not; `None` if even the highest load that may be tried was met.
    pub fails_at: Option<f64>,
    /// Whether both are as near as wanted, or there was nothing more to try.
    pub is_settled: bool,
    /// In the order in which they were tried.
    pub probes: Vec<Probe>,
}

/// A search in progress.
#[derive(Clone, Debug)]
pub struct CapacitySearch {
    scale: Scale,
    needed: f64,
    first: f64,
    highest: f64,
    probes_max: usize,
    probes: Vec<Probe>,
}

impl CapacitySearch {
    /// Begins with `first`, never goes above `highest`, and tries at most `probes_max` loads.
    pub fn new(scale: Scale, needed: f64, first: f64, highest: f64, probes_max: usize) -> Self {
        let mut search = Self {
            scale,
            needed,
            first,
            highest,
            probes_max,
            probes: Vec::new(),
        };
        search.first = search.rounded(first);
        search
    }

    /// The load to try next; `None` when the search is over.
    pub fn next(&self) -> Option<f64> {
        if self.probes.len() >= self.probes_max {
            return None;
        }
        self.untried()
    }

    /// Takes what came of the load that was tried last.
    pub fn learn(&mut self, load: f64, good_fraction: f64) {
        self.probes.push(Probe {
            load,
            good_fraction,
            is_met: good_fraction >= self.needed,
        });
    }

    /// What is known by now.
    pub fn capacity(&self) -> Capacity {
        Capacity {
            scale: self.scale,
            needed: self.needed,
            load: self.met(),
            fails_at: self.failed(),
            is_settled: self.untried().is_none(),
            probes: self.probes.clone(),
        }
    }

    fn untried(&self) -> Option<f64> {
        let next = match (self.met(), self.failed()) {
            (None, None) => self.first,
            (Some(met), None) if met >= self.highest => return None,
            (Some(met), None) => met * 2.0,
            (None, Some(failed)) if failed <= self.least() => return None,
            (None, Some(failed)) => failed / 2.0,
            (Some(met), Some(failed)) if self.are_near(met, failed) => return None,
            (Some(met), Some(failed)) => (met * failed).sqrt(),
        };
        Some(self.rounded(next))
    }

    /// The highest load that was met below the lowest that was not.
    fn met(&self) -> Option<f64> {
        let failed = self.failed().unwrap_or(f64::INFINITY);
        let met = self
            .probes
            .iter()
            .filter(|probe| probe.is_met && probe.load < failed);
        met.map(|probe| probe.load).reduce(f64::max)
    }

    fn failed(&self) -> Option<f64> {
        let failed = self.probes.iter().filter(|probe| !probe.is_met);
        failed.map(|probe| probe.load).reduce(f64::min)
    }

    fn least(&self) -> f64 {
        match self.scale {
            Scale::Rate => self.first * LEAST_PART,
            Scale::Concurrency => 1.0,
        }
    }

    fn are_near(&self, met: f64, failed: f64) -> bool {
        failed / met <= NEAR || (self.scale == Scale::Concurrency && failed - met <= 1.0)
    }

    fn rounded(&self, load: f64) -> f64 {
        let load = load.min(self.highest);
        match self.scale {
            // Three digits are as much as a measurement is worth.
            Scale::Rate => {
                let digits = 10_f64.powf(2.0 - load.log10().floor());
                ((load * digits).round() / digits).min(self.highest)
            }
            Scale::Concurrency => load.round().max(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server with so many places, each of which takes a second for an answer: good answers are those that need not wait.
    fn search(scale: Scale, first: f64, highest: f64, probes_max: usize, knee: f64) -> Capacity {
        let mut search = CapacitySearch::new(scale, 0.95, first, highest, probes_max);
        while let Some(load) = search.next() {
            search.learn(load, (knee / load).min(1.0));
        }
        search.capacity()
    }

    #[test]
    fn the_knee_is_found_from_below_and_from_above() {
        for knee in [0.37, 3.0, 41.0, 977.0] {
            let capacity = search(Scale::Rate, 1.0, 1e4, 40, knee);
            let (met, failed) = (capacity.load.unwrap(), capacity.fails_at.unwrap());
            let edge = knee / 0.95;
            assert!(met <= edge && edge < failed, "{knee}: {met} to {failed}");
            assert!(failed / met <= NEAR && capacity.is_settled);
            assert!(
                capacity.probes.len() <= 18,
                "{knee}: {}",
                capacity.probes.len()
            );
        }
    }

    #[test]
    fn clients_are_counted_in_whole_numbers() {
        let capacity = search(Scale::Concurrency, 1.0, 1024.0, 40, 13.0);
        assert_eq!((capacity.load, capacity.fails_at), (Some(13.0), Some(14.0)));
        assert!(
            capacity
                .probes
                .iter()
                .all(|probe| probe.load.fract() == 0.0)
        );
    }

    #[test]
    fn a_search_ends_whatever_the_server_does() {
        let none = search(Scale::Rate, 8.0, 100.0, 40, 0.0);
        assert_eq!(none.load, None);
        assert!(none.is_settled && none.probes.len() <= 12);
        let all = search(Scale::Rate, 8.0, 100.0, 40, f64::INFINITY);
        assert_eq!((all.load, all.fails_at), (Some(100.0), None));
        assert!(all.is_settled);
        let short = search(Scale::Rate, 1.0, 1e4, 3, 500.0);
        assert_eq!(short.probes.len(), 3);
        assert!(!short.is_settled);
    }

    #[test]
    fn noise_does_not_lead_it_round_in_circles() {
        let mut search = CapacitySearch::new(Scale::Rate, 0.95, 10.0, 1e4, 40);
        let mut flip = false;
        while let Some(load) = search.next() {
            flip = !flip;
            search.learn(
                load,
                if load < 20.0 || (flip && load < 30.0) {
                    1.0
                } else {
                    0.5
                },
            );
        }
        let capacity = search.capacity();
        assert!(capacity.is_settled);
        assert!(capacity.load.unwrap() < capacity.fails_at.unwrap());
    }
}
