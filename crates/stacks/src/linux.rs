//! How it is done on Linux.

mod handler;
mod modules;
mod names;
mod slots;
mod tasks;

use std::io;
use std::sync::{Mutex, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use self::modules::Modules;
use self::slots::Outcome;
use crate::report::{Answer, ThreadStack};

/// A thread that is let run answers within a small part of this.
const PATIENCE: Duration = Duration::from_millis(200);
/// Pause between two looks at who has answered.
const LOOK: Duration = Duration::from_millis(2);

/// One capture at a time: there is one set of slots.
static CAPTURING: Mutex<()> = Mutex::new(());

/// Takes the signal, and lets everything be loaded that the handler needs, so that it never has to. To be called once,
/// early; [`capture`] does it otherwise.
pub fn prepare() -> io::Result<()> {
    handler::install()
}

/// The stacks of all threads, this one's included. Takes a fifth of a second if a thread does not answer, and the time
/// that the names take. While another thread captures, there is an error.
pub fn capture() -> io::Result<Vec<ThreadStack>> {
    let _capturing = match CAPTURING.try_lock() {
        Ok(guard) => guard,
        // Who panicked left nothing behind that the next would stumble over.
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::ResourceBusy.into()),
    };
    handler::install()?;
    slots::clear();
    let asked: Vec<Asked> = tasks::all()?.into_iter().map(ask).collect();
    wait_for(&asked);
    let modules = Modules::mapped();
    let stacks = asked.into_iter().map(|asked| asked.told(&modules));
    let stacks = stacks.collect();
    names::forget();
    Ok(stacks)
}

/// A thread that was asked for its stack, if there was a slot for it.
struct Asked {
    id: i32,
    name: String,
    state: &'static str,
    slot: Option<&'static slots::Slot>,
    is_gone: bool,
}

fn ask(id: i32) -> Asked {
    // Before it is asked, for then it runs.
    let (name, state) = (tasks::name(id), tasks::state(id));
    let slot = slots::take(id);
    let is_gone = slot.is_some() && !handler::signal(id);
    Asked {
        id,
        name,
        state,
        slot,
        is_gone,
    }
}

fn wait_for(asked: &[Asked]) {
    let deadline = Instant::now() + PATIENCE;
    let is_awaited = |asked: &Asked| !asked.is_gone && asked.slot.is_some_and(slots::Slot::is_open);
    while asked.iter().any(is_awaited) && Instant::now() < deadline {
        thread::sleep(LOOK);
    }
}

impl Asked {
    fn told(self, modules: &Modules) -> ThreadStack {
        let Self {
            id,
            name,
            state,
            slot,
            is_gone,
        } = self;
        let answer = match slot.map(slots::Slot::close) {
            None => Answer::NotAsked,
            Some(Outcome::Written(addresses)) => {
                Answer::Stack(names::of_calls(&addresses, modules))
            }
            Some(Outcome::Unwritten) if is_gone => Answer::Ended,
            Some(Outcome::Unwritten) => Answer::Blocked(tasks::waits_for(id)),
        };
        ThreadStack {
            id,
            name,
            state,
            answer,
        }
    }
}
