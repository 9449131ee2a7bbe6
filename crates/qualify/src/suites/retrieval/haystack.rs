//! The texts: sentences that say nothing, and among them the needles.

use serde::Deserialize;
use serde_json::{Value, json};

use super::size::Size;
use crate::QualifyError;
use crate::random::Random;
use crate::suites::pools::read_json;

pub(crate) const WORDS: &str = include_str!("../../../suites/retrieval/words.json");
/// Values of one key, keys of one question, variables of one chain.
const SEVERAL: usize = 4;
/// At which the only needle of a task stands: at the begin, at the end, and between.
pub(crate) const DEPTHS: usize = 5;

/// What is hidden, and how it is asked for. As RULER (Hsieh et al., 2024) has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One needle.
    Single,
    /// One needle among others that look like it.
    MultiKey,
    /// Several values of one key, all of them asked for.
    MultiValue,
    /// Several keys asked for, among others.
    MultiQuery,
    /// Variables that have their value from one another.
    Tracking,
}

pub(crate) const KINDS: [(Kind, &str); 5] = [
    (Kind::Single, "single"),
    (Kind::MultiKey, "multi_key"),
    (Kind::MultiValue, "multi_value"),
    (Kind::MultiQuery, "multi_query"),
    (Kind::Tracking, "variable_tracking"),
];

/// The words that texts are made of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Words {
    adjectives: Vec<String>,
    nouns: Vec<String>,
    verbs: Vec<String>,
    places: Vec<String>,
    links: Vec<String>,
    colours: Vec<String>,
    animals: Vec<String>,
}

/// What to hide and what to ask.
pub(crate) struct Needles {
    /// In the order in which they stand in the text.
    sentences: Vec<String>,
    /// Where the first one stands, if that is not left to chance: from 0 to 1.
    depth: Option<f64>,
    pub(crate) question: String,
    /// All of these have to be in the answer.
    pub(crate) wanted: Vec<String>,
    /// None of these may be in the answer.
    pub(crate) foreign: Vec<String>,
}

impl Words {
    pub(crate) fn load() -> Result<Self, QualifyError> {
        read_json("retrieval/words.json", WORDS)
    }

    /// A sentence that says nothing of importance.
    fn sentence(&self, random: &mut Random) -> String {
        let adjective = |random: &mut Random| random.pick(&self.adjectives).as_str().to_owned();
        let noun = |random: &mut Random| random.pick(&self.nouns).as_str().to_owned();
        let (one, other) = (adjective(random), adjective(random));
        let (who, whom) = (noun(random), noun(random));
        let verb = random.pick(&self.verbs).clone();
        let place = random.pick(&self.places).clone();
        match random.below(4) {
            0 => format!("The {one} {who} {verb} the {other} {whom} {place}."),
            1 => {
                let link = random.pick(&self.links);
                format!("{link}, the {who} {verb} a {one} {whom} {place}.")
            }
            2 => format!("Nobody {verb} the {one} {who}, and the {whom} stayed {other} {place}."),
            _ => format!("It was a {one} {who} that {verb} the {whom} {place}."),
        }
    }

    /// Different things that have a code.
    fn keys(&self, number: usize, random: &mut Random) -> Vec<String> {
        let mut keys: Vec<String> = self
            .colours
            .iter()
            .flat_map(|colour| {
                self.animals
                    .iter()
                    .map(move |animal| format!("{colour} {animal}"))
            })
            .collect();
        random.shuffle(&mut keys);
        keys.truncate(number);
        keys
    }

    /// What is hidden in one task. The longer the text, the more there is that looks like it.
    pub(crate) fn needles(
        &self,
        kind: Kind,
        number: usize,
        length: u64,
        random: &mut Random,
    ) -> Needles {
        let others = usize::try_from(length / 256)
            .unwrap_or(usize::MAX)
            .clamp(2, 24);
        let depth = Some((number % DEPTHS) as f64 / (DEPTHS - 1) as f64);
        match kind {
            Kind::Single => self.codes(&Codes::new(1, 0, depth), random),
            Kind::MultiKey => self.codes(&Codes::new(1, others, depth), random),
            Kind::MultiQuery => self.codes(&Codes::new(SEVERAL, others, None), random),
            Kind::MultiValue => self.values(others, random),
            Kind::Tracking => chains(random),
        }
    }

    fn codes(&self, codes: &Codes, random: &mut Random) -> Needles {
        let keys = self.keys(codes.asked + codes.others, random);
        let codes_of_keys = numbers(keys.len(), random);
        let asked = &keys[..codes.asked];
        let mut pairs: Vec<(&String, &String)> = keys.iter().zip(&codes_of_keys).collect();
        // The one whose depth is given stays the first.
        if codes.depth.is_none() {
            random.shuffle(&mut pairs);
        }
        let said = |(key, code): &(&String, &String)| format!("The code of the {key} is {code}.");
        let question = match asked {
            [key] => format!("What is the code of the {key}? Answer with the code alone."),
            _ => format!(
                "What are the codes of the {}? Answer with the {} codes alone.",
                asked.join(", the "),
                asked.len()
            ),
        };
        Needles {
            sentences: pairs.iter().map(said).collect(),
            depth: codes.depth,
            question,
            wanted: codes_of_keys[..codes.asked].to_vec(),
            foreign: codes_of_keys[codes.asked..].to_vec(),
        }
    }

    fn values(&self, others: usize, random: &mut Random) -> Needles {
        let keys = self.keys(1 + others, random);
        let values = numbers(SEVERAL + others, random);
        let (wanted, foreign) = values.split_at(SEVERAL);
        let said =
            |key: &String, code: &String| format!("One of the codes of the {key} is {code}.");
        let mut sentences: Vec<String> = wanted.iter().map(|code| said(&keys[0], code)).collect();
        let foreign_ones = keys[1..].iter().zip(foreign);
        sentences.extend(foreign_ones.map(|(key, code)| said(key, code)));
        random.shuffle(&mut sentences);
        Needles {
            sentences,
            depth: None,
            question: format!(
                "What are all the codes of the {}? There are {SEVERAL}. Answer with the codes alone.",
                keys[0]
            ),
            wanted: wanted.to_vec(),
            foreign: foreign.to_vec(),
        }
    }

    /// A chat of about so many tokens.
    pub(crate) fn request(
        &self,
        needles: &Needles,
        tokens: f64,
        size: &Size,
        random: &mut Random,
    ) -> Value {
        let needles_size: f64 = needles.sentences.iter().map(|text| size.of(text)).sum();
        let mut left = tokens - size.of(&prompt("", &needles.question)) - needles_size;
        let mut sentences = Vec::new();
        loop {
            let sentence = self.sentence(random);
            left -= size.of(&sentence);
            if left < 0.0 {
                break;
            }
            sentences.push(sentence);
        }
        let text = hidden(&sentences, needles, random);
        chat(&prompt(&text, &needles.question))
    }

    /// A chat of about so many characters, to learn how many tokens they are.
    pub(crate) fn probe(&self, characters: usize) -> Value {
        let mut random = Random::new(0);
        let mut text = String::new();
        while text.len() < characters {
            text += &self.sentence(&mut random);
            text.push(' ');
        }
        let text = if characters == 0 { "" } else { &text };
        let mut chat = chat(&prompt(text, "What is the code of the silver otter?"));
        chat["max_tokens"] = json!(1);
        chat
    }
}

/// Which codes there are.
struct Codes {
    asked: usize,
    others: usize,
    depth: Option<f64>,
}

impl Codes {
    fn new(asked: usize, others: usize, depth: Option<f64>) -> Self {
        Self {
            asked,
            others,
            depth,
        }
    }
}

/// Two chains of variables, one of which is asked for.
fn chains(random: &mut Random) -> Needles {
    let values = numbers(2, random);
    let mut names = names(2 * (SEVERAL + 1), random);
    let foreign = names.split_off(SEVERAL + 1);
    let chain = |names: &[String], value: &str| -> Vec<String> {
        let first = format!("The variable {} is set to {value}.", names[0]);
        let rest = names.windows(2).map(|pair| {
            format!(
                "The variable {} is set to the value of the variable {}.",
                pair[1], pair[0]
            )
        });
        std::iter::once(first).chain(rest).collect()
    };
    let mut two = [chain(&names, &values[0]), chain(&foreign, &values[1])];
    let mut sentences = Vec::new();
    // Mixed, but each chain in its order.
    while two.iter().any(|chain| !chain.is_empty()) {
        let next = &mut two[random.below(2)];
        if !next.is_empty() {
            sentences.push(next.remove(0));
        }
    }
    Needles {
        sentences,
        depth: None,
        question: format!(
            "Which variables have the value {}, be it set directly or taken from another variable? There are {}. Answer \
             with their names alone.",
            values[0],
            SEVERAL + 1
        ),
        wanted: names,
        foreign,
    }
}

/// Different ones of seven digits.
fn numbers(count: usize, random: &mut Random) -> Vec<String> {
    distinct(count, || random.between(1_000_000, 9_999_999).to_string())
}

/// Different ones of five capital letters.
fn names(count: usize, random: &mut Random) -> Vec<String> {
    distinct(count, || {
        (0..5)
            .map(|_| char::from(b'A' + random.below(26) as u8))
            .collect()
    })
}

fn distinct(count: usize, mut draw: impl FnMut() -> String) -> Vec<String> {
    let mut drawn: Vec<String> = Vec::new();
    while drawn.len() < count {
        let next = draw();
        if !drawn.contains(&next) {
            drawn.push(next);
        }
    }
    drawn
}

/// Sentences with needles among them.
fn hidden(sentences: &[String], needles: &Needles, random: &mut Random) -> String {
    let places = sentences.len() + 1;
    let mut at: Vec<usize> = needles
        .sentences
        .iter()
        .map(|_| random.below(places))
        .collect();
    match needles.depth {
        Some(depth) => at[0] = (depth * sentences.len() as f64).round() as usize,
        None => at.sort_unstable(),
    }
    let mut text = String::new();
    for place in 0..places {
        let here = needles
            .sentences
            .iter()
            .zip(&at)
            .filter(|(_, at)| **at == place);
        for sentence in here.map(|(needle, _)| needle).chain(sentences.get(place)) {
            text += sentence;
            text.push(' ');
        }
    }
    text
}

fn prompt(text: &str, question: &str) -> String {
    format!(
        "Read this text. A question about it follows.\n\n{text}\n\nThe text has ended. {question}"
    )
}

fn chat(content: &str) -> Value {
    json!({"messages": [{"role": "user", "content": content}]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_needle_stands_where_it_should() {
        let words = Words::load().unwrap();
        for number in 0..DEPTHS {
            for kind in [Kind::Single, Kind::MultiKey] {
                let mut random = Random::new(number as u64);
                let needles = words.needles(kind, number, 4096, &mut random);
                let request = words.request(&needles, 4000.0, &Size::default(), &mut random);
                let text = request["messages"][0]["content"].as_str().unwrap();
                let at = text.find(&needles.sentences[0]).unwrap() as f64 / text.len() as f64;
                let depth = number as f64 / 4.0;
                assert!((at - depth).abs() < 0.03, "{kind:?}: {at} for {depth}");
                assert_eq!(text.matches(&needles.wanted[0]).count(), 1);
            }
        }
    }

    #[test]
    fn everything_asked_for_is_there_and_nothing_is_twice() {
        let words = Words::load().unwrap();
        for (kind, name) in KINDS {
            for seed in 0..50 {
                let mut random = Random::new(seed);
                let needles = words.needles(kind, 0, 2048, &mut random);
                let request = words.request(&needles, 1900.0, &Size::default(), &mut random);
                let text = request["messages"][0]["content"].as_str().unwrap();
                let all: Vec<&String> = needles.wanted.iter().chain(&needles.foreign).collect();
                for each in &all {
                    assert!(text.contains(*each), "{name}: {each}");
                }
                let distinct: std::collections::HashSet<_> = all.iter().collect();
                assert_eq!(distinct.len(), all.len());
                for sentence in &needles.sentences {
                    assert_eq!(text.matches(sentence).count(), 1, "{sentence}");
                }
                assert!(kind == Kind::Single || !needles.foreign.is_empty());
            }
        }
    }

    #[test]
    fn a_chain_is_told_in_its_order() {
        let words = Words::load().unwrap();
        let mut random = Random::new(5);
        let needles = words.needles(Kind::Tracking, 0, 1024, &mut random);
        let request = words.request(&needles, 1000.0, &Size::default(), &mut random);
        let text = request["messages"][0]["content"].as_str().unwrap();
        let set = |name: &String| text.find(&format!("The variable {name} is set")).unwrap();
        assert!(needles.wanted.iter().map(set).is_sorted());
        assert!(needles.foreign.iter().map(set).is_sorted());
    }

    #[test]
    fn keys_are_no_words_of_the_other_sentences() {
        let words = Words::load().unwrap();
        for key in words.colours.iter().chain(&words.animals) {
            for other in [&words.adjectives, &words.nouns, &words.verbs, &words.places] {
                let has = |text: &String| text.split(' ').any(|word| word == key);
                assert!(!other.iter().any(has), "{key}");
            }
        }
    }
}
