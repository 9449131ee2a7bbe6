//! The thread of a worker: plans go there, results come back, and its device ends with it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use backstop_types::{StepFailure, StepPlan};

use crate::device::{KeptWeights, StepDevice, StepFault};
use crate::executor::WorkerSettings;
use crate::step::QueuedStep;
use crate::worker::{Task, Worker};

/// What a worker made of a plan.
pub(crate) type StepResult = Result<Arc<QueuedStep>, StepFailure>;

/// A running worker. It ends when this is dropped, and nobody waits for it: its device may be stuck.
pub(crate) struct WorkerThread {
    tasks: Sender<Task>,
    steps: Receiver<StepResult>,
    thread: JoinHandle<()>,
}

impl WorkerThread {
    /// Starts it.
    pub(crate) fn start(
        device: Box<dyn StepDevice>,
        settings: &WorkerSettings,
    ) -> std::io::Result<Self> {
        let (tasks, task_receiver) = channel();
        let (step_sender, steps) = channel();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(settings.num_threads)
            .thread_name(|index| format!("compute-{index}"))
            .build()
            .map_err(std::io::Error::other)?;
        let worker = Worker::new(device, settings.max_num_seqs);
        let thread = std::thread::Builder::new()
            .name("executor".into())
            .spawn(move || {
                // The whole loop runs inside the pool: entering it for every operation would cost a
                // thread switch each.
                pool.install(move || worker.run(&task_receiver, &step_sender));
            })?;
        Ok(Self {
            tasks,
            steps,
            thread,
        })
    }

    /// Hands over a plan of this epoch.
    pub(crate) fn submit(&self, epoch: u64, plan: StepPlan) {
        self.send(Task::Step(epoch, plan));
    }

    /// Waits for what was made of the oldest plan; `None` if the thread has ended.
    pub(crate) fn next_step(&self) -> Option<StepResult> {
        self.steps.recv().ok()
    }

    /// The device's weights in the host's memory. No plan may be in flight.
    pub(crate) fn keep_weights(&self) -> Result<KeptWeights, String> {
        let (reply, kept) = channel::<Result<KeptWeights, StepFault>>();
        self.send(Task::KeepWeights(reply));
        match kept.recv() {
            Ok(kept) => kept.map_err(|fault| fault.message),
            Err(_) => Err("the executor's thread ended".to_owned()),
        }
    }

    /// Ends the thread and waits until it has given back its device. No plan may be in flight.
    pub(crate) fn end(self) {
        let Self { tasks, thread, .. } = self;
        drop(tasks);
        // Panics of steps are caught in the worker; another one shows in its answers.
        let _ignored = thread.join();
    }

    fn send(&self, task: Task) {
        // A worker that is gone shows where its answer is waited for.
        let _ignored = self.tasks.send(task);
    }
}
