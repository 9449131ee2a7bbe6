use fancy_regex::Regex;
use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};

use super::{ConstraintReason, Language, Reach, language, without_lookaheads};

/// Expressions that another engine with lookaheads reads alike.
const PATTERNS: &[&str] = &[
    "^(?=.*[A-Z])(?=.*\\d).{4,}$",
    "^(?!.*aA).*$",
    "^(?!\\s*$).+",
    "^(?!(a|ab|1)$)[a-b1]+$",
    "(?=a)[ab]{2}",
    "a(?!1)",
    "(?!a)",
    "^a(?=.*1$)[^A]*$",
    "(?=^a)|1$",
    "^(?:a(?=b)|b)[ab]1?$",
    "(^a|(?!b)[ab1]{2}$)",
    "^(?=(?!a)(b|1))..$",
    "^(?=[ab]+$)(?=(..)*$).{2,}$",
    "^[^(?=a)]$",
    "(^a|b)",
    "^(a$|b)1?$",
    "^(?=a)(?=b)",
    "^(?=.*ö)(?!.*🙂).+$",
    "^\\(?(?=1)\\d/?$",
    "^(?<name>a)(?=b)|(?P<other>1)$",
    "(?=.*[A-Z])(?=.*\\d).{3,}",
];

const TOO_LARGE: &str = "lookaheads that would take too large an automaton";

/// Whether the text is in the language.
fn holds(language: &Language, text: &str) -> bool {
    let both = vec![language.clone(), Language::Literal(text.to_owned())];
    !Language::All(both).is_empty().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn lookaheads_say_what_they_say_elsewhere(text in "[abA1 ö🙂/(\n]{0,7}") {
        for pattern in PATTERNS {
            let expected = Regex::new(pattern).unwrap().is_match(&text).unwrap();
            // Where nothing holds it to the beginning, not all of them need be written.
            let is_held = pattern.starts_with('^') || !pattern.contains("(?");
            let is_right = |found: bool| found == expected || (expected && !is_held);
            let found = match language(pattern, Reach::Search).unwrap() {
                Some(language) => holds(&language, &text),
                None => expected,
            };
            prop_assert!(is_right(found), "{} {:?}", pattern, text);
            let Some(plain) = without_lookaheads(pattern, true).unwrap() else {
                continue;
            };
            let found = plain.iter().all(|plain| {
                assert!(!plain.contains("(?=") && !plain.contains("(?!"), "{plain}");
                Regex::new(plain).unwrap().is_match(&text).unwrap()
            });
            prop_assert!(is_right(found), "{} {:?}", pattern, text);
            let whole = format!("^(?:{pattern})$");
            let expected = Regex::new(&whole).unwrap().is_match(&text).unwrap();
            if let Some(language) = language(pattern, Reach::Whole).unwrap() {
                prop_assert_eq!(holds(&language, &text), expected, "{} {:?}", whole, text);
            }
        }
    }
}

#[test]
fn expressions_that_need_nothing_are_left_alone() {
    for pattern in [
        "",
        "a|b$",
        "^[^$]{2}$",
        "(?i)^a",
        "(?i)(^a|b)",
        "\\^(a)\\$",
        "[]^]a",
    ] {
        assert_eq!(without_lookaheads(pattern, true), Ok(None), "{pattern}");
    }
}

#[test]
fn what_cannot_be_enforced_has_a_name() {
    let cases = [
        ("(?<=a)b", "a lookbehind"),
        ("^(?=a).*(?<!b)$", "a lookbehind"),
        ("(a)\\1", "a backreference"),
        ("(?<x>a)\\k<x>", "a backreference"),
        ("(?P<x>a)(?P=x)", "a backreference"),
        ("\\bfoo\\b", "a word boundary"),
        ("(?>a+)b", "an atomic group"),
        ("(a)?(?(1)b|c)", "a condition"),
        ("^((?!foo).)*$", "a lookahead or anchor that is repeated"),
        ("^(?=a)*b", "a lookahead or anchor that is repeated"),
        ("(?=b)a^", "an anchor within it"),
        ("(?i)(?=a)b", "flags beside a lookahead"),
        ("^a(?!.*x.{40})", TOO_LARGE),
    ];
    for (pattern, construct) in cases {
        let expected = Err(ConstraintReason::Construct(construct));
        assert_eq!(without_lookaheads(pattern, true), expected, "{pattern}");
    }
    for pattern in ["(", "a)", "(?", "(?<a", "\\", "(?=a"] {
        let expected = Err(ConstraintReason::Invalid);
        assert_eq!(without_lookaheads(pattern, true), expected, "{pattern}");
    }
    let deep = format!("{}a{}", "(?=".repeat(40), ")".repeat(40));
    let expected = Err(ConstraintReason::Construct(TOO_LARGE));
    assert_eq!(without_lookaheads(&deep, true), expected);
    let wide = "((?=a)b|c)".repeat(12);
    assert_eq!(without_lookaheads(&wide, true), expected);
}
