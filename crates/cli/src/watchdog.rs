//! Ends a process that hangs. A thread that is stuck in a step can be neither cancelled nor joined, so that only another
//! process can go on: the life-cycle fails first, which answers every request with an error, then the log gets the
//! stacks of all threads, connections get a moment to be flushed, and the process ends with a code of its own; if it does
//! not by itself, at once.

use std::io;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use backstop_engine::LifecycleState;
use backstop_server::Server;
use tokio::sync::watch;

use crate::{EXIT_STALLED, signals, stacks};

/// From which to which limit a hang can be told from a step.
pub(crate) const TIMEOUT_RANGE: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(24 * 3600));

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// Time for answers to leave and for the process to end by itself, once all requests have failed.
const FLUSH: Duration = Duration::from_secs(10);
/// Time from the first word to the end, even if the log itself hangs.
const END: Duration = Duration::from_secs(30);

/// How far the end of a process that hangs has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing hangs.
    Watching,
    /// All requests fail.
    Struck,
    /// The log has the stacks.
    Told,
}

/// Watches a server, on a thread of its own, until the process ends.
#[derive(Debug)]
pub(crate) struct Watchdog(watch::Receiver<Stage>);

impl Watchdog {
    /// Watches from now on.
    pub(crate) fn start(server: &Server) -> io::Result<Self> {
        let (stage, seen) = watch::channel(Stage::Watching);
        let server = server.clone();
        thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || Watch { server, stage }.run())?;
        Ok(Self(seen))
    }

    /// Whether something hangs, which must not be waited for: the process is to end with [`EXIT_STALLED`]. Comes back
    /// when the log has what is to be told of it.
    pub(crate) async fn has_struck(&self) -> bool {
        let mut stage = self.0.clone();
        if *stage.borrow() == Stage::Watching {
            return false;
        }
        // An error means that the thread is gone, with what it had to tell.
        let _ignored = stage.wait_for(|stage| *stage == Stage::Told).await;
        true
    }
}

/// What the thread has.
struct Watch {
    server: Server,
    stage: watch::Sender<Stage>,
}

impl Watch {
    fn run(self) {
        stacks::prepare();
        let asked = signals::asked_for_stacks();
        let mut clock = Clock::new();
        let mut loading_told = false;
        loop {
            thread::sleep(LOOK);
            let excused = clock.looked();
            if asked.swap(false, Ordering::Relaxed) {
                stacks::log();
            }
            self.tell_of_loading(&mut loading_told);
            if let Some(stall) = self.server.stalled(excused) {
                self.strike(stall);
            }
            if self.server.stalled(Duration::ZERO).is_none() {
                // Whatever was missed, everything got on since.
                clock = Clock::new();
            }
        }
    }

    /// Says once that loading reads nothing, and once that it goes on. Storage that hangs may come back.
    fn tell_of_loading(&self, told: &mut bool) {
        let pause = self.server.loading_pause();
        let pause = pause.filter(|pause| *pause > self.server.config().watchdog_timeout);
        match pause {
            Some(pause) if !*told => tracing::warn!(
                "nothing of the model's files has been read for {} s: the storage may be slow or gone",
                pause.as_secs()
            ),
            None if *told => tracing::info!("loading goes on"),
            _ => {}
        }
        *told = pause.is_some();
    }

    /// Lets everybody know, and sees to it that the process ends, even if it cannot do so by itself.
    fn strike(&self, stall: String) -> ! {
        end_after(END);
        self.stage.send_replace(Stage::Struck);
        let requests = self.server.requests_in_flight();
        tracing::error!(requests, "{stall}: all requests fail, and the process ends");
        self.server
            .lifecycle()
            .advance(LifecycleState::Failed(stall));
        stacks::log();
        self.stage.send_replace(Stage::Told);
        thread::sleep(FLUSH);
        signals::end_at_once(EXIT_STALLED)
    }
}

/// Ends the process later, by a thread that does nothing else: a full pipe behind the log would hold up any other.
fn end_after(time: Duration) {
    let end = move || {
        thread::sleep(time);
        signals::end_at_once(EXIT_STALLED)
    };
    let spawned = thread::Builder::new().name("end".to_owned()).spawn(end);
    if let Err(error) = spawned {
        tracing::error!(%error, "cannot see to it that the process ends in time");
    }
}

/// Knows how much time has passed in which this process was not let run: stopped by a signal or a debugger, or starved.
/// That is no fault of a thread's.
struct Clock {
    last: Instant,
    excused: Duration,
}

impl Clock {
    fn new() -> Self {
        Self {
            last: Instant::now(),
            excused: Duration::ZERO,
        }
    }

    /// What has been missed so far. To be called after each pause.
    fn looked(&mut self) -> Duration {
        let late = self.last.elapsed().saturating_sub(LOOK);
        self.last = Instant::now();
        self.excused += late;
        self.excused
    }
}
