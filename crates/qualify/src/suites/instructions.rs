//! Instruction conformance in IFEval's manner: prompts with one to three instructions that a program can check.
//!
//! Strict and loose accuracy, by prompt and by instruction, are IFEval's. The prompts and most instructions are ours.

mod rules;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::Deserialize;
use serde_json::{Value, json};

use self::rules::Rule;
use super::judging::{Marks, judged_in_part, unanswered};
use super::measuring::Measuring;
use super::pools::{digest, read_json};
use super::{Built, Context, Definition};
use crate::QualifyError;
use crate::random::{Random, seed_of};
use crate::record::{Attempt, Measure, Reply};
use crate::suite::{Step, Suite};

const PROMPTS: &str = include_str!("../../suites/instructions/prompts.json");
const PROMPTS_DEFAULT: usize = 200;
const PROMPTS_MAX: usize = 2000;
const RULES_MAX: usize = 3;
const KINDS: usize = 26;
/// To find a prompt that is not there yet, or an instruction that goes with those there are.
const DRAWS_MAX: usize = 1000;

/// `[tasks]` of the definition.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tasks {
    prompts: usize,
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            prompts: PROMPTS_DEFAULT,
        }
    }
}

/// What prompts are made of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    topics: Vec<String>,
    words: Vec<String>,
    forbidden: Vec<String>,
    letters: Vec<char>,
    openings: Vec<String>,
    endings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Prompt {
    text: String,
    rules: Vec<Rule>,
}

struct Instructions {
    names: Vec<String>,
    prompts: Vec<Prompt>,
    measuring: Measuring,
}

/// Makes the suite.
pub(crate) fn build(definition: &Definition, context: &Context<'_>) -> Result<Built, QualifyError> {
    let tasks: Tasks = definition.tasks()?;
    if !(1..=PROMPTS_MAX).contains(&tasks.prompts) {
        return Err(QualifyError::new(format!(
            "[tasks]: prompts is from 1 to {PROMPTS_MAX}"
        )));
    }
    let seed = context.args.sampling.seed;
    let suite = Instructions::new(seed, tasks.prompts, Measuring::new(definition, context))?;
    Ok(Built::Ready(Box::new(suite)))
}

impl Instructions {
    fn new(seed: u64, prompts: usize, measuring: Measuring) -> Result<Self, QualifyError> {
        let parts: Parts = read_json("instructions/prompts.json", PROMPTS)?;
        let mut seen = HashSet::new();
        let mut made = Vec::new();
        let names: Vec<String> = (0..prompts).map(|number| format!("{number:04}")).collect();
        for (number, name) in names.iter().enumerate() {
            let draws = (0..DRAWS_MAX).map(|draw| {
                let seed = seed_of(seed, &["instructions", name, &draw.to_string()]);
                parts.prompt(number, &mut Random::new(seed))
            });
            let new = draws
                .into_iter()
                .find(|prompt| seen.insert(prompt.text.clone()));
            made.push(new.ok_or_else(|| {
                QualifyError::new("there are not so many different prompts: ask for fewer")
            })?);
        }
        Ok(Self {
            names,
            prompts: made,
            measuring,
        })
    }
}

impl Parts {
    /// The number decides on the first instruction, so that all of them come up equally often.
    fn prompt(&self, number: usize, random: &mut Random) -> Prompt {
        let wanted = 1 + number / KINDS % RULES_MAX;
        let mut rules = vec![self.rule(number % KINDS, random)];
        for _ in 0..DRAWS_MAX {
            if rules.len() == wanted {
                break;
            }
            let rule = self.rule(random.below(KINDS), random);
            let taken: Vec<&str> = rules
                .iter()
                .flat_map(|rule| rule.takes())
                .copied()
                .collect();
            if !rule.takes().iter().any(|place| taken.contains(place)) {
                rules.push(rule);
            }
        }
        let put: Vec<String> = rules.iter().map(Rule::put).collect();
        Prompt {
            text: format!("{} {}", random.pick(&self.topics), put.join(" ")),
            rules,
        }
    }

    fn rule(&self, kind: usize, random: &mut Random) -> Rule {
        // Words to use and a word to repeat come from two halves, so that they never meet.
        let (first, second) = self.words.split_at(self.words.len() / 2);
        let few = |from: &[String], number: usize, random: &mut Random| {
            let mut words = from.to_vec();
            random.shuffle(&mut words);
            words.truncate(number);
            words
        };
        match kind {
            0 => Rule::WordsAtLeast(20 * (3 + random.below(8))),
            1 => Rule::WordsAtMost(10 * (6 + random.below(7))),
            2 => Rule::Paragraphs(2 + random.below(3)),
            3 => Rule::Include(few(first, 2 + random.below(2), random)),
            4 => Rule::Forbid(few(&self.forbidden, 2 + random.below(2), random)),
            5 => Rule::Frequency {
                word: random.pick(second).clone(),
                at_least: 2 + random.below(3),
            },
            6 => Rule::Letter {
                letter: *random.pick(&self.letters),
                at_least: 3 + random.below(4),
            },
            7 => Rule::Bullets(2 + random.below(5)),
            8 => Rule::Numbered(3 + random.below(4)),
            9 => Rule::Sections(2 + random.below(3)),
            10 => Rule::TwoAnswers,
            11 => Rule::Json,
            12 => Rule::Title,
            13 => Rule::Highlighted(1 + random.below(3)),
            14 => Rule::Placeholders(1 + random.below(3)),
            15 => Rule::Upper,
            16 => Rule::Lower,
            17 => Rule::CapitalsAtLeast(2 + random.below(4)),
            18 => Rule::CapitalsAtMost(8 + random.below(5)),
            19 => Rule::NoCommas,
            20 => Rule::NoDigits,
            21 => Rule::NoExclamations,
            22 => Rule::Start(random.pick(&self.openings).clone()),
            23 => Rule::End(random.pick(&self.endings).clone()),
            24 => Rule::Quoted,
            _ => Rule::Postscript,
        }
    }
}

impl Suite for Instructions {
    fn name(&self) -> &str {
        self.measuring.suite()
    }

    fn tasks(&self) -> &[String] {
        &self.names
    }

    fn settings(&self) -> BTreeMap<String, Value> {
        BTreeMap::from([
            ("prompts".into(), self.prompts.len().into()),
            ("data_sha256".into(), digest(&[PROMPTS])),
        ])
    }

    fn step(&self, task: usize, _sample: u32, replies: &[Reply]) -> Result<Step, QualifyError> {
        if let Some(step) = unanswered(replies) {
            return Ok(step);
        }
        let prompt = &self.prompts[task];
        Ok(match replies.last() {
            None => Step::Ask(json!({"messages": [{"role": "user", "content": prompt.text}]})),
            Some(reply) => judge(prompt, reply),
        })
    }

    fn measures(&self, attempts: &[Attempt]) -> Vec<Measure> {
        measures(&self.measuring, attempts)
    }
}

fn judge(prompt: &Prompt, reply: &Reply) -> Step {
    let strict: Vec<bool> = prompt
        .rules
        .iter()
        .map(|rule| rule.holds(&reply.text))
        .collect();
    let variants = variants(&reply.text);
    let is_kept = |rule: &Rule| variants.iter().any(|text| rule.holds(text));
    let loose: Vec<bool> = prompt.rules.iter().map(is_kept).collect();
    let broken: Vec<&str> = prompt
        .rules
        .iter()
        .zip(&strict)
        .filter(|(_, kept)| !**kept)
        .map(|(rule, _)| rule.id())
        .collect();
    let kept = strict.iter().filter(|kept| **kept).count();
    let ids: Vec<&str> = prompt.rules.iter().map(Rule::id).collect();
    let wrong = (!broken.is_empty()).then(|| format!("not kept: {}", broken.join(", ")));
    let marks = Marks::from([
        ("instructions".to_owned(), json!(ids)),
        ("strict".to_owned(), json!(strict)),
        ("loose".to_owned(), json!(loose)),
    ]);
    judged_in_part(reply, kept as f64 / strict.len() as f64, wrong, marks)
}

/// What IFEval's loose accuracy takes for the answer as well: without asterisks, without the first line, without the last.
fn variants(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.split('\n').collect();
    let last = lines.len() - 1;
    let without_both = lines.get(1..last).unwrap_or_default();
    let cut = [&lines[1..], &lines[..last], without_both];
    let mut texts = vec![text.to_owned()];
    texts.extend(cut.iter().map(|lines| lines.join("\n").trim().to_owned()));
    let plain: Vec<String> = texts.iter().map(|text| text.replace('*', "")).collect();
    texts.into_iter().chain(plain).collect()
}

fn measures(measuring: &Measuring, attempts: &[Attempt]) -> Vec<Measure> {
    let all: Vec<&Attempt> = attempts.iter().collect();
    let mut measures = Vec::new();
    for mark in ["strict", "loose"] {
        measures.extend(measuring.rate(&format!("prompt_{mark}"), &all, |attempt| {
            let (kept, rules) = kept(attempt, mark, "");
            rules > 0 && kept == rules
        }));
        let metric = format!("instruction_{mark}");
        measures.extend(measuring.ratio(&metric, &all, |attempt| kept(attempt, mark, "")));
    }
    let groups: BTreeSet<&str> = attempts
        .iter()
        .flat_map(ids)
        .filter_map(|id| id.split(':').next())
        .collect();
    for group in groups {
        let metric = format!("instruction_strict_{group}");
        let prefix = format!("{group}:");
        measures.extend(measuring.ratio(&metric, &all, |attempt| kept(attempt, "strict", &prefix)));
    }
    measures
}

fn ids(attempt: &Attempt) -> impl Iterator<Item = &str> {
    let ids = attempt.marks.get("instructions").and_then(Value::as_array);
    ids.into_iter().flatten().filter_map(Value::as_str)
}

/// How many instructions whose name begins so were kept, and how many there are.
fn kept(attempt: &Attempt, mark: &str, prefix: &str) -> (u64, u64) {
    let marks = attempt.marks.get(mark).and_then(Value::as_array);
    let pairs = ids(attempt).zip(marks.into_iter().flatten());
    let of_prefix = pairs.filter(|(id, _)| id.starts_with(prefix));
    of_prefix.fold((0, 0), |(kept, all), (_, is_kept)| {
        (kept + u64::from(*is_kept == true), all + 1)
    })
}

#[cfg(test)]
mod tests;
