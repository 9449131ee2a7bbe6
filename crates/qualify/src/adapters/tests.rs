//! Results that the packages themselves wrote (`tests/adapters`) are read as what they say.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::*;
use crate::scratch::Scratch;

fn written(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/adapters")
        .join(name)
}

fn find<'a>(measures: &'a [Measure], suite: &str, metric: &str) -> &'a Measure {
    let mut found = measures
        .iter()
        .filter(|one| one.suite == suite && one.metric == metric);
    let measure = found.next().unwrap();
    assert!(found.next().is_none(), "{suite} {metric} twice");
    measure
}

#[test]
fn lm_evals_results_have_intervals_filters_and_settings() {
    let measures = read(Kind::LmEval, &written("lm-eval"), None).unwrap();
    assert_eq!(measures.len(), 4);
    let accuracy = find(&measures, "lm-eval/facts_mc", "acc");
    assert_eq!((accuracy.value, accuracy.count), (0.75, 8));
    assert_eq!(accuracy.source, "lm-eval 0.4.13");
    let interval = accuracy.interval.as_ref().unwrap();
    // 0.75 and 1.96 standard errors of 0.1637 to each side, at most 1.
    assert!((interval.low - 0.4292).abs() < 1e-4, "{interval:?}");
    assert_eq!(interval.high, 1.0);
    let of_filter = |filter: &str| {
        let is_it =
            |one: &&Measure| one.settings["filter"] == filter && one.metric == "exact_match";
        measures.iter().find(is_it).unwrap()
    };
    let (loose, strict) = (of_filter("loose"), of_filter("strict"));
    assert_eq!((loose.value, strict.value), (0.5, 0.0));
    assert_eq!(loose.settings["shots"], 1);
    assert_eq!(loose.settings["temperature"], 0.0);
    assert_eq!(loose.settings["max_tokens"], 8);
    assert_eq!(loose.settings["model_type"], "local-completions");
    // None of eight is not surely none: lm-eval's standard error of 0 says nothing.
    let interval = strict.interval.as_ref().unwrap();
    assert_eq!((interval.low, interval.method.as_str()), (0.0, "wilson"));
    assert!(interval.high > 0.3);
}

#[test]
fn evalplus_results_are_pass_at_1_with_and_without_its_own_tests() {
    let measures = read(Kind::Evalplus, &written("evalplus"), Some("0.3.1")).unwrap();
    // What EvalPlus printed itself.
    let base = find(&measures, "evalplus/humaneval", "pass@1");
    let plus = find(&measures, "evalplus/humaneval+", "pass@1");
    assert!((base.value - 0.833).abs() < 5e-4 && (plus.value - 0.5).abs() < 5e-4);
    assert_eq!((base.count, base.samples), (3, 2));
    assert_eq!(base.settings["temperature"], 0.8);
    assert_eq!(base.source, "evalplus 0.3.1");
    assert_eq!(measures.len(), 2, "ten answers of two cannot be estimated");
}

#[test]
fn bfcls_scores_are_those_of_its_categories() {
    let measures = read(Kind::Bfcl, &written("bfcl"), None).unwrap();
    assert_eq!(measures.len(), 3);
    let irrelevance = find(&measures, "bfcl/irrelevance", "accuracy");
    assert_eq!((irrelevance.value, irrelevance.count), (1.0, 2));
    assert_eq!(irrelevance.settings["data"], "v4");
    assert!(irrelevance.interval.as_ref().unwrap().low < 0.5);
    let simple = find(&measures, "bfcl/simple_python", "accuracy");
    assert_eq!((simple.value, simple.count), (0.0, 4));
    assert!(simple.source.contains("not recorded"));
}

#[test]
fn trajectories_count_attempts_and_only_a_report_says_what_was_resolved() {
    let measures = read(Kind::MiniSweAgent, &written("mini-swe-agent"), None).unwrap();
    let attempts = find(&measures, "mini-swe-agent", "attempts");
    assert_eq!(
        (attempts.value, attempts.source.as_str()),
        (1.0, "mini-swe-agent 2.4.6")
    );
    assert_eq!(attempts.settings["ends"], json!({"RepeatedFormatError": 1}));
    assert_eq!(find(&measures, "mini-swe-agent", "submitted").value, 0.0);
    assert_eq!(
        find(&measures, "mini-swe-agent", "requests_mean").value,
        3.0
    );
    let resolved = find(&measures, "mini-swe-agent/swebench", "resolved");
    assert_eq!((resolved.value, resolved.count), (0.25, 4));
    assert_eq!(resolved.settings["submitted"], 3);
    let alone = written("mini-swe-agent/task.traj.json");
    let measures = read(Kind::MiniSweAgent, &alone, None).unwrap();
    assert!(measures.iter().all(|one| one.metric != "resolved"));
}

#[test]
fn what_is_no_result_is_an_error_that_names_the_file() {
    let scratch = Scratch::make("no-results").unwrap();
    for (kind, name, text) in [
        (Kind::LmEval, "results_1.json", "{}"),
        (Kind::LmEval, "results_1.json", "{"),
        (Kind::Evalplus, "x_eval_results.json", "{\"eval\": {}}"),
        (Kind::Bfcl, "BFCL_v4_x_score.json", "{\"accuracy\": 1}"),
        (Kind::MiniSweAgent, "x.traj.json", "{\"info\": {}}"),
    ] {
        let file = scratch.path().join(name);
        std::fs::write(&file, text).unwrap();
        let error = read(kind, &file, None).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn of_several_results_of_a_task_the_newest_counts() {
    let scratch = Scratch::make("newest").unwrap();
    let results = |value: f64| {
        json!({"results": {"t": {"acc,none": value}}, "n-samples": {"t": {"effective": 10}}})
            .to_string()
    };
    for (time, value) in [("2026-02", 0.2), ("2026-03", 0.3), ("2026-01", 0.1)] {
        let file = scratch.path().join(format!("results_{time}.json"));
        std::fs::write(file, results(value)).unwrap();
    }
    let measures = read(Kind::LmEval, scratch.path(), None).unwrap();
    assert_eq!(measures.len(), 1);
    assert_eq!((measures[0].value, measures[0].count), (0.3, 10));
    assert_eq!(measures[0].interval, None);
}

#[test]
fn measures_are_kept_beside_others_and_replace_their_like() {
    let scratch = Scratch::make("kept").unwrap();
    let measures = read(Kind::Bfcl, &written("bfcl"), Some("1")).unwrap();
    results::keep(scratch.path(), "bfcl", measures.clone()).unwrap();
    let mut again = measures[..1].to_vec();
    again[0].value = 0.5;
    let file = results::keep(scratch.path(), "bfcl", again).unwrap();
    let kept: Vec<Measure> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(kept.len(), 3);
    assert_eq!(kept[2].value, 0.5);
}
