//! Whose inputs are computed next, and which of them together.
//!
//! Requests stand in one line for each tenant. The tenant that has used least is served first, in the order of
//! its requests; what a batch has room for beyond that is filled from the next. So a request of many inputs is
//! computed in pieces, between which others have their turn, and small requests share a batch.

use std::collections::{BTreeMap, VecDeque};

use backstop_types::EncoderInput;
use tokio::sync::oneshot;

use crate::gate::TenantId;

/// Tokens of a batch; a longer input is computed alone. Others wait for the end of a batch, so it should not take
/// long.
const BATCH_TOKENS_MAX: usize = 4096;

/// The encoder failed on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EncoderFailed;

/// One row for each input, in their order.
pub(super) type Outcome = Result<Vec<Vec<f32>>, EncoderFailed>;

/// One request's inputs, and what has been computed of them.
#[derive(Debug)]
pub(super) struct Job {
    tenant: TenantId,
    cost: u64,
    urgent: bool,
    /// Those that are not computed, and nothing in the place of the others.
    inputs: Vec<EncoderInput>,
    /// Inputs of similar lengths stand beside one another, which are computed best together.
    order: Vec<usize>,
    /// How many of that order are computed.
    computed: usize,
    rows: Vec<Vec<f32>>,
    began: Option<oneshot::Sender<()>>,
    done: oneshot::Sender<Outcome>,
}

/// What whoever waits for a job hears of it.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The first inputs left the queue.
    pub(super) began: oneshot::Receiver<()>,
    /// Nobody listens any more: the job is left out.
    pub(super) done: oneshot::Receiver<Outcome>,
}

impl Job {
    /// A job of at least one input. A token counts `cost`; an urgent job goes before all others.
    pub(super) fn new(
        tenant: TenantId,
        cost: u64,
        urgent: bool,
        inputs: Vec<EncoderInput>,
    ) -> (Self, Waiting) {
        let (tell_began, began) = oneshot::channel();
        let (tell_done, done) = oneshot::channel();
        let mut order: Vec<usize> = (0..inputs.len()).collect();
        order.sort_by_key(|index| inputs[*index].tokens.len());
        let job = Self {
            tenant,
            cost,
            urgent,
            order,
            computed: 0,
            rows: vec![Vec::new(); inputs.len()],
            inputs,
            began: Some(tell_began),
            done: tell_done,
        };
        (job, Waiting { began, done })
    }

    fn is_abandoned(&self) -> bool {
        self.done.is_closed()
    }

    fn has_begun(&self) -> bool {
        self.began.is_none()
    }

    fn left(&self) -> &[usize] {
        &self.order[self.computed..]
    }
}

/// The next inputs of a job, which is out of its line meanwhile.
#[derive(Debug)]
pub(super) struct Part {
    job: Job,
    count: usize,
}

impl Part {
    /// How many they are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Takes the inputs out, to be computed.
    pub(super) fn take_inputs(&mut self) -> impl Iterator<Item = EncoderInput> {
        let Job {
            order,
            computed,
            inputs,
            ..
        } = &mut self.job;
        let chosen = &order[*computed..*computed + self.count];
        chosen
            .iter()
            .map(move |index| std::mem::take(&mut inputs[*index]))
    }
}

/// How many tokens a batch has.
#[derive(Clone, Copy, Debug, Default)]
struct Filling(usize);

impl Filling {
    /// Takes one more input, if there is room.
    fn take(&mut self, tokens: usize) -> bool {
        let together = self.0 + tokens;
        let fits = self.0 == 0 || together <= BATCH_TOKENS_MAX;
        if fits {
            self.0 = together;
        }
        fits
    }
}

#[derive(Debug, Default)]
struct Line {
    /// What its tenant has used, in tokens times what they count.
    used: u64,
    jobs: VecDeque<Job>,
    /// Jobs in the batch that is computed.
    held: usize,
}

/// All jobs that are not done.
#[derive(Debug, Default)]
pub(super) struct Lines {
    urgent: VecDeque<Job>,
    by_tenant: BTreeMap<TenantId, Line>,
    /// Jobs of which something has been computed or is.
    pub(super) running: u32,
    /// Jobs of which nothing has been computed.
    pub(super) waiting: u32,
    /// Jobs that have begun, since the beginning.
    pub(super) started: u64,
}

impl Lines {
    /// Puts a job at the end of its line, which loses what nobody waits for.
    pub(super) fn push(&mut self, job: Job) {
        self.waiting += 1;
        let abandoned = self.remove_abandoned(job.tenant);
        self.forget(&abandoned);
        if job.urgent {
            self.urgent.push_back(job);
            return;
        }
        // Whoever comes new has used as little as who has used least, and not less.
        let least = self.by_tenant.values().map(|line| line.used).min();
        let line = self.by_tenant.entry(job.tenant).or_insert_with(|| Line {
            used: least.unwrap_or_default(),
            ..Line::default()
        });
        line.jobs.push_back(job);
    }

    fn remove_abandoned(&mut self, tenant: TenantId) -> Vec<Job> {
        let own = self.by_tenant.get_mut(&tenant).map(|line| &mut line.jobs);
        let lines = own.into_iter().chain([&mut self.urgent]);
        lines
            .flat_map(|jobs| {
                let (abandoned, kept) = std::mem::take(jobs)
                    .into_iter()
                    .partition::<VecDeque<Job>, _>(Job::is_abandoned);
                *jobs = kept;
                abandoned
            })
            .collect()
    }

    /// What is to be computed next; nothing if there is nothing to do.
    pub(super) fn next_batch(&mut self) -> Vec<Part> {
        let (mut parts, mut filling) = (Vec::new(), Filling::default());
        while let Some(mut job) = self.pop() {
            let lengths = job
                .left()
                .iter()
                .map(|index| job.inputs[*index].tokens.len());
            let lengths: Vec<usize> = lengths.take_while(|tokens| filling.take(*tokens)).collect();
            let (count, left) = (lengths.len(), job.left().len());
            if count == 0 {
                self.put_back(job);
                break;
            }
            self.charge(&job, lengths.iter().sum());
            self.begin(&mut job);
            parts.push(Part { job, count });
            if count < left {
                break;
            }
        }
        parts
    }

    /// The next job that somebody waits for.
    fn pop(&mut self) -> Option<Job> {
        loop {
            let job = self.pop_any()?;
            if !job.is_abandoned() {
                return Some(job);
            }
            self.forget(&[job]);
        }
    }

    fn pop_any(&mut self) -> Option<Job> {
        if let Some(job) = self.urgent.pop_front() {
            return Some(job);
        }
        let lines = self.by_tenant.values_mut();
        let next = lines
            .filter(|line| !line.jobs.is_empty())
            .min_by_key(|line| line.used);
        next?.jobs.pop_front()
    }

    /// Takes back a job that was popped, to be the first of its line.
    fn put_back(&mut self, job: Job) {
        match self.by_tenant.get_mut(&job.tenant) {
            Some(line) if !job.urgent => line.jobs.push_front(job),
            _ => self.urgent.push_front(job),
        }
    }

    fn charge(&mut self, job: &Job, tokens: usize) {
        if let Some(line) = self.by_tenant.get_mut(&job.tenant) {
            line.held += 1;
            line.used += tokens as u64 * job.cost;
        }
    }

    fn begin(&mut self, job: &mut Job) {
        if let Some(began) = job.began.take() {
            self.waiting -= 1;
            self.running += 1;
            self.started += 1;
            // Whoever does not listen is found out later.
            let _ignored = began.send(());
        }
    }

    /// Takes back what was computed, and answers those whose last inputs these were.
    pub(super) fn computed(&mut self, part: Part, outcome: Outcome) {
        let Part { mut job, count } = part;
        if let Some(line) = self.by_tenant.get_mut(&job.tenant) {
            line.held = line.held.saturating_sub(1);
        }
        let rows = match outcome {
            Ok(rows) => rows,
            Err(failed) => return self.answer(job, Err(failed)),
        };
        let places = job.order[job.computed..job.computed + count].iter();
        for (place, row) in places.zip(rows) {
            job.rows[*place] = row;
        }
        job.computed += count;
        if job.left().is_empty() {
            let rows = std::mem::take(&mut job.rows);
            self.answer(job, Ok(rows));
        } else {
            self.put_back(job);
        }
    }

    fn answer(&mut self, job: Job, outcome: Outcome) {
        self.running -= 1;
        self.leave(job.tenant);
        // Its client may have gone away.
        let _ignored = job.done.send(outcome);
    }

    /// Forgets jobs that nobody waits for.
    fn forget(&mut self, jobs: &[Job]) {
        for job in jobs {
            match job.has_begun() {
                true => self.running -= 1,
                false => self.waiting -= 1,
            }
            self.leave(job.tenant);
        }
    }

    /// Forgets a tenant that has nothing here.
    fn leave(&mut self, tenant: TenantId) {
        let is_over = |line: &Line| line.held == 0 && line.jobs.is_empty();
        if self.by_tenant.get(&tenant).is_some_and(is_over) {
            self.by_tenant.remove(&tenant);
        }
    }
}

#[cfg(test)]
mod tests;
