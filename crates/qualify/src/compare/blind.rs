//! Pairs of answers side by side, whose authors nobody can see, for people to judge; and the key that says who they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use aho_corasick::{AhoCorasick, MatchKind};
use backstop_pages::{Markup, Script};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::results::Results;
use crate::random::Random;
use crate::record::{Attempt, Outcome, Reply, Subject};
use crate::{QualifyError, store};

/// Of one question or one answer; the rest is not shown.
const SHOWN_CHARACTERS_MAX: usize = 12_000;
/// Shorter words are too common to be hidden.
const HIDDEN_CHARACTERS_MIN: usize = 4;
const HIDDEN: &str = "▇▇▇▇";
const STYLE: &str = include_str!("blind.css");
const SCRIPT: &str = include_str!("blind.js");

/// Who gave which answers of a page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Key {
    /// Drawn anew for each page, so that nobody can find the key by trying.
    pub(crate) secret: String,
    pub(crate) names: [String; 2],
    pub(crate) seed: u64,
    /// In the page's order.
    pub(crate) pairs: Vec<KeyPair>,
}

/// Whose answers stand where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeyPair {
    /// From 1 on.
    pub(crate) pair: usize,
    pub(crate) suite: String,
    pub(crate) task: String,
    pub(crate) sample: u32,
    /// Which of `names` is X; the other is Y.
    pub(crate) x: usize,
}

/// A page and its key, as bytes to be written.
pub(crate) struct Blind {
    pub(crate) page: String,
    pub(crate) key: Vec<u8>,
}

/// What a page is made of.
pub(crate) struct Source<'a> {
    pub(crate) names: &'a [String; 2],
    pub(crate) directories: [&'a Path; 2],
    pub(crate) results: &'a [Results; 2],
    pub(crate) seed: u64,
    /// Pairs, at most.
    pub(crate) pairs: usize,
    /// Words to hide beside the names.
    pub(crate) hide: &'a [String],
}

/// By suite, task and sample.
type Place = (String, String, u32);

/// What stands on the page.
#[derive(Default)]
struct Shown {
    question: String,
    answers: [String; 2],
}

impl Blind {
    /// Draws pairs in which the two answered differently, tosses a coin for each, and writes the page.
    pub(crate) fn new(source: &Source<'_>) -> Result<Self, QualifyError> {
        let mut random = Random::new(source.seed);
        let places = draw(source, &mut random)?;
        let mut shown: BTreeMap<Place, Shown> = places
            .iter()
            .map(|place| (place.clone(), Shown::default()))
            .collect();
        for side in [0, 1] {
            collect(source.directories[side], side, &mut shown)?;
        }
        let mut secret = [0_u8; 32];
        getrandom::fill(&mut secret)
            .map_err(|error| QualifyError::new(format!("no random numbers: {error}")))?;
        let pairs = places
            .iter()
            .enumerate()
            .map(|(number, (suite, task, sample))| KeyPair {
                pair: number + 1,
                suite: suite.clone(),
                task: task.clone(),
                sample: *sample,
                x: random.below(2),
            });
        let key = Key {
            secret: hex(&secret),
            names: source.names.clone(),
            seed: source.seed,
            pairs: pairs.collect(),
        };
        let mut bytes = serde_json::to_vec_pretty(&key)
            .map_err(|error| QualifyError::new(error.to_string()))?;
        bytes.push(b'\n');
        let mask = Mask::new(source)?;
        let page = page(&key, &places, &shown, &mask, &seal(&bytes));
        Ok(Self { page, key: bytes })
    }
}

/// What says on the page, and in judgements, which key is theirs, without telling what is in it.
pub(crate) fn seal(key: &[u8]) -> String {
    hex(&Sha256::digest(key))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn draw(source: &Source<'_>, random: &mut Random) -> Result<Vec<Place>, QualifyError> {
    let [a, b] = source.results;
    let mut places = Vec::new();
    for (suite, tasks) in &a.suites {
        let others = b.suites.get(suite);
        for (task, samples) in tasks {
            let Some(others) = others.and_then(|others| others.get(task)) else {
                continue;
            };
            let differs = samples.iter().find(|(sample, first)| {
                others.get(sample).is_some_and(|second| {
                    let is_answer = |outcome| outcome != Outcome::NoAnswer;
                    is_answer(first.outcome)
                        && is_answer(second.outcome)
                        && first.answer != second.answer
                })
            });
            if let Some((sample, _)) = differs {
                places.push((suite.clone(), task.clone(), *sample));
            }
        }
    }
    if places.is_empty() {
        return Err(QualifyError::new(
            "the two gave the same answers everywhere: there is nothing to judge blind",
        ));
    }
    // The first of them, as they would lie after shuffling all.
    let shown = source.pairs.min(places.len());
    for place in 0..shown {
        let other = place + random.below(places.len() - place);
        places.swap(place, other);
    }
    places.truncate(shown);
    Ok(places)
}

fn collect(
    directory: &Path,
    side: usize,
    shown: &mut BTreeMap<Place, Shown>,
) -> Result<(), QualifyError> {
    let suites: BTreeSet<String> = shown.keys().map(|(suite, _, _)| suite.clone()).collect();
    let results = store::Results::open(directory)?;
    for suite in suites {
        for attempt in results.attempts(&suite)? {
            let place = (suite.clone(), attempt.task.clone(), attempt.sample);
            if let Some(shown) = shown.get_mut(&place) {
                shown.question = question(&attempt);
                shown.answers[side] = answer(&attempt.replies);
            }
        }
    }
    Ok(())
}

/// The last thing that a user said.
fn question(attempt: &Attempt) -> String {
    let messages = attempt.request["messages"].as_array();
    let last =
        messages.and_then(|messages| messages.iter().rfind(|message| message["role"] == "user"));
    match last.map(|message| &message["content"]) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().filter_map(|part| part["text"].as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => attempt.request["prompt"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    }
}

fn answer(replies: &[Reply]) -> String {
    let turns: Vec<String> = replies
        .iter()
        .map(|reply| {
            let calls = reply.tool_calls.iter();
            let calls = calls.map(|call| format!("→ {}({})", call.name, call.arguments));
            let parts = std::iter::once(reply.text.clone()).chain(calls);
            parts
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join("\n")
        })
        .collect();
    turns.join("\n\n— next turn —\n\n")
}

/// Hides names in what is shown.
struct Mask(AhoCorasick);

impl Mask {
    fn new(source: &Source<'_>) -> Result<Self, QualifyError> {
        let subjects = source.results.iter().map(|results| &results.run.subject);
        let mut words: Vec<String> = subjects.flat_map(names_of).collect();
        words.extend(source.names.iter().chain(source.hide).cloned());
        words.retain(|word| word.chars().count() >= HIDDEN_CHARACTERS_MIN);
        let searcher = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::LeftmostLongest)
            .build(&words)
            .map_err(|error| QualifyError::new(format!("too many words to hide: {error}")))?;
        Ok(Self(searcher))
    }

    /// As much as is shown, without names.
    fn shown(&self, text: &str) -> String {
        let mut masked = String::with_capacity(text.len());
        self.0.replace_all_with(text, &mut masked, |_, _, masked| {
            masked.push_str(HIDDEN);
            true
        });
        match masked.char_indices().nth(SHOWN_CHARACTERS_MAX) {
            Some((end, _)) => format!(
                "{}\n[cut after {SHOWN_CHARACTERS_MAX} characters]",
                &masked[..end]
            ),
            None => masked,
        }
    }
}

/// What a server goes by, whole and without its owner and its digest.
fn names_of(subject: &Subject) -> Vec<String> {
    let mut names = vec![subject.url.clone()];
    for name in std::iter::once(&subject.model).chain(&subject.backstop_model) {
        names.push(name.clone());
        names.extend(name.split(['@', ':']).next().map(str::to_owned));
        names.extend(name.split('/').next_back().map(str::to_owned));
    }
    names
}

fn page(
    key: &Key,
    places: &[Place],
    shown: &BTreeMap<Place, Shown>,
    mask: &Mask,
    seal: &str,
) -> String {
    let pairs = key
        .pairs
        .iter()
        .zip(places)
        .filter_map(|(pair, place)| Some(pair_markup(pair, shown.get(place)?, mask)));
    let introduction = format!(
        "<h1>Which answer is better?</h1><p>Each question was put to two models. Who is X and who is Y was tossed for \
         each pair anew, and is in a file of its own. Choose for each pair, then save; what you leave open is left \
         out. Names of models that occur in answers are hidden.</p><p class=\"seal\">Seal of the key: \
         <code id=\"seal\">{seal}</code></p><p><label>Your name, if there are several of you: \
         <input id=\"judge\" maxlength=\"60\"></label></p>"
    );
    let save = "<section id=\"save\"><h2>Save</h2><p><button id=\"saving\">Save judgements</button> \
                <span id=\"progress\"></span></p><p><textarea id=\"lines\" readonly rows=\"4\" \
                aria-label=\"Judgements\"></textarea></p></section>";
    let body: Markup = [Markup::raw(introduction)]
        .into_iter()
        .chain(pairs)
        .chain([Markup::raw(save)])
        .collect();
    let script = Script {
        text: SCRIPT,
        sha256: &BASE64_STANDARD.encode(Sha256::digest(SCRIPT)),
    };
    backstop_pages::page_with_script("Which answer is better?", STYLE, script, &body)
}

fn pair_markup(pair: &KeyPair, shown: &Shown, mask: &Mask) -> Markup {
    let number = pair.pair;
    let text = |text: &str| Markup::from(mask.shown(text));
    let choice = |value: &str, label: &str| {
        format!(
            "<label><input type=\"radio\" name=\"pair-{number}\" value=\"{value}\"> {label}</label>"
        )
    };
    Markup::raw(format!(
        "<section class=\"pair\" data-pair=\"{number}\"><h2>{number}</h2><pre class=\"question\">{}</pre>\
         <div class=\"answers\"><div><h3>X</h3><pre>{}</pre></div><div><h3>Y</h3><pre>{}</pre></div></div>\
         <fieldset><legend>Better</legend>{}{}{}</fieldset></section>",
        text(&shown.question),
        text(&shown.answers[pair.x]),
        text(&shown.answers[1 - pair.x]),
        choice("x", "X"),
        choice("y", "Y"),
        choice("equal", "equally good or bad")
    ))
}

#[cfg(test)]
mod tests;
