//! Pieces of Markdown.

use std::fmt::Write;

/// A table. The first cell of a row says what the row is about.
pub(super) struct Table {
    text: String,
}

impl Table {
    /// A table with these titles.
    pub(super) fn new(titles: &[&str]) -> Self {
        let mut table = Self {
            text: String::new(),
        };
        table.row(titles);
        table.text.push('|');
        table.text.push_str(&"---|".repeat(titles.len()));
        table.text.push('\n');
        table
    }

    /// Adds a row, of as many cells as there are titles.
    pub(super) fn row<Cell: AsRef<str>>(&mut self, cells: &[Cell]) {
        self.text.push('|');
        for cell in cells {
            // Within a table a bar ends the cell, in code too.
            let cell = cell.as_ref().replace('|', "\\|").replace('\n', " ");
            let _never_fails = write!(self.text, " {cell} |");
        }
        self.text.push('\n');
    }

    /// The table, with a line behind it.
    pub(super) fn finish(mut self) -> String {
        self.text.push('\n');
        self.text
    }
}

/// Text as code.
pub(super) fn code(text: &str) -> String {
    format!("`{text}`")
}

/// All of these as code.
pub(super) fn numbers(numbers: &[f64]) -> String {
    let numbers: Vec<String> = numbers
        .iter()
        .map(|number| code(&number.to_string()))
        .collect();
    numbers.join(", ")
}

/// A number with a comma at each thousand.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = digits[..first].to_owned();
    for (index, digit) in digits[first..].chars().enumerate() {
        if index % 3 == 0 && !text.is_empty() {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
