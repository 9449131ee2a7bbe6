//! Questions that are answered with probabilities.

use serde_json::{Value, json};

use crate::support::executor::Script;
use crate::support::{Fixture, MAX_MODEL_LEN, Options};

async fn answering(labels: &[&str]) -> Fixture {
    Fixture::ready(Options::script(Script::says_in_turn(labels))).await
}

fn asked(questions: Value) -> Value {
    json!({"model": "north", "input": "It is late.", "questions": questions})
}

fn assert_near(value: &Value, expected: f64) {
    let value = value.as_f64().unwrap();
    assert!((value - expected).abs() < 1e-9, "{value} is not {expected}");
}

#[tokio::test]
async fn each_kind_of_question_has_its_answer() {
    let fixture = answering(&["yes", "no", "A", "B", "C", "0", "1"]).await;
    let questions = json!([
        {"type": "predicate", "name": "late", "instructions": "Is it late?"},
        {"type": "choice", "instructions": [{"type": "input_text", "text": "Which?"}], "choices": [
            {"value": "x", "description": "the first"}, {"value": true}, {"value": "true"}]},
        {"type": "score", "name": "how", "instructions": "How late?", "levels": [
            {"label": "a little"}, {"label": "very", "description": "far too"}]},
    ]);
    let body = fixture
        .client()
        .post("/v1/decisions", &asked(questions))
        .await
        .json();
    assert_eq!(body["model"], "north");
    // The script's tokens are bytes, each with a log-probability of -0.5.
    let answers = &body["answers"];
    assert_eq!(
        (&answers[0]["type"], &answers[0]["name"]),
        (&json!("predicate"), &json!("late"))
    );
    let (yes, no) = ((-1.5f64).exp(), (-1.0f64).exp());
    assert_near(&answers[0]["probability"], yes / (yes + no));
    let choice = &answers[1];
    assert_eq!(
        (&choice["name"], &choice["choice"]),
        (&Value::Null, &json!("x"))
    );
    assert_eq!(choice["probabilities"][1]["value"], true);
    assert_eq!(choice["probabilities"][2]["value"], "true");
    assert_near(&choice["probabilities"][2]["probability"], 1.0 / 3.0);
    assert_near(&choice["confidence"], (-0.5f64).exp());
    let score = &answers[2];
    assert_near(&score["score"], 0.5);
    assert_eq!(score["probabilities"][1]["label"], "very");
    assert_eq!(score["probabilities"][1]["value"], 1);
    let usage = &body["usage"];
    assert_eq!(usage["output_tokens"], 0);
    assert_eq!(usage["input_tokens"], usage["total_tokens"]);
    let template = "[user][end][assistant]".len();
    let prompt = "It is late.\n\nQuestion: Is it late?\nAnswer with yes or no only.".len();
    assert!(usage["input_tokens"].as_u64().unwrap() > 3 * (template + prompt) as u64);
}

#[tokio::test]
async fn more_options_than_letters_have_labels_of_two() {
    let letter = |index: usize| char::from(b'A' + (index % 26) as u8);
    let labels: Vec<String> = (0..40)
        .map(|index| format!("{}{}", letter(index / 26), letter(index)))
        .collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let fixture = answering(&labels).await;
    let choices: Vec<Value> = (0..40)
        .map(|index| json!({"value": index.to_string()}))
        .collect();
    let question = json!([{"type": "choice", "instructions": "Which?", "choices": choices}]);
    let body = fixture
        .client()
        .post("/v1/decisions", &asked(question))
        .await
        .json();
    let answer = &body["answers"][0];
    assert_eq!(answer["probabilities"].as_array().unwrap().len(), 40);
    assert_near(&answer["confidence"], (-1.0f64).exp());
}

#[tokio::test]
async fn conversations_are_inputs_too() {
    let fixture = answering(&["yes", "no"]).await;
    let mut body = asked(json!([{"type": "predicate", "instructions": "Is it done?"}]));
    body["input"] = json!([
        {"role": "user", "content": [{"type": "input_text", "text": "Do it."},
                                     {"type": "input_json", "data": {"a": 1}}]},
        {"type": "function_call", "call_id": "1", "name": "do", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "done"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Yes."}]},
    ]);
    let answer = fixture.client().post("/v1/decisions", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let text = "user: Do it.\n{\"a\":1}\n\nassistant calls do: {}\n\nresult: done\n\nassistant: Yes.\
                \n\nQuestion: Is it done?\nAnswer with yes or no only.";
    let template = "[user][end][assistant]".len();
    assert_eq!(
        answer.json()["usage"]["input_tokens"],
        text.len() + template
    );
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let fixture = answering(&["yes", "no"]).await;
    let client = fixture.client();
    let predicate = json!({"type": "predicate", "instructions": "Is it?"});
    let choice =
        |choices: Value| json!([{"type": "choice", "instructions": "a", "choices": choices}]);
    let two = json!({"value": "a"});
    let cases = [
        (json!([]), "questions"),
        (json!(null), "questions"),
        (json!([{"instructions": "a"}]), "questions.0.type"),
        (
            json!([{"type": "box", "instructions": "a"}]),
            "questions.0.type",
        ),
        (json!([{"type": "predicate"}]), "questions.0.instructions"),
        (choice(json!([two])), "questions.0.choices"),
        (choice(json!([two, two])), "questions.0.choices.1.value"),
        (
            choice(json!([two, {"value": 1}])),
            "questions.0.choices.1.value",
        ),
        (
            json!([{"type": "score", "instructions": "a", "levels": [{"label": "b"}]}]),
            "questions.0.levels",
        ),
        (Value::Array(vec![predicate.clone(); 129]), "questions"),
    ];
    for (questions, param) in cases {
        let answer = client.post("/v1/decisions", &asked(questions)).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["param"]),
            (400, &json!(param))
        );
    }
    let mut streamed = asked(json!([predicate]));
    streamed["stream"] = json!(true);
    let answer = client.post("/v1/decisions", &streamed).await;
    assert_eq!(answer.json()["error"]["param"], "stream");
    let inputs = [
        (
            json!([{"role": "user", "content": [{"type": "input_image", "image_url": "a"}]}]),
            "input.0.content.0.type",
        ),
        (json!([{"role": "tool", "content": "a"}]), "input.0.role"),
        (json!([]), "input"),
        (json!("x".repeat(MAX_MODEL_LEN as usize)), "input"),
    ];
    for (input, param) in inputs {
        let mut body = asked(json!([predicate]));
        body["input"] = input;
        let answer = client.post("/v1/decisions", &body).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["param"]),
            (400, &json!(param))
        );
    }
}
