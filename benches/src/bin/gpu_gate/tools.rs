//! Programs of the CUDA toolkit that say more about a case, where they are installed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::worker::Job;

/// Where the toolkit is, if not in the path.
const TOOLKIT: &str = "/usr/local/cuda/bin";
/// Longest time that one of them may take.
const TOOL_TIME_MAX: Duration = Duration::from_secs(25);
const POLL: Duration = Duration::from_millis(20);
/// What is kept of their words.
const LINES_MAX: usize = 150;
/// What a profiler reports: limits that are near, memory, multiprocessors, and the launch itself.
const SECTIONS: [&str; 4] = [
    "SpeedOfLight",
    "MemoryWorkloadAnalysis",
    "ComputeWorkloadAnalysis",
    "LaunchStats",
];

/// Runs one of a job's cases under compute-sanitizer, if there is one.
pub(crate) fn memcheck(job: &Job, case: usize, left: Duration) -> Option<String> {
    let options = ["--tool", "memcheck", "--print-limit", "3"];
    run(
        "compute-sanitizer",
        &options,
        |command| {
            job.command(command, &[case]);
        },
        left,
    )
}

/// The same under ncu. The kernels of a case are launched several times; of each, one of the later
/// launches counts.
pub(crate) fn profile(job: &Job, left: Duration) -> Option<String> {
    let kernels = "regex:^(product|attention)_";
    let mut options = vec![
        "--clock-control",
        "none",
        "--kernel-name",
        kernels,
        "--launch-skip",
        "2",
        "--launch-count",
        "2",
    ];
    options.extend(SECTIONS.iter().flat_map(|section| ["--section", section]));
    run(
        "ncu",
        &options,
        |command| {
            job.command(command, &job.cases);
        },
        left,
    )
}

/// What a tool says; nothing if it is not installed.
fn run(
    tool: &str,
    options: &[&str],
    add: impl FnOnce(&mut Command),
    left: Duration,
) -> Option<String> {
    let program = find(tool)?;
    let mut command = Command::new(&program);
    command.args(options);
    command.arg(std::env::current_exe().ok()?);
    add(&mut command);
    let said = output_within(&mut command, left.min(TOOL_TIME_MAX));
    Some(said.unwrap_or_else(|error| format!("{}: {error}", program.display())))
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([PathBuf::from(TOOLKIT)]);
    places.map(|place| place.join(tool)).find(|it| it.is_file())
}

/// The first lines of what a command says, which is ended after `limit`. They go through a file:
/// a pipe would stay open for as long as any process that it leaves behind.
fn output_within(command: &mut Command, limit: Duration) -> io::Result<String> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("backstop-gate-{}-tool-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let said = output_through(command, limit, &path);
    fs::remove_file(&path)?;
    said
}

fn output_through(command: &mut Command, limit: Duration, path: &Path) -> io::Result<String> {
    let file = File::create(path)?;
    let errors = file.try_clone()?;
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        .spawn()?;
    let mut ended = None;
    while ended.is_none() && began.elapsed() < limit {
        thread::sleep(POLL);
        ended = child.try_wait()?;
    }
    let end = match ended {
        Some(status) => status.to_string(),
        None => {
            child.kill()?;
            child.wait()?;
            format!("ended after {} s", limit.as_secs())
        }
    };
    let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
    let lines: Vec<&str> = text.lines().take(LINES_MAX).collect();
    Ok(format!("{}\n({end})", lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_heard_and_ended_in_time() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo said; echo more >&2"]);
        let said = output_within(&mut shell, Duration::from_secs(60)).unwrap();
        assert!(said.starts_with("said\nmore\n(exit status: 0"), "{said}");
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo said; exec sleep 600"]);
        let said = output_within(&mut shell, Duration::from_millis(300)).unwrap();
        assert!(said.ends_with("(ended after 0 s)"), "{said}");
    }

    #[test]
    fn a_tool_that_is_not_installed_says_nothing() {
        assert_eq!(run("no-such-tool", &[], |_| {}, Duration::MAX), None);
    }
}
