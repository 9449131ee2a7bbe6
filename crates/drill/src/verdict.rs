//! Whether a failure was survived.

use serde::Serialize;

use crate::faults::{Act, Class, Expected, Fault};
use crate::judgement::Source;
use crate::load::{Phase, Record};
use crate::rehearsal::Rehearsal;
use crate::statistics::Summary;

/// What begins the reason why a request is lost that nothing ended but its client's patience (`transcript::ask`).
pub(crate) const ENDLESS: &str = "no end within";
/// What is said of a part of the primary's answer that looks like an answer (`judgement::judge`).
pub(crate) const PASSED_OFF: &str = "a part of the primary's answer passes for all of it";
/// A primary that comes back later than this is worth a word.
const RECOVERY_SLOW_S: f64 = 10.0;
/// A fallback that is later than this makes users wait.
const WAIT_FELT_S: f64 = 1.0;

/// What is to be thought of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Passed,
    Failed,
    /// It could not be tried; the reasons say why.
    #[serde(rename = "not rehearsed")]
    NotRehearsed,
}

impl Verdict {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::NotRehearsed => "not rehearsed",
        }
    }
}

/// What was noticed, for which there is advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// Requests ended in an error.
    Lost,
    /// Requests did not end.
    Endless(Form),
    /// A part of an answer passed for all of it.
    PassedOff,
    /// The first token of streams was late.
    Late,
    /// Answers were not from the fallback.
    Elsewhere,
    /// Answers had no mark.
    Unmarked,
    /// Answers began anew behind a part of the primary's.
    Restarted,
    /// Answers had something twice, or of another request.
    Mixed,
    /// The primary was asked again while the client waited.
    AskedAgain,
    /// Clients waited for a primary of which the gateway knew that it is silent.
    EveryoneWaits,
    /// The primary was not asked again for long.
    SlowToReturn,
}

/// How an answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Stream,
    Whole,
}

/// One failure, and what the gateway made of it.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) expected: &'static str,
    pub(crate) verdict: Verdict,
    /// Why it did not pass.
    pub(crate) reasons: Vec<String>,
    pub(crate) before: Summary,
    pub(crate) during: Summary,
    pub(crate) after: Summary,
    #[serde(flatten)]
    pub(crate) rehearsal: Rehearsal,
    #[serde(skip)]
    pub(crate) class: Class,
    #[serde(skip)]
    pub(crate) findings: Vec<Finding>,
}

impl Outcome {
    /// `first_token_limit_s` is what a client may wait for the first token of a stream.
    pub(crate) fn of(
        fault: &'static Fault,
        rehearsal: Rehearsal,
        first_token_limit_s: f64,
    ) -> Self {
        let summary = |phase| Summary::of(&rehearsal.records, phase);
        let (before, during, after) = (
            summary(Phase::Before),
            summary(Phase::During),
            summary(Phase::After),
        );
        let mut outcome = Self {
            name: fault.name,
            what: fault.what,
            expected: fault.expected.text(),
            verdict: Verdict::Passed,
            reasons: Vec::new(),
            before,
            during,
            after,
            rehearsal,
            class: fault.class,
            findings: Vec::new(),
        };
        outcome.check_losses();
        outcome.check_flaws();
        outcome.check_sources(fault.expected);
        outcome.check_waits(first_token_limit_s);
        if !outcome.reasons.is_empty() {
            outcome.verdict = Verdict::Failed;
        }
        if let Some(reason) = outcome.reason_not_to_count(fault) {
            outcome.verdict = Verdict::NotRehearsed;
            outcome.reasons = vec![reason.to_owned()];
            outcome.findings.clear();
        }
        outcome
    }

    fn records(&self, phase: Phase) -> impl Iterator<Item = &Record> {
        self.rehearsal
            .records
            .iter()
            .filter(move |record| record.phase == phase)
    }

    /// Why what happened says nothing about the failure.
    fn reason_not_to_count(&self, fault: &Fault) -> Option<&'static str> {
        if self.during.requests == 0 {
            return Some("no request was sent: --during is too short for --rate");
        }
        if self.before.from_primary == 0 {
            return Some(
                "the primary answered nothing before the failure, so the gateway may not have asked it",
            );
        }
        let was_well = self.during.from_primary == self.during.requests;
        (fault.act == Act::Distrust && was_well).then_some(
            "the gateway calls its primary without TLS; --gateway-config rehearses this with TLS",
        )
    }

    fn check_losses(&mut self) {
        let phases = [
            (
                Phase::Before,
                "while the primary was well",
                self.before.requests,
            ),
            (Phase::During, "during the failure", self.during.requests),
            (Phase::After, "after the failure", self.after.requests),
        ];
        for (phase, when, requests) in phases {
            let lost: Vec<&str> = self
                .records(phase)
                .filter_map(|record| record.lost.as_deref())
                .collect();
            if let Some(first) = lost.first() {
                let reason = format!(
                    "{} of {requests} requests were lost {when}, the first of them: {first}",
                    lost.len()
                );
                self.reasons.push(reason);
            }
        }
        let mut found = Vec::new();
        for record in self.records(Phase::During) {
            match record.lost.as_deref() {
                Some(lost) if lost.starts_with(ENDLESS) => {
                    found.push(Finding::Endless(form(record)))
                }
                Some(PASSED_OFF) => found.push(Finding::PassedOff),
                Some(_) => found.push(Finding::Lost),
                None => {}
            }
        }
        found.into_iter().for_each(|finding| self.note(finding));
    }

    fn check_flaws(&mut self) {
        let all = [&self.before, &self.during, &self.after];
        let sum = |of: fn(&Summary) -> usize| all.iter().map(|summary| of(summary)).sum::<usize>();
        let counts = [
            (
                sum(|summary| summary.twice),
                "had something twice",
                Finding::Mixed,
            ),
            (
                sum(|summary| summary.foreign),
                "had a part of another request's answer",
                Finding::Mixed,
            ),
            (
                sum(|summary| summary.restarted),
                "began anew behind a part of the primary's answer",
                Finding::Restarted,
            ),
        ];
        for (count, what, finding) in counts {
            if count > 0 {
                self.reasons.push(format!("{count} answers {what}"));
                self.note(finding);
            }
        }
    }

    fn check_sources(&mut self, expected: Expected) {
        let during = &self.during;
        let unmarked = during.from_unknown;
        let elsewhere = match expected {
            Expected::Answer => return,
            Expected::Fallback => during.from_primary + during.continued + during.refused,
            Expected::Continued => during.from_primary + during.refused,
            Expected::FallbackOrRefusal => during.from_primary + during.continued,
        };
        if elsewhere > 0 {
            self.reasons.push(format!(
                "{elsewhere} answers during the failure were not from the fallback"
            ));
            self.note(Finding::Elsewhere);
        }
        if unmarked > 0 {
            self.reasons.push(format!(
                "{unmarked} answers during the failure had no mark that says who gave them"
            ));
            self.note(Finding::Unmarked);
        }
    }

    /// Answers in one piece have no first token; their clients wait until they are lost.
    fn check_waits(&mut self, limit_s: f64) {
        let during = || {
            self.records(Phase::During)
                .filter(|record| record.lost.is_none())
        };
        let waits = || {
            during()
                .filter(|record| record.stream && record.source != Source::Continued)
                .map(Record::waited_s)
        };
        let late = waits().filter(|wait_s| *wait_s > limit_s).count();
        let longest_s = waits().fold(0.0, f64::max);
        // Those who asked after the gateway had seen that the primary is silent.
        let is_fallbacks = |record: &&Record| record.source == Source::Fallback;
        let seen_s = during()
            .filter(is_fallbacks)
            .map(|record| record.at_s + record.waited_s())
            .reduce(f64::min);
        let later = during().filter(|record| seen_s.is_some_and(|seen_s| record.at_s > seen_s));
        let still_waits = later
            .map(Record::waited_s)
            .any(|wait_s| wait_s > WAIT_FELT_S);
        if late > 0 {
            self.reasons.push(format!(
                "{late} streams had their first token later than {limit_s} s, at most after {longest_s:.1} s"
            ));
            self.note(Finding::Late);
        }
        if still_waits && self.class == Class::Hanging {
            self.note(Finding::EveryoneWaits);
        }
        let attempts = self
            .records(Phase::During)
            .map(|record| record.attempts)
            .max();
        let slowest_s = self
            .during
            .fallback_first_token_s
            .map_or(f64::INFINITY, |waits| waits.max);
        if attempts.is_some_and(|attempts| attempts > 1) && slowest_s > WAIT_FELT_S {
            self.note(Finding::AskedAgain);
        }
        let is_back = self
            .rehearsal
            .recovery_s
            .is_some_and(|seconds| seconds <= RECOVERY_SLOW_S);
        if !is_back {
            self.note(Finding::SlowToReturn);
        }
    }

    fn note(&mut self, finding: Finding) {
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

fn form(record: &Record) -> Form {
    if record.stream {
        Form::Stream
    } else {
        Form::Whole
    }
}

/// Of a whole drill: failed if one failure did, and not rehearsed if nothing passed.
pub(crate) fn overall(outcomes: &[Outcome]) -> Verdict {
    let any = |verdict| outcomes.iter().any(|outcome| outcome.verdict == verdict);
    if any(Verdict::Failed) {
        Verdict::Failed
    } else if any(Verdict::Passed) {
        Verdict::Passed
    } else {
        Verdict::NotRehearsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(phase: Phase, source: Source, waited_s: f64) -> Record {
        Record {
            at_s: 0.0,
            phase,
            stream: true,
            source,
            lost: None,
            flaws: Vec::new(),
            first_token_s: Some(waited_s),
            total_s: waited_s,
            attempts: 1,
        }
    }

    fn outcome(fault: &str, during: Vec<Record>) -> Outcome {
        let mut records = vec![record(Phase::Before, Source::Primary, 0.1)];
        records.extend(during);
        let rehearsal = Rehearsal {
            fails_from_s: 1.0,
            fails_to_s: 2.0,
            recovery_s: Some(0.0),
            held_back: 0,
            records,
        };
        Outcome::of(Fault::named(fault).unwrap(), rehearsal, 10.0)
    }

    #[test]
    fn a_fallback_that_answers_soon_passes_and_nothing_else_does() {
        let during =
            |source, waited_s| outcome("status-503", vec![record(Phase::During, source, waited_s)]);
        assert_eq!(during(Source::Fallback, 0.5).verdict, Verdict::Passed);
        for (source, finding) in [
            (Source::Primary, Finding::Elsewhere),
            (Source::Continued, Finding::Elsewhere),
            (Source::Unknown, Finding::Unmarked),
        ] {
            let failed = during(source, 0.5);
            assert_eq!(failed.verdict, Verdict::Failed, "{source:?}");
            assert_eq!(failed.findings, [finding]);
        }
        let late = during(Source::Fallback, 11.0);
        assert_eq!(late.verdict, Verdict::Failed);
        assert_eq!(late.findings, [Finding::Late]);
    }

    #[test]
    fn lost_requests_fail_with_the_first_ones_reason() {
        let mut lost = record(Phase::During, Source::None, 0.5);
        lost.lost = Some("503: no".into());
        let failed = outcome(
            "status-503",
            vec![record(Phase::During, Source::Fallback, 0.5), lost.clone()],
        );
        assert_eq!(failed.verdict, Verdict::Failed);
        assert!(failed.reasons[0].contains("1 of 2") && failed.reasons[0].contains("503: no"));
        assert_eq!(failed.findings, [Finding::Lost]);
        lost.lost = Some("no end within 60 s".into());
        let failed = outcome("hang-before-headers", vec![lost]);
        assert_eq!(failed.findings, [Finding::Endless(Form::Stream)]);
    }

    #[test]
    fn a_continued_answer_is_right_where_a_stream_breaks() {
        let during = || vec![record(Phase::During, Source::Continued, 0.1)];
        assert_eq!(outcome("cut-in-text", during()).verdict, Verdict::Passed);
        assert_eq!(
            outcome("hang-after-headers", during()).verdict,
            Verdict::Failed
        );
    }

    #[test]
    fn what_was_not_tried_neither_passes_nor_fails() {
        let well = outcome(
            "tls-failure",
            vec![record(Phase::During, Source::Primary, 0.1)],
        );
        assert_eq!(well.verdict, Verdict::NotRehearsed);
        assert!(well.reasons[0].contains("without TLS"));
        let none = outcome("status-503", Vec::new());
        assert_eq!(none.verdict, Verdict::NotRehearsed);
        assert_eq!(overall(&[well, none]), Verdict::NotRehearsed);
    }
}
