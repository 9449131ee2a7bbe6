//! Reading configurations strictly.

use serde_json::{Map, Value, json};

use crate::StrictFields;
use crate::test_support::assert_mentions;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("{other}"),
    }
}

#[test]
fn fields_of_the_right_type_are_read() {
    let source = object(json!({
        "count": 3, "rate": 5, "on": true, "name": "n", "list": ["a"], "ids": [1, 2], "id": 7,
        "nothing": null, "inner": {"deep": 1}
    }));
    let mut fields = StrictFields::new("config.json", &source);
    assert_eq!(fields.u32("count"), 3);
    assert_eq!(fields.f64("rate"), 5.0);
    assert!(fields.bool("on"));
    assert_eq!(fields.string("name"), "n");
    assert_eq!(fields.string_list("list"), ["a"]);
    assert_eq!(fields.optional_token_ids("ids"), Some(vec![1, 2]));
    assert_eq!(fields.optional_token_ids("id"), Some(vec![7]));
    assert_eq!(fields.optional_u32("nothing"), None);
    assert_eq!(fields.optional_string("absent"), None);
    let mut inner = fields.optional_object("inner").unwrap();
    assert_eq!(inner.u32("deep"), 1);
    fields.absorb(inner, &[]);
    fields.finish(&[]).unwrap();
}

#[test]
fn minus_one_means_none() {
    let source = object(json!({"id": -1, "ids": [-1, 3], "count": -1, "two": -2}));
    let mut fields = StrictFields::new("config.json", &source);
    assert_eq!(fields.optional_token_ids("id"), Some(vec![]));
    assert_eq!(fields.optional_token_ids("ids"), Some(vec![3]));
    assert_eq!(fields.optional_u32_or_minus_one("count"), None);
    assert_eq!(fields.problems(), [""; 0]);
    fields.optional_u32_or_minus_one("two");
    assert_eq!(fields.problems().len(), 1);
}

#[test]
fn all_problems_are_reported_at_once() {
    let source = object(json!({
        "count": -1, "huge": 4294967296_u64, "rate": "x", "on": 1, "odd": 3, "dtype": "b",
        "only": 2, "same": 1.0, "inner": {"surprise": [1]}, "null": null
    }));
    let mut fields = StrictFields::new("config.json", &source);
    fields.u32("count");
    fields.u32("huge");
    fields.u32("absent");
    fields.u32("null");
    fields.f64("rate");
    fields.bool("on");
    fields.only("only", &json!(1));
    fields.only("same", &json!(1));
    fields.only("not_there", &json!(1));
    let inner = fields.optional_object("inner").unwrap();
    fields.absorb(inner, &[]);
    assert_eq!(fields.unread_keys(&["dtype"]), ["odd"]);
    let problems = fields.finish(&["dtype"]).unwrap_err();
    assert_eq!(
        problems,
        [
            "config.json: count must be an integer from 0 to 2^32-1, not -1",
            "config.json: huge must be an integer from 0 to 2^32-1, not 4294967296",
            "config.json: absent is missing",
            "config.json: null is missing",
            "config.json: rate must be a number, not \"x\"",
            "config.json: on must be true or false, not 1",
            "config.json: only is 2; only 1 is supported",
            "config.json: inner: surprise = [1] is not understood",
            "config.json: odd = 3 is not understood",
        ]
    );
}

#[test]
fn what_an_adopted_reader_left_unread_is_named_by_its_path() {
    let source = object(json!({"odd": 1, "inner": {"read": 1, "left": 2, "bad": "x"}}));
    let mut fields = StrictFields::new("config.json", &source);
    let mut inner = fields.optional_object("inner").unwrap();
    inner.u32("read");
    inner.u32("bad");
    fields.adopt(inner, &[]);
    assert_eq!(fields.unread_keys(&[]), ["odd", "inner.left"]);
    assert_eq!(fields.unread_keys(&["odd"]), ["inner.left"]);
    assert_mentions(&fields.problems().join(" "), &["config.json: inner: bad"]);
}

#[test]
fn long_values_are_cut_in_messages_at_a_character() {
    let source = object(json!({ "text": "é".repeat(1000) }));
    let mut fields = StrictFields::new("config.json", &source);
    fields.u32("text");
    let message = fields.finish(&[]).unwrap_err().join(" ");
    assert!(message.len() < 300);
    assert_mentions(&message, &["…"]);
}
