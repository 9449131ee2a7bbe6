//! Says who gave the answers of a blind page, and which of the two people preferred.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::args::UnblindArgs;
use super::blind::{Key, seal};
use crate::record::Interval;
use crate::statistics::paired::{McNemar, sign_test};
use crate::statistics::wilson;
use crate::{PROGRAM, QualifyError};

const SHAPE: u32 = 1;
const FILE_BYTES_MAX: u64 = 16 << 20;
const JUDGEMENTS_MAX: usize = 100_000;

/// A line of judgements.
#[derive(Deserialize)]
struct Judgement {
    pair: usize,
    better: Better,
    seal: String,
    #[serde(default)]
    judge: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Better {
    X,
    Y,
    Equal,
}

/// What people preferred.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Preference {
    shape: u32,
    program: &'static str,
    names: [String; 2],
    /// It, for people.
    pub(crate) sentence: String,
    /// Pairs that somebody judged.
    pairs: usize,
    /// People.
    judges: usize,
    /// Pairs in which most judges preferred one.
    preferred: [u64; 2],
    /// In which they did not.
    equal: u64,
    /// If neither were preferred, how likely this or more would be.
    sign_test: McNemar,
    /// The second's share of the pairs in which one was preferred.
    share_b: Option<f64>,
    interval: Option<Interval>,
    /// Pair by pair.
    judged: Vec<Judged>,
}

/// A pair, and who was preferred.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Judged {
    pair: usize,
    suite: String,
    task: String,
    x: String,
    y: String,
    /// Votes for the first, for the second, and for neither.
    votes: [u32; 3],
}

/// Reads a key and judgements.
pub(crate) fn unblind(args: &UnblindArgs) -> Result<Preference, QualifyError> {
    let bytes = backstop_input::read_file(&args.key, FILE_BYTES_MAX)
        .map_err(|error| QualifyError::at(&args.key, error))?;
    let key: Key = serde_json::from_slice(&bytes)
        .map_err(|error| QualifyError::at(&args.key, format!("not the key of a page: {error}")))?;
    if key.pairs.iter().any(|pair| pair.x > 1) {
        return Err(QualifyError::at(&args.key, "not the key of a page"));
    }
    let seal = seal(&bytes);
    // The last judgement of each judge on each pair.
    let mut votes: BTreeMap<(usize, String), Better> = BTreeMap::new();
    for path in &args.judgements {
        read(path, &key, &seal, &mut votes)?;
    }
    Ok(Preference::of(key, &votes))
}

fn read(
    path: &Path,
    key: &Key,
    seal: &str,
    votes: &mut BTreeMap<(usize, String), Better>,
) -> Result<(), QualifyError> {
    let text = backstop_input::read_text_file(path, FILE_BYTES_MAX)
        .map_err(|error| QualifyError::at(path, error))?;
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let fail =
            |reason: String| QualifyError::at(path, format!("line {}: {reason}", number + 1));
        let judgement: Judgement = serde_json::from_str(line)
            .map_err(|error| fail(format!("not a judgement: {error}")))?;
        if judgement.seal != seal {
            return Err(fail(
                "its seal is another key's; was it saved from another page, or the key changed?"
                    .into(),
            ));
        }
        if !(1..=key.pairs.len()).contains(&judgement.pair) {
            return Err(fail(format!("the page has no pair {}", judgement.pair)));
        }
        votes.insert((judgement.pair, judgement.judge), judgement.better);
        if votes.len() > JUDGEMENTS_MAX {
            return Err(fail(format!("more than {JUDGEMENTS_MAX} judgements")));
        }
    }
    Ok(())
}

impl Preference {
    fn of(key: Key, votes: &BTreeMap<(usize, String), Better>) -> Self {
        let name = |side: usize| key.names[side].clone();
        let judged: Vec<Judged> = key
            .pairs
            .iter()
            .map(|pair| Judged {
                pair: pair.pair,
                suite: pair.suite.clone(),
                task: pair.task.clone(),
                x: name(pair.x),
                y: name(1 - pair.x),
                votes: count(pair.pair, pair.x, votes),
            })
            .collect();
        let decided = || judged.iter().filter(|judged| judged.votes != [0; 3]);
        let prefers = |one: usize, other: usize| {
            decided()
                .filter(|judged| judged.votes[one] > judged.votes[other])
                .count() as u64
        };
        let preferred = [prefers(0, 1), prefers(1, 0)];
        let sum = preferred[0] + preferred[1];
        let pairs = decided().count();
        let judges: std::collections::BTreeSet<&String> =
            votes.keys().map(|(_, judge)| judge).collect();
        let mut preference = Self {
            shape: SHAPE,
            program: PROGRAM,
            sentence: String::new(),
            pairs,
            judges: judges.len(),
            equal: pairs as u64 - sum,
            sign_test: sign_test(preferred[0], preferred[1]),
            share_b: (sum > 0).then(|| preferred[1] as f64 / sum as f64),
            interval: wilson(preferred[1], sum),
            names: key.names.clone(),
            preferred,
            judged,
        };
        preference.sentence = preference.sentence();
        preference
    }

    fn sentence(&self) -> String {
        let [a, b] = &self.names;
        let [preferred_a, preferred_b] = self.preferred;
        if self.pairs == 0 {
            return "Nobody has judged yet.".into();
        }
        format!(
            "Of {} pairs that were judged blind, {a} was preferred in {preferred_a}, {b} in {preferred_b}, and neither in \
             {} (sign test: p = {:.3}).",
            self.pairs, self.equal, self.sign_test.exact_p
        )
    }

    /// For a terminal: who is who, and the votes.
    pub(crate) fn text(&self) -> String {
        let pairs = self.judged.iter().map(|judged| {
            let [a, b, neither] = judged.votes;
            let votes = match judged.votes {
                [0, 0, 0] => "not judged".to_owned(),
                _ => format!("{a} : {b}, equal {neither}"),
            };
            let Judged {
                pair,
                suite,
                task,
                x,
                y,
                ..
            } = judged;
            format!("{pair:>4}  X is {x}, Y is {y}  {votes}  ({suite}, {task})\n")
        });
        format!("{}\n{}", self.sentence, pairs.collect::<String>())
    }
}

fn count(pair: usize, x: usize, votes: &BTreeMap<(usize, String), Better>) -> [u32; 3] {
    let mut counted = [0; 3];
    let of_pair = votes.range((pair, String::new())..(pair + 1, String::new()));
    for (_, better) in of_pair {
        let place = match better {
            Better::X => x,
            Better::Y => 1 - x,
            Better::Equal => 2,
        };
        counted[place] += 1;
    }
    counted
}
