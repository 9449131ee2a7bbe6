//! Verdicts of claims, by what was measured and how.

use std::collections::BTreeMap;

use backstop_models::ClaimSettings;
use serde_json::json;

use super::*;

fn claim(percent: f64, settings: ClaimSettings) -> Claim {
    Claim {
        name: "HumanEval, pass@1".into(),
        value: ClaimValue::Number(percent),
        source: "report".into(),
        method: None,
        benchmark: Some("humaneval".into()),
        metric: Some("pass@1".into()),
        settings,
    }
}

fn of_164() -> ClaimSettings {
    ClaimSettings {
        tasks: Some(164),
        ..ClaimSettings::default()
    }
}

fn measure(metric: &str, passed: u64) -> Measure {
    Measure {
        suite: "code/humaneval".into(),
        metric: metric.into(),
        value: passed as f64 / 164.0,
        interval: wilson(passed, 164),
        count: 164,
        samples: 1,
        settings: BTreeMap::new(),
        source: "backstop-qualify 1".into(),
    }
}

fn checked(claim: Claim, measures: &[Measure]) -> ClaimResult {
    check(&[claim], measures, &Circumstances::default()).remove(0)
}

#[test]
fn a_rate_is_judged_by_what_so_many_tasks_can_tell() {
    for (passed, expected) in [
        (101, Verdict::Reproduced),
        (90, Verdict::Reproduced),
        (80, Verdict::Lower),
        (122, Verdict::Higher),
    ] {
        let result = checked(claim(61.6, of_164()), &[measure("pass@1", passed)]);
        assert_eq!(result.verdict, expected, "{passed}: {}", result.reason);
        assert!(
            result.reason.contains("two-proportion test"),
            "{}",
            result.reason
        );
    }
}

#[test]
fn without_the_number_of_tasks_our_interval_decides() {
    for (passed, expected) in [
        (101, Verdict::Reproduced),
        (88, Verdict::Lower),
        (115, Verdict::Higher),
    ] {
        let result = checked(
            claim(61.6, ClaimSettings::default()),
            &[measure("pass@1", passed)],
        );
        assert_eq!(result.verdict, expected, "{passed}: {}", result.reason);
        assert_eq!(result.p_value, None);
    }
    let mut bare = measure("pass@1", 101);
    (bare.interval, bare.samples) = (None, 10);
    let result = checked(claim(61.6, of_164()), &[bare]);
    assert_eq!(result.verdict, Verdict::NotComparable);
    assert!(result.reason.contains("without an interval"));
}

#[test]
fn what_was_measured_otherwise_is_not_compared() {
    let with = |name: &str, value: serde_json::Value| {
        let mut measure = measure("pass@1", 101);
        measure.settings.insert(name.into(), value);
        measure
    };
    let few = Measure {
        count: 20,
        ..measure("pass@1", 101)
    };
    let settings = |change: fn(&mut ClaimSettings)| {
        let mut settings = of_164();
        change(&mut settings);
        settings
    };
    let cases = [
        (
            of_164(),
            measure("pass@10", 101),
            "the claim is pass@1, ours is pass@10",
        ),
        (of_164(), few, "of 164 tasks, ours of 20"),
        (
            settings(|s| s.shots = Some(0)),
            with("num_fewshot", json!(5)),
            "shots: 0 in the claim, 5 in ours",
        ),
        (
            settings(|s| s.temperature = Some(0.0)),
            with("temperature", json!(0.8)),
            "at temperature 0, ours at 0.8",
        ),
        (
            settings(|s| s.reasoning = Some("on".into())),
            with("reasoning", json!("none")),
            "reasoning: on",
        ),
        (
            settings(|s| s.attempts = Some(ClaimValue::Number(5.0))),
            measure("pass@1", 101),
            "5 attempts",
        ),
        (
            settings(|s| s.attempts = Some(ClaimValue::Text("the best of several".into()))),
            measure("pass@1", 101),
            "the best of several",
        ),
    ];
    for (settings, measure, reason) in cases {
        let result = checked(claim(61.6, settings), &[measure]);
        assert_eq!(result.verdict, Verdict::NotComparable, "{reason}");
        assert!(
            result.reason.contains(reason),
            "{reason}: {}",
            result.reason
        );
        assert!(result.measured.is_some());
    }
}

#[test]
fn another_harness_decides_only_where_it_is_a_part_of_the_benchmark() {
    let settings = ClaimSettings {
        harness: Some("evalplus".into()),
        ..of_164()
    };
    let result = checked(claim(61.6, settings.clone()), &[measure("pass@1", 101)]);
    assert_eq!(result.verdict, Verdict::Reproduced);
    assert!(
        result
            .notes
            .iter()
            .any(|note| note.contains("harness is evalplus"))
    );
    let mut agents = claim(61.6, settings);
    agents.benchmark = Some("swe-bench-verified".into());
    let mut ours = measure("pass@1", 101);
    ours.suite = "mini-swe-agent/swe_bench_verified".into();
    let result = checked(agents, &[ours]);
    assert_eq!(result.verdict, Verdict::NotComparable, "{}", result.reason);
}

#[test]
fn quantised_weights_are_noted() {
    let served = Circumstances {
        weights: Some("Q4_K_M".into()),
    };
    let result = check(&[claim(61.6, of_164())], &[measure("pass@1", 101)], &served).remove(0);
    assert_eq!(result.verdict, Verdict::Reproduced);
    assert!(
        result
            .notes
            .contains(&"quantised weights were served: Q4_K_M".to_owned())
    );
}

#[test]
fn what_was_not_run_says_so_and_the_right_measure_is_found() {
    assert_eq!(checked(claim(61.6, of_164()), &[]).verdict, Verdict::NotRun);
    let mut context = claim(0.0, ClaimSettings::default());
    context.benchmark = None;
    context.value = ClaimValue::Text("32K".into());
    assert_eq!(
        checked(context, &[measure("pass@1", 101)]).verdict,
        Verdict::NotRun
    );
    let mut plus = measure("pass@1", 20);
    plus.suite = "evalplus/humaneval+".into();
    let measures = [plus, measure("pass@10", 130), measure("pass@1", 101)];
    let result = checked(claim(61.6, of_164()), &measures);
    assert_eq!(result.measured.unwrap().value, 101.0 / 164.0);
    let mut claim = claim(20.0 / 1.64, of_164());
    claim.benchmark = Some("humaneval_plus".into());
    assert_eq!(checked(claim, &measures).verdict, Verdict::Reproduced);
}
