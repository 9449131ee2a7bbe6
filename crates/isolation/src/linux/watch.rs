//! What the first process does beside waiting: it ends if whoever asked is gone, and where no control group bounds the
//! memory of all processes, it adds it up.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::param::page_size;

use super::wire::{Message, send};

const INTERVAL: Duration = Duration::from_millis(20);

/// Watches on a thread, until the process ends.
pub(crate) fn start(
    control: &UnixStream,
    memory_bytes: Option<u64>,
    began: Instant,
) -> io::Result<()> {
    let control = control.try_clone()?;
    std::thread::Builder::new()
        .stack_size(256 << 10)
        .spawn(move || watch(&control, memory_bytes, began))?;
    Ok(())
}

fn watch(control: &UnixStream, memory_bytes: Option<u64>, began: Instant) {
    let interval = Timespec {
        tv_sec: 0,
        tv_nsec: INTERVAL.subsec_nanos().into(),
    };
    loop {
        let mut polled = [PollFd::new(control, PollFlags::IN)];
        let timeout = memory_bytes.map(|_| &interval);
        // Nothing more is ever sent here, so that something can be read means that the other end is gone.
        if poll(&mut polled, timeout).is_ok_and(|ready| ready > 0) {
            std::process::exit(1);
        }
        if memory_bytes.is_some_and(is_exceeded) {
            let seconds = began.elapsed().as_secs_f64();
            let _nobody_listens = send(control, &Message::OutOfMemory { seconds });
            std::process::exit(1);
        }
    }
}

/// Pages that processes share count for each of them at first, which is quick to find out. Where that is too much, each
/// page is shared among its users.
fn is_exceeded(most: u64) -> bool {
    sum(resident) > most && sum(proportional) > most
}

fn sum(of_process: impl Fn(&Path) -> Option<u64>) -> u64 {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            name.iter().all(u8::is_ascii_digit) && name != b"1"
        })
        .filter_map(|entry| of_process(&entry.path()))
        .sum()
}

fn resident(process: &Path) -> Option<u64> {
    let text = fs::read_to_string(process.join("statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * page_size() as u64)
}

fn proportional(process: &Path) -> Option<u64> {
    let text = fs::read_to_string(process.join("smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_has_is_added_up() {
        let own = Path::new("/proc/self");
        let (resident, proportional) = (resident(own).unwrap(), proportional(own).unwrap());
        assert!(proportional > 0 && proportional <= 2 * resident);
        assert!(!is_exceeded(u64::MAX) && is_exceeded(0));
    }
}
