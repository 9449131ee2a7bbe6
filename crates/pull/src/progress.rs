//! How far a pull is: a bar, or a line now and then where standard error is no terminal.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::space::gigabytes;

const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Names of files that are shown at once.
const NAMES_MAX: usize = 3;

/// How far a pull is.
pub(crate) struct Bars {
    bar: Option<ProgressBar>,
    bytes_total: u64,
    state: Mutex<State>,
}

struct State {
    bytes_done: u64,
    /// Came since the start: what a rate is made of.
    bytes_now: u64,
    started: Instant,
    last_line: Instant,
    /// Files and how many parts of each are under way.
    under_way: BTreeMap<String, usize>,
}

impl Bars {
    pub(crate) fn new(bytes_total: u64, bytes_done: u64) -> Self {
        let bar = std::io::stderr()
            .is_terminal()
            .then(|| bar(bytes_total, bytes_done));
        let now = Instant::now();
        let state = State {
            bytes_done,
            bytes_now: 0,
            started: now,
            last_line: now,
            under_way: BTreeMap::new(),
        };
        Self {
            bar,
            bytes_total,
            state: Mutex::new(state),
        }
    }

    pub(crate) fn begin(&self, file: &str) {
        self.change_files(|files| *files.entry(file.to_owned()).or_default() += 1);
    }

    pub(crate) fn end(&self, file: &str) {
        self.change_files(|files| {
            if let Some(count) = files.get_mut(file) {
                *count -= 1;
            }
            files.retain(|_, count| *count > 0);
        });
    }

    fn change_files(&self, change: impl FnOnce(&mut BTreeMap<String, usize>)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state.under_way);
        if let Some(bar) = &self.bar {
            bar.set_message(names(&state.under_way));
        }
    }

    pub(crate) fn advance(&self, bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes_done += bytes;
        state.bytes_now += bytes;
        match &self.bar {
            Some(bar) => bar.set_position(state.bytes_done),
            None if state.last_line.elapsed() >= LINE_INTERVAL => {
                state.last_line = Instant::now();
                tracing::info!("{}", line(&state, self.bytes_total));
            }
            None => {}
        }
    }

    /// What came must come again.
    pub(crate) fn retreat(&self, bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes_done = state.bytes_done.saturating_sub(bytes);
    }

    /// Says something beside the bar.
    pub(crate) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| tracing::warn!("{text}")),
            None => tracing::warn!("{text}"),
        }
    }

    /// Bytes that came since the start.
    pub(crate) fn bytes_now(&self) -> u64 {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .bytes_now
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(bytes_total: u64, bytes_done: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "[{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} {wide_msg}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(bytes_total).with_style(style.progress_chars("=> "));
    bar.set_position(bytes_done);
    // The rate is that of what comes, not of what was there.
    bar.reset_eta();
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

fn names(under_way: &BTreeMap<String, usize>) -> String {
    let mut text = under_way
        .keys()
        .take(NAMES_MAX)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if under_way.len() > NAMES_MAX {
        text.push_str(&format!(" and {} more", under_way.len() - NAMES_MAX));
    }
    text
}

fn line(state: &State, bytes_total: u64) -> String {
    let rate = state.bytes_now as f64 / state.started.elapsed().as_secs_f64().max(1e-3);
    let left = bytes_total.saturating_sub(state.bytes_done) as f64 / rate.max(1.0);
    format!(
        "{} of {}, {:.1} MB/s, {:.0} s left: {}",
        gigabytes(state.bytes_done),
        gigabytes(bytes_total),
        rate / 1e6,
        left,
        names(&state.under_way)
    )
}
