//! A rehearsal of the GPU gate on the host executor, so that the gate works when there is a card.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Runs the gate on some kernels and hands back its exit status.
fn rehearse(out: &Path, stages: &str, kernels: &str) -> Option<i32> {
    let status = Command::new(env!("CARGO_BIN_EXE_gpu_gate"))
        .arg("run")
        .arg(out)
        .args(["--device", "host", "--stages", stages, "--kernels", kernels])
        .status();
    status.expect("the gate starts").code()
}

fn results(out: &Path, stage: &str) -> Value {
    let text = fs::read_to_string(out.join(format!("{stage}.json"))).expect("results");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn a_rehearsal_checks_and_times_kernels_and_reports_both() {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rehearsal");
    let status = rehearse(&out, "device,kernels,timing", "add_scaled,router");
    let report = fs::read_to_string(out.join("gate.md")).expect("a report");
    assert_eq!(status, Some(0), "{report}");
    for stage in ["device", "kernels", "timing"] {
        assert_eq!(results(&out, stage)["passed"], true, "{report}");
        assert!(
            report.contains(&format!("# Stage {stage}: passed")),
            "{report}"
        );
    }
    let kernels = &results(&out, "kernels")["measurements"]["kernels"];
    for kernel in ["add_scaled", "router"] {
        let cases = kernels[kernel].as_array().expect("cases");
        assert!(
            cases.iter().any(|case| case["outcome"] == "passed"),
            "{report}"
        );
    }
    let timed = &results(&out, "timing")["measurements"]["kernels"]["router"][0];
    assert!(
        timed["cold_us"]["median"]
            .as_f64()
            .is_some_and(|time| time > 0.0)
    );
}

#[test]
fn cases_are_chosen_by_number_and_the_report_is_there_after_every_stage() {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chosen");
    let status = Command::new(env!("CARGO_BIN_EXE_gpu_gate"))
        .arg("run")
        .arg(&out)
        .args(["--device", "host", "--stages", "kernels", "--quick"])
        .args(["--cases", "add_scaled:1,router:0,invariance:0"])
        .status()
        .expect("the gate starts");
    assert_eq!(status.code(), Some(0));
    let kernels = &results(&out, "kernels")["measurements"]["kernels"];
    let names: Vec<&String> = kernels.as_object().expect("kernels").keys().collect();
    assert_eq!(names, ["router", "add_scaled", "invariance"]);
    let cases = kernels["add_scaled"].as_array().expect("cases");
    assert_eq!((cases.len(), &cases[0]["index"]), (1, &Value::from(1)));
    let report = fs::read_to_string(out.join("gate.md")).expect("a report");
    assert!(report.contains("# Stage kernels: passed"), "{report}");
}

#[test]
fn a_run_without_time_ends_and_says_what_it_did_not_do() {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no_time");
    let status = Command::new(env!("CARGO_BIN_EXE_gpu_gate"))
        .arg("run")
        .arg(&out)
        .args(["--device", "host", "--stages", "kernels", "--seconds", "2"])
        .status()
        .expect("the gate starts");
    assert_eq!(status.code(), Some(2));
    let failures = results(&out, "kernels")["failures"].to_string();
    assert!(failures.contains("linear: no time for"), "{failures}");
}

#[test]
fn a_stage_that_cannot_run_fails_alone_and_shows_in_the_status() {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("without_server");
    // There is no server beside the gate's directory of models.
    let status = Command::new(env!("CARGO_BIN_EXE_gpu_gate"))
        .arg("run")
        .arg(&out)
        .args([
            "--device",
            "host",
            "--stages",
            "models,kernels",
            "--kernels",
            "add_scaled",
        ])
        .args(["--pack", "/nonexistent"])
        .status()
        .expect("the gate starts");
    assert_eq!(status.code(), Some(4));
    assert_eq!(results(&out, "models")["passed"], false);
    assert_eq!(results(&out, "kernels")["passed"], true);
}
