//! Progress bars.

use std::sync::OnceLock;

use backstop_executor::StartStage;
use indicatif::{ProgressBar, ProgressStyle};

/// A bar for each stage, the next in the place of the last; hidden where standard error is no terminal.
#[derive(Default)]
pub(crate) struct ProgressBars {
    loading: OnceLock<ProgressBar>,
    arranging: OnceLock<ProgressBar>,
}

impl ProgressBars {
    pub(crate) fn show(&self, stage: StartStage, bytes_done: u64, bytes_total: u64) {
        let bar = match stage {
            StartStage::Loading => self
                .loading
                .get_or_init(|| bytes_bar("loading weights", bytes_total)),
            StartStage::Arranging => self.arranging.get_or_init(|| {
                self.clear();
                bytes_bar("arranging weights", bytes_total)
            }),
        };
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

/// A bar for work on so many bytes; hidden where standard error is no terminal.
pub(crate) fn bytes_bar(message: &'static str, bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{msg} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(bytes).with_style(style.progress_chars("=> "));
    bar.set_message(message);
    bar
}
