//! Grammars of arguments that are written as named parameters, each between tags of its own:
//! strings as they stand, everything else as JSON.

use llguidance::api::GrammarWithLexer;
use serde_json::{Map, Value, json};

use super::error::{ConstraintReason, Fault};
use super::language::Language;
use super::lookaheads::{self, Lookaheads};
use super::omissions::Omissions;
use super::shape::{CallableTool, arguments_grammar, literal};
use super::strings::Strings;
use super::{limits, schema};
use crate::json_types::{JsonTypes, resolve};

/// How a format writes a parameter, in the words of its grammar.
#[derive(Debug)]
pub(crate) struct ParameterLayout {
    /// What stands before the name.
    pub(crate) before_name: String,
    /// What stands between name and value.
    pub(crate) after_name: String,
    /// The text that ends a value, and that no value that is not JSON can contain.
    pub(crate) end_tag: &'static str,
    /// What stands after a value, its end included.
    pub(crate) end: String,
    /// How much of that belongs to the terminal of a value that is not JSON.
    pub(crate) end_of_terminal: String,
    /// The rest of it.
    pub(crate) after_terminal: String,
    /// Whether a parameter of this name can be written.
    pub(crate) can_write: fn(&str) -> bool,
    /// Some of those names, as a regular expression.
    pub(crate) names: &'static str,
}

/// What the arguments' schema stands under, in the documents of the parameters' schemas.
const ARGUMENTS: &str = "arguments";

/// The grammars of a tool's arguments. The first of them refers to the others.
pub(crate) fn grammars(
    tool: &CallableTool,
    layout: &ParameterLayout,
    omitted: &Omissions,
) -> Result<Vec<GrammarWithLexer>, Fault> {
    let mut writer = Writer {
        layout,
        omitted,
        name: tool.grammar_name(),
        document: Value::Null,
        rules: String::new(),
        grammars: Vec::new(),
        bytes: 0,
    };
    let start = match &tool.parameters {
        Some(parameters) => writer.listed_parameters(parameters)?,
        None => writer.any_parameters(),
    };
    let mut grammar = GrammarWithLexer::from_lark(format!("start: {start}\n{}", writer.rules));
    grammar.name = Some(writer.name);
    let mut grammars = vec![grammar];
    grammars.append(&mut writer.grammars);
    Ok(grammars)
}

struct Writer<'a> {
    layout: &'a ParameterLayout,
    omitted: &'a Omissions,
    name: String,
    /// The schema, in a place where others can refer to it.
    document: Value,
    /// Rules and terminals of the values.
    rules: String,
    /// Grammars of those that are JSON.
    grammars: Vec<GrammarWithLexer>,
    /// Bytes of those.
    bytes: usize,
}

impl Writer<'_> {
    /// Parameters of an object whose schema says which it has, in its order.
    fn listed_parameters(&mut self, parameters: &Value) -> Result<String, Fault> {
        let mut parameters = schema::of_arguments(parameters, self.omitted, Lookaheads::Kept)?;
        schema::prefix_references(&mut parameters, &format!("#/$defs/{ARGUMENTS}"));
        self.document = json!({"$defs": {ARGUMENTS: parameters}});
        let document = self.document.clone();
        let object = Object::new(&document)?;
        let mut start = Vec::new();
        for (index, (name, schema)) in object.properties.iter().enumerate() {
            let required = object.required.contains(&name.as_str());
            let value = match (self.layout.can_write)(name) {
                true => self.value(&index.to_string(), schema)?,
                false if required => return Err(ConstraintReason::ParameterName.into()),
                false => None,
            };
            if let Some(value) = value {
                let rule = self.parameter(&literal(name), &value);
                start.push(format!("({rule}){}", if required { "" } else { "?" }));
            } else if required {
                return Err(ConstraintReason::Unsatisfiable.into());
            }
        }
        if let Some(more) = object.more {
            let taken = object.properties.keys();
            let taken = taken.map(|name| Language::Literal(name.clone())).collect();
            let taken = Language::Not(Box::new(Language::AnyOf(taken)));
            let mut names = vec![Language::regex(self.layout.names)];
            names.extend(Some(taken).filter(|_| !object.properties.is_empty()));
            if let Some(value) = self.value("more", more)? {
                self.define("NAME", &Language::All(names));
                start.push(format!("({})*", self.parameter("NAME", &value)));
            }
        }
        if start.is_empty() {
            start.push("\"\"".to_owned());
        }
        Ok(start.join(" "))
    }

    /// Any parameters, whose values the reader takes for what it can.
    fn any_parameters(&mut self) -> String {
        // One that may be read as JSON has no string that is open at its end.
        let text = Language::regex("\\s*([^\\s\\[{](?s:.*))?");
        let closed = Language::regex("([^\"]|\"([^\"\\\\]|\\\\(?s:.))*\")*");
        let value = Language::All(vec![
            Language::without(self.layout.end_tag),
            Language::AnyOf(vec![text, closed]),
        ]);
        let value = self.terminal("VALUE", value);
        self.define("NAME", &Language::regex(self.layout.names));
        format!("({})*", self.parameter("NAME", &value))
    }

    fn parameter(&self, name: &str, value: &str) -> String {
        let ParameterLayout {
            before_name,
            after_name,
            ..
        } = self.layout;
        format!("{before_name} {name} {after_name} {value}")
    }

    fn define(&mut self, name: &str, language: &Language) {
        self.rules += &format!("{name}: {}\n", language.lark());
    }

    /// A value that is no JSON, with what follows it.
    fn terminal(&mut self, name: &str, value: Language) -> String {
        let end = Language::Literal(self.layout.end_of_terminal.clone());
        match self.layout.end_of_terminal.is_empty() {
            true => self.define(name, &value),
            false => self.define(name, &Language::Sequence(vec![value, end])),
        }
        format!("{name} {}", self.layout.after_terminal)
    }

    /// The values of a schema, with what follows them; `None` if there are none.
    fn value(&mut self, key: &str, schema: &Value) -> Result<Option<String>, Fault> {
        let types = JsonTypes::of_schema(schema, &self.document);
        let mut alternatives = Vec::new();
        if !types.has(JsonTypes::STRING) {
            return Ok(Some(self.json(key, schema.clone())?));
        }
        let mut written = self.texts(schema, types)?;
        let strings = Strings::new(&self.document);
        for value in [Value::Null, Value::Bool(true), Value::Bool(false)] {
            if strings.admits(schema, &value)? {
                written.push(Language::Literal(value.to_string()));
            }
        }
        if !written.is_empty() {
            alternatives.push(self.terminal(
                &format!("VALUE_{}", key.to_uppercase()),
                Language::AnyOf(written),
            ));
        }
        let names = [
            ("number", JsonTypes::NUMBER),
            ("array", JsonTypes::ARRAY),
            ("object", JsonTypes::OBJECT),
        ];
        let names = names.iter().filter(|(_, kind)| types.has(*kind));
        let names: Vec<&str> = names.map(|(name, _)| *name).collect();
        if !names.is_empty() {
            let schema = json!({"allOf": [schema, {"type": names}]});
            alternatives.push(self.json(key, schema)?);
        }
        let value = format!("({})", alternatives.join(" | "));
        Ok((!alternatives.is_empty()).then_some(value))
    }

    /// The strings of a schema that are read as such; empty or one language.
    fn texts(&self, schema: &Value, types: JsonTypes) -> Result<Vec<Language>, ConstraintReason> {
        let Some(language) = Strings::new(&self.document).of(schema)? else {
            return Ok(Vec::new());
        };
        let is_free = language == Language::any();
        let mut demands = vec![language, Language::without(self.layout.end_tag)];
        let not_read_as = [
            (JsonTypes::NULL, "\\s*(null|None)\\s*"),
            (JsonTypes::BOOLEAN, "\\s*([tT]rue|[fF]alse)\\s*"),
            (JsonTypes::NUMBER, "\\s*[0-9-](?s:.*)"),
            (JsonTypes::ARRAY, "\\s*\\[(?s:.*)"),
            (JsonTypes::OBJECT, "\\s*\\{(?s:.*)"),
        ];
        for (kind, pattern) in not_read_as {
            if types.has(kind) {
                demands.push(Language::Not(Box::new(Language::regex(pattern))));
            }
        }
        let language = Language::All(demands);
        match !is_free && language.is_empty()? {
            true => Ok(Vec::new()),
            false => Ok(vec![language]),
        }
    }

    /// Values that are JSON, with what follows them.
    fn json(&mut self, key: &str, schema: Value) -> Result<String, Fault> {
        let name = format!("{}_{key}", self.name);
        let refers = schema.to_string().contains("\"$ref\"");
        let mut schema = match schema {
            Value::Bool(true) => json!({}),
            Value::Bool(false) => return Err(ConstraintReason::Unsatisfiable.into()),
            schema => schema,
        };
        if let (true, Some(entries)) = (refers, schema.as_object_mut()) {
            entries.insert("$defs".to_owned(), self.document["$defs"].clone());
        }
        lookaheads::treat(&mut schema, Lookaheads::WrittenOut, self.omitted)?;
        self.bytes += schema.to_string().len();
        if self.bytes > limits::PARAMETER_BYTES_MAX {
            return Err(ConstraintReason::TooComplex.into());
        }
        self.grammars.push(arguments_grammar(&name, schema));
        Ok(format!("@{name} {}", self.layout.end))
    }
}

/// What a schema says of an object's properties.
struct Object<'a> {
    properties: Map<String, Value>,
    required: Vec<&'a str>,
    /// What properties that are not listed must be; `None` if there are none.
    more: Option<&'a Value>,
}

impl<'a> Object<'a> {
    fn new(document: &'a Value) -> Result<Self, ConstraintReason> {
        let entries = object_schema(document)?;
        let refused = [
            "anyOf",
            "oneOf",
            "allOf",
            "$ref",
            "patternProperties",
            "const",
            "enum",
        ];
        if let Some(keyword) = refused.iter().find(|name| entries.contains_key(**name)) {
            return Err(ConstraintReason::Keyword(keyword));
        }
        let properties = entries.get("properties").and_then(Value::as_object);
        let mut properties = properties.cloned().unwrap_or_default();
        let more = match entries.get("additionalProperties") {
            None => Some(&Value::Bool(true)),
            Some(schema) => Some(schema).filter(|schema| **schema != Value::Bool(false)),
        };
        let required = entries.get("required").and_then(Value::as_array);
        let required: Option<Vec<&str>> =
            required.into_iter().flatten().map(Value::as_str).collect();
        let required = required.ok_or(ConstraintReason::Invalid)?;
        for name in &required {
            if !properties.contains_key(*name) {
                let schema = more.ok_or(ConstraintReason::Unsatisfiable)?;
                properties.insert((*name).to_owned(), schema.clone());
            }
        }
        let least = entries.get("minProperties").and_then(Value::as_u64);
        if least.is_some_and(|least| least > required.len() as u64) {
            return Err(ConstraintReason::Keyword("minProperties"));
        }
        let most = entries.get("maxProperties").and_then(Value::as_u64);
        if most.is_some_and(|most| more.is_some() || most < properties.len() as u64) {
            return Err(ConstraintReason::Keyword("maxProperties"));
        }
        Ok(Self {
            properties,
            required,
            more,
        })
    }
}

/// The schema of the arguments, if need be at the end of references.
fn object_schema(document: &Value) -> Result<&Map<String, Value>, ConstraintReason> {
    const REFERENCES_MAX: usize = 8;
    let mut schema = &document["$defs"][ARGUMENTS];
    for _ in 0..REFERENCES_MAX {
        let entries = schema.as_object().ok_or(ConstraintReason::Invalid)?;
        let says_more = [
            "properties",
            "required",
            "additionalProperties",
            "minProperties",
        ];
        match entries.get("$ref").and_then(Value::as_str) {
            Some(reference) if !says_more.iter().any(|name| entries.contains_key(*name)) => {
                let target = resolve(reference, document);
                schema = target.ok_or(ConstraintReason::Keyword("$ref"))?;
            }
            _ => return Ok(entries),
        }
    }
    Err(ConstraintReason::Keyword("$ref"))
}
