//! The first process of the new process namespace: makes the world, starts the program's stage, buries orphans, and takes
//! everything with it when it ends.

use std::io;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus, set_dumpable_behavior,
    set_parent_process_death_signal, wait,
};

use super::outer::expected;
use super::wire::{Failure, Layer, Message, Settings, own_socket, receive, send};
use super::{inner, loopback, mounts, privileges, watch};

pub(crate) const NAME: &str = "init";

const NAMES: &str = "names";
const HOST_NAME: &[u8] = b"isolated";

pub(crate) fn run() -> i32 {
    let Ok(control) = own_socket() else {
        return 64;
    };
    let ended = contain(&control).unwrap_or_else(Message::Failed);
    // Whoever asked may be gone; then nobody is left to tell.
    i32::from(send(&control, &ended).is_err())
}

fn contain(control: &UnixStream) -> Result<Message, Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).layer(NAMES, "tying its life")?;
    let settings: Settings = expected(control)?;
    mounts::build(&settings, control)?;
    loopback::up().layer("network namespace", "switching its loopback on")?;
    rustix::system::sethostname(HOST_NAME).layer(NAMES, "its name")?;
    rustix::system::setdomainname(b"").layer(NAMES, "its domain")?;
    let (here, there) = UnixStream::pair().layer("messages", "a pair of sockets")?;
    let program = Command::new(mounts::STAGE_FILE)
        .args([crate::STAGE, inner::NAME])
        .env_clear()
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(there)))
        .spawn()
        .layer("root file system", "starting the program's stage")?;
    let program = Pid::from_raw(program.id().cast_signed());
    // Nobody looks into this process from now on, and it keeps no privileges.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).layer(NAMES, "hiding itself")?;
    privileges::keep_looking().layer("capabilities", "giving them up")?;
    send(&here, &settings).layer("messages", "to the program's stage")?;
    if let Some(failure) = receive::<Failure>(&here).layer("messages", "reading")? {
        return Err(failure);
    }
    let began = Instant::now();
    send(control, &Message::Started).layer("messages", "to the one who asked")?;
    let limit = settings
        .memory_is_watched
        .then_some(settings.limits.memory_bytes);
    watch::start(control, limit, began).layer("watch", "starting it")?;
    let status = last_of(program).layer("process namespace", "waiting")?;
    Ok(message(status, began.elapsed(), settings.limits.cpu))
}

/// Waits for the program, and for whatever was left behind before it ended.
fn last_of(program: Option<Pid>) -> io::Result<WaitStatus> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((process, status))) if Some(process) == program => return Ok(status),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn message(status: WaitStatus, ran: Duration, cpu: Duration) -> Message {
    let seconds = ran.as_secs_f64();
    let by_time = Signal::XCPU.as_raw();
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => Message::Exited { status, seconds },
        (_, Some(signal)) if signal == by_time => Message::OutOfTime { seconds },
        // Who ignores the signal is killed a second later.
        (_, Some(signal)) if signal == Signal::KILL.as_raw() && used() >= cpu => {
            Message::OutOfTime { seconds }
        }
        (_, signal) => Message::Killed {
            signal: signal.unwrap_or(0),
            seconds,
        },
    }
}

/// The time on the processor of all that were waited for.
fn used() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else {
        return Duration::ZERO;
    };
    let times = [usage.user_time(), usage.system_time()];
    let of = |seconds: i64| u64::try_from(seconds).unwrap_or(0);
    times
        .iter()
        .map(|time| Duration::new(of(time.tv_sec()), 1000 * of(time.tv_usec()) as u32))
        .sum()
}
