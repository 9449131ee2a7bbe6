//! Power of NVIDIA's cards, as `nvidia-smi` prints it.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::EnergySource;

/// Between two values of a card.
const INTERVAL_MS: &str = "200";
/// How long the first value may take: the driver may have to start.
const FIRST_WITHIN: Duration = Duration::from_secs(10);
const CARDS_MAX: usize = 64;

/// A process that prints the power of all cards again and again.
pub(super) struct Cards {
    // Ends the process when it is dropped.
    _process: Child,
    reading: JoinHandle<()>,
    meters: Arc<Mutex<Meters>>,
}

type Meters = BTreeMap<String, Meter>;

/// The energy of a card by now.
#[derive(Debug, PartialEq)]
struct Meter {
    joules: f64,
    watts: f64,
    at: Instant,
}

impl Cards {
    pub(super) async fn start() -> Option<Self> {
        let mut process = Command::new("nvidia-smi")
            .args([
                "--query-gpu=index,name,power.draw",
                "--format=csv,noheader,nounits",
                "-lms",
                INTERVAL_MS,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        let mut lines = BufReader::new(process.stdout.take()?).lines();
        let meters = Arc::new(Mutex::new(Meters::new()));
        let first = tokio::time::timeout(FIRST_WITHIN, lines.next_line()).await;
        note(&meters, &first.ok()?.ok()??, Instant::now())?;
        let seen = meters.clone();
        let reading = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                note(&seen, &line, Instant::now());
            }
        });
        Some(Self {
            _process: process,
            reading,
            meters,
        })
    }

    pub(super) async fn stop(self) -> Vec<EnergySource> {
        self.reading.abort();
        let _ = self.reading.await;
        let now = Instant::now();
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        let sources = meters.iter_mut().map(|(name, meter)| {
            meter.advance(meter.watts, now);
            EnergySource {
                name: name.clone(),
                interface: "nvml".to_owned(),
                joules: meter.joules,
            }
        });
        sources.collect()
    }
}

impl Meter {
    /// Power changes evenly between two values.
    fn advance(&mut self, watts: f64, at: Instant) {
        let seconds = at.duration_since(self.at).as_secs_f64();
        self.joules += (self.watts + watts) / 2.0 * seconds;
        (self.watts, self.at) = (watts, at);
    }
}

/// `None` if a line says nothing of power, as of cards that do not measure it.
fn note(meters: &Mutex<Meters>, line: &str, at: Instant) -> Option<()> {
    let (card, watts) = line.rsplit_once(',')?;
    let watts: f64 = watts.trim().parse().ok()?;
    let mut meters = meters.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(meter) = meters.get_mut(card) {
        meter.advance(watts, at);
    } else if meters.len() < CARDS_MAX {
        let meter = Meter {
            joules: 0.0,
            watts,
            at,
        };
        meters.insert(card.to_owned(), meter);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energy_is_power_over_time() {
        let meters = Mutex::new(Meters::new());
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        note(&meters, "0, NVIDIA H200, 100.00", at(0)).unwrap();
        note(&meters, "1, NVIDIA H200, 50.00", at(0)).unwrap();
        note(&meters, "0, NVIDIA H200, 300.00", at(2)).unwrap();
        assert_eq!(note(&meters, "1, NVIDIA H200, [N/A]", at(2)), None);
        let meters = meters.into_inner().unwrap();
        assert_eq!(meters["0, NVIDIA H200"].joules, 400.0);
        assert_eq!(meters["1, NVIDIA H200"].joules, 0.0);
    }
}
