//! Calls of tools: whether the model calls when it should, whether what it calls fits the schema, and whether it is the call
//! that was meant. What is right follows from how a case is made, and nobody's opinion is asked.
//!
//! Trigger agreement and schema validity are what the vendors' verifiers measure (K2 Vendor Verifier, MiniMax Provider
//! Verifier), with what a case expects in the place of the vendor's own answer.

mod calls;
mod cases;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use self::calls::{assign, has_markup, invalid};
use self::cases::{CATEGORIES, Case, Choice, TEMPLATES, TOOLS, Turn, generate};
use super::judging::{Marks, is_truncated, judged, unanswered};
use super::matching::{normalised, shortened};
use super::measuring::Measuring;
use super::pools::{VALUES, digest};
use super::{Built, Context, Definition};
use crate::QualifyError;
use crate::record::{Attempt, Measure, Reply};
use crate::suite::{Step, Suite};

/// Of each category, unless the definition says otherwise.
const CASES_PER_CATEGORY: usize = 40;
const CASES_PER_CATEGORY_MAX: usize = 200;
/// It says what judges expect, so that no model has to guess it.
const SYSTEM: &str = "You are an assistant with tools. Call a tool when the user's request needs one, and answer in words \
when it does not. Make all calls that do not depend on one another in the same answer. Take arguments from what the user \
and the tools said. If a value that is required is not known, do not invent it: ask the user for it. Leave out optional \
arguments that the user said nothing about.";

/// `[tasks]` of the definition.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tasks {
    cases_per_category: usize,
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            cases_per_category: CASES_PER_CATEGORY,
        }
    }
}

/// Makes the suite.
pub(crate) fn build(definition: &Definition, context: &Context<'_>) -> Result<Built, QualifyError> {
    let tasks: Tasks = definition.tasks()?;
    if !(1..=CASES_PER_CATEGORY_MAX).contains(&tasks.cases_per_category) {
        return Err(QualifyError::new(format!(
            "[tasks]: cases_per_category is from 1 to {CASES_PER_CATEGORY_MAX}"
        )));
    }
    let seed = context.args.sampling.seed;
    let suite = Tools::new(
        seed,
        tasks.cases_per_category,
        Measuring::new(definition, context),
    )?;
    Ok(Built::Ready(Box::new(suite)))
}

struct Tools {
    names: Vec<String>,
    cases: Vec<Case>,
    measuring: Measuring,
}

impl Tools {
    fn new(seed: u64, per_category: usize, measuring: Measuring) -> Result<Self, QualifyError> {
        let cases = generate(seed, per_category)?;
        Ok(Self {
            names: cases.iter().map(|case| case.name.clone()).collect(),
            cases,
            measuring,
        })
    }
}

impl Suite for Tools {
    fn name(&self) -> &str {
        self.measuring.suite()
    }

    fn tasks(&self) -> &[String] {
        &self.names
    }

    fn settings(&self) -> BTreeMap<String, Value> {
        BTreeMap::from([
            ("cases".into(), self.cases.len().into()),
            ("data_sha256".into(), digest(&[TOOLS, TEMPLATES, VALUES])),
        ])
    }

    fn step(&self, task: usize, _sample: u32, replies: &[Reply]) -> Result<Step, QualifyError> {
        if let Some(step) = unanswered(replies) {
            return Ok(step);
        }
        let case = &self.cases[task];
        let mut counts = Counts::default();
        for (turn, reply) in case.turns.iter().zip(replies) {
            counts.add(case, turn, reply);
            let wrong = wrong(case, turn, reply);
            if wrong.is_some() {
                return Ok(judged(reply, wrong, counts.marks(case)));
            }
        }
        Ok(match replies.get(case.turns.len() - 1) {
            Some(last) => judged(last, None, counts.marks(case)),
            None => Step::Ask(request(case, replies)),
        })
    }

    fn measures(&self, attempts: &[Attempt]) -> Vec<Measure> {
        measures(&self.measuring, attempts)
    }
}

/// What is wrong with an answer, if anything is.
fn wrong(case: &Case, turn: &Turn, reply: &Reply) -> Option<String> {
    if has_markup(&reply.text) {
        return Some("a call's markup is in the text".into());
    }
    if !turn.calls.is_empty() {
        return assign(case, &turn.calls, &reply.tool_calls).err();
    }
    if let Some(call) = reply.tool_calls.first() {
        let name = shortened(&call.name);
        return Some(format!("{name} was called, where words were right"));
    }
    if reply.text.trim().is_empty() {
        return Some("neither words nor a call".into());
    }
    let text = normalised(&reply.text);
    let lacks = |words: &&Vec<String>| !words.iter().any(|word| text.contains(&normalised(word)));
    if let Some(words) = turn.mentions.iter().find(lacks) {
        return Some(format!("it does not mention {}", words[0]));
    }
    let is_question = case.asks_for.is_empty() || asks_for(&reply.text, &case.asks_for);
    (!is_question).then(|| "it does not ask for what is missing".into())
}

/// Whether one sentence asks for one of these things.
fn asks_for(text: &str, things: &[String]) -> bool {
    const ASKING: [&str; 12] = [
        "?",
        "？",
        "could you",
        "i need",
        "i will need",
        "i'll need",
        "tell me",
        "provide",
        "specify",
        "please share",
        "please give",
        "let me know wh",
    ];
    let text = text.to_lowercase();
    let mut sentences = text.split_inclusive(['.', '!', '?', '？', '\n']);
    sentences.any(|sentence| {
        ASKING.iter().any(|asking| sentence.contains(asking))
            && things.iter().any(|thing| sentence.contains(thing.as_str()))
    })
}

/// The conversation up to what comes after these replies, which were right.
fn request(case: &Case, replies: &[Reply]) -> Value {
    let mut messages = vec![json!({"role": "system", "content": SYSTEM})];
    for (index, turn) in case.turns.iter().enumerate() {
        if let Some(say) = &turn.say {
            messages.push(json!({"role": "user", "content": say}));
        }
        let Some(reply) = replies.get(index) else {
            break;
        };
        messages.extend(exchange(case, turn, reply));
    }
    let mut request = json!({"messages": messages, "tools": case.tools});
    let choice = match case.choice {
        Choice::Auto => return request,
        Choice::Required => json!("required"),
        Choice::None => json!("none"),
        Choice::Named => {
            let called = case.turns.iter().flat_map(|turn| &turn.calls).next();
            json!({"type": "function", "function": {"name": called.map(|call| &call.name)}})
        }
    };
    request["tool_choice"] = choice;
    request
}

/// What the model said, and what its tools answered.
fn exchange(case: &Case, turn: &Turn, reply: &Reply) -> Vec<Value> {
    if reply.tool_calls.is_empty() {
        return vec![json!({"role": "assistant", "content": reply.text})];
    }
    let id = |index: usize| match reply.tool_calls[index].id.as_str() {
        "" => format!("call_{index}"),
        id => id.to_owned(),
    };
    let calls: Vec<Value> = reply
        .tool_calls
        .iter()
        .enumerate()
        .map(|(index, call)| {
            json!({"id": id(index), "type": "function",
                "function": {"name": call.name, "arguments": call.arguments}})
        })
        .collect();
    let text = (!reply.text.is_empty()).then_some(&reply.text);
    let said = json!({"role": "assistant", "content": text, "tool_calls": calls});
    let assigned = assign(case, &turn.calls, &reply.tool_calls).unwrap_or_default();
    let answered = assigned.iter().enumerate().map(|(index, expected)| {
        let result = turn.calls[*expected].result.to_string();
        json!({"role": "tool", "tool_call_id": id(index), "content": result})
    });
    std::iter::once(said).chain(answered).collect()
}

/// What is counted of a conversation, answer by answer.
#[derive(Default)]
struct Counts {
    /// Where the model decides: whether it should call, and whether it did.
    decisions: Vec<[bool; 2]>,
    with_calls: u64,
    valid: u64,
    has_markup: bool,
}

impl Counts {
    fn add(&mut self, case: &Case, turn: &Turn, reply: &Reply) {
        let calls = &reply.tool_calls;
        if case.choice == Choice::Auto {
            let triggered = reply.finish_reason.as_deref() == Some("tool_calls");
            self.decisions.push([!turn.calls.is_empty(), triggered]);
        }
        // The arguments of a call that was cut off are no fault of its form.
        if !calls.is_empty() && !is_truncated(reply) {
            self.with_calls += 1;
            self.valid += u64::from(calls.iter().all(|call| invalid(case, call).is_none()));
        }
        self.has_markup |= has_markup(&reply.text);
    }

    fn marks(self, case: &Case) -> Marks {
        let marks = json!({
            "category": case.category,
            "decisions": self.decisions,
            "with_calls": self.with_calls,
            "valid": self.valid,
            "markup": self.has_markup,
        });
        match marks {
            Value::Object(marks) => marks.into_iter().collect(),
            _ => Map::new().into_iter().collect(),
        }
    }
}

/// Of decisions: right calls, calls that should not be, calls that should be, and neither.
#[derive(Clone, Copy, Default)]
struct Confusion {
    true_positive: u64,
    false_positive: u64,
    false_negative: u64,
    true_negative: u64,
}

impl Confusion {
    fn of(attempt: &Attempt) -> Self {
        let mut confusion = Self::default();
        let decisions = attempt.marks.get("decisions").and_then(Value::as_array);
        for decision in decisions.into_iter().flatten() {
            let count = match (decision[0] == true, decision[1] == true) {
                (true, true) => &mut confusion.true_positive,
                (false, true) => &mut confusion.false_positive,
                (true, false) => &mut confusion.false_negative,
                (false, false) => &mut confusion.true_negative,
            };
            *count += 1;
        }
        confusion
    }

    fn right(self) -> u64 {
        self.true_positive + self.true_negative
    }

    fn all(self) -> u64 {
        self.right() + self.false_positive + self.false_negative
    }

    /// The harmonic mean of precision and recall.
    fn f1(several: Vec<Self>) -> Option<f64> {
        let sum = |part: fn(&Self) -> u64| several.iter().map(part).sum::<u64>() as f64;
        let right = 2.0 * sum(|confusion| confusion.true_positive);
        let all = right + sum(|confusion| confusion.false_positive + confusion.false_negative);
        (all > 0.0).then(|| right / all)
    }
}

fn measures(measuring: &Measuring, attempts: &[Attempt]) -> Vec<Measure> {
    let all: Vec<&Attempt> = attempts.iter().collect();
    let number = |attempt: &Attempt, mark| attempt.marks.get(mark).and_then(Value::as_u64);
    let count = |attempt: &Attempt, mark| number(attempt, mark).unwrap_or(0);
    let is_right = |attempt: &Attempt| attempt.score == 1.0;
    let mut measures = vec![
        measuring.rate("accuracy", &all, is_right),
        measuring.ratio("trigger_precision", &all, |attempt| {
            let of = Confusion::of(attempt);
            (of.true_positive, of.true_positive + of.false_positive)
        }),
        measuring.ratio("trigger_recall", &all, |attempt| {
            let of = Confusion::of(attempt);
            (of.true_positive, of.true_positive + of.false_negative)
        }),
        measuring.statistic("trigger_f1", &all, Confusion::of, Confusion::f1),
        measuring.ratio("trigger_agreement", &all, |attempt| {
            let of = Confusion::of(attempt);
            (of.right(), of.all())
        }),
        measuring.ratio("schema_validity", &all, |attempt| {
            (count(attempt, "valid"), count(attempt, "with_calls"))
        }),
        measuring.rate("markup_in_text", &all, |attempt| {
            attempt.marks.get("markup") == Some(&Value::Bool(true))
        }),
    ];
    for category in CATEGORIES {
        let of_category: Vec<&Attempt> = all
            .iter()
            .copied()
            .filter(|attempt| attempt.task.starts_with(&format!("{category}/")))
            .collect();
        measures.push(measuring.rate(&format!("accuracy_{category}"), &of_category, is_right));
    }
    measures.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
