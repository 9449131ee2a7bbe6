//! What the process takes of its machine, under the names that all of Prometheus' clients give it; read when Prometheus
//! asks, from Linux's `/proc`. Elsewhere these metrics are left out.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::gauge;

/// Linux counts processor time in hundredths of a second, whatever the kernel's own clock is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads this process.
#[derive(Debug)]
pub(crate) struct ProcessCollector {
    started_s: f64,
    /// Requests that use a model and have not ended.
    requests: watch::Receiver<usize>,
}

impl ProcessCollector {
    /// Of a process that begins now.
    pub(crate) fn new(requests: watch::Receiver<usize>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            started_s: now.unwrap_or_default().as_secs_f64(),
            requests,
        }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        gauge(
            encoder,
            "process_start_time_seconds",
            "When the process was started, in seconds since 1970",
            self.started_s,
        )?;
        gauge(
            encoder,
            "backstop:requests_in_flight",
            "Requests that use a model and have not ended, from their heads to the ends of their answers",
            *self.requests.borrow() as f64,
        )?;
        if let Ok(runtime) = Handle::try_current() {
            gauge(
                encoder,
                "backstop:runtime_tasks",
                "Tasks of the server's runtime that have not ended",
                runtime.metrics().num_alive_tasks() as f64,
            )?;
        }
        encode_usage(encoder)
    }
}

fn encode_usage(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        for (field, unit, name, help) in STATUS {
            if let Some(value) = field_of(&status, field) {
                gauge(encoder, name, help, value * unit)?;
            }
        }
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        // That of the directory itself is among them.
        let open = descriptors.count().saturating_sub(1);
        gauge(
            encoder,
            "process_open_fds",
            "File descriptors that are open",
            open as f64,
        )?;
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(most) = max_open_files(&limits) {
        gauge(
            encoder,
            "process_max_fds",
            "File descriptors that may be open",
            most,
        )?;
    }
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    match processor_seconds(&stat) {
        Some(seconds) => ConstCounter::new(seconds).encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            "Processor time that the process has taken, in seconds",
            None,
            MetricType::Counter,
        )?),
        None => Ok(()),
    }
}

/// Fields of `/proc/self/status`, what one of them is worth, and the metrics that they are.
const STATUS: [(&str, f64, &str, &str); 4] = [
    (
        "VmRSS:",
        1024.0,
        "process_resident_memory_bytes",
        "Memory that the process has resident",
    ),
    (
        "VmHWM:",
        1024.0,
        "process_resident_memory_peak_bytes",
        "The most memory that the process ever had resident",
    ),
    (
        "VmSize:",
        1024.0,
        "process_virtual_memory_bytes",
        "Addresses that the process has taken; far more than its memory",
    ),
    ("Threads:", 1.0, "process_threads", "Threads of the process"),
];

/// The number of a line such as `VmRSS:  1234 kB`.
fn field_of(status: &str, field: &str) -> Option<f64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(field))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The soft limit of a line such as `Max open files  1024  4096  files`.
fn max_open_files(limits: &str) -> Option<f64> {
    let mut lines = limits.lines();
    let rest = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The sum of `utime` and `stime`, the 14th and 15th fields. The second is a name in parentheses, which may hold anything.
fn processor_seconds(stat: &str) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let status = "Name:\tbackstop\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t7\n";
        assert_eq!(field_of(status, "VmRSS:"), Some(1024.0));
        assert_eq!(field_of(status, "Threads:"), Some(7.0));
        assert_eq!(field_of(status, "VmSize:"), None);
        let limits =
            "Limit  Soft Limit  Hard Limit  Units\nMax open files    1024   524288   files\n";
        assert_eq!(max_open_files(limits), Some(1024.0));
        let unlimited = "Max open files    unlimited   unlimited   files\n";
        assert_eq!(max_open_files(unlimited), None);
        let stat = "12 (a) name) S 1 12 12 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 99";
        assert_eq!(processor_seconds(stat), Some(3.0));
        assert_eq!(processor_seconds(""), None);
    }
}
