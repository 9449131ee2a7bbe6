//! How far work on many bytes is: a bar, or lines of the log where standard error is no terminal.
//!
//! Sizes and speeds are decimal here, as those of disks are: a GB is 10^9 bytes.

use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use backstop_executor::StartStage;
use indicatif::{ProgressBar, ProgressStyle};

/// Time between two lines of the log.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// A bar for each stage, the next in the place of the last, or lines for it.
#[derive(Default)]
pub(crate) struct ProgressBars {
    loading: OnceLock<ProgressBar>,
    arranging: OnceLock<ProgressBar>,
    lines: OnceLock<Mutex<Lines>>,
}

impl ProgressBars {
    pub(crate) fn show(&self, stage: StartStage, bytes_done: u64, bytes_total: u64) {
        let (bar, message) = match stage {
            StartStage::Memory => return self.clear(),
            StartStage::Loading => (&self.loading, "loading weights"),
            StartStage::Arranging => (&self.arranging, "arranging weights"),
        };
        if !stderr().is_terminal() {
            let now = Instant::now();
            let lines = self.lines.get_or_init(|| Mutex::new(Lines::new(now)));
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(line) = lines.next(message, bytes_done, bytes_total, now) {
                tracing::info!("{line}");
            }
            return;
        }
        let bar = bar.get_or_init(|| {
            self.clear();
            bytes_bar(message, bytes_total)
        });
        bar.set_position(bytes_done);
    }

    fn clear(&self) {
        for bar in [&self.loading, &self.arranging] {
            if let Some(bar) = bar.get() {
                bar.finish_and_clear();
            }
        }
    }
}

impl Drop for ProgressBars {
    fn drop(&mut self) {
        self.clear();
    }
}

/// When to write a line next.
struct Lines {
    message: &'static str,
    began: Instant,
    last: Instant,
}

impl Lines {
    fn new(now: Instant) -> Self {
        Self {
            message: "",
            began: now,
            last: now,
        }
    }

    /// The line to write now, if it is time for one.
    fn next(
        &mut self,
        message: &'static str,
        done: u64,
        total: u64,
        now: Instant,
    ) -> Option<String> {
        if self.message != message {
            *self = Self {
                message,
                ..Self::new(now)
            };
        }
        if now - self.last < LINE_INTERVAL {
            return None;
        }
        self.last = now;
        let speed = Speed(done, now - self.began);
        Some(format!(
            "{message}: {:.1} of {:.1} GB, {speed}",
            gigabytes(done),
            gigabytes(total)
        ))
    }
}

/// Bytes in a time, in GB/s.
pub(crate) struct Speed(pub(crate) u64, pub(crate) Duration);

impl std::fmt::Display for Speed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Nothing takes no time.
        let seconds = self.1.as_secs_f64().max(1e-6);
        write!(formatter, "{:.2} GB/s", gigabytes(self.0) / seconds)
    }
}

fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

/// A bar for work on so many bytes; hidden where standard error is no terminal.
pub(crate) fn bytes_bar(message: &'static str, bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{msg} [{bar:40}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(bytes).with_style(style.progress_chars("=> "));
    bar.set_message(message);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_at_intervals_and_say_how_fast_it_goes() {
        let began = Instant::now();
        let mut lines = Lines::new(began);
        let mut next = |seconds, done| {
            let now = began + Duration::from_secs(seconds);
            lines.next("loading weights", done, 9_000_000_000, now)
        };
        assert_eq!(next(0, 0), None);
        assert_eq!(next(4, 1_000_000_000), None);
        let line = next(5, 3_000_000_000).unwrap_or_default();
        assert_eq!(line, "loading weights: 3.0 of 9.0 GB, 0.60 GB/s");
        assert_eq!(next(9, 4_000_000_000), None);
        assert!(next(10, 4_000_000_000).is_some());
    }
}
