//! Every form of a log, and what is none.

use serde_json::json;

use super::*;

fn read(lines: &[Value]) -> (Vec<Logged>, BTreeMap<Fault, BadLines>) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    read_text(&text)
}

fn read_text(text: &str) -> (Vec<Logged>, BTreeMap<Fault, BadLines>) {
    let mut log = Log::new(text.as_bytes());
    let mut read = Vec::new();
    while let Some(logged) = log.next().unwrap() {
        read.push(logged);
    }
    (read, log.bad)
}

#[test]
fn every_form_of_a_log_is_the_same_chat() {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let body = json!({"model": "m", "messages": messages, "temperature": 0.5, "api_key": "sk-secret", "user": "u"});
    let forms = [
        body.clone(),
        json!({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}),
        json!({"timestamp": 1, "request": body, "response": {"messages": []}}),
        json!({"request": {"method": "POST", "url": "https://g/v1/chat/completions?x=1", "body": body}}),
        json!({"id": "x", "call_type": "acompletion", "messages": messages, "response": {"choices": []},
               "model_parameters": {"temperature": 0.5, "stream": true}}),
        json!({"kwargs": 1, "standard_logging_object": {"call_type": "completion", "messages": messages,
               "model_parameters": {"temperature": 0.5}}}),
        json!({"call_type": "acompletion", "messages": {}, "proxy_server_request": body.to_string()}),
        json!({"call_type": "acompletion", "proxy_server_request": {"url": "http://g/chat/completions", "method": "POST",
               "headers": {"authorization": "secret"}, "body": body}}),
    ];
    let (logged, bad) = read(&forms);
    assert!(bad.is_empty(), "{bad:?}");
    assert_eq!(logged.len(), forms.len());
    let expected = json!({"messages": messages, "temperature": 0.5});
    for (number, logged) in logged.into_iter().enumerate() {
        assert_eq!(Value::Object(logged.body), expected, "form {number}");
        assert_eq!(logged.line, number as u64 + 1);
    }
}

#[test]
fn what_is_no_chat_is_counted_by_its_number() {
    let (logged, bad) = read_text(concat!(
        "not json\n",
        "\n",
        "{\"custom_id\": \"1\", \"method\": \"POST\", \"url\": \"/v1/embeddings\", \"body\": {\"input\": \"x\"}}\n",
        "{\"call_type\": \"aembedding\", \"messages\": [{}]}\n",
        "{\"messages\": \"redacted-by-litellm\"}\n",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"redacted-by-litellm\"}]}\n",
        "{\"messages\": []}\n",
        "{\"messages\": [1]}\n",
        "[]\n",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"last, without an end\"}]}",
    ));
    assert_eq!(logged.len(), 1);
    assert_eq!(logged[0].line, 10);
    let lines = |fault| bad[&fault].lines.clone();
    assert_eq!(lines(Fault::NoJson), [1]);
    assert_eq!(lines(Fault::AnotherKind), [3, 4]);
    assert_eq!(lines(Fault::Redacted), [5, 6]);
    assert_eq!(lines(Fault::NoMessages), [7, 8, 9]);
}

#[test]
fn a_line_without_end_costs_no_memory_and_the_next_is_read() {
    let mut text = vec![b'x'; LINE_BYTES_MAX as usize + 5];
    text.extend(b"\n{\"messages\": [{}]}\n");
    let mut log = Log::new(text.as_slice());
    assert_eq!(log.next().unwrap().unwrap().line, 2);
    assert!(log.buffer.len() < 1000);
    assert_eq!(log.bad[&Fault::TooLong].count, 1);
    assert_eq!(log.next().unwrap(), None);
}
