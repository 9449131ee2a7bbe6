use serde_json::{Value, json};

use super::{ConstraintReason, Language, Strings};

/// Whether a schema is satisfied by a string as it stands.
fn holds(schema: &Value, text: &str) -> bool {
    let language = Strings::new(schema).of(schema).unwrap();
    let both = |language| Language::All(vec![language, Language::Literal(text.to_owned())]);
    language.is_some_and(|language| !both(language).is_empty().unwrap())
}

#[test]
fn strings_are_those_of_the_schema() {
    let cases = [
        (json!({}), vec!["", "any\n\"thing\""], vec![]),
        (json!({"type": "string"}), vec!["", "1"], vec![]),
        (
            json!({"type": ["null", "integer"]}),
            vec![],
            vec!["null", "1"],
        ),
        (
            json!({"enum": ["a", "", 3, null]}),
            vec!["a", ""],
            vec!["3", "null", "b"],
        ),
        (
            json!({"minLength": 2, "maxLength": 3}),
            vec!["äö", "🙂🙂🙂"],
            vec!["ä", "abcd"],
        ),
        (
            json!({"pattern": "^a|b$"}),
            vec!["a", "ax", "xb"],
            vec!["xa", "bx"],
        ),
        (
            json!({"pattern": "^(GET|POST) /[^|$]*\\$$"}),
            vec!["GET /a$"],
            vec!["GET /a", "xGET /$"],
        ),
        (json!({"pattern": "(^a|b)"}), vec!["ax", "xb"], vec!["xa"]),
        (
            json!({"pattern": "^(?!a).(?=b)"}),
            vec!["xb", "bbc"],
            vec!["ab", "x"],
        ),
        (
            json!({"pattern": "\\d[]a^]"}),
            vec!["x1]y", "2^"],
            vec!["1", "٣]"],
        ),
        (
            json!({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}),
            vec!["ba"],
            vec!["a", "b"],
        ),
        (
            json!({"anyOf": [{"const": "a"}, {"maxLength": 0}, {"type": "null"}]}),
            vec!["a", ""],
            vec!["b"],
        ),
        (
            json!({"oneOf": [{"const": "a"}, {"enum": ["b", 1]}, {"type": "null"}]}),
            vec!["a", "b"],
            vec!["c"],
        ),
        (
            json!({"oneOf": [{"type": "string"}, {"type": "null"}]}),
            vec!["a"],
            vec![],
        ),
        (
            json!({"$ref": "#/$defs/x", "$defs": {"x": {"enum": ["x"]}}}),
            vec!["x"],
            vec!["y"],
        ),
    ];
    for (schema, accepted, refused) in cases {
        for text in accepted {
            assert!(holds(&schema, text), "{schema}: {text}");
        }
        for text in refused {
            assert!(!holds(&schema, text), "{schema}: {text}");
        }
    }
}

#[test]
fn formats_hold_strings_of_their_kind() {
    let cases = [
        (
            "date",
            vec!["2024-01-31", "1999-02-28"],
            vec!["2024-04-31", "2023-02-29", "2024-1-1"],
        ),
        (
            "time",
            vec!["23:59:59Z", "00:00:00.5+01:30"],
            vec!["24:00:00Z", "10:00"],
        ),
        (
            "date-time",
            vec!["2024-12-01T10:00:00Z"],
            vec!["2024-12-01 10:00:00Z"],
        ),
        ("duration", vec!["P3D", "PT5M30S"], vec!["P", "3D", "PT"]),
        (
            "email",
            vec!["a.b+c@example.org"],
            vec!["a@b", "@example.org", "a..b@example.org"],
        ),
        (
            "hostname",
            vec!["a", "www.example-1.org"],
            vec!["-a", "a-.b", "a..b", ""],
        ),
        (
            "ipv4",
            vec!["127.0.0.1", "255.249.10.0"],
            vec!["256.0.0.1", "1.2.3", "01.2.3.4"],
        ),
        (
            "ipv6",
            vec!["::", "::1", "fe80::1:2", "1:2:3:4:5:6:7:8"],
            vec!["1:2", "1::2::3", ":1"],
        ),
        (
            "uuid",
            vec!["123e4567-e89b-12d3-a456-426614174000"],
            vec!["123e4567"],
        ),
        (
            "uri",
            vec!["https://example.org:80/a?b=c#d", "mailto:a@b.org"],
            vec!["a b", "//x", "/a"],
        ),
    ];
    for (format, accepted, refused) in cases {
        let schema = json!({"format": format});
        for text in accepted {
            assert!(holds(&schema, text), "{format}: {text}");
        }
        for text in refused {
            assert!(!holds(&schema, text), "{format}: {text}");
        }
    }
    assert!(holds(&json!({"format": "color"}), "anything"));
}

#[test]
fn what_cannot_be_written_is_refused() {
    let circle = json!({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}});
    let cases = [
        (
            json!({"oneOf": [{"maxLength": 3}, {"minLength": 2}]}),
            ConstraintReason::Keyword("oneOf"),
        ),
        (
            json!({"pattern": "a^"}),
            ConstraintReason::Keyword("pattern"),
        ),
        (
            json!({"$ref": "#/$defs/a"}),
            ConstraintReason::Keyword("$ref"),
        ),
        (
            json!({"minLength": 3, "maxLength": 2}),
            ConstraintReason::Unsatisfiable,
        ),
        (json!({"minLength": -1}), ConstraintReason::Invalid),
        (circle, ConstraintReason::TooComplex),
    ];
    for (schema, expected) in cases {
        assert_eq!(Strings::new(&schema).of(&schema), Err(expected), "{schema}");
    }
}

#[test]
fn literals_are_admitted_where_the_schema_lists_or_types_them() {
    let document = json!({"$defs": {"x": {"enum": [true, "a"]}}});
    let cases = [
        (json!({"type": ["string", "null"]}), [true, false, false]),
        (json!({"$ref": "#/$defs/x"}), [false, true, false]),
        (
            json!({"anyOf": [{"type": "string"}, {"const": false}]}),
            [false, false, true],
        ),
        (
            json!({"oneOf": [{"type": "boolean"}, {"const": false}]}),
            [false, true, false],
        ),
        (
            json!({"allOf": [{"type": ["null", "boolean"]}, {"enum": [null, 1]}]}),
            [true, false, false],
        ),
        (json!(true), [true, true, true]),
        (json!(false), [false, false, false]),
    ];
    for (schema, expected) in cases {
        let values = [json!(null), json!(true), json!(false)];
        let strings = Strings::new(&document);
        let found = values.map(|value| strings.admits(&schema, &value).unwrap());
        assert_eq!(found, expected, "{schema}");
    }
}
