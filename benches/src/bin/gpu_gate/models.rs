//! Small models on the device against the CPU, over HTTP: token for token, and the
//! log-probabilities of the most likely ones; and alone against among others, to the last bit.

use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use backstop_benches::http::{self, Server};
use backstop_benches::load::Random;
use backstop_benches::process::{ServerProcess, Start};
use backstop_benches::report::Table;
use serde_json::{Map, Value, json};

use crate::answers::Answers;
use crate::comparison::{BF16, Comparison, FP8, Tolerance};
use crate::serving::SERVERS_LOG;
use crate::settings::{DeviceKind, Settings};
use crate::stage::Record;
use crate::vocabulary::{Scratch, copy_checkpoint};

/// Checkpoints in `tests/goldens/cohere2_moe` whose heads the device takes, and whether their
/// experts are FP8. The first is compared in quick runs too.
const CHECKPOINTS: [(&str, bool); 3] = [
    ("head_dim_128_fp8_sharded", true),
    ("head_dim_32_ratio_2", false),
    ("head_dim_64_ratio_1", false),
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
/// Longest time until a server on a card is ready, and longest silence of it.
const READY_WITHIN: Duration = Duration::from_secs(20);
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Both on a processor.
const PATIENCE: Duration = Duration::from_secs(600);
/// Models that may hang before the others are not tried.
const HUNG_MAX: usize = 2;

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
    let answers = Answers::read(&settings.pack)?;
    if let Some(origin) = answers.origin() {
        record.note(origin);
    }
    let (mut tried, mut hung) = (0, 0);
    for subject in subjects(settings)? {
        let name = &subject.name;
        if record.left().is_zero() {
            record.fail(format!("no time for {name} and what follows"));
            break;
        }
        if hung == HUNG_MAX && hung == tried {
            record.fail(format!(
                "{name} and what follows: not tried, since {hung} hung before"
            ));
            break;
        }
        tried += 1;
        match compare(settings, &subject, &answers) {
            Ok(comparison) => {
                let enough = comparison.positions >= POSITIONS_MIN;
                let few = || format!("only {} positions were compared", comparison.positions);
                let failure = comparison.failure(&subject.tolerance);
                if let Some(failure) = failure.or_else(|| (!enough).then(few)) {
                    record.fail(format!("{name}: {failure}"));
                }
                table.rows.push(comparison.row(name));
                all.insert(name.clone(), comparison.to_json());
            }
            Err(error) => {
                hung += usize::from(error.kind() == io::ErrorKind::TimedOut);
                record.fail(format!("{name}: {error}"));
            }
        }
        record.table(table.clone());
        record.measured("models", json!(all));
        record.measured("all_hung", json!(hung == tried));
        record.save(false)?;
    }
    Ok(())
}

/// Computes the CPU's answers for all models and writes them to the directory for results.
pub(crate) fn prepare(settings: &Settings) -> io::Result<()> {
    std::fs::create_dir_all(&settings.out)?;
    let mut answers = Answers::new();
    for subject in subjects(settings)? {
        let prompts = prompts(subject.vocabulary);
        let server = start(settings, &subject, "cpu")?;
        answers.add(
            &subject.name,
            &prompts,
            &ask_all(server.server(), &prompts)?,
        );
    }
    answers.write(&settings.out)
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
    let checkpoint = |(name, has_fp8): (&str, bool)| -> io::Result<Subject> {
        let scratch = Scratch::new(name)?;
        copy_checkpoint(&goldens.join(name), scratch.path())?;
        let mut subject = subject(name, scratch.path(), has_fp8)?;
        subject._scratch = Some(scratch);
        Ok(subject)
    };
    let [first, others @ ..] = CHECKPOINTS;
    let mut subjects = vec![
        subject("demo", &settings.pack.join("models/demo"), true)?,
        checkpoint(first)?,
        Subject {
            name: format!("{NORTH} with 5 layers"),
            model: NORTH.to_owned(),
            arguments: synthetic(NORTH_OVERRIDES),
            vocabulary: NORTH_VOCABULARY,
            tolerance: FP8,
            _scratch: None,
        },
    ];
    if settings.quick {
        return Ok(subjects);
    }
    for other in others {
        subjects.push(checkpoint(other)?);
    }
    for (name, has_fp8) in SHAPES {
        subjects.push(Subject {
            arguments: synthetic(SHAPE_OVERRIDES),
            vocabulary: SHAPE_VOCABULARY,
            ..subject(name, &goldens.join(name), has_fp8)?
        });
    }
    Ok(subjects)
}

fn synthetic(overrides: &'static str) -> Vec<&'static str> {
    vec!["--load-format", "synthetic", "--hf-overrides", overrides]
}

fn vocabulary_size(directory: &Path) -> io::Result<u64> {
    let path = directory.join("config.json");
    let text = std::fs::read(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let config: Value = serde_json::from_slice(&text)?;
    config["vocab_size"]
        .as_u64()
        .ok_or_else(|| io::Error::other("no vocab_size"))
}

/// A server of the model; `device` is as it takes it.
fn start(settings: &Settings, subject: &Subject, device: &str) -> io::Result<ServerProcess> {
    let patient = device == "cpu";
    ServerProcess::launch(&Start {
        binary: &settings.pack.join("backstop"),
        model: &subject.model,
        arguments: &[&["--device", device], subject.arguments.as_slice()].concat(),
        log: Some(&settings.out.join(SERVERS_LOG)),
        ready_within: if patient { PATIENCE } else { READY_WITHIN },
        silence_max: if patient { PATIENCE } else { SILENCE_MAX },
    })
}

fn compare(settings: &Settings, subject: &Subject, answers: &Answers) -> io::Result<Comparison> {
    let prompts = prompts(subject.vocabulary);
    let expected = match answers.of(&subject.name, &prompts) {
        Some(expected) => expected,
        None => ask_all(start(settings, subject, "cpu")?.server(), &prompts)?,
    };
    let process = start(
        settings,
        subject,
        match settings.device {
            DeviceKind::Cuda => "cuda",
            DeviceKind::Host => "cpu",
        },
    )?;
    let server = process.server();
    let alone: Vec<Value> = prompts
        .iter()
        .map(|prompt| ask(server, prompt))
        .collect::<io::Result<_>>()?;
    let among = ask_all(server, &prompts)?;
    let mut comparison = Comparison::new(alone == among);
    for (expected, actual) in expected.iter().zip(&alone) {
        comparison.add(expected, actual)?;
    }
    Ok(comparison)
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
fn ask(server: Server, prompt: &[u64]) -> io::Result<Value> {
    let body = json!({
        "prompt": prompt,
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0,
        "ignore_eos": true,
        "logprobs": ALTERNATIVES,
    });
    let answer = http::post(server, "/v1/completions", &body.to_string())?;
    let text = answer.body();
    if answer.status != 200 {
        return Err(io::Error::other(format!("refused: {text}")));
    }
    let mut document: Value = serde_json::from_str(&text)?;
    Ok(document["choices"][0].take())
}

/// The same for all prompts at once.
fn ask_all(server: Server, prompts: &[Vec<u64>]) -> io::Result<Vec<Value>> {
    thread::scope(|scope| {
        let threads: Vec<_> = prompts
            .iter()
            .map(|prompt| scope.spawn(move || ask(server, prompt)))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, io::Result<Value>>| {
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a client panicked")))
        };
        threads.into_iter().map(join).collect()
    })
}
