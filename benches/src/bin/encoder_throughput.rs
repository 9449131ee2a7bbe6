//! Texts and tokens per second of an encoder, without a server:
//! `cargo run --release -p backstop-benches --bin encoder_throughput -- MODEL [DIRECTORY]`.
//!
//! `scripts/goldens/encoders.py --shape` writes models of usual sizes, and `scripts/peers/encoder_throughput.py` asks
//! the same of sentence-transformers.

use std::io::{Error, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use backstop_benches::machine;
use backstop_benches::report::{self, Table};
use backstop_benches::statistics::median;
use backstop_encoders::{EncoderDevice, open_encoder};
use backstop_types::{Encoder, EncoderInput};
use serde_json::{Value, json};

const ROUNDS: usize = 3;
/// Tokens of a text, special ones included. The last texts have 8, 16, 24 and so on, in turns.
const LENGTHS: [Option<usize>; 5] = [Some(16), Some(64), Some(128), Some(512), None];
const MIXED_STEP: usize = 8;
const MIXED_STEPS: usize = 32;
/// Tokens of all texts of a round, about.
const TOKENS: usize = 8192;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let model = arguments
        .next()
        .ok_or_else(|| Error::other("which model?"))?;
    let machine = machine::facts();
    let encoder = open_encoder(&model, EncoderDevice::Cpu).map_err(Error::other)?;
    let columns = ["tokens a text", "texts", "texts/s", "tokens/s"];
    let title = format!("Encoding with {}", name(&model));
    let mut table = Table::new(&title, &columns);
    let mut measurements = Vec::new();
    for length in LENGTHS {
        let inputs = texts(length);
        let tokens: usize = inputs.iter().map(|input| input.tokens.len()).sum();
        let seconds = measure(encoder.as_ref(), &inputs).map_err(Error::other)?;
        let middle = median(&seconds);
        let label = length.map_or("8 to 256".to_owned(), |length| length.to_string());
        table.rows.push(vec![
            label.clone(),
            inputs.len().to_string(),
            format!("{:.1}", inputs.len() as f64 / middle),
            format!("{:.0}", tokens as f64 / middle),
        ]);
        measurements.push(json!({
            "tokens_a_text": label,
            "texts": inputs.len(),
            "tokens": tokens,
            "seconds": seconds,
        }));
    }
    let tables = [table];
    let text = report::markdown("encoder_throughput", &machine, &tables);
    std::io::stdout().write_all(text.as_bytes())?;
    match arguments.next() {
        Some(directory) => report::write(
            &directory,
            "encoder_throughput",
            &machine,
            &Value::Array(measurements),
            &tables,
        ),
        None => Ok(()),
    }
}

fn name(model: &Path) -> String {
    let name = model.file_name().unwrap_or(model.as_os_str());
    name.to_string_lossy().into_owned()
}

/// Texts of one length, or of many.
fn texts(length: Option<usize>) -> Vec<EncoderInput> {
    let length_of = |number: usize| length.unwrap_or((number % MIXED_STEPS + 1) * MIXED_STEP);
    let mut inputs = Vec::new();
    let mut tokens = 0;
    while tokens < TOKENS {
        let length = length_of(inputs.len());
        let token = |at: usize| 1000 + (inputs.len() * 131 + at * 17) as u32 % 20_000;
        let text = (0..length).map(token).collect();
        inputs.push(EncoderInput {
            tokens: text,
            second_segment: None,
        });
        tokens += length;
    }
    inputs
}

/// Seconds of each round, after one that does not count.
fn measure(encoder: &dyn Encoder, inputs: &[EncoderInput]) -> Result<Vec<f64>, String> {
    let mut seconds = Vec::with_capacity(ROUNDS + 1);
    for _ in 0..=ROUNDS {
        let started = Instant::now();
        encoder.encode(inputs)?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    Ok(seconds.split_off(1))
}
