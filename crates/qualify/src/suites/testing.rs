//! What tests of all suites need: answers, and attempts as the runner makes them.

use std::collections::BTreeMap;

use backstop_client::ToolCall;
use clap::Parser;
use serde_json::Value;

use super::{Context, Definition, Sampling};
use crate::args::CommandLine;
use crate::record::{Attempt, Measure, Outcome, Reply, Subject};
use crate::suite::{Step, Suite};
use crate::suites::measuring::Measuring;

/// Calls for what a suite is built with.
pub(crate) fn with_context<T>(
    file: &str,
    use_it: impl FnOnce(&Definition, &Context<'_>) -> T,
) -> T {
    let definition = Definition::parse(file).unwrap();
    let line = "backstop-qualify --suite tools --url http://s --model m --into d";
    let line = CommandLine::try_parse_from(line.split(' ')).unwrap();
    let context = Context {
        args: &line.suites,
        subject: &Subject::default(),
        sampling: &Sampling::default(),
    };
    use_it(&definition, &context)
}

pub(crate) fn measuring(file: &str) -> Measuring {
    with_context(file, Measuring::new)
}

/// A whole answer in words.
pub(crate) fn said(text: impl Into<String>) -> Reply {
    Reply {
        text: text.into(),
        finish_reason: Some("stop".into()),
        ..Reply::default()
    }
}

/// A whole answer that calls.
pub(crate) fn called(calls: impl IntoIterator<Item = (String, Value)>) -> Reply {
    let calls = calls.into_iter().enumerate();
    Reply {
        tool_calls: calls
            .map(|(index, (name, arguments))| ToolCall {
                id: format!("id-{index}"),
                name,
                arguments: arguments.to_string(),
            })
            .collect(),
        finish_reason: Some("tool_calls".into()),
        ..Reply::default()
    }
}

/// Goes through a task as the runner does, with somebody's answers to the requests.
pub(crate) fn attempt(
    suite: &dyn Suite,
    task: usize,
    answer: &mut dyn FnMut(&Value, &[Reply]) -> Reply,
) -> Attempt {
    let mut replies = Vec::new();
    let mut request = Value::Null;
    for _ in 0..10 {
        match suite.step(task, 0, &replies).unwrap() {
            Step::Ask(next) => {
                assert!(next["messages"].is_array(), "{next}");
                replies.push(answer(&next, &replies));
                request = next;
            }
            Step::Judged(judgement) => {
                return Attempt {
                    task: suite.tasks()[task].clone(),
                    sample: 0,
                    outcome: judgement.outcome,
                    score: judgement.score,
                    reason: judgement.reason,
                    marks: judgement.marks,
                    request,
                    replies,
                    retries: 0,
                };
            }
        }
    }
    panic!("{} never ends", suite.tasks()[task]);
}

/// All of a suite's tasks.
pub(crate) fn attempts(
    suite: &dyn Suite,
    mut answer: impl FnMut(usize, &Value, &[Reply]) -> Reply,
) -> Vec<Attempt> {
    (0..suite.tasks().len())
        .map(|task| {
            attempt(suite, task, &mut |request: &Value, replies: &[Reply]| {
                answer(task, request, replies)
            })
        })
        .collect()
}

/// Values by metric.
pub(crate) fn values(measures: &[Measure]) -> BTreeMap<String, f64> {
    let values = measures.iter().map(|measure| {
        if let Some(interval) = &measure.interval {
            let range = interval.low - 1e-9..=interval.high + 1e-9;
            assert!(range.contains(&measure.value), "{measure:?}");
        }
        (measure.metric.clone(), measure.value)
    });
    values.collect()
}

/// All of them have passed.
pub(crate) fn assert_perfect(attempts: &[Attempt]) {
    for attempt in attempts {
        let (task, reason) = (&attempt.task, &attempt.reason);
        assert_eq!(attempt.outcome, Outcome::Passed, "{task}: {reason:?}");
        assert_eq!(attempt.score, 1.0, "{task}");
    }
}
