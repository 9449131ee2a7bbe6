//! What is the same in every suite's judgements.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::record::{Outcome, Reply};
use crate::suite::{Judgement, Step};

/// Marks of an attempt.
pub(crate) type Marks = BTreeMap<String, Value>;

/// Right, or wrong for a reason.
pub(crate) fn judged(reply: &Reply, wrong: Option<String>, marks: Marks) -> Step {
    let score = f64::from(u8::from(wrong.is_none()));
    judged_in_part(reply, score, wrong, marks)
}

/// Right in part: it has passed if nothing is wrong.
pub(crate) fn judged_in_part(
    reply: &Reply,
    score: f64,
    wrong: Option<String>,
    marks: Marks,
) -> Step {
    let outcome = match wrong {
        None => Outcome::Passed,
        Some(_) if has_refused(reply) => Outcome::Refused,
        Some(_) if is_truncated(reply) => Outcome::Truncated,
        Some(_) => Outcome::Failed,
    };
    Step::Judged(Judgement {
        outcome,
        score,
        reason: wrong,
        marks,
    })
}

/// An answer that never came, or broke off, is not judged.
pub(crate) fn unanswered(replies: &[Reply]) -> Option<Step> {
    let failure = replies.iter().find_map(|reply| reply.failure.as_ref())?;
    Some(Step::Judged(Judgement {
        outcome: Outcome::NoAnswer,
        score: 0.0,
        reason: Some(failure.message.clone()),
        marks: Marks::new(),
    }))
}

/// Whether the server itself says that the model declined.
pub(crate) fn has_refused(reply: &Reply) -> bool {
    let says_so = reply
        .refusal
        .as_ref()
        .is_some_and(|text| !text.trim().is_empty());
    says_so || reply.finish_reason.as_deref() == Some("content_filter")
}

/// Whether the answer ended at its longest length.
pub(crate) fn is_truncated(reply: &Reply) -> bool {
    reply.finish_reason.as_deref() == Some("length")
}
