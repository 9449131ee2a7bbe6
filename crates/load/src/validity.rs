//! Whether a run says what it seems to say.

use crate::record::Record;
use crate::summary::Summary;

/// A generator that sends the slowest hundredth of its requests later than this, and later than this share of the usual time
/// to first token, has measured itself.
const LAG_MAX_S: f64 = 0.010;
const LAG_OF_TTFT_MAX: f64 = 0.1;
const LAG_PERCENT: f64 = 99.0;
/// Content that comes so much later than the first event is worth a word.
const EMPTY_BEFORE: f64 = 1.2;

/// What makes a run invalid, and what is to be known about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flaws {
    /// The numbers are not to be used.
    pub invalid: Vec<String>,
    /// The numbers are not quite what one may think.
    pub notes: Vec<String>,
}

/// Looks a run over.
pub fn flaws(records: &[Record], summary: &Summary) -> Flaws {
    let mut flaws = Flaws::default();
    if summary.completed == 0 {
        flaws.invalid.push("no request was answered".to_owned());
    }
    let mut lags: Vec<f64> = records
        .iter()
        .filter(|record| !record.queued)
        .map(Record::delay_s)
        .collect();
    lags.sort_by(f64::total_cmp);
    let lag = crate::statistics::percentile(&lags, LAG_PERCENT);
    let usual = summary.ttft_s.as_ref().map_or(0.0, |ttft| ttft.median);
    if lag > LAG_MAX_S && lag > LAG_OF_TTFT_MAX * usual {
        flaws.invalid.push(format!(
            "this program sent its requests too late ({:.0} ms at the 99th percentile): it needs more processor time than it \
             had",
            lag * 1e3
        ));
    }
    if summary.counted_by_pieces > 0 {
        flaws.notes.push(format!(
            "the server counted no tokens for {} answers; their pieces were counted instead, and a piece can hold several",
            summary.counted_by_pieces
        ));
    }
    let whole = records.iter().filter(|record| {
        record.is_answered() && record.events_us.len() == 1 && record.output_tokens > 2
    });
    let whole = whole.count() as u64;
    if whole > 0 && whole == summary.completed {
        flaws.notes.push(
            "the answers came in one piece each: time to first token is time to the end".to_owned(),
        );
    }
    let medians = summary.ttft_s.as_ref().zip(summary.ttfc_s.as_ref());
    if let Some((first, content)) =
        medians.filter(|(first, content)| content.median > EMPTY_BEFORE * first.median)
    {
        flaws.notes.push(format!(
            "the server sends an event without content before its first token: time to first token, as vLLM's benchmark defines \
             it, is the time to that ({:.1} ms in the median), and the first content came after {:.1} ms; --token-events content \
             goes by that",
            first.median * 1e3,
            content.median * 1e3
        ));
    }
    if summary.short_answers > 0 {
        flaws.notes.push(format!(
            "{} of {} answers were shorter than asked for; --ignore-eos makes servers that know it go on",
            summary.short_answers, summary.completed
        ));
    }
    if summary.cached_tokens > 0 {
        flaws.notes.push(format!(
            "{} of {} tokens of prompts came from a prefix cache (all chats begin with their template's text)",
            summary.cached_tokens, summary.total_input_tokens
        ));
    }
    flaws
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::{Settings, summarise};

    fn judged(records: &[Record]) -> Flaws {
        let settings = Settings {
            objectives: crate::Objectives::default(),
            percents: vec![],
        };
        flaws(records, &summarise(records, 1.0, &settings))
    }

    fn sent_late(delay_s: f64) -> Record {
        Record {
            sent_s: delay_s,
            events_us: vec![20_000, 40_000],
            output_tokens: 2,
            prompt_tokens: Some(1),
            ..Record::default()
        }
    }

    #[test]
    fn a_generator_that_lags_makes_its_run_invalid() {
        assert_eq!(judged(&[sent_late(0.001)]), Flaws::default());
        assert_eq!(judged(&[sent_late(0.05)]).invalid.len(), 1);
        let waited = Record {
            queued: true,
            ..sent_late(0.05)
        };
        assert!(judged(&[waited, sent_late(0.0)]).invalid.is_empty());
    }

    #[test]
    fn nothing_but_errors_is_no_measurement() {
        let failed = Record {
            error: Some("connection".into()),
            ..Record::default()
        };
        assert_eq!(judged(&[failed]).invalid, ["no request was answered"]);
    }
}
