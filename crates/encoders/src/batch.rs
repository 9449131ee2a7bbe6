//! Texts that are computed together: tokens one behind another, and which of them are a text.

use std::ops::Range;

use backstop_types::EncoderInput;

/// Tokens of a batch of several texts.
const TOKENS_MAX: usize = 4096;
/// A batch of fewer tokens is not worth a thread.
const TOKENS_MIN: usize = 256;
/// Tokens of all batches that are computed at a time, on as many cores as there are. They bound the memory for
/// intermediate values: about 50 KiB a token for a model of width 1024.
const TOKENS_AT_A_TIME: usize = 32 << 10;

/// Texts of one length, one behind another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Where the first token of the first is.
    pub(crate) start: usize,
    pub(crate) texts: usize,
    /// Tokens of each.
    pub(crate) length: usize,
}

/// Texts that are computed together.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) inputs: Vec<&'a EncoderInput>,
    pub(crate) runs: Vec<Run>,
}

impl<'a> Batch<'a> {
    /// Texts in descending order of their lengths.
    pub(crate) fn new(inputs: Vec<&'a EncoderInput>) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        let mut start = 0;
        for input in &inputs {
            let length = input.tokens.len();
            match runs.last_mut() {
                Some(run) if run.length == length => run.texts += 1,
                _ => runs.push(Run {
                    start,
                    texts: 1,
                    length,
                }),
            }
            start += length;
        }
        Self { inputs, runs }
    }

    /// Tokens of all texts, in order.
    pub(crate) fn tokens(&self) -> Vec<u32> {
        let tokens = self.inputs.iter().flat_map(|input| &input.tokens);
        tokens.copied().collect()
    }

    /// For every token 0, or 1 in the second text of a pair.
    pub(crate) fn segments(&self) -> Vec<u32> {
        let of = |input: &EncoderInput| {
            let second = input.second_segment.map_or(usize::MAX, |at| at as usize);
            let length = input.tokens.len();
            (0..length).map(move |at| u32::from(at >= second))
        };
        self.inputs.iter().flat_map(|input| of(input)).collect()
    }

    /// For every token its place in its text.
    pub(crate) fn places(&self) -> Vec<u32> {
        let lengths = self.inputs.iter().map(|input| input.tokens.len() as u32);
        lengths.flat_map(|length| 0..length).collect()
    }
}

/// Cuts texts whose lengths descend into batches for so many threads, and those into groups that are computed at a
/// time. A batch is never empty, and longer than its bound only if it is a single text.
pub(crate) fn batches(lengths: &[usize], threads: usize) -> Vec<Vec<Range<usize>>> {
    let total: usize = lengths.iter().sum();
    let share = total.div_ceil(threads.max(1));
    let batch_max = share.clamp(TOKENS_MIN, TOKENS_MAX);
    let (mut groups, mut group, mut group_tokens) = (Vec::new(), Vec::new(), 0);
    let mut start = 0;
    while start < lengths.len() {
        let (mut end, mut tokens) = (start + 1, lengths[start]);
        while end < lengths.len() && tokens + lengths[end] <= batch_max {
            tokens += lengths[end];
            end += 1;
        }
        if !group.is_empty() && group_tokens + tokens > TOKENS_AT_A_TIME {
            groups.push(std::mem::take(&mut group));
            group_tokens = 0;
        }
        group.push(start..end);
        group_tokens += tokens;
        start = end;
    }
    groups.extend((!group.is_empty()).then_some(group));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_one_length_are_a_run() {
        let inputs: Vec<EncoderInput> = [3, 2, 2, 1]
            .map(|length| EncoderInput {
                tokens: vec![length; length as usize],
                second_segment: (length == 3).then_some(2),
            })
            .to_vec();
        let batch = Batch::new(inputs.iter().collect());
        let runs: Vec<_> = batch
            .runs
            .iter()
            .map(|run| (run.start, run.texts, run.length))
            .collect();
        assert_eq!(runs, [(0, 1, 3), (3, 2, 2), (7, 1, 1)]);
        assert_eq!(batch.tokens(), [3, 3, 3, 2, 2, 2, 2, 1]);
        assert_eq!(batch.segments(), [0, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(batch.places(), [0, 1, 2, 0, 1, 0, 1, 0]);
    }

    #[test]
    fn batches_are_bounded_and_leave_nothing_out() {
        assert!(batches(&[], 2).is_empty());
        for threads in [1, 2, 64] {
            let lengths: Vec<usize> = (1..=2048).rev().map(|length| length * 5).collect();
            let groups = batches(&lengths, threads);
            let mut next = 0;
            for group in &groups {
                let mut together = 0;
                for batch in group {
                    assert_eq!(batch.start, next);
                    let tokens: usize = lengths[batch.clone()].iter().sum();
                    assert!(batch.len() == 1 || tokens <= TOKENS_MAX);
                    together += tokens;
                    next = batch.end;
                }
                assert!(group.len() == 1 || together <= TOKENS_AT_A_TIME);
            }
            assert_eq!(next, lengths.len());
        }
        let few = batches(&[100, 100, 100, 100, 100, 100], 2);
        assert_eq!(few, [[0..3, 3..6]]);
    }
}
