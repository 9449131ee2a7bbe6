//! The card's kernels before an independent judge: candle rates the same tokens, on the same card where its kernels
//! were packed, else on the processor.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backstop_benches::report::Table;
use serde_json::Value;

use crate::settings::{DeviceKind, Settings};
use crate::stage::Record;

/// A program with candle's kernels for cards, if one was packed.
const WITH_CANDLE_CUDA: &str = "backstop-candle-cuda";
/// The demo model, which has real weights, and North Mini Code's shape with few layers and made-up ones.
const MODELS: [(&str, &[&str]); 2] = [
    ("demo", &[]),
    (
        "north-mini-code-fp8",
        &[
            "--load-format",
            "synthetic",
            "--hf-overrides",
            r#"{"num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"]}"#,
        ],
    ),
];
/// Mean difference of log-probabilities that BF16 products, and rounding to FP8 in another order, explain.
const TOLERANCE: &str = "0.05";

pub(crate) fn run(settings: &Settings, record: &mut Record) -> io::Result<()> {
    let (program, judge) = judge(&settings.pack);
    let [device, judge] = match settings.device {
        DeviceKind::Cuda => ["cuda", judge],
        DeviceKind::Host => ["cpu", "candle"],
    };
    let columns = [
        "model",
        "device",
        "judge",
        "mean",
        "largest",
        "same most likely token",
    ];
    let mut table = Table::new("Log-probabilities before a judge", &columns);
    // A processor would take minutes for the second.
    let models = if judge == "candle" {
        &MODELS[..1]
    } else {
        &MODELS
    };
    for &(model, options) in models {
        let mut command = Command::new(&program);
        command.args([
            "compare", "--model", model, "--device", device, "--with", judge,
        ]);
        command
            .args(["--tolerance", TOLERANCE, "--json"])
            .args(options);
        let output = command
            .env("BACKSTOP_MODELS_DIR", settings.pack.join("models"))
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let Ok(report) = serde_json::from_slice::<Value>(&output.stdout) else {
            record.fail(format!("{model}: no comparison: {}", last_line(&said)));
            continue;
        };
        if !output.status.success() {
            record.fail(format!(
                "{model}: {device} and {judge} differ by {} on average",
                report["mean"]
            ));
        }
        table.rows.push(row(model, device, judge, &report));
        record.measured(model, report);
        record.table(table.clone());
        record.save(false)?;
    }
    Ok(())
}

/// What to run, and the device to judge by.
fn judge(pack: &Path) -> (PathBuf, &'static str) {
    let with_cuda = pack.join(WITH_CANDLE_CUDA);
    match with_cuda.exists() {
        true => (with_cuda, "candle-cuda"),
        false => (pack.join("backstop"), "candle"),
    }
}

fn row(model: &str, device: &str, judge: &str, report: &Value) -> Vec<String> {
    let sum = |field: &str| -> u64 {
        let texts = report["texts"].as_array().into_iter().flatten();
        texts.filter_map(|text| text[field].as_u64()).sum()
    };
    let number = |field: &str| format!("{:.2e}", report[field].as_f64().unwrap_or(f64::NAN));
    vec![
        model.to_owned(),
        device.to_owned(),
        judge.to_owned(),
        number("mean"),
        number("largest"),
        format!("{} of {}", sum("same_greedy"), sum("positions")),
    ]
}

fn last_line(text: &str) -> &str {
    text.lines().next_back().unwrap_or_default()
}
