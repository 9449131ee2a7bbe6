//! What the kernel says of threads, in `/proc/self/task`.

use std::fs;
use std::io;

/// The kernel's list can pass over a thread while another ends; it is read so many times.
const READINGS: usize = 3;

/// The numbers of all threads.
pub(super) fn all() -> io::Result<Vec<i32>> {
    let mut numbers = Vec::new();
    for _ in 0..READINGS {
        let entries = fs::read_dir("/proc/self/task")?;
        let listed = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        numbers.extend(listed);
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// A thread's name.
pub(super) fn name(thread: i32) -> String {
    match about(thread, "comm") {
        name if name.is_empty() => "?".to_owned(),
        name => name,
    }
}

/// What a thread is doing, in a word.
pub(super) fn state(thread: i32) -> &'static str {
    let stat = about(thread, "stat");
    // Behind the name, which may hold anything.
    let letter = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    match letter {
        Some('R') => "running",
        Some('S') => "sleeping",
        Some('D') => "waiting for a device",
        Some('T') => "stopped",
        Some('t') => "stopped by a debugger",
        Some('Z' | 'X') => "ended",
        Some('I') => "idle",
        _ => "in an unknown state",
    }
}

/// What a thread waits for: its state now, the kernel's function it waits in, and the number of the call that it made.
pub(super) fn waits_for(thread: i32) -> String {
    let mut said = state(thread).to_owned();
    let place = about(thread, "wchan");
    if !place.is_empty() && place != "0" {
        said += &format!(", in {place}");
    }
    let call = about(thread, "syscall");
    if let Some(number) = call
        .split(' ')
        .next()
        .filter(|number| number.parse::<u32>().is_ok())
    {
        said += &format!(", system call {number}");
    }
    said
}

fn about(thread: i32, file: &str) -> String {
    let text = fs::read(format!("/proc/self/task/{thread}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&text).trim_end().to_owned()
}
