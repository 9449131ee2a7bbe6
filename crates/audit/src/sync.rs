//! A thread that waits for the disk, so that the one that writes does not: what is written outlasts the process at once,
//! and a power cut when the disk has confirmed it.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use crate::ledger::{Confirm, Ledger, Medium};

/// Pause between two confirmations.
pub(crate) const SYNC_INTERVAL: Duration = Duration::from_millis(200);

/// Asks the disk now and then to confirm what a ledger has written.
pub(crate) struct Syncer {
    tasks: SyncSender<Confirm>,
    outcomes: Receiver<io::Result<()>>,
    /// Entries that the disk is asked to confirm now.
    asked: Option<u64>,
    last: Instant,
    /// What the disk said last.
    confirms: bool,
}

impl Syncer {
    pub(crate) fn start() -> io::Result<Self> {
        let (tasks, taken) = sync_channel::<Confirm>(1);
        let (done, outcomes) = sync_channel(1);
        let thread = std::thread::Builder::new().name("audit-sync".to_owned());
        thread.spawn(move || {
            // Nobody asks any more, or nobody wants to know.
            while let Ok(confirm) = taken.recv()
                && done.send(confirm()).is_ok()
            {}
        })?;
        Ok(Self {
            tasks,
            outcomes,
            asked: None,
            last: Instant::now(),
            confirms: true,
        })
    }

    /// Takes in what the disk says, and asks it again if it is time; whether it confirms.
    pub(crate) fn look_after<M: Medium>(&mut self, ledger: &mut Ledger<M>) -> io::Result<()> {
        let outcome = match self.outcomes.try_recv() {
            Ok(outcome) => self.take_in(outcome, ledger),
            Err(TryRecvError::Empty) if self.confirms => Ok(()),
            Err(_) => Err(io::Error::other("the disk does not confirm what it took")),
        };
        let is_time = self.asked.is_none() && self.last.elapsed() >= SYNC_INTERVAL;
        if is_time && ledger.unsynced() > 0 {
            let (entries, confirm) = ledger.begin_sync();
            self.asked = Some(entries);
            self.last = Instant::now();
            // There is room, for it has answered.
            let _ignored = self.tasks.try_send(confirm);
        }
        outcome
    }

    fn take_in<M: Medium>(
        &mut self,
        outcome: io::Result<()>,
        ledger: &mut Ledger<M>,
    ) -> io::Result<()> {
        let entries = self.asked.take().unwrap_or(0);
        self.confirms = outcome.is_ok();
        if outcome.is_err() {
            ledger.doubt(entries);
        }
        outcome
    }

    /// How long there is nothing to do for it.
    pub(crate) fn patience<M: Medium>(&self, ledger: &Ledger<M>) -> Duration {
        match ledger.unsynced() > 0 || self.asked.is_some() {
            true => SYNC_INTERVAL,
            false => Duration::MAX,
        }
    }
}
