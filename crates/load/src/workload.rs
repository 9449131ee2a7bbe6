//! What is asked: conversations of one turn or more, whose texts are made up when they are sent.

use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};

use crate::random::generator;
use crate::trace::Arrival;
use crate::wire::Wire;

/// Purposes of random numbers, beside that of texts.
const LENGTHS: u64 = u64::MAX - 1;
const PREFIXES: u64 = u64::MAX - 2;
/// Texts of a run; those of the next are behind them.
const TEXTS_OF_A_RUN: u64 = 1 << 40;
/// Beginnings that several texts of a run share are named from here on.
const SHARED: u64 = 1 << 39;

/// Everything that is asked in a run.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Conversations, in the order in which they begin.
    pub sessions: Vec<Session>,
    /// How it is written down.
    pub wire: Wire,
    /// From an answer to the next turn.
    pub think: Duration,
}

/// A conversation. Its next turn follows the answer to the one before.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// At least one.
    pub turns: Vec<Turn>,
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// What is said.
    pub content: Content,
    /// The longest answer.
    pub output_tokens: u32,
    /// Fields of this request alone.
    pub fields: Map<String, Value>,
}

/// What is said.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Made up, one piece after the other.
    Segments(Vec<Segment>),
    /// A text.
    Text(String),
    /// Messages of a chat, instead of all that was said before.
    Messages(Vec<Value>),
}

/// A made-up text. Those with the same stream begin alike, and all others do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Names it.
    pub stream: u64,
    /// Its length.
    pub tokens: u32,
}

impl Workload {
    /// Requests, if all conversations come to their end.
    pub fn requests(&self) -> usize {
        self.sessions
            .iter()
            .map(|session| session.turns.len())
            .sum()
    }
}

impl Session {
    /// Of a single turn.
    pub fn single(content: Content, output_tokens: u32) -> Self {
        Self {
            turns: vec![Turn::new(content, output_tokens)],
        }
    }
}

impl Turn {
    /// Without fields of its own.
    pub fn new(content: Content, output_tokens: u32) -> Self {
        Self {
            content,
            output_tokens,
            fields: Map::new(),
        }
    }

    /// Tokens of what is said in this turn, where that was made up.
    pub fn input_tokens(&self) -> Option<u32> {
        match &self.content {
            Content::Segments(segments) => Some(
                segments
                    .iter()
                    .fold(0, |sum: u32, one| sum.saturating_add(one.tokens)),
            ),
            Content::Text(_) | Content::Messages(_) => None,
        }
    }
}

/// Lengths of prompts and answers, each drawn evenly from `length * (1 - ratio)` to `length * (1 + ratio)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lengths {
    /// Tokens of a prompt.
    pub input: u32,
    /// Tokens of an answer.
    pub output: u32,
    /// From 0 to less than 1.
    pub range_ratio: f64,
}

impl Lengths {
    fn draw(&self, random: &mut ChaCha8Rng) -> (u32, u32) {
        let mut one = |length: u32| {
            let low = (f64::from(length) * (1.0 - self.range_ratio)).floor() as u32;
            let high = (f64::from(length) * (1.0 + self.range_ratio)).ceil() as u32;
            random.random_range(low.max(1)..=high.max(1))
        };
        (one(self.input), one(self.output))
    }
}

/// Names of the texts of a run, the number of which makes them differ from those of other runs with the same seed.
#[derive(Clone, Copy)]
struct Names(u64);

impl Names {
    fn own(self, number: usize) -> u64 {
        self.0 * TEXTS_OF_A_RUN + number as u64
    }

    fn shared(self, number: u64) -> u64 {
        self.0 * TEXTS_OF_A_RUN + SHARED + number % SHARED
    }
}

fn segments(prefix: Option<Segment>, own: Segment) -> Content {
    Content::Segments(prefix.into_iter().chain([own]).collect())
}

/// `count` prompts, all different from the first token on, unless they have a common prefix of `prefix_tokens`. Runs differ
/// by `run`.
pub fn random(
    count: usize,
    lengths: Lengths,
    prefix_tokens: u32,
    seed: u64,
    run: u64,
) -> Vec<Session> {
    let names = Names(run);
    let mut random = generator(seed, LENGTHS - (run << 8));
    let prefix = (prefix_tokens > 0).then(|| Segment {
        stream: names.shared(0),
        tokens: prefix_tokens,
    });
    let session = |number| {
        let (tokens, output_tokens) = lengths.draw(&mut random);
        let stream = names.own(number);
        Session::single(segments(prefix, Segment { stream, tokens }), output_tokens)
    };
    (0..count).map(session).collect()
}

/// Beginnings that prompts share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// How many there are.
    pub count: u32,
    /// The length of each.
    pub tokens: u32,
}

/// `count` prompts, each with one of the prefixes, drawn at random.
pub fn prefixed(
    count: usize,
    lengths: Lengths,
    prefixes: Prefixes,
    seed: u64,
    run: u64,
) -> Vec<Session> {
    let names = Names(run);
    let mut drawn = generator(seed, LENGTHS - (run << 8));
    let mut chosen = generator(seed, PREFIXES - (run << 8));
    let session = |number| {
        let (tokens, output_tokens) = lengths.draw(&mut drawn);
        let prefix = Segment {
            stream: names.shared(u64::from(chosen.random_range(0..prefixes.count.max(1)))),
            tokens: prefixes.tokens,
        };
        let stream = names.own(number);
        Session::single(
            segments(Some(prefix), Segment { stream, tokens }),
            output_tokens,
        )
    };
    (0..count).map(session).collect()
}

/// Conversations of `turns` turns, `count` requests in all or a few more. Each turn says something new of the drawn length.
pub fn conversations(
    count: usize,
    turns: usize,
    lengths: Lengths,
    seed: u64,
    run: u64,
) -> Vec<Session> {
    let names = Names(run);
    let turns = turns.max(1);
    let mut random = generator(seed, LENGTHS - (run << 8));
    let session = |session: usize| {
        let turn = |turn: usize| {
            let (tokens, output_tokens) = lengths.draw(&mut random);
            let stream = names.own(session * turns + turn);
            Turn::new(segments(None, Segment { stream, tokens }), output_tokens)
        };
        Session {
            turns: (0..turns).map(turn).collect(),
        }
    };
    (0..count.div_ceil(turns)).map(session).collect()
}

/// Prompts as long as those that came once; `lengths` are for those that do not say. With `block_tokens`, prompts share the
/// blocks that they shared then; without, all differ.
pub fn recorded(
    arrivals: &[Arrival],
    lengths: Lengths,
    block_tokens: Option<u32>,
    seed: u64,
    run: u64,
) -> Vec<Session> {
    let names = Names(run);
    let mut random = generator(seed, LENGTHS - (run << 8));
    let session = |(number, arrival): (usize, &Arrival)| {
        let (input, output) = lengths.draw(&mut random);
        let tokens = arrival.input_tokens.unwrap_or(input).max(1);
        let own = names.own(number);
        let content = match block_tokens {
            Some(block) => blocks(arrival, tokens, block.max(1), own, names),
            None => segments(
                None,
                Segment {
                    stream: own,
                    tokens,
                },
            ),
        };
        Session::single(content, arrival.output_tokens.unwrap_or(output))
    };
    arrivals.iter().enumerate().map(session).collect()
}

/// A prompt of blocks that have names, and behind them what is its own.
fn blocks(arrival: &Arrival, tokens: u32, block: u32, own: u64, names: Names) -> Content {
    let mut left = tokens;
    let mut parts = Vec::new();
    for &name in &arrival.blocks {
        let tokens = left.min(block);
        if tokens == 0 {
            break;
        }
        parts.push(Segment {
            stream: names.shared(name),
            tokens,
        });
        left -= tokens;
    }
    if left > 0 {
        parts.push(Segment {
            stream: own,
            tokens: left,
        });
    }
    Content::Segments(parts)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LENGTHS: Lengths = Lengths {
        input: 100,
        output: 10,
        range_ratio: 0.5,
    };

    fn parts(session: &Session, turn: usize) -> Vec<Segment> {
        match &session.turns[turn].content {
            Content::Segments(segments) => segments.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn prompts_of_all_runs_are_distinct_by_default() {
        let mut streams = BTreeSet::new();
        for run in 0..4 {
            for session in random(500, LENGTHS, 0, 1, run) {
                assert!(streams.insert(parts(&session, 0)[0].stream));
            }
            for session in conversations(100, 4, LENGTHS, 1, run + 10) {
                for turn in 0..4 {
                    assert!(streams.insert(parts(&session, turn)[0].stream));
                }
            }
        }
    }

    #[test]
    fn lengths_are_even_in_their_range() {
        let sessions = random(2000, LENGTHS, 0, 1, 0);
        let lengths: Vec<u32> = sessions
            .iter()
            .map(|one| one.turns[0].input_tokens().unwrap())
            .collect();
        assert_eq!(
            (lengths.iter().min(), lengths.iter().max()),
            (Some(&50), Some(&150))
        );
        let mean = lengths.iter().sum::<u32>() / 2000;
        assert!((98..=102).contains(&mean), "{mean}");
        assert!(
            sessions
                .iter()
                .all(|one| (5..=15).contains(&one.turns[0].output_tokens))
        );
        assert_eq!(sessions, random(2000, LENGTHS, 0, 1, 0));
        assert_ne!(sessions, random(2000, LENGTHS, 0, 2, 0));
    }

    #[test]
    fn prefixes_are_shared_where_that_is_asked_for() {
        let firsts = |sessions: &[Session]| -> BTreeSet<u64> {
            sessions.iter().map(|one| parts(one, 0)[0].stream).collect()
        };
        assert_eq!(firsts(&random(50, LENGTHS, 20, 1, 0)).len(), 1);
        let several = prefixed(
            200,
            LENGTHS,
            Prefixes {
                count: 5,
                tokens: 64,
            },
            1,
            0,
        );
        assert_eq!(firsts(&several).len(), 5);
        assert_eq!(parts(&several[0], 0)[0].tokens, 64);
    }

    #[test]
    fn recorded_prompts_share_blocks_only_on_request() {
        let arrivals = [
            Arrival {
                input_tokens: Some(1100),
                output_tokens: Some(3),
                blocks: vec![7, 8],
                ..Arrival::default()
            },
            Arrival {
                input_tokens: Some(600),
                blocks: vec![7, 9],
                ..Arrival::default()
            },
        ];
        let apart = recorded(&arrivals, LENGTHS, None, 1, 0);
        assert_ne!(parts(&apart[0], 0)[0].stream, parts(&apart[1], 0)[0].stream);
        let shared = recorded(&arrivals, LENGTHS, Some(512), 1, 0);
        let (one, other) = (parts(&shared[0], 0), parts(&shared[1], 0));
        assert_eq!(one[0], other[0]);
        assert_ne!(one[1].stream, other[1].stream);
        assert_eq!(
            one.iter().map(|part| part.tokens).collect::<Vec<_>>(),
            [512, 512, 76]
        );
        assert_eq!(
            other.iter().map(|part| part.tokens).collect::<Vec<_>>(),
            [512, 88]
        );
        assert_eq!(shared[0].turns[0].output_tokens, 3);
    }

    #[test]
    fn conversations_have_as_many_requests_as_asked_for_or_a_few_more() {
        let sessions = conversations(10, 4, LENGTHS, 1, 0);
        assert_eq!(sessions.len(), 3);
        assert!(sessions.iter().all(|session| session.turns.len() == 4));
    }
}
