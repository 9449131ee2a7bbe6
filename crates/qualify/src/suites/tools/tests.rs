use serde_json::json;

use super::*;
use crate::record::Outcome;
use crate::suites::testing::{assert_perfect, attempt, attempts, called, measuring, said, values};

const DEFINITION: &str = include_str!("../../../suites/tools.toml");

fn suite() -> Tools {
    Tools::new(0, CASES_PER_CATEGORY, measuring(DEFINITION)).unwrap()
}

/// As it should go.
fn right(case: &Case, replies: &[Reply]) -> Reply {
    let turn = &case.turns[replies.len()];
    if turn.calls.is_empty() {
        let mentions: Vec<&str> = turn
            .mentions
            .iter()
            .map(|words| words[0].as_str())
            .collect();
        let asks: Vec<String> = case
            .asks_for
            .iter()
            .map(|word| format!("{word}?"))
            .collect();
        return said(format!("Well, {} {}", mentions.join(" "), asks.join(" ")));
    }
    // The last call first: their order says nothing.
    let calls = turn.calls.iter().rev();
    called(calls.map(|call| (call.name.clone(), call.arguments.example())))
}

/// Wrong in every category, and never by the schema.
fn wrong_answer(case: &Case, replies: &[Reply]) -> Reply {
    let turn = &case.turns[replies.len()];
    if turn.calls.is_empty() {
        let name = case.tools[0]["function"]["name"].as_str().unwrap();
        return called([(name.to_owned(), json!({}))]);
    }
    let first = &turn.calls[0];
    let mut calls = vec![(first.name.clone(), first.arguments.example())];
    calls.push(calls[0].clone());
    calls.extend(calls.clone());
    calls.push(calls[0].clone());
    called(calls)
}

fn case_of<'a>(suite: &'a Tools, category: &str) -> (usize, &'a Case) {
    let cases = suite.cases.iter().enumerate();
    cases
        .into_iter()
        .find(|(_, case)| case.category == category)
        .unwrap()
}

#[test]
fn who_is_always_right_has_one_everywhere_and_no_markup() {
    let suite = suite();
    let attempts = attempts(&suite, |task, _, replies| {
        right(&suite.cases[task], replies)
    });
    assert_perfect(&attempts);
    let values = values(&suite.measures(&attempts));
    assert_eq!(values.len(), 7 + CATEGORIES.len());
    for (metric, value) in values {
        let expected = f64::from(u8::from(metric != "markup_in_text"));
        assert_eq!(value, expected, "{metric}");
    }
}

#[test]
fn who_is_always_wrong_has_zero_in_every_category() {
    let suite = suite();
    let attempts = attempts(&suite, |task, _, replies| {
        wrong_answer(&suite.cases[task], replies)
    });
    let values = values(&suite.measures(&attempts));
    for category in CATEGORIES {
        assert_eq!(values[&format!("accuracy_{category}")], 0.0, "{category}");
    }
    assert_eq!(values["accuracy"], 0.0);
    // It always calls: it misses none, and what it calls in the place of words is nothing that a schema allows.
    assert_eq!(values["trigger_recall"], 1.0);
    assert!(values["trigger_precision"] < 1.0);
    assert!(values["schema_validity"] > 0.5 && values["schema_validity"] < 1.0);
}

#[test]
fn who_never_calls_is_right_only_where_words_are() {
    let suite = suite();
    let attempts = attempts(&suite, |task, _, replies| {
        let case = &suite.cases[task];
        let asks = case.asks_for.first().map(|word| format!("{word}?"));
        assert!(replies.is_empty());
        said(asks.unwrap_or_else(|| "Certainly.".into()))
    });
    let values = values(&suite.measures(&attempts));
    for category in CATEGORIES {
        let expected = f64::from(u8::from(
            ["not_needed", "missing", "none"].contains(&category),
        ));
        assert_eq!(
            values[&format!("accuracy_{category}")],
            expected,
            "{category}"
        );
    }
    assert_eq!(values["trigger_recall"], 0.0);
    assert!(!values.contains_key("trigger_precision") && !values.contains_key("schema_validity"));
}

#[test]
fn triggers_are_counted_as_the_verifiers_do() {
    let decided = |decisions: Value| Attempt {
        marks: BTreeMap::from([("decisions".to_owned(), decisions)]),
        ..attempt(&suite(), 0, &mut |_, _| said("no"))
    };
    let list = [
        decided(json!([[true, true], [true, true], [false, true]])),
        decided(json!([[true, false], [false, false], [false, false]])),
    ];
    let measures = measures(&measuring(DEFINITION), &list);
    let values = values(&measures);
    assert_eq!(values["trigger_precision"], 2.0 / 3.0);
    assert_eq!(values["trigger_recall"], 2.0 / 3.0);
    assert_eq!(values["trigger_f1"], 2.0 / 3.0);
    assert_eq!(values["trigger_agreement"], 4.0 / 6.0);
}

#[test]
fn a_finish_reason_that_does_not_say_calls_is_no_trigger() {
    let suite = suite();
    let (task, case) = case_of(&suite, "single");
    let quiet = Reply {
        finish_reason: Some("stop".into()),
        ..right(case, &[])
    };
    let attempt = attempt(&suite, task, &mut |_, _| quiet.clone());
    assert_eq!(attempt.outcome, Outcome::Passed);
    assert_eq!(attempt.marks["decisions"], json!([[true, false]]));
}

#[test]
fn calls_that_are_almost_right() {
    let suite = suite();
    let number = |category: &str, text: &str| {
        let of = suite.cases.iter().position(|case| {
            case.category == category
                && case.turns[0]
                    .say
                    .as_ref()
                    .is_some_and(|say| say.contains(text))
        });
        of.unwrap()
    };
    let task = number("single", "weather in");
    let case = &suite.cases[task];
    let arguments = case.turns[0].calls[0].arguments.example();
    let judged = |name: &str, arguments: &str| {
        let mut reply = called([(name.to_owned(), Value::Null)]);
        reply.tool_calls[0].arguments = arguments.to_owned();
        attempt(&suite, task, &mut |_, _| reply.clone())
    };
    assert_eq!(judged("get_weather", &arguments.to_string()).score, 1.0);
    let mut louder = arguments.clone();
    louder["city"] = louder["city"].as_str().unwrap().to_uppercase().into();
    assert_eq!(judged("get_weather", &louder.to_string()).score, 1.0);
    let mut other_city = arguments.clone();
    other_city["city"] = "Atlantis".into();
    let mut surplus = arguments.clone();
    surplus["days"] = 3.into();
    let without_city = json!({"unit": arguments["unit"]});
    let cut = arguments.to_string();
    for (name, arguments, reason, is_valid) in [
        ("get_weather", other_city.to_string(), "Atlantis", true),
        ("get_weather", surplus.to_string(), "days", false),
        ("get_weather", without_city.to_string(), "city", false),
        (
            "get_weather",
            cut[..cut.len() - 1].to_owned(),
            "no JSON",
            false,
        ),
        ("get_weather", String::new(), "no JSON", false),
        ("get_weather", format!("{cut}{cut}"), "no JSON", false),
        ("getWeather", cut.clone(), "there is no tool", false),
    ] {
        let attempt = judged(name, &arguments);
        assert_eq!(attempt.outcome, Outcome::Failed, "{arguments}");
        assert!(attempt.reason.unwrap().contains(reason), "{arguments}");
        assert_eq!(
            attempt.marks["valid"],
            json!(u8::from(is_valid)),
            "{arguments}"
        );
    }
}

#[test]
fn an_optional_argument_is_no_fault_at_its_default_and_is_one_otherwise() {
    let suite = suite();
    let flights = suite.cases.iter().position(|case| {
        case.category == "many_tools" && case.turns[0].calls[0].name == "search_flights"
    });
    let task = flights.unwrap();
    let mut arguments = suite.cases[task].turns[0].calls[0].arguments.example();
    let mut judged = |cabin: Option<&str>| {
        arguments.as_object_mut().unwrap().remove("cabin");
        if let Some(cabin) = cabin {
            arguments["cabin"] = cabin.into();
        }
        let reply = called([("search_flights".to_owned(), arguments.clone())]);
        attempt(&suite, task, &mut |_, _| reply.clone()).score
    };
    assert_eq!(judged(None), 1.0);
    assert_eq!(judged(Some("economy")), 1.0);
    assert_eq!(judged(Some("first")), 0.0);
}

#[test]
fn one_call_too_few_too_many_or_twice() {
    let suite = suite();
    let (task, case) = case_of(&suite, "parallel");
    let whole = right(case, &[]);
    let judged = |calls: Vec<usize>| {
        let calls = calls
            .into_iter()
            .map(|index| whole.tool_calls[index].clone());
        let reply = Reply {
            tool_calls: calls.collect(),
            ..whole.clone()
        };
        attempt(&suite, task, &mut |_, _| reply.clone()).outcome
    };
    assert_eq!(judged(vec![0, 1]), Outcome::Passed);
    assert_eq!(judged(vec![1, 0]), Outcome::Passed);
    for wrong in [vec![0], vec![0, 0], vec![0, 1, 1]] {
        assert_eq!(judged(wrong.clone()), Outcome::Failed, "{wrong:?}");
    }
}

#[test]
fn results_go_back_to_the_calls_that_they_belong_to() {
    let suite = suite();
    let balances = suite
        .cases
        .iter()
        .position(|case| case.category == "multi_turn" && case.turns[0].calls.len() == 2);
    let task = balances.unwrap();
    let case = &suite.cases[task];
    let first = right(case, &[]);
    let Step::Ask(request) = suite.step(task, 0, std::slice::from_ref(&first)).unwrap() else {
        panic!("it goes on");
    };
    let messages = request["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 5);
    assert_eq!(messages[2]["tool_calls"].as_array().unwrap().len(), 2);
    for (call, answer) in first.tool_calls.iter().zip(&messages[3..]) {
        assert_eq!(answer["tool_call_id"], call.id);
        let asked: Value = serde_json::from_str(&call.arguments).unwrap();
        let result: Value = serde_json::from_str(answer["content"].as_str().unwrap()).unwrap();
        assert_eq!(result["account_id"], asked["account_id"]);
    }
    let wrong = suite.step(task, 0, &[first.clone(), first]).unwrap();
    assert!(matches!(wrong, Step::Judged(judgement) if judgement.outcome == Outcome::Failed));
}

#[test]
fn choices_are_sent_as_the_api_has_them() {
    let suite = suite();
    let choice = |category| match suite.step(case_of(&suite, category).0, 0, &[]).unwrap() {
        Step::Ask(request) => request["tool_choice"].clone(),
        Step::Judged(_) => panic!("it has to be asked"),
    };
    assert_eq!(choice("single"), Value::Null);
    assert_eq!(choice("required"), "required");
    assert_eq!(choice("none"), "none");
    let named = choice("named");
    assert_eq!(named["type"], "function");
    assert!(named["function"]["name"].is_string());
}

#[test]
fn asking_back_is_told_from_pretending() {
    let time = ["time".to_owned(), "when".to_owned()];
    for asks in [
        "At what time should I book?",
        "I can do that. Please provide the time.",
        "Sure! Could you tell me when?",
        "I need one more thing: the time of day.",
    ] {
        assert!(asks_for(asks, &time), "{asks}");
    }
    for pretends in [
        "Your table is booked for this time. Anything else?",
        "Done.",
        "The time is 7 pm.",
        "Would you like a window seat?",
        "",
    ] {
        assert!(!asks_for(pretends, &time), "{pretends}");
    }
}

#[test]
fn markup_that_the_server_did_not_understand_is_found() {
    let suite = suite();
    let (task, _) = case_of(&suite, "single");
    let leaked = attempt(&suite, task, &mut |_, _| {
        said("<tool_call>\n{\"name\": \"get_weather\"}\n</tool_call>")
    });
    assert_eq!(leaked.marks["markup"], true);
    assert!(leaked.reason.unwrap().contains("markup"));
}

#[test]
fn what_did_not_come_is_not_judged_and_what_was_cut_off_is_told() {
    use backstop_client::{Failure, FailureKind};
    let suite = suite();
    let failure = Some(Failure {
        kind: FailureKind::Timeout,
        message: "no end".into(),
    });
    let lost = Reply {
        failure,
        ..Reply::default()
    };
    let lost = attempt(&suite, 0, &mut |_, _| lost.clone());
    assert_eq!(lost.outcome, Outcome::NoAnswer);
    let cut = Reply {
        finish_reason: Some("length".into()),
        ..said("Let me think")
    };
    let cut = attempt(&suite, 0, &mut |_, _| cut.clone());
    assert_eq!(cut.outcome, Outcome::Truncated);
    let (_, case) = case_of(&suite, "single");
    let mut cut = right(case, &[]);
    cut.finish_reason = Some("length".into());
    cut.tool_calls[0].arguments.pop();
    let cut = attempt(&suite, 0, &mut |_, _| cut.clone());
    assert_eq!(cut.outcome, Outcome::Truncated);
    assert_eq!(cut.marks["with_calls"], 0);
    let refused = Reply {
        refusal: Some("I will not".into()),
        ..said("")
    };
    let refused = attempt(&suite, 0, &mut |_, _| refused.clone());
    assert_eq!(refused.outcome, Outcome::Refused);
}
