//! Writes measurements down: as JSON for programs, as Markdown tables for people.

use std::io;
use std::path::Path;

use serde_json::{Value, json};

/// A table of measurements.
#[derive(Clone, Debug)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// Names of the columns, with units.
    pub columns: Vec<String>,
    /// One cell for each column.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        Self {
            title: title.into(),
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// The table as [`from_json`](Self::from_json) reads it.
    pub fn to_json(&self) -> Value {
        json!({"title": self.title, "columns": self.columns, "rows": self.rows})
    }

    /// A table that [`to_json`](Self::to_json) wrote; what is no text is left out.
    pub fn from_json(value: &Value) -> Self {
        let texts = |value: &Value| -> Vec<String> {
            let cells = value.as_array().into_iter().flatten();
            cells
                .filter_map(|cell| cell.as_str().map(str::to_owned))
                .collect()
        };
        Self {
            title: value["title"].as_str().unwrap_or_default().to_owned(),
            columns: texts(&value["columns"]),
            rows: value["rows"]
                .as_array()
                .into_iter()
                .flatten()
                .map(texts)
                .collect(),
        }
    }

    /// The table in Markdown.
    pub fn to_markdown(&self) -> String {
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let cells: Vec<&str> = cells.collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let mut text = format!("## {}\n\n", self.title);
        text += &line(&mut self.columns.iter().map(String::as_str));
        text += &line(&mut self.columns.iter().map(|_| "---:"));
        for row in &self.rows {
            text += &line(&mut row.iter().map(String::as_str));
        }
        text
    }
}

/// Writes `NAME.json` and `NAME.md` into `directory`.
pub fn write(
    directory: &Path,
    name: &str,
    machine: &Value,
    measurements: &Value,
    tables: &[Table],
) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let document = json!({"machine": machine, "measurements": measurements});
    let json = serde_json::to_string_pretty(&document)? + "\n";
    std::fs::write(directory.join(format!("{name}.json")), json)?;
    std::fs::write(
        directory.join(format!("{name}.md")),
        markdown(name, machine, tables),
    )
}

/// All tables, with the machine's facts above them.
pub fn markdown(name: &str, machine: &Value, tables: &[Table]) -> String {
    let mut text = format!("# {name}\n\n");
    if let Value::Object(facts) = machine {
        for (fact, value) in facts {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            text += &format!("- {}: {value}\n", fact.replace('_', " "));
        }
    }
    for table in tables {
        text += "\n";
        text += &table.to_markdown();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown() {
        let mut table = Table::new("Speed", &["clients", "tokens/s"]);
        table.rows.push(vec!["1".to_owned(), "2.5".to_owned()]);
        let expected = "## Speed\n\n| clients | tokens/s |\n| ---: | ---: |\n| 1 | 2.5 |\n";
        assert_eq!(table.to_markdown(), expected);
        assert_eq!(Table::from_json(&table.to_json()).to_markdown(), expected);
    }
}
