//! The progress bars of loading.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `bytes`; hidden where standard error is no terminal.
pub(crate) fn weights_bar(message: &'static str, bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{msg} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(bytes).with_style(style.progress_chars("=> "));
    bar.set_message(message);
    bar
}
