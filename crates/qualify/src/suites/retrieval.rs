//! Retrieval at growing length: needles in texts up to the context that is served, of the kinds that RULER has.
//!
//! A task asks three times: two short chats teach how many tokens texts are for this server, and the third is of the length
//! that it should be.

mod haystack;
mod size;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use self::haystack::{DEPTHS, KINDS, Kind, Needles, WORDS, Words};
use self::size::Size;
use super::judging::{Marks, judged_in_part, unanswered};
use super::measuring::Measuring;
use super::pools::digest;
use super::{Built, Context, Definition};
use crate::QualifyError;
use crate::random::{Random, seed_of};
use crate::record::{Attempt, Measure, Reply};
use crate::suite::{Step, Suite};

/// A length counts as mastered from here on, as RULER has it (it takes 85.6 %).
const MASTERED: f64 = 0.85;
/// Of a length; sizes of texts are estimated.
const MARGIN: f64 = 0.03;
/// Less than that holds no text that is worth searching.
const LENGTH_MIN: u64 = 512;
const LENGTH_MAX: u64 = 16 << 20;
const CASES_PER_KIND_MAX: usize = 100;
const ANSWER_TOKENS: u32 = 128;
/// Of the longer of the two chats that teach sizes.
const PROBE_CHARACTERS_MAX: u64 = 8000;

/// `[tasks]` of the definition.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tasks {
    length_min: u64,
    cases_per_kind: usize,
}

struct Case {
    length: u64,
    kind: Kind,
    number: usize,
    seed: u64,
}

struct Retrieval {
    names: Vec<String>,
    cases: Vec<Case>,
    lengths: Vec<u64>,
    answer_tokens: u32,
    words: Words,
    measuring: Measuring,
}

/// Makes the suite.
pub(crate) fn build(definition: &Definition, context: &Context<'_>) -> Result<Built, QualifyError> {
    let tasks: Tasks = definition.tasks()?;
    if !(1..=CASES_PER_KIND_MAX).contains(&tasks.cases_per_kind)
        || !(LENGTH_MIN..=LENGTH_MAX).contains(&tasks.length_min)
    {
        return Err(QualifyError::new(format!(
            "[tasks]: cases_per_kind is from 1 to {CASES_PER_KIND_MAX}, length_min from {LENGTH_MIN} to {LENGTH_MAX}"
        )));
    }
    let entry = context.subject.entry.as_ref();
    let served = entry.and_then(|entry| entry["max_model_len"].as_u64());
    let Some(longest) = context.args.context.map(u64::from).or(served) else {
        let what = "the server does not say how long its context is (max_model_len of /v1/models): tell it by --context";
        return Ok(Built::Lacking(what.into()));
    };
    let answer_tokens = context.sampling.max_tokens.unwrap_or(ANSWER_TOKENS);
    let reserve = LENGTH_MIN / 2 + u64::from(answer_tokens);
    if longest < LENGTH_MIN.max(reserve) || longest > LENGTH_MAX {
        return Ok(Built::Lacking(format!(
            "a context of {longest} tokens is too short for a text and an answer of {answer_tokens} tokens, or longer than \
             {LENGTH_MAX}"
        )));
    }
    let lengths = lengths(tasks.length_min.max(reserve), longest);
    let measuring = Measuring::new(definition, context);
    let seed = context.args.sampling.seed;
    let suite = Retrieval::new(seed, &lengths, tasks.cases_per_kind, measuring)?;
    Ok(Built::Ready(Box::new(Retrieval {
        answer_tokens,
        ..suite
    })))
}

/// Doubling, up to the whole.
fn lengths(shortest: u64, longest: u64) -> Vec<u64> {
    let doubled = std::iter::successors(Some(shortest), |length| length.checked_mul(2));
    let mut lengths: Vec<u64> = doubled.take_while(|length| *length < longest).collect();
    lengths.push(longest);
    lengths
}

impl Retrieval {
    fn new(
        seed: u64,
        lengths: &[u64],
        cases_per_kind: usize,
        measuring: Measuring,
    ) -> Result<Self, QualifyError> {
        let (mut names, mut cases) = (Vec::new(), Vec::new());
        // Lengths take turns, so that any first part of the list has all of them.
        for number in 0..cases_per_kind {
            for &length in lengths {
                for (kind, kind_name) in KINDS {
                    let name = format!("{length}/{kind_name}/{number:02}");
                    let seed = seed_of(seed, &["retrieval", &name]);
                    names.push(name);
                    cases.push(Case {
                        length,
                        kind,
                        number,
                        seed,
                    });
                }
            }
        }
        Ok(Self {
            names,
            cases,
            lengths: lengths.to_vec(),
            answer_tokens: ANSWER_TOKENS,
            words: Words::load()?,
            measuring,
        })
    }

    fn needles(&self, case: &Case, random: &mut Random) -> Needles {
        self.words
            .needles(case.kind, case.number, case.length, random)
    }

    fn probe(&self, case: &Case, index: usize) -> Value {
        // About a quarter of the length, at four characters a token.
        let longer = case.length.min(PROBE_CHARACTERS_MAX) as usize;
        self.words.probe(if index == 0 { 0 } else { longer })
    }

    fn size(&self, case: &Case, replies: &[Reply]) -> Size {
        let of = |index: usize| {
            let content = &self.probe(case, index)["messages"][0]["content"];
            let characters = content.as_str().unwrap_or_default().chars().count();
            (characters, &replies[index])
        };
        Size::learned(of(0), of(1))
    }

    fn search(&self, case: &Case, replies: &[Reply]) -> Value {
        let mut random = Random::new(case.seed);
        let needles = self.needles(case, &mut random);
        let size = self.size(case, replies);
        let room = case.length as f64 - f64::from(self.answer_tokens) - size.overhead;
        let tokens = room - MARGIN * case.length as f64;
        let mut request = self.words.request(&needles, tokens, &size, &mut random);
        request["max_tokens"] = json!(self.answer_tokens);
        request
    }

    fn judge(&self, case: &Case, replies: &[Reply], reply: &Reply) -> Step {
        let needles = self.needles(case, &mut Random::new(case.seed));
        let said = tokens_of(&reply.text);
        let is_said = |each: &&String| said.contains(each);
        let found = needles.wanted.iter().filter(is_said).count();
        let foreign = needles.foreign.iter().find(is_said);
        let wrong = match foreign {
            Some(foreign) => Some(format!("{foreign} was not asked for")),
            None if found < needles.wanted.len() => {
                Some(format!("{found} of {} found", needles.wanted.len()))
            }
            None => None,
        };
        let score = match foreign {
            Some(_) => 0.0,
            None => found as f64 / needles.wanted.len() as f64,
        };
        let mut marks = Marks::from([
            ("found".to_owned(), json!(found)),
            ("foreign".to_owned(), json!(foreign.is_some())),
            (
                "calibrated".to_owned(),
                json!(self.size(case, replies).is_measured),
            ),
        ]);
        if let Some(usage) = reply.usage {
            marks.insert("prompt_tokens".into(), usage.prompt_tokens.into());
        }
        judged_in_part(reply, score, wrong, marks)
    }
}

/// Numbers and names in an answer; a number's digits may be in groups.
fn tokens_of(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let is_digit = |at: usize| characters.get(at).is_some_and(char::is_ascii_digit);
    let mut joined = String::new();
    for (at, character) in characters.iter().enumerate() {
        let is_group = ",_'".contains(*character)
            && at > 0
            && is_digit(at - 1)
            && (1..=3).all(|ahead| is_digit(at + ahead))
            && !is_digit(at + 4);
        if !is_group {
            joined.push(*character);
        }
    }
    let is_edge = |character: char| !character.is_ascii_alphanumeric();
    joined
        .split(is_edge)
        .filter(|token| !token.is_empty())
        .map(str::to_owned)
        .collect()
}

impl Suite for Retrieval {
    fn name(&self) -> &str {
        self.measuring.suite()
    }

    fn tasks(&self) -> &[String] {
        &self.names
    }

    fn settings(&self) -> BTreeMap<String, Value> {
        BTreeMap::from([
            ("lengths".into(), json!(self.lengths)),
            ("cases".into(), self.cases.len().into()),
            ("data_sha256".into(), digest(&[WORDS])),
        ])
    }

    fn step(&self, task: usize, _sample: u32, replies: &[Reply]) -> Result<Step, QualifyError> {
        if let Some(step) = unanswered(replies) {
            return Ok(step);
        }
        let case = &self.cases[task];
        Ok(match replies {
            [] | [_] => Step::Ask(self.probe(case, replies.len())),
            [_, _] => Step::Ask(self.search(case, replies)),
            [_, _, reply, ..] => self.judge(case, replies, reply),
        })
    }

    fn measures(&self, attempts: &[Attempt]) -> Vec<Measure> {
        let is_right = |attempt: &Attempt| attempt.score == 1.0;
        let mut measures = Vec::new();
        let mut mastered = Vec::new();
        for &length in &self.lengths {
            let of_length = with_prefix(attempts, &format!("{length}/"));
            let mut measuring = self.measuring.with("length_tokens", length);
            if let Some(mean) = prompt_tokens_mean(&of_length) {
                measuring = measuring.with("prompt_tokens_mean", mean);
            }
            let accuracy = measuring.rate(&format!("accuracy@{length}"), &of_length, is_right);
            let rate = accuracy.as_ref().map_or(0.0, |accuracy| accuracy.value);
            mastered.push(rate >= MASTERED);
            measures.extend(accuracy);
            for (_, kind) in KINDS {
                let of_kind = with_prefix(attempts, &format!("{length}/{kind}/"));
                measures.extend(measuring.rate(&format!("{kind}@{length}"), &of_kind, is_right));
            }
        }
        for percent in [0, 25, 50, 75, 100] {
            let at: Vec<&Attempt> = attempts
                .iter()
                .filter(|attempt| depth_percent(&attempt.task) == Some(percent))
                .collect();
            let measuring = self.measuring.with("depth_percent", percent);
            measures.extend(measuring.rate(&format!("depth_{percent}"), &at, is_right));
        }
        if !attempts.is_empty() {
            let lengths = self.lengths.iter().zip(mastered);
            let longest = lengths.take_while(|(_, is_so)| *is_so).last();
            let longest = longest.map_or(0, |(length, _)| *length);
            let measuring = self.measuring.with("threshold", MASTERED);
            let count = attempts.len() as u64;
            measures.push(measuring.value("effective_context_tokens", longest as f64, count));
        }
        measures
    }
}

fn with_prefix<'a>(attempts: &'a [Attempt], prefix: &str) -> Vec<&'a Attempt> {
    let is_of = |attempt: &&Attempt| attempt.task.starts_with(prefix);
    attempts.iter().filter(is_of).collect()
}

fn prompt_tokens_mean(attempts: &[&Attempt]) -> Option<u64> {
    let mark = |attempt: &&Attempt| attempt.marks.get("prompt_tokens")?.as_u64();
    let tokens: Vec<u64> = attempts.iter().filter_map(mark).collect();
    tokens.iter().sum::<u64>().checked_div(tokens.len() as u64)
}

/// Where a task's needle stands, if it has but one.
fn depth_percent(task: &str) -> Option<usize> {
    let mut parts = task.split('/').skip(1);
    let is_one = ["single", "multi_key"].contains(&parts.next()?);
    let number: usize = parts.next()?.parse().ok()?;
    is_one.then_some(number % DEPTHS * 100 / (DEPTHS - 1))
}

#[cfg(test)]
mod tests;
