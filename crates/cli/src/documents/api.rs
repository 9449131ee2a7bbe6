//! The page of routes and fields, from the OpenAPI document that the server answers with.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::markdown::{Table, code, numbers};
use super::schema::{Schemas, is_listed};

pub(super) fn write() -> Result<String, String> {
    let document: Value =
        serde_json::from_str(backstop_server::OPENAPI).map_err(|error| error.to_string())?;
    let map = |pointer: &str| document.pointer(pointer).and_then(Value::as_object);
    let paths = map("/paths").ok_or("the document has no paths")?;
    let components = |name: &str| {
        map(&format!("/components/{name}")).ok_or_else(|| format!("the document has no {name}"))
    };
    let schemas = Schemas(components("schemas")?);
    let introduction = document["info"]["description"].as_str().unwrap_or_default();
    Ok(format!(
        "{introduction} The same as an OpenAPI document: `GET /openapi.json`.\n\n{}{}{}{}",
        routes(paths, &schemas),
        errors(paths, components("responses")?),
        refused(),
        types(&schemas),
    ))
}

fn routes(paths: &Map<String, Value>, schemas: &Schemas<'_>) -> String {
    let mut table = Table::new(&["route", "key", "", "request", "answer"]);
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let is_open = operation.get("security").is_some();
            let what = [&operation["summary"], &operation["description"]];
            let what: Vec<&str> = what.into_iter().filter_map(Value::as_str).collect();
            let content = |pointer: &str| operation.pointer(pointer).and_then(Value::as_object);
            table.row(&[
                code(&format!("{} {path}", method.to_uppercase())),
                if is_open { "no" } else { "yes" }.to_owned(),
                what.join(" "),
                body(content("/requestBody/content"), schemas),
                body(content("/responses/200/content"), schemas),
            ]);
        }
    }
    format!(
        "## Routes\n\nKeys are asked for if the server has a key file.\n\n{}",
        table.finish()
    )
}

/// What a request or an answer consists of, if it is JSON or lines of it.
fn body(content: Option<&Map<String, Value>>, schemas: &Schemas<'_>) -> String {
    let json = content
        .into_iter()
        .flatten()
        .find(|(kind, _)| kind.contains("json"));
    let schema = json.map(|(_, content)| &content["schema"]);
    schema
        .map(|schema| schemas.words(schema))
        .unwrap_or_default()
}

/// What the statuses mean that are not 200.
fn errors(paths: &Map<String, Value>, responses: &Map<String, Value>) -> String {
    let mut table = Table::new(&["status", "when"]);
    let operations = paths.values().filter_map(Value::as_object).flatten();
    let answers = operations.filter_map(|(_, operation)| operation["responses"].as_object());
    let mut meanings = BTreeMap::new();
    for (status, answer) in answers.flatten() {
        let name = answer["$ref"]
            .as_str()
            .and_then(|name| name.rsplit('/').next());
        if let Some(answer) = name.and_then(|name| responses.get(name)) {
            // The first says most; those in the shapes of other APIs say the same.
            let meaning = answer["description"].as_str().unwrap_or_default();
            meanings.entry(status.as_str()).or_insert(meaning);
        }
    }
    for (status, meaning) in meanings {
        table.row(&[status, meaning]);
    }
    format!("## Errors\n\n{}", table.finish())
}

/// What is known, not available, and refused by name.
fn refused() -> String {
    let mut fields = Table::new(&["field", "why", "asks for nothing"]);
    for refused in backstop_protocol::refused_fields() {
        fields.row(&[
            code(refused.name),
            refused.reason.to_owned(),
            numbers(refused.neutral),
        ]);
    }
    let mut routes = Table::new(&["route", "why"]);
    for refused in backstop_server::REFUSED_ROUTES {
        routes.row(&[code(refused.path), refused.reason.to_owned()]);
    }
    format!(
        "## Refused fields\n\nThey would change the answer, so a request that sets one is a 400 that \
         names it.\n\n{}## Refused routes\n\n{}",
        fields.finish(),
        routes.finish()
    )
}

/// The fields of all objects that have a name.
fn types(schemas: &Schemas<'_>) -> String {
    let mut text = "## Objects\n\n".to_owned();
    for (name, schema) in schemas.0.iter().filter(|(_, schema)| is_listed(schema)) {
        text.push_str(&format!("### {name}\n\n"));
        let description = schema["description"].as_str();
        text.push_str(
            &description
                .map(|words| format!("{words}\n\n"))
                .unwrap_or_default(),
        );
        for object in schemas.objects(schema) {
            text.push_str(&fields(object, schemas));
        }
    }
    text
}

fn fields(object: &Value, schemas: &Schemas<'_>) -> String {
    let required: Vec<&str> = object["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut table = Table::new(&["field", "values", ""]);
    for (name, schema) in object["properties"].as_object().into_iter().flatten() {
        let mut notes = Vec::new();
        if required.contains(&name.as_str()) {
            notes.push("Required.".to_owned());
        }
        if let Some(default) = schema.get("default") {
            notes.push(format!("By default {}.", code(&default.to_string())));
        }
        notes.push(schemas.description(schema).to_owned());
        table.row(&[
            code(name),
            schemas.words(schema),
            notes.join(" ").trim().to_owned(),
        ]);
    }
    table.finish()
}
