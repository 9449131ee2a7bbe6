//! Comparison of sampling on a device with the processor's: the same tokens from the same logits,
//! whatever else is in the batch.

mod trials;

use std::sync::Arc;

use backstop_card::ops::sample::{
    SampleLimits, SampleStep, SampleStepFull, SampleWorkspace, SampledLogprobs, SampledRow,
    StepRow, needs_history,
};
use backstop_card::{Device, DeviceBuffer, DeviceError, DevicePointer, Stream};
use backstop_kernels::ops::sample::{SampleArgs, SampleScratch, sample};
use backstop_types::SampledToken;

use trials::Trial;

/// How far log-probabilities may be from the processor's, relative to 1 and to their magnitude.
const LOGPROB_TOLERANCE: f32 = 1e-5;
/// Rows of the grid that are not there.
const PADDING: usize = 3;

/// Vocabularies with all kinds of logits and parameters, and one with few.
const VOCABULARIES: [usize; 7] = [1, 5, 255, 257, 1000, 5003, 20_011];
const LARGE_VOCABULARY: usize = 262_144;

/// Runs all checks; returns what was wrong.
pub fn failures(device: &Arc<dyn Device>) -> Result<Vec<String>, DeviceError> {
    let mut wrong = Vec::new();
    for (index, vocabulary) in VOCABULARIES.into_iter().enumerate() {
        let trials = trials::of_vocabulary(vocabulary, index, 5);
        check_batch(device, vocabulary, &trials, &mut wrong)?;
    }
    let trials = trials::of_vocabulary(LARGE_VOCABULARY, 0, 17);
    check_batch(device, LARGE_VOCABULARY, &trials, &mut wrong)?;
    check_feedback(device, &mut wrong)?;
    Ok(wrong)
}

/// Compares the trials with the processor's, and with themselves alone and in another order.
fn check_batch(
    device: &Arc<dyn Device>,
    vocabulary: usize,
    trials: &[Trial],
    wrong: &mut Vec<String>,
) -> Result<(), DeviceError> {
    let all: Vec<&Trial> = trials.iter().collect();
    let sampled = run(device, vocabulary, &all, wrong)?;
    for (trial, actual) in trials.iter().zip(&sampled) {
        if let Some(difference) = difference(&trial.on_processor(), actual) {
            wrong.push(format!("{vocabulary} tokens, {trial}: {difference}"));
        }
    }
    let reversed: Vec<&Trial> = trials.iter().rev().collect();
    let again = run(device, vocabulary, &reversed, wrong)?;
    for ((trial, first), second) in trials.iter().zip(&sampled).zip(again.iter().rev()) {
        if first != second {
            wrong.push(format!(
                "{vocabulary} tokens, {trial}: depends on the place"
            ));
        }
    }
    for (trial, among) in trials.iter().zip(&sampled).step_by(7) {
        let alone = run(device, vocabulary, &[trial], wrong)?;
        if alone.first() != Some(among) {
            wrong.push(format!(
                "{vocabulary} tokens, {trial}: depends on the batch"
            ));
        }
    }
    Ok(())
}

fn difference(expected: &Option<SampledToken>, actual: &Option<SampledToken>) -> Option<String> {
    let described = || Some(format!("{actual:?}, not {expected:?}"));
    let (expected, actual) = match (expected, actual) {
        (None, None) => return None,
        (Some(expected), Some(actual)) if expected.id == actual.id => (expected, actual),
        _ => return described(),
    };
    let (expected, actual) = match (&expected.logprobs, &actual.logprobs) {
        (None, None) => return None,
        (Some(expected), Some(actual)) => (expected, actual),
        _ => return described(),
    };
    let close = |a: f32, b: f32| a == b || (a - b).abs() <= LOGPROB_TOLERANCE * (1.0 + b.abs());
    let same = expected.rank == actual.rank
        && expected.top.len() == actual.top.len()
        && close(actual.logprob, expected.logprob)
        && expected
            .top
            .iter()
            .zip(&actual.top)
            .all(|(expected, actual)| expected.0 == actual.0 && close(actual.1, expected.1));
    if same { None } else { described() }
}

/// A workspace that fits the trials, and the rows' histories.
fn workspace(
    device: &Arc<dyn Device>,
    vocabulary: usize,
    trials: &[&Trial],
) -> Result<SampleWorkspace, DeviceError> {
    let words = |trial: &&Trial| trial.masked.len() + 2 * trial.params.logit_bias.len();
    let limits = SampleLimits {
        rows: trials.len() + PADDING,
        vocabulary,
        slots: trials.len() + 5,
        histories: trials.len(),
        list_words: trials.iter().map(words).sum(),
        masks: trials
            .iter()
            .filter(|trial| trial.allowed.is_some())
            .count(),
    };
    let workspace = SampleWorkspace::new(device, limits)?;
    for (index, trial) in trials.iter().enumerate() {
        if needs_history(&trial.params) {
            start_history(device, &workspace, index, trial)?;
        }
    }
    Ok(workspace)
}

fn start_history(
    device: &Arc<dyn Device>,
    workspace: &SampleWorkspace,
    history: usize,
    trial: &Trial,
) -> Result<(), DeviceError> {
    let (prompt, output) = (&trial.prompt, &trial.output);
    let tokens = DeviceBuffer::from_slice(device, &[prompt.as_slice(), output].concat())?;
    let count = prompt.len() + output.len();
    // SAFETY: the buffer holds this many tokens until the work is done.
    unsafe {
        workspace.start_history(
            Stream::Main,
            history as u32,
            tokens.pointer(),
            prompt.len(),
            count,
        )?;
    }
    device.synchronize(Stream::Main)
}

fn slot_of(index: usize, trials: usize) -> usize {
    trials + 2 - index
}

/// Samples once for each trial.
fn run(
    device: &Arc<dyn Device>,
    vocabulary: usize,
    trials: &[&Trial],
    wrong: &mut Vec<String>,
) -> Result<Vec<Option<SampledToken>>, DeviceError> {
    let workspace = workspace(device, vocabulary, trials)?;
    let logits: Vec<f32> = trials
        .iter()
        .flat_map(|trial| trial.logits.iter().copied())
        .chain(std::iter::repeat_n(f32::NAN, PADDING * vocabulary))
        .collect();
    let logits = DeviceBuffer::from_slice(device, &logits)?;
    let sampled = sample_step(device, &workspace, logits.pointer(), trials)?;
    let place = format!("{vocabulary} tokens, {} rows", trials.len());
    let mut last_tokens = vec![0; workspace.limits().slots];
    for (index, token) in sampled.iter().enumerate() {
        last_tokens[slot_of(index, trials.len())] = token.as_ref().map_or(0, |token| token.id);
    }
    if workspace.last_tokens().read::<u32>()? != last_tokens {
        wrong.push(format!("{place}: last tokens"));
    }
    if workspace.sampled().read::<SampledRow>()?[trials.len()..] != [SampledRow::default(); PADDING]
    {
        wrong.push(format!("{place}: rows that are not there"));
    }
    let histories = workspace.histories().read::<u16>()?;
    for (index, (trial, token)) in trials.iter().zip(&sampled).enumerate() {
        let actual = &histories[index * vocabulary..][..vocabulary];
        if needs_history(&trial.params) && actual != trial.history_after(token.as_ref()) {
            wrong.push(format!("{place}, {trial}: history"));
        }
    }
    Ok(sampled)
}

/// Queues a step with a row for each trial and reads what was sampled.
fn sample_step(
    device: &Arc<dyn Device>,
    workspace: &SampleWorkspace,
    logits: DevicePointer,
    trials: &[&Trial],
) -> Result<Vec<Option<SampledToken>>, DeviceError> {
    let mut step = SampleStep::new(*workspace.limits());
    for (index, trial) in trials.iter().enumerate() {
        let row = StepRow {
            params: &trial.params,
            slot: slot_of(index, trials.len()) as u32,
            position: trial.position,
            history: needs_history(&trial.params).then_some(index as u32),
            masked: &trial.masked,
            allowed: trial.allowed.as_deref(),
        };
        step.push(row).map_err(no_room)?;
    }
    let mut bytes = vec![0; workspace.limits().step_bytes()];
    let pieces = step.write(&mut bytes);
    // SAFETY: the step has room for the bytes, and both they and the logits stay until the work is
    // done.
    unsafe {
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            let to = workspace.step().offset(piece.start);
            let from = bytes.as_ptr().add(piece.start);
            device.upload(Stream::Main, to, from, piece.len())?;
        }
        workspace.launch(Stream::Main, logits, workspace.limits().rows)?;
    }
    device.synchronize(Stream::Main)?;
    let rows = workspace.sampled().read::<SampledRow>()?;
    let logprobs = workspace.logprobs().read::<SampledLogprobs>()?;
    let decoded = trials.iter().zip(rows.iter().zip(&logprobs));
    Ok(decoded
        .map(|(trial, (row, logprobs))| row.decode(trial.params.logprobs.map(|_| logprobs)))
        .collect())
}

fn no_room(full: SampleStepFull) -> DeviceError {
    DeviceError {
        attempt: "filling a step".into(),
        reason: full.to_string(),
        fatal: false,
    }
}

/// Sequences with penalties over several steps: what the device sampled counts in the next.
fn check_feedback(device: &Arc<dyn Device>, wrong: &mut Vec<String>) -> Result<(), DeviceError> {
    let vocabulary = 300;
    let mut trials = trials::with_penalties(vocabulary);
    let references: Vec<&Trial> = trials.iter().collect();
    let workspace = workspace(device, vocabulary, &references)?;
    for step in 0..12 {
        for (index, trial) in trials.iter_mut().enumerate() {
            trial.next_logits(step * 100 + index as u64);
        }
        let logits: Vec<f32> = trials
            .iter()
            .flat_map(|trial| trial.logits.iter().copied())
            .collect();
        // Rows that are not there are not read.
        let logits = DeviceBuffer::from_slice(device, &logits)?;
        let references: Vec<&Trial> = trials.iter().collect();
        let sampled = sample_step(device, &workspace, logits.pointer(), &references)?;
        for (trial, token) in trials.iter_mut().zip(&sampled) {
            if let Some(difference) = difference(&trial.on_processor(), token) {
                wrong.push(format!("step {step}, {trial}: {difference}"));
            }
            trial.output.extend(token.as_ref().map(|token| token.id));
        }
    }
    Ok(())
}

impl Trial {
    fn on_processor(&self) -> Option<SampledToken> {
        let args = SampleArgs {
            logits: &self.logits,
            params: &self.params,
            prompt: &self.prompt,
            output: &self.output,
            masked: &self.masked,
            allowed: self.allowed.as_deref(),
            position: self.position,
        };
        sample(&args, &mut SampleScratch::default())
    }

    /// The history that the device should have after a step.
    fn history_after(&self, sampled: Option<&SampledToken>) -> Vec<u16> {
        let mut history = vec![0; self.logits.len()];
        for &token in &self.prompt {
            if let Some(entry) = history.get_mut(token as usize) {
                *entry |= 0x8000;
            }
        }
        let sampled = sampled.map(|token| token.id);
        for token in self.output.iter().copied().chain(sampled) {
            if let Some(entry) = history.get_mut(token as usize)
                && *entry & 0x7fff != 0x7fff
            {
                *entry += 1;
            }
        }
        history
    }
}
