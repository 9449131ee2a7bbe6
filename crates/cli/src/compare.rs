//! `backstop compare`: one model on two devices, which judge each other.
//!
//! Both rate the same tokens: prompts, and what the first device answers to each. So one difference does not lead to
//! others, and every position counts.

mod difference;
mod ratings;
mod report;

use std::process::ExitCode;

use backstop_executor::{ComputeDevice, Plan, Probe};
use backstop_types::TokenId;

use self::difference::measure;
use self::ratings::rate_and_continue;
use self::report::Report;
use crate::args::{CompareArgs, DeviceChoice, ModelArgs};
use crate::device;
use crate::limits::Limits;
use crate::load::{self, OpenModel};
use crate::progress::ProgressBars;

/// Bytes of a file of prompts.
const PROMPTS_BYTES_MAX: u64 = 1 << 20;
/// Sequences that run at once: as many rows of logits are computed together.
const SEQUENCES: u32 = 64;
/// Texts of several kinds, if there is no file of them.
const PROMPTS: &[&str] = &[
    "The fallback chain of a gateway ends with a model that nobody else can switch off, because",
    "fn binary_search(values: &[u32], wanted: u32) -> Option<usize> {\n    let mut range = 0..values.len();\n",
    "{\"role\": \"assistant\", \"tool_calls\": [{\"type\": \"function\", \"function\": {\"name\":",
    "Überprüfe, ob 17 × 23 größer als 400 ist. 请一步一步地思考。",
];

pub(crate) fn run(args: &CompareArgs) -> Result<ExitCode, String> {
    let (first, second) = (args.model.device(), args.with);
    // Both before any work: a device that is not there need not be waited for.
    let first_device = device::choose(&on(&args.model, first))?;
    let second_device = device::choose(&on(&args.model, second))?;
    let model = on(&args.model, first);
    let open = load::open(&args.model)?;
    let prompts = prompts(args, &open)?;
    let mut probe = probe(&model, open, &first_device)?;
    let mut expected = Vec::new();
    for prompt in &prompts {
        expected.push(rate_and_continue(&mut probe, prompt, args.max_tokens)?);
    }
    // The first gives its memory back before the second takes as much.
    drop(probe);
    let open = load::open(&args.model)?;
    let spec = open.spec().clone();
    let mut probe = self::probe(&model, open, &second_device)?;
    let differences = expected.iter();
    let differences = differences.map(|expected| measure(&mut probe, expected, &spec));
    let differences = differences.collect::<Result<Vec<_>, String>>()?;
    let report = Report::new(&first.to_string(), &second.to_string(), differences);
    report.print(args.json)?;
    Ok(match report.agrees_within(args.tolerance) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The texts to rate, each shortened to what a prompt may have.
fn prompts(args: &CompareArgs, open: &OpenModel) -> Result<Vec<Vec<TokenId>>, String> {
    let file = args.prompts.as_ref().map(|path| {
        let text = backstop_input::read_text_file(path, PROMPTS_BYTES_MAX);
        text.map_err(|error| format!("{}: {error}", path.display()))
    });
    let file = file.transpose()?;
    let texts: Vec<&str> = match &file {
        Some(text) => text.lines().filter(|line| !line.is_empty()).collect(),
        None => PROMPTS.to_vec(),
    };
    let prompts = texts.into_iter().map(|text| {
        let tokens = open.text.tokenizer.encode(text, true);
        let mut tokens = tokens.map_err(|error| error.to_string())?;
        tokens.truncate(args.prompt_tokens as usize);
        Ok(tokens)
    });
    let prompts: Vec<Vec<TokenId>> = prompts.collect::<Result<_, String>>()?;
    match prompts.iter().any(|prompt| prompt.len() > 1) {
        true => Ok(prompts
            .into_iter()
            .filter(|prompt| prompt.len() > 1)
            .collect()),
        false => Err("there is no prompt with two tokens to compare".to_owned()),
    }
}

/// The settings for a device.
fn on(args: &ModelArgs, choice: DeviceChoice) -> ModelArgs {
    ModelArgs {
        device: Some(choice),
        max_num_seqs: Some(SEQUENCES),
        // What is recorded shows nothing of what it computes.
        enforce_eager: true,
        ..args.clone()
    }
}

/// The model on a device.
fn probe(args: &ModelArgs, open: OpenModel, device: &ComputeDevice) -> Result<Probe, String> {
    let limits = Limits::new(args, &open, device.is_gpu())?;
    let failed = |error: String| format!("{}: {error}", open.directory.display());
    let plan = Plan::new(device, &open.source, &limits.sizes, None);
    let plan = plan.map_err(|error| failed(error.to_string()))?;
    let bars = ProgressBars::default();
    let directory = open.directory.clone();
    let probe = plan.probe(open.source, &|stage, done, total| {
        bars.show(stage, done, total)
    });
    probe.map_err(|error| format!("{}: {error}", directory.display()))
}
