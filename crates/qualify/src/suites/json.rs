//! Answers in JSON: the same texts, to be turned into the same values, under `response_format` with a schema, under
//! `response_format` without one, and by plain instruction. What enforcement adds is the difference.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::conformance::violation;
use super::judging::{Marks, judged, unanswered};
use super::matching::{Expected, Texts};
use super::measuring::Measuring;
use super::pools::{Filling, Pools, VALUES, digest, read_json};
use super::{Built, Context, Definition};
use crate::QualifyError;
use crate::random::{Random, seed_of};
use crate::record::{Attempt, Measure, Reply};
use crate::suite::{Step, Suite};

const TEMPLATES: &str = include_str!("../../suites/json/templates.json");
const CASES_PER_TEMPLATE: usize = 5;
const CASES_PER_TEMPLATE_MAX: usize = 100;

/// What sees to it that the answer is JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Schema,
    Object,
    Instruction,
}

const MODES: [(Mode, &str); 3] = [
    (Mode::Schema, "json_schema"),
    (Mode::Object, "json_object"),
    (Mode::Instruction, "instruction"),
];

/// `[tasks]` of the definition.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tasks {
    cases_per_template: usize,
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            cases_per_template: CASES_PER_TEMPLATE,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    name: String,
    #[serde(default)]
    exact: bool,
    text: String,
    schema: Value,
    values: Value,
}

struct Case {
    mode: Mode,
    texts: Texts,
    text: String,
    schema: Value,
    values: Expected,
}

struct Json {
    names: Vec<String>,
    cases: Vec<Case>,
    measuring: Measuring,
}

/// Makes the suite.
pub(crate) fn build(definition: &Definition, context: &Context<'_>) -> Result<Built, QualifyError> {
    let tasks: Tasks = definition.tasks()?;
    if !(1..=CASES_PER_TEMPLATE_MAX).contains(&tasks.cases_per_template) {
        return Err(QualifyError::new(format!(
            "[tasks]: cases_per_template is from 1 to {CASES_PER_TEMPLATE_MAX}"
        )));
    }
    let seed = context.args.sampling.seed;
    let measuring = Measuring::new(definition, context);
    let suite = Json::new(seed, tasks.cases_per_template, measuring)?;
    Ok(Built::Ready(Box::new(suite)))
}

impl Json {
    fn new(seed: u64, per_template: usize, measuring: Measuring) -> Result<Self, QualifyError> {
        let pools = Pools::load()?;
        let templates: Vec<Template> = read_json("json/templates.json", TEMPLATES)?;
        let (mut names, mut cases) = (Vec::new(), Vec::new());
        for number in 0..per_template {
            for template in &templates {
                let name = format!("{}/{number:02}", template.name);
                let random = Random::new(seed_of(seed, &["json", &name]));
                let mut filling = Filling::new(&pools, random);
                let text = filling.text(&template.text)?;
                let values = filling.expected(&template.values)?;
                for (mode, mode_name) in MODES {
                    names.push(format!("{mode_name}/{name}"));
                    cases.push(Case {
                        mode,
                        texts: if template.exact {
                            Texts::Exact
                        } else {
                            Texts::Normalised
                        },
                        text: text.clone(),
                        schema: template.schema.clone(),
                        values: values.clone(),
                    });
                }
            }
        }
        Ok(Self {
            names,
            cases,
            measuring,
        })
    }
}

impl Suite for Json {
    fn name(&self) -> &str {
        self.measuring.suite()
    }

    fn tasks(&self) -> &[String] {
        &self.names
    }

    fn settings(&self) -> BTreeMap<String, Value> {
        BTreeMap::from([
            ("cases".into(), self.cases.len().into()),
            ("data_sha256".into(), digest(&[TEMPLATES, VALUES])),
        ])
    }

    fn step(&self, task: usize, _sample: u32, replies: &[Reply]) -> Result<Step, QualifyError> {
        if let Some(step) = unanswered(replies) {
            return Ok(step);
        }
        let case = &self.cases[task];
        Ok(match replies.last() {
            None => Step::Ask(request(case)),
            Some(reply) => {
                let (wrong, marks) = judge(case, &reply.text);
                judged(reply, wrong, marks)
            }
        })
    }

    fn measures(&self, attempts: &[Attempt]) -> Vec<Measure> {
        let mut measures = Vec::new();
        for (_, mode) in MODES {
            let of_mode: Vec<&Attempt> = attempts
                .iter()
                .filter(|attempt| attempt.task.starts_with(&format!("{mode}/")))
                .collect();
            let measuring = self.measuring.with("mode", mode);
            for mark in ["valid", "valid_unfenced", "conforms", "values_right"] {
                let is_so = |attempt: &Attempt| attempt.marks.get(mark) == Some(&Value::Bool(true));
                measures.extend(measuring.rate(&format!("{mark}_{mode}"), &of_mode, is_so));
            }
        }
        measures
    }
}

fn request(case: &Case) -> Value {
    let prompt = format!(
        "Extract the values from the text into one JSON object that conforms to this JSON schema:\n\n{}\n\nAnswer with the \
         JSON object alone: no explanation, no code fence. Write dates as YYYY-MM-DD and times as HH:MM in 24 hours. Copy \
         names and texts as they stand. Use null where the text says nothing and the schema allows it.\n\nText:\n{}",
        case.schema, case.text
    );
    let mut request = json!({"messages": [{"role": "user", "content": prompt}]});
    match case.mode {
        Mode::Instruction => {}
        Mode::Object => request["response_format"] = json!({"type": "json_object"}),
        Mode::Schema => {
            request["response_format"] = json!({"type": "json_schema", "json_schema": {
                "name": "extraction", "strict": true, "schema": case.schema}});
        }
    }
    request
}

/// What is wrong, if anything is. A fence around the answer is a fault where the server was to enforce JSON; a model that was
/// merely told is not failed for it, but `valid` says that it was there.
fn judge(case: &Case, text: &str) -> (Option<String>, Marks) {
    let bare: Result<Value, _> = serde_json::from_str(text);
    let is_bare = bare.is_ok();
    let unfenced = bare.or_else(|_| serde_json::from_str(without_fence(text)));
    let (mut conforms, mut right) = (false, false);
    let wrong = match &unfenced {
        Err(error) => Some(format!("it is no JSON: {error}")),
        Ok(value) => {
            let violation = violation(&case.schema, value);
            conforms = violation.is_none();
            let mismatch = case.values.mismatch(value, case.texts, "it");
            right = mismatch.is_none();
            let fenced = || (!is_bare).then(|| "there is a code fence around it".to_owned());
            let fenced = || fenced().filter(|_| case.mode != Mode::Instruction);
            violation.or(mismatch).or_else(fenced)
        }
    };
    let marks = [
        ("valid", is_bare),
        ("valid_unfenced", unfenced.is_ok()),
        ("conforms", conforms),
        ("values_right", right && conforms),
    ];
    let marks = marks.map(|(name, is_so)| (name.to_owned(), Value::Bool(is_so)));
    (wrong, Marks::from(marks))
}

/// What is within a code fence, if nothing is around it.
fn without_fence(text: &str) -> &str {
    let inner = text.trim().strip_prefix("```");
    let inner = inner.and_then(|rest| rest.strip_suffix("```"));
    match inner.and_then(|inner| inner.split_once('\n')) {
        Some((language, inner)) if language.trim().chars().all(char::is_alphanumeric) => inner,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Outcome;
    use crate::suites::testing::{assert_perfect, attempts, measuring, said, values};

    const DEFINITION: &str = include_str!("../../suites/json.toml");

    fn suite() -> Json {
        Json::new(0, CASES_PER_TEMPLATE, measuring(DEFINITION)).unwrap()
    }

    #[test]
    fn the_modes_differ_in_nothing_but_what_enforces_json() {
        let suite = suite();
        assert_eq!(suite.names.len(), 14 * CASES_PER_TEMPLATE * MODES.len());
        let request = |task| match suite.step(task, 0, &[]).unwrap() {
            Step::Ask(request) => request,
            Step::Judged(_) => panic!("it has to be asked"),
        };
        let (schema, object, plain) = (request(0), request(1), request(2));
        assert_eq!(schema["messages"], object["messages"]);
        assert_eq!(schema["messages"], plain["messages"]);
        assert_eq!(schema["response_format"]["json_schema"]["strict"], true);
        assert_eq!(object["response_format"], json!({"type": "json_object"}));
        assert_eq!(plain["response_format"], Value::Null);
    }

    #[test]
    fn every_schema_is_one_and_what_is_expected_conforms_to_it() {
        let suite = suite();
        let mut texts = std::collections::HashSet::new();
        for case in &suite.cases {
            jsonschema::meta::validate(&case.schema).unwrap();
            assert_eq!(
                violation(&case.schema, &case.values.example()),
                None,
                "{}",
                case.text
            );
            texts.insert(&case.text);
        }
        assert_eq!(texts.len() * MODES.len(), suite.cases.len());
        let again = self::suite();
        assert!(
            suite
                .cases
                .iter()
                .zip(&again.cases)
                .all(|(one, other)| one.text == other.text)
        );
    }

    #[test]
    fn who_is_right_has_one_everywhere_and_who_is_wrong_zero() {
        let suite = suite();
        let right = attempts(&suite, |task, _, _| {
            said(serde_json::to_string_pretty(&suite.cases[task].values.example()).unwrap())
        });
        assert_perfect(&right);
        let measured = values(&suite.measures(&right));
        assert_eq!(measured.len(), 12);
        assert!(measured.values().all(|value| *value == 1.0), "{measured:?}");
        let wrong = attempts(&suite, |_, _, _| said("Here is the JSON: {}"));
        let measured = values(&suite.measures(&wrong));
        assert!(measured.values().all(|value| *value == 0.0), "{measured:?}");
    }

    #[test]
    fn every_wrong_value_is_found() {
        let suite = suite();
        for case in &suite.cases {
            let right = case.values.example();
            for (pointer, changed) in changes(&right) {
                let mut wrong = right.clone();
                *wrong.pointer_mut(&pointer).unwrap() = changed;
                let (reason, marks) = judge(case, &wrong.to_string());
                assert!(
                    reason.is_some() && marks["values_right"] == false,
                    "{wrong}"
                );
                assert_eq!(marks["valid"], true);
            }
        }
    }

    /// Each scalar in turn, changed.
    fn changes(value: &Value) -> Vec<(String, Value)> {
        let inside = |(name, value): (String, &Value)| {
            let inner = changes(value).into_iter();
            inner
                .map(|(rest, changed)| (format!("/{name}{rest}"), changed))
                .collect::<Vec<_>>()
        };
        match value {
            Value::Object(members) => {
                let members = members.iter().map(|(name, value)| (name.clone(), value));
                members.flat_map(inside).collect()
            }
            Value::Array(items) => {
                let items = items.iter().enumerate();
                let items = items.map(|(index, value)| (index.to_string(), value));
                items.flat_map(inside).collect()
            }
            Value::String(text) => vec![(String::new(), format!("{text}x").into())],
            Value::Number(number) => vec![
                (String::new(), json!(number.as_f64().unwrap() + 1.0)),
                (String::new(), number.to_string().into()),
            ],
            Value::Bool(is_so) => vec![(String::new(), (!is_so).into())],
            Value::Null => vec![(String::new(), "null".into())],
        }
    }

    #[test]
    fn tricky_answers() {
        let suite = suite();
        let case = |mode| suite.cases.iter().find(|case| case.mode == mode).unwrap();
        let plain = case(Mode::Instruction);
        let json = plain.values.example().to_string();
        let fenced = format!("```json\n{json}\n```\n");
        let (reason, marks) = judge(plain, &fenced);
        assert_eq!(reason, None);
        assert_eq!(
            (&marks["valid"], &marks["valid_unfenced"]),
            (&json!(false), &json!(true))
        );
        assert!(
            judge(case(Mode::Schema), &fenced)
                .0
                .unwrap()
                .contains("fence")
        );
        assert_eq!(judge(plain, &format!("\n {json}\n")).0, None);
        for wrong in [
            format!("Here it is:\n{json}"),
            format!("{json}\nI hope that helps."),
            format!("[{json}]"),
            json.replace('"', "'"),
            json[..json.len() - 1].to_owned(),
            format!("{json}{json}"),
            format!("Sure!\n{fenced}"),
            String::new(),
            "null".into(),
        ] {
            let (reason, marks) = judge(plain, &wrong);
            assert!(reason.is_some(), "{wrong}");
            assert_eq!(marks["values_right"], false, "{wrong}");
        }
        let mut surplus = plain.values.example();
        surplus["comment"] = "as you asked".into();
        let (_, marks) = judge(plain, &surplus.to_string());
        assert_eq!(
            (&marks["valid"], &marks["conforms"]),
            (&json!(true), &json!(false))
        );
    }

    #[test]
    fn a_cut_answer_is_told_from_a_wrong_one() {
        let suite = suite();
        let cut = Reply {
            finish_reason: Some("length".into()),
            ..said("{\"name\": \"")
        };
        let attempts = attempts(&suite, |_, _, _| cut.clone());
        assert!(
            attempts
                .iter()
                .all(|attempt| attempt.outcome == Outcome::Truncated)
        );
    }
}
