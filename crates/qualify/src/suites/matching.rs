//! Whether a value is what was expected: compared by what it means, not by how it is written.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A value that is known by construction, with the alternatives that are as good.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expected {
    /// One of these.
    Any(Vec<Value>),
    /// An object with these members.
    Object(BTreeMap<String, Member>),
    /// A list in this order.
    List(Vec<Expected>),
}

/// A member of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    pub(crate) expected: Expected,
    /// Whether it may be left out.
    pub(crate) is_optional: bool,
}

/// How texts are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Texts {
    /// Character by character.
    Exact,
    /// As the Berkeley Function-Calling Leaderboard does: without blanks and `,./-_*^`, without case, and with one kind of
    /// quotation mark.
    Normalised,
}

impl Expected {
    /// What is wrong with a value, if anything is.
    pub(crate) fn mismatch(&self, actual: &Value, texts: Texts, at: &str) -> Option<String> {
        match self {
            Self::Any(allowed) => {
                let is_allowed = allowed.iter().any(|value| is_same(value, actual, texts));
                let expected = || allowed.first().map(Value::to_string).unwrap_or_default();
                (!is_allowed).then(|| format!("{at} is {}, not {}", brief(actual), expected()))
            }
            Self::List(expected) => {
                let Some(items) = actual.as_array() else {
                    return Some(format!("{at} is {}, no list", brief(actual)));
                };
                if items.len() != expected.len() {
                    return Some(format!(
                        "{at} has {} items, not {}",
                        items.len(),
                        expected.len()
                    ));
                }
                let mut pairs = expected.iter().zip(items).enumerate();
                pairs.find_map(|(index, (expected, item))| {
                    expected.mismatch(item, texts, &format!("{at}[{index}]"))
                })
            }
            Self::Object(members) => match actual.as_object() {
                Some(object) => mismatch_of_members(members, object, texts, at),
                None => Some(format!("{at} is {}, no object", brief(actual))),
            },
        }
    }

    /// A value that is right.
    pub(crate) fn example(&self) -> Value {
        match self {
            Self::Any(allowed) => allowed.first().cloned().unwrap_or_default(),
            Self::List(items) => items.iter().map(Self::example).collect(),
            Self::Object(members) => {
                let values = members
                    .iter()
                    .map(|(name, member)| (name.clone(), member.expected.example()));
                Value::Object(values.collect())
            }
        }
    }
}

fn mismatch_of_members(
    members: &BTreeMap<String, Member>,
    object: &Map<String, Value>,
    texts: Texts,
    at: &str,
) -> Option<String> {
    let wrong = members
        .iter()
        .find_map(|(name, member)| match object.get(name) {
            Some(value) => member
                .expected
                .mismatch(value, texts, &format!("{at}.{name}")),
            None => (!member.is_optional).then(|| format!("{at}.{name} is missing")),
        });
    let surplus = || object.keys().find(|name| !members.contains_key(*name));
    wrong.or_else(|| surplus().map(|name| format!("{at}.{name} was not asked for")))
}

fn is_same(expected: &Value, actual: &Value, texts: Texts) -> bool {
    match (expected, actual) {
        (Value::Number(one), Value::Number(other)) => match (one.as_f64(), other.as_f64()) {
            (Some(one), Some(other)) => (one - other).abs() <= 1e-9 * one.abs().max(1.0),
            _ => false,
        },
        (Value::String(one), Value::String(other)) => match texts {
            Texts::Exact => one == other,
            Texts::Normalised => normalised(one) == normalised(other),
        },
        _ => expected == actual,
    }
}

/// A text as texts are compared.
pub(crate) fn normalised(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_whitespace() && !",./-_*^".contains(*character))
        .flat_map(char::to_lowercase)
        .map(|character| {
            if "'’‘“”".contains(character) {
                '"'
            } else {
                character
            }
        })
        .collect()
}

/// A value as reasons show it.
pub(crate) fn brief(value: &Value) -> String {
    shortened(&value.to_string())
}

/// A text as reasons show it.
pub(crate) fn shortened(text: &str) -> String {
    const CHARACTERS_MAX: usize = 120;
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn any(allowed: Value) -> Expected {
        Expected::Any(allowed.as_array().unwrap().clone())
    }

    fn is_right(expected: &Expected, actual: &Value, texts: Texts) -> bool {
        expected.mismatch(actual, texts, "it").is_none()
    }

    #[test]
    fn numbers_are_equal_by_value_and_never_equal_to_texts() {
        let five = any(json!([5]));
        assert!(is_right(&five, &json!(5.0), Texts::Normalised));
        assert!(is_right(&five, &json!(5), Texts::Exact));
        for wrong in [json!("5"), json!(5.01), json!(-5), json!(null), json!([5])] {
            assert!(!is_right(&five, &wrong, Texts::Normalised), "{wrong}");
        }
        assert!(is_right(
            &any(json!([0.3])),
            &json!(0.1 + 0.2),
            Texts::Exact
        ));
        assert!(!is_right(
            &any(json!([true])),
            &json!("true"),
            Texts::Normalised
        ));
        assert!(!is_right(
            &any(json!([null])),
            &json!("null"),
            Texts::Normalised
        ));
    }

    #[test]
    fn texts_are_compared_leniently_or_exactly() {
        let name = any(json!(["The Blue Door"]));
        assert!(is_right(&name, &json!("the blue-door."), Texts::Normalised));
        assert!(!is_right(&name, &json!("the blue-door."), Texts::Exact));
        assert!(!is_right(
            &name,
            &json!("The Blue Doors"),
            Texts::Normalised
        ));
        let accents = any(json!(["Zoë"]));
        assert!(!is_right(&accents, &json!("Zoe"), Texts::Normalised));
        assert!(is_right(
            &any(json!(["l’été"])),
            &json!("l'été"),
            Texts::Normalised
        ));
    }

    #[test]
    fn alternatives_optional_members_and_surplus_ones() {
        let members = BTreeMap::from([
            (
                "city".to_owned(),
                Member {
                    expected: any(json!(["Paris", "Paris, France"])),
                    is_optional: false,
                },
            ),
            (
                "unit".to_owned(),
                Member {
                    expected: any(json!(["celsius"])),
                    is_optional: true,
                },
            ),
        ]);
        let object = Expected::Object(members);
        let reason = |actual: Value| object.mismatch(&actual, Texts::Exact, "arguments");
        assert_eq!(reason(json!({"city": "Paris, France"})), None);
        assert_eq!(reason(json!({"unit": "celsius", "city": "Paris"})), None);
        let reason = |actual| reason(actual).unwrap();
        assert_eq!(
            reason(json!({"unit": "celsius"})),
            "arguments.city is missing"
        );
        assert!(reason(json!({"city": "Paris", "unit": "kelvin"})).contains("kelvin"));
        assert!(reason(json!({"city": "Paris", "when": 1})).contains("when was not asked for"));
        assert!(reason(json!(["Paris"])).contains("no object"));
    }

    #[test]
    fn lists_keep_their_order() {
        let list = Expected::List(vec![any(json!([1])), any(json!([2]))]);
        assert!(is_right(&list, &json!([1, 2]), Texts::Exact));
        for wrong in [
            json!([2, 1]),
            json!([1]),
            json!([1, 2, 3]),
            json!({"0": 1}),
            json!("12"),
        ] {
            assert!(!is_right(&list, &wrong, Texts::Exact), "{wrong}");
        }
        assert_eq!(list.example(), json!([1, 2]));
    }
}
