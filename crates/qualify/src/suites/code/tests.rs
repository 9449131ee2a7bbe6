//! Tasks in the forms of the projects that they are from.

use super::*;

fn own(format: &str) -> CodeTasks {
    let text = format!(
        "format = \"{format}\"\nfiles = []\nchat = \"Do: {{prompt}}\\n{{tests}}\"\n\
         completion = \"{{prompt}} {{tests}}>\"\nexamples = [2]\nexample_end = \"<\\n\"\nfirst = 2\nlast = 20\n\
         stop = [\"\\n#\"]\ncpu_s = 3.0\nmemory_mib = 512"
    );
    toml::from_str(&text).unwrap()
}

#[test]
fn humaneval_is_read() {
    let own = own("humaneval");
    let line = json!({
        "task_id": "HumanEval/2", "prompt": "\ndef f(x):\n    \"\"\"{tests}\"\"\"\n", "entry_point": "f",
        "test": "def check(candidate):\n    assert candidate(1) == 1\n",
    });
    let problems = problems::read(&own, &format!("{line}\n\n")).unwrap();
    assert_eq!(problems[0].task, "HumanEval/2");
    assert_eq!(
        problems[0].asked(&own.chat),
        "Do: def f(x):\n    \"\"\"{tests}\"\"\"\n"
    );
    assert_eq!(problems[0].lead, "\ndef f(x):\n    \"\"\"{tests}\"\"\"\n");
    assert!(
        problems[0].checks["test"]
            .as_str()
            .unwrap()
            .ends_with("\ncheck(f)")
    );
    let frame = problems[0].checks["frame"].as_str().unwrap();
    assert!(frame.starts_with("\ndef f(x)") && frame.contains("def check"));
    assert!(!problems[0].is_differential());
}

#[test]
fn mbpp_is_read_in_both_forms_and_its_examples_are_shown_solved() {
    let own = own("mbpp");
    let whole = |number: u32| {
        json!({
            "text": format!("Write {number}."), "task_id": number, "test_setup_code": "root = 1",
            "code": "import math\r\ndef helper():\r\n  return 1\r\ndef wanted (x):\r\n  return helper()\r\n",
            "test_list": ["assert set(wanted(1)) == 1", "assert wanted(2) == 1"], "challenge_test_list": [],
        })
    };
    let text = [1, 2, 11, 21]
        .map(|number| whole(number).to_string())
        .join("\n");
    let all = problems::read(&own, &text).unwrap();
    let (chosen, examples) = problems::select(&own, all).unwrap();
    let tasks: Vec<&str> = chosen.iter().map(|problem| problem.task.as_str()).collect();
    assert_eq!(tasks, ["MBPP/2", "MBPP/11"]);
    assert!(examples.starts_with(
        "Write 2. assert set(wanted(1)) == 1\nassert wanted(2) == 1>import math\ndef"
    ));
    assert!(examples.ends_with("return helper()<\n"));
    let checks = &chosen[1].checks;
    assert_eq!(checks["entry_point"], "wanted");
    assert_eq!(
        checks["test"],
        "\nroot = 1\nassert set(wanted(1)) == 1\nassert wanted(2) == 1"
    );
    let sanitized = json!([{
        "source_file": "x", "task_id": 3, "prompt": "Write.", "code": "def f():\n  pass",
        "test_imports": ["import math"], "test_list": ["assert f() == math.pi"],
    }]);
    let all = problems::read(&own, &sanitized.to_string()).unwrap();
    assert_eq!(
        all[0].checks["test"],
        "import math\n\nassert f() == math.pi"
    );
}

#[test]
fn evalplus_is_read_with_oracles_and_shapes() {
    let mut own = own("evalplus");
    own.oracles = BTreeMap::from([("same-set".into(), vec!["f".into()])]);
    own.shapes = BTreeMap::from([("each".into(), vec![2])]);
    let line = json!({
        "task_id": "Mbpp/2", "prompt": "\"\"\"P\"\"\"\n", "entry_point": "f", "canonical_solution": "def f(x): return x",
        "base_input": [[[1]]], "plus_input": [], "atol": 0, "contract": "",
    });
    let problems = problems::read(&own, &line.to_string()).unwrap();
    let checks = &problems[0].checks;
    assert_eq!(
        (&checks["oracle"], &checks["shape"]),
        (&json!("same-set"), &json!("each"))
    );
    assert_eq!(checks["reference"], "\"\"\"P\"\"\"\ndef f(x): return x");
    assert!(problems[0].is_differential());
}

#[test]
fn files_that_are_something_else_are_refused() {
    let mut own = own("humaneval");
    for (text, expected) in [
        ("{}", "task 1: it has no \"task_id\""),
        ("{", "line 1: EOF"),
        ("{\"task_id\": \"x\"}", "\"x\" does not end with a number"),
        (
            "{\"task_id\": \"x/1\", \"prompt\": 3}",
            "it has no text \"prompt\"",
        ),
    ] {
        let error = problems::read(&own, text).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    own.count = Some(164);
    assert_eq!(
        problems::read(&own, "").unwrap_err(),
        "it has 0 tasks, not 164"
    );
    assert!(problems::select(&own, Vec::new()).is_err());
}

#[test]
fn a_continuation_ends_at_the_first_stop() {
    let stops = ["\ndef".to_owned(), "\n#".to_owned()];
    assert_eq!(
        cut("    return 1\n# next\ndef g():", &stops),
        "    return 1"
    );
    assert_eq!(cut("    return 1", &stops), "    return 1");
}

#[test]
fn a_wrong_answer_that_was_cut_off_is_no_plain_failure() {
    let verdict = |outcome: &str| Verdict {
        outcome: outcome.into(),
        reason: None,
        passed: vec!["base".into()],
    };
    let reply = |finish_reason: &str| Reply {
        finish_reason: Some(finish_reason.into()),
        ..Reply::default()
    };
    let of = |outcome: &str, reason: &str| judgement(&verdict(outcome), &reply(reason), true);
    assert_eq!(of("failed", "length").outcome, Outcome::Truncated);
    assert_eq!(of("failed", "stop").outcome, Outcome::Failed);
    let passed = of("passed", "length");
    assert_eq!(
        (passed.outcome, passed.score, passed.reason),
        (Outcome::Passed, 1.0, None)
    );
    assert_eq!(passed.marks["base"], true);
    assert_eq!(passed.marks["plus"], false);
}
