//! The cases: templates times values, with the calls that are right known by construction.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::QualifyError;
use crate::random::{Random, seed_of};
use crate::suites::matching::{Expected, Texts};
use crate::suites::pools::{Filling, Pools, read_json};

pub(crate) const TOOLS: &str = include_str!("../../../suites/tools/tools.json");
pub(crate) const TEMPLATES: &str = include_str!("../../../suites/tools/templates.json");
/// To find a case that is not there yet.
const DRAWS_MAX: usize = 1000;

/// What cases ask for, in the order in which they take turns.
pub(crate) const CATEGORIES: [&str; 15] = [
    "single",
    "many_tools",
    "parallel",
    "multi_turn",
    "not_needed",
    "missing",
    "enums",
    "nested",
    "arrays",
    "nullable",
    "unicode",
    "numbers",
    "required",
    "named",
    "none",
];

/// `tool_choice`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Choice {
    #[default]
    Auto,
    Required,
    /// The first expected call's.
    Named,
    None,
}

/// One conversation, as it should go.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) category: &'static str,
    /// As requests have them.
    pub(crate) tools: Vec<Value>,
    pub(crate) choice: Choice,
    pub(crate) texts: Texts,
    /// Words of which a question for what is missing has at least one.
    pub(crate) asks_for: Vec<String>,
    pub(crate) turns: Vec<Turn>,
}

/// An answer of the model, and what leads to it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Turn {
    /// What the user says before.
    pub(crate) say: Option<String>,
    /// In any order. None: an answer in words.
    pub(crate) calls: Vec<ExpectedCall>,
    /// Of each, the words have one.
    pub(crate) mentions: Vec<Vec<String>>,
}

/// A call that is right, and what the tool answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExpectedCall {
    pub(crate) name: String,
    pub(crate) arguments: Expected,
    pub(crate) result: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tool {
    name: String,
    description: String,
    parameters: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    category: String,
    #[serde(default)]
    choice: Choice,
    #[serde(default)]
    exact: bool,
    /// Short for one turn.
    #[serde(default)]
    say: Option<String>,
    #[serde(default)]
    calls: Vec<Map<String, Value>>,
    #[serde(default)]
    turns: Vec<TurnTemplate>,
    /// Tools to offer besides those that are called.
    #[serde(default)]
    offer: Vec<String>,
    /// How many others to offer.
    #[serde(default)]
    distractors: Option<usize>,
    #[serde(default)]
    asks_for: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TurnTemplate {
    #[serde(default)]
    say: Option<String>,
    calls: Vec<Map<String, Value>>,
    #[serde(default)]
    results: Vec<Value>,
    #[serde(default)]
    mentions: Vec<String>,
}

impl Case {
    /// The schema of a tool's arguments, if it is offered.
    pub(crate) fn schema(&self, name: &str) -> Option<&Value> {
        let functions = self.tools.iter().map(|tool| &tool["function"]);
        functions
            .into_iter()
            .find_map(|function| (function["name"] == name).then(|| &function["parameters"]))
    }

    /// What a model is asked is the same for equal ones.
    fn asked(&self) -> String {
        let says: Vec<_> = self.turns.iter().map(|turn| &turn.say).collect();
        format!("{says:?}")
    }
}

/// So many cases of every category. Categories take turns, so that any first part of the list has some of each.
pub(crate) fn generate(seed: u64, per_category: usize) -> Result<Vec<Case>, QualifyError> {
    let generator = Generator {
        seed,
        pools: Pools::load()?,
        tools: read_json("tools/tools.json", TOOLS)?,
    };
    let templates: Vec<Template> = read_json("tools/templates.json", TEMPLATES)?;
    let mut seen = HashSet::new();
    let mut cases = Vec::new();
    for number in 0..per_category {
        for category in CATEGORIES {
            let of_category: Vec<&Template> = templates
                .iter()
                .filter(|template| template.category == category)
                .collect();
            let template = of_category
                .get(number % of_category.len().max(1))
                .ok_or_else(|| QualifyError::new(format!("no templates of {category}")))?;
            cases.push(generator.distinct(category, number, template, &mut seen)?);
        }
    }
    Ok(cases)
}

struct Generator {
    seed: u64,
    pools: Pools,
    tools: Vec<Tool>,
}

impl Generator {
    fn distinct(
        &self,
        category: &'static str,
        number: usize,
        template: &Template,
        seen: &mut HashSet<String>,
    ) -> Result<Case, QualifyError> {
        let name = format!("{category}/{number:03}");
        for draw in 0..DRAWS_MAX {
            let seed = seed_of(self.seed, &["tools", &name, &draw.to_string()]);
            let case = self.case(category, &name, template, Random::new(seed))?;
            if seen.insert(case.asked()) {
                return Ok(case);
            }
        }
        Err(QualifyError::new(format!(
            "there are not so many different cases of {category}: ask for fewer"
        )))
    }

    fn case(
        &self,
        category: &'static str,
        name: &str,
        template: &Template,
        random: Random,
    ) -> Result<Case, QualifyError> {
        let mut filling = Filling::new(&self.pools, random);
        let turns = if template.turns.is_empty() {
            let one = TurnTemplate {
                say: template.say.clone(),
                calls: template.calls.clone(),
                results: Vec::new(),
                mentions: Vec::new(),
            };
            vec![turn(&mut filling, &one)?]
        } else {
            let turns = template.turns.iter().map(|each| turn(&mut filling, each));
            turns.collect::<Result<_, _>>()?
        };
        let called = turns.iter().flat_map(|turn: &Turn| &turn.calls);
        let mut names: Vec<&str> = called.map(|call| call.name.as_str()).collect();
        names.extend(template.offer.iter().map(String::as_str));
        let tools = self.offer(&names, distractors(template), filling.random());
        Ok(Case {
            name: name.to_owned(),
            category,
            tools,
            choice: template.choice,
            texts: if template.exact {
                Texts::Exact
            } else {
                Texts::Normalised
            },
            asks_for: template.asks_for.clone(),
            turns,
        })
    }

    /// These and some others, in an order that tells nothing.
    fn offer(&self, names: &[&str], others: usize, random: &mut Random) -> Vec<Value> {
        let (mut chosen, mut rest): (Vec<&Tool>, Vec<&Tool>) = self
            .tools
            .iter()
            .partition(|tool| names.contains(&tool.name.as_str()));
        random.shuffle(&mut rest);
        chosen.extend(rest.into_iter().take(others));
        random.shuffle(&mut chosen);
        let as_sent = |tool: &Tool| {
            json!({"type": "function", "function": {
                "name": tool.name, "description": tool.description, "parameters": tool.parameters}})
        };
        chosen.into_iter().map(as_sent).collect()
    }
}

/// Where the right answer is in words, a tool that nobody thought of could be right too: no others are offered there.
fn distractors(template: &Template) -> usize {
    template
        .distractors
        .unwrap_or(match template.category.as_str() {
            "not_needed" | "missing" | "none" => 0,
            "many_tools" => 24,
            _ => 2,
        })
}

fn turn(filling: &mut Filling<'_>, template: &TurnTemplate) -> Result<Turn, QualifyError> {
    let say = template.say.as_ref().map(|say| filling.text(say));
    let say = say.transpose()?;
    let mut calls = Vec::new();
    for (index, call) in template.calls.iter().enumerate() {
        let (name, arguments) = call
            .iter()
            .next()
            .ok_or_else(|| QualifyError::new("tools/templates.json: a call without a name"))?;
        let result = match template.results.get(index) {
            Some(result) => filling.value(result)?,
            None => Value::Null,
        };
        calls.push(ExpectedCall {
            name: name.clone(),
            arguments: filling.expected(arguments)?,
            result,
        });
    }
    let mut mentions = Vec::new();
    for mention in &template.mentions {
        let drawn = filling.drawn(mention.trim_matches(['{', '}']))?;
        let value = drawn.value.as_str().map(str::to_owned);
        mentions.push(vec![
            drawn.say,
            value.unwrap_or_else(|| drawn.value.to_string()),
        ]);
    }
    Ok(Turn {
        say,
        calls,
        mentions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suites::conformance::violation;
    use crate::suites::tools::CASES_PER_CATEGORY;

    fn cases() -> Vec<Case> {
        generate(0, CASES_PER_CATEGORY).unwrap()
    }

    #[test]
    fn there_are_at_least_500_distinct_cases_and_as_many_of_every_category() {
        let cases = cases();
        assert!(cases.len() >= 500, "{}", cases.len());
        let asked: HashSet<String> = cases.iter().map(Case::asked).collect();
        assert_eq!(asked.len(), cases.len());
        let names: HashSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), cases.len());
        for category in CATEGORIES {
            let count = cases.iter().filter(|case| case.category == category);
            assert_eq!(count.count(), CASES_PER_CATEGORY, "{category}");
        }
    }

    #[test]
    fn a_seed_is_one_set_and_more_cases_change_none() {
        assert_eq!(cases(), cases());
        assert_ne!(generate(1, CASES_PER_CATEGORY).unwrap(), cases());
        let few = generate(0, 3).unwrap();
        assert_eq!(few[..], cases()[..few.len()]);
    }

    #[test]
    fn every_schema_is_one_and_every_expected_call_conforms_to_its_own() {
        for case in cases() {
            for tool in &case.tools {
                let schema = &tool["function"]["parameters"];
                jsonschema::meta::validate(schema).unwrap();
            }
            for call in case.turns.iter().flat_map(|turn| &turn.calls) {
                let schema = case.schema(&call.name).unwrap();
                let example = call.arguments.example();
                assert_eq!(violation(schema, &example), None, "{} {example}", case.name);
            }
        }
    }

    #[test]
    fn every_template_is_of_a_known_category_and_says_something() {
        let templates: Vec<Template> = read_json("tools/templates.json", TEMPLATES).unwrap();
        for template in &templates {
            assert!(
                CATEGORIES.contains(&template.category.as_str()),
                "{}",
                template.category
            );
            assert_eq!(template.say.is_some(), template.turns.is_empty());
            assert_eq!(
                template.category == "missing",
                !template.asks_for.is_empty()
            );
        }
    }

    #[test]
    fn what_is_expected_can_be_known_from_what_was_said_or_answered() {
        for case in cases() {
            let mut known = String::new();
            for turn in &case.turns {
                known += turn.say.as_deref().unwrap_or_default();
                for call in turn.calls.iter().filter(|_| turn.say.is_none()) {
                    for text in texts_of(&call.arguments.example()) {
                        assert!(known.contains(&text), "{}: {text} in {known}", case.name);
                    }
                }
                for call in &turn.calls {
                    known += &call.result.to_string();
                }
                for mention in &turn.mentions {
                    assert!(
                        mention.iter().any(|each| known.contains(each)),
                        "{mention:?}"
                    );
                }
            }
        }
    }

    /// Those that are ids or free texts, and not one of a few words of a schema.
    fn texts_of(value: &Value) -> Vec<String> {
        match value {
            Value::String(text)
                if text.contains(['-', '_', ' ']) && !text.contains("wrong_item") =>
            {
                vec![text.clone()]
            }
            Value::Array(items) => items.iter().flat_map(texts_of).collect(),
            Value::Object(members) => members.values().flat_map(texts_of).collect(),
            _ => Vec::new(),
        }
    }
}
