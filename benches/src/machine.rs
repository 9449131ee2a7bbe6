//! Facts without which a measurement means nothing: machine, build, and what else was running.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// Facts about this machine and this checkout.
pub fn facts() -> Value {
    json!({
        "cpu": cpu_field("model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "vector_extensions": vector_extensions(),
        "memory_kib": memory_total_kib(),
        "kernel": first_line("/proc/sys/kernel/osrelease"),
        "load_average_before": first_line("/proc/loadavg"),
        "commit": output("git", &["rev-parse", "HEAD"]),
        "changed_files": output("git", &["status", "--porcelain", "--untracked-files=no"])
            .lines()
            .count(),
        "benchmark_profile": if cfg!(debug_assertions) { "dev" } else { "release" },
        "compiler": output("rustc", &["--version"]),
        "date": output("date", &["--utc", "+%Y-%m-%dT%H:%M:%SZ"]),
        "command": std::env::args().collect::<Vec<_>>().join(" "),
    })
}

/// When the file at `path` was written last.
pub fn modified(path: &Path) -> String {
    let path = path.to_string_lossy();
    output(
        "date",
        &["--utc", "--reference", &path, "+%Y-%m-%dT%H:%M:%SZ"],
    )
}

fn cpu_field(name: &str) -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let found = fields.find(|(field, _)| field.trim() == name);
    found
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

/// The extensions that decide which kernels run.
fn vector_extensions() -> Vec<String> {
    const RELEVANT: [&str; 6] = [
        "avx2",
        "avx512f",
        "avx512_bf16",
        "avx512_vnni",
        "amx_bf16",
        "amx_int8",
    ];
    let flags = cpu_field("flags");
    let present = RELEVANT
        .into_iter()
        .filter(|name| flags.split(' ').any(|flag| flag == *name));
    present.map(str::to_owned).collect()
}

fn memory_total_kib() -> u64 {
    let text = first_line("/proc/meminfo");
    text.split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

fn first_line(path: impl AsRef<Path>) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
