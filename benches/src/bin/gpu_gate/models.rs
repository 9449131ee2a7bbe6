//! Small models on the device against the CPU, over HTTP: token for token, and the
//! log-probabilities of the most likely ones; and alone against among others, to the last bit.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;

use backstop_benches::http;
use backstop_benches::load::Random;
use backstop_benches::process::ServerProcess;
use backstop_benches::report::Table;
use serde_json::{Map, Value, json};

use crate::stage::{DeviceKind, Record, Settings};
use crate::vocabulary::{Scratch, copy_checkpoint};

/// Checkpoints in `tests/goldens/cohere2_moe` whose heads the device takes, and whether their
/// experts are FP8.
const CHECKPOINTS: [(&str, bool); 3] = [
    ("head_dim_32_ratio_2", false),
    ("head_dim_64_ratio_1", false),
    ("head_dim_128_fp8_sharded", true),
];
/// Others, of which only the configuration is taken: with larger heads, the vocabulary of the demo
/// model, whose tokenizer stands in, and synthetic weights, which are the same on both sides.
const SHAPES: [(&str, bool); 8] = [
    ("north_bf16_sharded", false),
    ("north_fp8", true),
    ("top_one_fp8", true),
    ("shared_two_average_fp8", true),
    ("prefix_sliding", false),
    ("prefix_none_layer_norm", false),
    ("sigmoid_normalised", false),
    ("window_one", false),
];
const SHAPE_OVERRIDES: &str = r#"{"head_dim": 64, "vocab_size": 4096}"#;
const SHAPE_VOCABULARY: u64 = 4096;
/// North Mini Code with fewer layers, so that the CPU keeps up.
const NORTH: &str = "north-mini-code-fp8";
const NORTH_VOCABULARY: u64 = 262_144;
const NORTH_OVERRIDES: &str = r#"{"num_hidden_layers": 5, "layer_types": ["full_attention",
    "sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]}"#;
const PROMPTS: usize = 24;
const PROMPT_TOKENS_MAX: u64 = 150;
const ANSWER_TOKENS: usize = 24;
/// Positions that must be compared in spite of near ties, which end the comparison of an answer.
const POSITIONS_MIN: usize = 3 * PROMPTS;
/// Likely tokens whose log-probabilities are compared.
const ALTERNATIVES: usize = 5;
/// Lower ones can be special.
const FIRST_TOKEN: u64 = 8;

/// How far log-probabilities may be off, on average and at most. The device rounds activations to
/// BF16 where the CPU has f32; with FP8 experts, such a difference can become a step of E4M3.
struct Tolerance {
    mean: f64,
    largest: f64,
}

const BF16: Tolerance = Tolerance {
    mean: 0.02,
    largest: 0.15,
};
const FP8: Tolerance = Tolerance {
    mean: 0.06,
    largest: 0.6,
};

/// A model to compare on.
struct Subject {
    name: String,
    /// As the server takes it.
    model: String,
    arguments: Vec<&'static str>,
    vocabulary: u64,
    tolerance: Tolerance,
    // Removed with this.
    _scratch: Option<Scratch>,
}

/// What an answer's log-probabilities say of one position.
struct Position {
    token: String,
    likely: Map<String, Value>,
}

/// How an answer compares with the CPU's.
#[derive(Default)]
struct Comparison {
    positions: usize,
    /// Answers that took the other one of two about equally likely tokens.
    near_ties: usize,
    sum: f64,
    count: usize,
    largest: f64,
    failure: Option<String>,
}

/// The reference models that must be packed.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    CHECKPOINTS.into_iter().chain(SHAPES).map(|(name, _)| name)
}

pub(crate) fn run(settings: &Settings, record: &mut Record) -> io::Result<()> {
    let columns = [
        "model",
        "positions compared",
        "answers cut short by a near tie",
        "mean difference of log-probabilities",
        "largest difference",
        "alone = among others",
    ];
    let mut table = Table::new("The device against the CPU", &columns);
    let mut all = Map::new();
    for subject in subjects(settings)? {
        if record.left().is_zero() {
            record.fail(format!("no time for {}", subject.name));
            break;
        }
        match compare(settings, &subject) {
            Ok((comparison, same)) => {
                if let Some(failure) = judge(&comparison, same, &subject.tolerance) {
                    record.fail(format!("{}: {failure}", subject.name));
                }
                table.rows.push(row(&subject.name, &comparison, same));
                all.insert(subject.name, to_json(&comparison, same));
            }
            Err(error) => record.fail(format!("{}: {error}", subject.name)),
        }
        record.table(table.clone());
        record.measured("models", json!(all));
        record.save(false)?;
    }
    Ok(())
}

fn subjects(settings: &Settings) -> io::Result<Vec<Subject>> {
    let goldens = settings.pack.join("goldens");
    let subject = |name: &str, directory: &Path, has_fp8: bool| -> io::Result<Subject> {
        Ok(Subject {
            name: name.to_owned(),
            model: directory.to_string_lossy().into_owned(),
            arguments: Vec::new(),
            vocabulary: vocabulary_size(directory)?,
            tolerance: if has_fp8 { FP8 } else { BF16 },
            _scratch: None,
        })
    };
    let mut subjects = vec![subject("demo", &settings.pack.join("models/demo"), true)?];
    for (name, has_fp8) in CHECKPOINTS {
        let scratch = Scratch::new(name)?;
        copy_checkpoint(&goldens.join(name), scratch.path())?;
        let mut subject = subject(name, scratch.path(), has_fp8)?;
        subject._scratch = Some(scratch);
        subjects.push(subject);
    }
    for (name, has_fp8) in SHAPES {
        subjects.push(Subject {
            arguments: synthetic(SHAPE_OVERRIDES),
            vocabulary: SHAPE_VOCABULARY,
            ..subject(name, &goldens.join(name), has_fp8)?
        });
    }
    subjects.push(Subject {
        name: format!("{NORTH} with 5 layers"),
        model: NORTH.to_owned(),
        arguments: synthetic(NORTH_OVERRIDES),
        vocabulary: NORTH_VOCABULARY,
        tolerance: FP8,
        _scratch: None,
    });
    Ok(subjects)
}

fn synthetic(overrides: &'static str) -> Vec<&'static str> {
    vec!["--load-format", "synthetic", "--hf-overrides", overrides]
}

fn vocabulary_size(directory: &Path) -> io::Result<u64> {
    let config: Value = serde_json::from_slice(&std::fs::read(directory.join("config.json"))?)?;
    config["vocab_size"]
        .as_u64()
        .ok_or_else(|| io::Error::other("no vocab_size"))
}

fn compare(settings: &Settings, subject: &Subject) -> io::Result<(Comparison, bool)> {
    let start = |device: &str| {
        ServerProcess::start_with_log(
            &settings.pack.join("backstop"),
            &subject.model,
            &[&["--device", device], subject.arguments.as_slice()].concat(),
            &settings.out.join("models.log"),
        )
    };
    let prompts = prompts(subject.vocabulary);
    let expected = ask_all(start("cpu")?.address, &prompts)?;
    let server = start(match settings.device {
        DeviceKind::Cuda => "cuda",
        DeviceKind::Host => "cpu",
    })?;
    let alone: Vec<Value> = prompts
        .iter()
        .map(|prompt| ask(server.address, prompt))
        .collect::<io::Result<_>>()?;
    let among = ask_all(server.address, &prompts)?;
    let mut comparison = Comparison::default();
    for (expected, actual) in expected.iter().zip(&alone) {
        comparison.add(&positions(expected)?, &positions(actual)?);
    }
    Ok((comparison, alone == among))
}

fn prompts(vocabulary: u64) -> Vec<Vec<u64>> {
    let mut random = Random(7);
    let mut prompt = || -> Vec<u64> {
        let tokens = 1 + random.bits() % PROMPT_TOKENS_MAX;
        let mut token = || FIRST_TOKEN + random.bits() % (vocabulary - FIRST_TOKEN);
        (0..tokens).map(|_| token()).collect()
    };
    (0..PROMPTS).map(|_| prompt()).collect()
}

/// The text and the log-probabilities of a greedy answer.
fn ask(address: SocketAddr, prompt: &[u64]) -> io::Result<Value> {
    let body = json!({
        "prompt": prompt,
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0,
        "ignore_eos": true,
        "logprobs": ALTERNATIVES,
    });
    let answer = http::post(address, "/v1/completions", &body.to_string())?;
    let text = answer.body();
    if answer.status != 200 {
        return Err(io::Error::other(format!("refused: {text}")));
    }
    let mut document: Value = serde_json::from_str(&text)?;
    Ok(document["choices"][0].take())
}

/// The same for all prompts at once.
fn ask_all(address: SocketAddr, prompts: &[Vec<u64>]) -> io::Result<Vec<Value>> {
    thread::scope(|scope| {
        let threads: Vec<_> = prompts
            .iter()
            .map(|prompt| scope.spawn(move || ask(address, prompt)))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, io::Result<Value>>| {
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a client panicked")))
        };
        threads.into_iter().map(join).collect()
    })
}

fn positions(choice: &Value) -> io::Result<Vec<Position>> {
    let list = |name: &str| {
        choice["logprobs"][name]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    let positions: Vec<Position> = list("tokens")
        .iter()
        .zip(list("top_logprobs"))
        .map(|(token, likely)| Position {
            token: token.as_str().unwrap_or_default().to_owned(),
            likely: likely.as_object().cloned().unwrap_or_default(),
        })
        .collect();
    if positions.is_empty() {
        return Err(io::Error::other("an answer without log-probabilities"));
    }
    Ok(positions)
}

impl Comparison {
    /// Adds an answer, up to where it takes another token.
    fn add(&mut self, expected: &[Position], actual: &[Position]) {
        for (index, expected) in expected.iter().enumerate() {
            let Some(actual) = actual.get(index) else {
                // Tokens without a text, such as special ones, are not shown at the end.
                self.failure
                    .get_or_insert(format!("an answer ends at position {index}"));
                return;
            };
            let mut largest = 0f64;
            for (token, logprob) in &expected.likely {
                let (Some(expected), Some(actual)) = (
                    logprob.as_f64(),
                    actual.likely.get(token).and_then(Value::as_f64),
                ) else {
                    continue;
                };
                let difference = (expected - actual).abs();
                largest = if difference.is_nan() {
                    difference
                } else {
                    largest.max(difference)
                };
                self.sum += difference;
                self.count += 1;
            }
            self.largest = if largest.is_nan() {
                largest
            } else {
                self.largest.max(largest)
            };
            self.positions += 1;
            if expected.token == actual.token {
                continue;
            }
            self.near_ties += 1;
            let of = |token: &str| expected.likely.get(token).and_then(Value::as_f64);
            // Another token is right only if it was about as likely.
            match of(&expected.token).zip(of(&actual.token)) {
                Some((best, other)) if best - other <= 2.0 * largest => {}
                _ => {
                    let (wanted, got) = (&expected.token, &actual.token);
                    self.failure.get_or_insert(format!(
                        "position {index} of an answer is {got:?}, not {wanted:?}"
                    ));
                }
            }
            break;
        }
    }

    fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }
}

/// What is wrong, if anything.
fn judge(comparison: &Comparison, same: bool, tolerance: &Tolerance) -> Option<String> {
    if let Some(failure) = &comparison.failure {
        return Some(failure.clone());
    }
    let (mean, largest) = (comparison.mean(), comparison.largest);
    // Written such that NaN is wrong.
    let close = mean <= tolerance.mean && largest <= tolerance.largest;
    if !close {
        return Some(format!(
            "log-probabilities are off by {mean:.4} on average and {largest:.4} at most, not {} \
             and {}",
            tolerance.mean, tolerance.largest
        ));
    }
    if comparison.positions < POSITIONS_MIN {
        return Some(format!(
            "only {} positions could be compared",
            comparison.positions
        ));
    }
    (!same).then(|| "an answer alone differs from the same answer among others".to_owned())
}

fn row(name: &str, comparison: &Comparison, same: bool) -> Vec<String> {
    vec![
        name.to_owned(),
        comparison.positions.to_string(),
        comparison.near_ties.to_string(),
        format!("{:.5}", comparison.mean()),
        format!("{:.5}", comparison.largest),
        if same { "yes" } else { "NO" }.to_owned(),
    ]
}

fn to_json(comparison: &Comparison, same: bool) -> Value {
    json!({
        "positions": comparison.positions,
        "near_ties": comparison.near_ties,
        "mean_difference": comparison.mean(),
        "largest_difference": comparison.largest,
        "alone_equals_among_others": same,
    })
}
