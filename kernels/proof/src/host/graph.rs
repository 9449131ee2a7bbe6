//! Recorded work of several streams, and orders in which it may be done.

use std::sync::Arc;

use backstop_card::device::Stream;
use backstop_kernels::ops::sample::mix;

use super::Work;

/// Recorded work with what must be done before each piece.
pub(super) struct Recording {
    work: Vec<Arc<Work>>,
    after: Vec<Vec<usize>>,
    replays: u64,
}

/// A recording in progress.
pub(super) struct Capture {
    recording: Recording,
    /// For each stream that takes part, what its next piece of work comes after.
    frontiers: [Option<Vec<usize>>; Stream::ALL.len()],
}

impl Capture {
    pub(super) fn new() -> Self {
        let mut frontiers = [const { None }; Stream::ALL.len()];
        frontiers[Stream::Main as usize] = Some(Vec::new());
        let recording = Recording {
            work: Vec::new(),
            after: Vec::new(),
            replays: 0,
        };
        Self {
            recording,
            frontiers,
        }
    }

    /// Whether the stream's work is recorded.
    pub(super) fn takes_part(&self, stream: Stream) -> bool {
        self.frontiers[stream as usize].is_some()
    }

    /// What the stream's next piece of work comes after.
    pub(super) fn frontier(&self, stream: Stream) -> Vec<usize> {
        self.frontiers[stream as usize].clone().unwrap_or_default()
    }

    pub(super) fn push(&mut self, stream: Stream, work: Work) {
        let number = self.recording.work.len();
        let after = self.frontiers[stream as usize].replace(vec![number]);
        self.recording.after.push(after.unwrap_or_default());
        self.recording.work.push(Arc::new(work));
    }

    /// Lets the stream's later work come after this, and the stream take part.
    pub(super) fn wait(&mut self, stream: Stream, work: Vec<usize>) {
        let frontier = self.frontiers[stream as usize].get_or_insert_default();
        frontier.extend(work);
    }

    /// The recording, if the main stream has waited for all others.
    pub(super) fn end(self) -> Result<Recording, String> {
        let mut joined = vec![false; self.recording.work.len()];
        let mut open = self.frontier(Stream::Main);
        while let Some(number) = open.pop() {
            if !std::mem::replace(&mut joined[number], true) {
                open.extend(&self.recording.after[number]);
            }
        }
        match joined.iter().position(|&joined| !joined) {
            Some(number) => Err(format!(
                "the main stream has not waited for piece {number} of the work"
            )),
            None => Ok(self.recording),
        }
    }
}

impl Recording {
    /// The work in an order that its dependencies allow, another one each time.
    pub(super) fn shuffled(&mut self) -> Vec<Arc<Work>> {
        self.replays += 1;
        let mut random = mix(seed().wrapping_add(self.replays));
        let mut missing: Vec<usize> = self.after.iter().map(Vec::len).collect();
        let mut then = vec![Vec::new(); self.work.len()];
        for (number, after) in self.after.iter().enumerate() {
            for &before in after {
                then[before].push(number);
            }
        }
        let mut ready: Vec<usize> = (0..missing.len()).filter(|&it| missing[it] == 0).collect();
        let mut order = Vec::with_capacity(self.work.len());
        while !ready.is_empty() {
            random = mix(random);
            let number = ready.swap_remove((random % ready.len() as u64) as usize);
            order.push(Arc::clone(&self.work[number]));
            for &next in &then[number] {
                missing[next] -= 1;
                if missing[next] == 0 {
                    ready.push(next);
                }
            }
        }
        order
    }
}

/// The seed of everything pseudo-random in the host executor.
fn seed() -> u64 {
    let text = std::env::var("BACKSTOP_HOST_SEED").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(1)
}
