//! Tasks in the forms that HumanEval, MBPP and EvalPlus have them in.

use serde::Deserialize;
use serde_json::{Value, json};

use super::CodeTasks;

/// Whose form a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// `prompt`, `test` with a function `check`, `entry_point`.
    Humaneval,
    /// `text` or `prompt`, `test_list`, `code`.
    Mbpp,
    /// `prompt`, `canonical_solution`, `base_input`, `plus_input`, `atol`.
    Evalplus,
}

/// One task.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Problem {
    pub(super) task: String,
    /// Its number in the file's own count.
    number: u64,
    /// What is to be done, as the file has it.
    prompt: String,
    /// Tests that are shown.
    tests: String,
    /// A right answer.
    solution: String,
    /// What a continuation continues, as far as it is a part of the program.
    pub(super) lead: String,
    /// What the harness judges by.
    pub(super) checks: Value,
}

impl Problem {
    /// A template of what a base model continues, with what is to be done in its place, to the last blank.
    pub(super) fn continued(&self, template: &str) -> String {
        self.filled(template, &self.prompt)
    }

    /// A template of what is asked in a chat.
    pub(super) fn asked(&self, template: &str) -> String {
        self.filled(template, self.prompt.trim())
    }

    fn filled(&self, template: &str, prompt: &str) -> String {
        // What is filled in may have braces of its own.
        let mut text = String::new();
        let mut rest = template;
        while let Some(at) = rest.find('{') {
            text.push_str(&rest[..at]);
            rest = &rest[at..];
            let places = [("{prompt}", prompt), ("{tests}", self.tests.as_str())];
            if let Some((name, value)) = places.iter().find(|(name, _)| rest.starts_with(name)) {
                text.push_str(value);
                rest = &rest[name.len()..];
            } else {
                text.push('{');
                rest = &rest[1..];
            }
        }
        text + rest
    }

    pub(super) fn is_differential(&self) -> bool {
        self.checks.get("reference").is_some()
    }
}

/// Reads a file of tasks: a JSON object a line, or one list.
pub(super) fn read(own: &CodeTasks, text: &str) -> Result<Vec<Problem>, String> {
    let objects: Vec<Value> = if text.trim_start().starts_with('[') {
        serde_json::from_str(text).map_err(|error| error.to_string())?
    } else {
        let lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty());
        let read = lines.map(|(number, line)| {
            serde_json::from_str(line).map_err(|error| format!("line {}: {error}", number + 1))
        });
        read.collect::<Result<_, _>>()?
    };
    let problems: Result<Vec<Problem>, String> = objects
        .iter()
        .enumerate()
        .map(|(place, object)| {
            problem(own, object).map_err(|error| format!("task {}: {error}", place + 1))
        })
        .collect();
    let problems = problems?;
    if let Some(count) = own.count.filter(|count| *count != problems.len()) {
        return Err(format!("it has {} tasks, not {count}", problems.len()));
    }
    let mut names = std::collections::HashSet::new();
    match problems.iter().find(|problem| !names.insert(&problem.task)) {
        Some(twice) => Err(format!("{} is there twice", twice.task)),
        None => Ok(problems),
    }
}

/// The tasks to ask, and those that are shown first, solved.
pub(super) fn select(own: &CodeTasks, all: Vec<Problem>) -> Result<(Vec<Problem>, String), String> {
    let mut examples = String::new();
    for number in &own.examples {
        let problem = all.iter().find(|problem| problem.number == *number);
        // A file of the test split alone has none of them; chats need none.
        if let Some(problem) = problem {
            examples += &problem.continued(&own.completion);
            examples += problem.solution.trim_end();
            examples += &own.example_end;
        }
    }
    let (first, last) = (own.first.unwrap_or(0), own.last.unwrap_or(u64::MAX));
    let problems: Vec<Problem> = all
        .into_iter()
        .filter(|problem| (first..=last).contains(&problem.number))
        .collect();
    if problems.is_empty() {
        return Err("it has no task of those that are asked".into());
    }
    Ok((problems, examples))
}

fn problem(own: &CodeTasks, object: &Value) -> Result<Problem, String> {
    let text = |name: &str| {
        let text = object[name].as_str();
        text.map(str::to_owned)
            .ok_or_else(|| format!("it has no text {name:?}"))
    };
    let task = match &object["task_id"] {
        Value::String(task) => task.clone(),
        Value::Number(number) if own.format == Format::Mbpp => format!("MBPP/{number}"),
        _ => return Err("it has no \"task_id\"".into()),
    };
    let number = task
        .rsplit('/')
        .next()
        .and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| format!("{task:?} does not end with a number"))?;
    let problem = Problem {
        task,
        number,
        ..Problem::default()
    };
    match own.format {
        Format::Humaneval => {
            let (prompt, test, entry) = (text("prompt")?, text("test")?, text("entry_point")?);
            let checks = json!({
                "entry_point": entry,
                "test": format!("{test}\ncheck({entry})"),
                "frame": format!("{prompt}\n{test}"),
            });
            Ok(Problem {
                lead: prompt.clone(),
                prompt,
                checks,
                ..problem
            })
        }
        Format::Mbpp => mbpp(object, problem),
        Format::Evalplus => {
            let (prompt, entry) = (text("prompt")?, text("entry_point")?);
            let reference = format!("{prompt}{}", text("canonical_solution")?);
            let tolerance = object["atol"].as_f64().unwrap_or(0.0);
            let list = |name: &str| {
                let list = object[name].as_array();
                list.ok_or_else(|| format!("it has no list {name:?}"))
            };
            let checks = json!({
                "entry_point": entry,
                "reference": reference,
                "inputs": {"base": list("base_input")?, "plus": list("plus_input")?},
                "atol": tolerance,
                "oracle": named(&own.oracles, &entry),
                "shape": named(&own.shapes, &number),
            });
            Ok(Problem {
                lead: prompt.clone(),
                prompt,
                checks,
                ..problem
            })
        }
    }
}

fn mbpp(object: &Value, problem: Problem) -> Result<Problem, String> {
    let words = object["prompt"]
        .as_str()
        .or_else(|| object["text"].as_str());
    let words = words.ok_or("it has neither \"prompt\" nor \"text\"")?;
    let code = object["code"].as_str().ok_or("it has no \"code\"")?;
    let tests = lines(&object["test_list"]).filter(|tests| !tests.is_empty());
    let tests = tests.ok_or("it has no \"test_list\"")?;
    let set_up = object["test_setup_code"].as_str().unwrap_or_default();
    let imports = lines(&object["test_imports"])
        .unwrap_or_default()
        .join("\n");
    let shown = tests.join("\n");
    let checks = json!({
        "entry_point": entry_point(code, tests[0]),
        "test": format!("{imports}\n{set_up}\n{shown}"),
    });
    Ok(Problem {
        prompt: words.trim().to_owned(),
        tests: shown,
        solution: code.replace("\r\n", "\n"),
        checks,
        ..problem
    })
}

fn lines(list: &Value) -> Option<Vec<&str>> {
    list.as_array()?.iter().map(Value::as_str).collect()
}

/// The function that a test calls, of those that a right answer defines.
fn entry_point<'a>(code: &'a str, test: &str) -> Option<&'a str> {
    let defined = code.lines().filter_map(|line| {
        let name = line
            .trim_end()
            .strip_prefix("def ")?
            .split('(')
            .next()?
            .trim();
        Some(name)
    });
    let is_name = |character: char| character.is_alphanumeric() || character == '_';
    let called: Vec<&str> = test.split(|character| !is_name(character)).collect();
    defined.into_iter().find(|name| called.contains(name))
}

fn named<T: PartialEq>(
    lists: &std::collections::BTreeMap<String, Vec<T>>,
    of: &T,
) -> Option<String> {
    let found = lists.iter().find(|(_, list)| list.contains(of));
    found.map(|(name, _)| name.clone())
}
