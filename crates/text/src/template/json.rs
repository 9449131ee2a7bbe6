//! The `tojson` filter: what Python's `json.dumps` writes, byte for byte.

use std::cell::Cell;
use std::fmt::Write as _;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::budget::charge;
use super::python_text::write_float;
use super::views::is_namespace;

/// Nesting that is still written. Parsed JSON is never as deep; a template's own values can be.
const DEPTH_MAX: usize = 256;

/// Bytes of an indentation and of a separator.
const LAYOUT_BYTES_MAX: usize = 64;

/// Options of `json.dumps` that templates use.
struct Style {
    item_separator: String,
    key_separator: String,
    indent: Option<String>,
    ensure_ascii: bool,
    sort_keys: bool,
    /// Bytes of the text that are charged.
    charged: Cell<usize>,
}

/// Writes a value as JSON. Unlike Jinja2's own filter, and like Hugging Face's, it escapes
/// nothing for HTML, and its arguments are `ensure_ascii`, `indent`, `separators`, `sort_keys`.
pub(super) fn tojson(
    value: &Value,
    ensure_ascii: Option<Value>,
    indent: Option<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let or_named = |argument: Option<Value>, name| match argument {
        Some(argument) => Ok(Some(argument)),
        None => kwargs.get::<Option<Value>>(name),
    };
    let ensure_ascii = or_named(ensure_ascii, "ensure_ascii")?;
    let indent = or_named(indent, "indent")?;
    let indent = indent.filter(|indent| !indent.is_none() && !indent.is_undefined());
    let indent = indent.map(|indent| match indent.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(indent.as_i64().unwrap_or(0).clamp(0, 64) as usize),
    });
    let separators = kwargs.get::<Option<Vec<String>>>("separators")?;
    let [item_separator, key_separator] = match separators {
        Some(separators) => <[String; 2]>::try_from(separators)
            .map_err(|_| Error::new(ErrorKind::InvalidOperation, "separators must be a pair"))?,
        None => [
            if indent.is_some() { "," } else { ", " }.to_owned(),
            ": ".to_owned(),
        ],
    };
    let layout = [
        indent.as_deref(),
        Some(&item_separator),
        Some(&key_separator),
    ];
    if layout
        .iter()
        .flatten()
        .any(|text| text.len() > LAYOUT_BYTES_MAX)
    {
        let message = "indentation and separators must be short";
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    let style = Style {
        item_separator,
        key_separator,
        indent,
        ensure_ascii: ensure_ascii.is_some_and(|value| value.is_true()),
        sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        charged: Cell::new(0),
    };
    kwargs.assert_all_used()?;
    let mut out = String::new();
    style.write(value, 0, &mut out)?;
    style.charge(&out)?;
    Ok(out)
}

impl Style {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(Error::new(
                ErrorKind::BadSerialization,
                "value is nested too deeply",
            ));
        }
        self.charge(out)?;
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.write_number(value, out),
            ValueKind::String => self.write_string(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.write_items(['[', ']'], depth, items.len(), out, |index, out| {
                    self.write(&items[index], depth + 1, out)
                })?;
            }
            ValueKind::Map if !is_namespace(value) => self.write_map(value, depth, out)?,
            kind => {
                let message = format!("a value of type {kind} is not JSON serializable");
                return Err(Error::new(ErrorKind::BadSerialization, message));
            }
        }
        Ok(())
    }

    fn write_map(&self, map: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        let mut items = Vec::new();
        for key in map.try_iter()? {
            let value = map.get_item(&key)?;
            let key = match (key.as_str(), key.kind()) {
                (Some(text), _) => text.to_owned(),
                (None, ValueKind::None | ValueKind::Bool | ValueKind::Number) => {
                    let mut text = String::new();
                    self.write(&key, depth, &mut text)?;
                    text
                }
                (None, kind) => {
                    let message = format!("keys must be strings or numbers, not {kind}");
                    return Err(Error::new(ErrorKind::BadSerialization, message));
                }
            };
            items.push((key, value));
        }
        if self.sort_keys {
            items.sort_by(|(left, _), (right, _)| left.cmp(right));
        }
        self.write_items(['{', '}'], depth, items.len(), out, |index, out| {
            let (key, value) = &items[index];
            self.write_string(key, out);
            out.push_str(&self.key_separator);
            self.write(value, depth + 1, out)
        })
    }

    fn write_items(
        &self,
        [open, close]: [char; 2],
        depth: usize,
        count: usize,
        out: &mut String,
        mut write_item: impl FnMut(usize, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        for index in 0..count {
            if index > 0 {
                out.push_str(&self.item_separator);
            }
            self.break_line(depth + 1, out)?;
            write_item(index, out)?;
        }
        if count > 0 {
            self.break_line(depth, out)?;
        }
        out.push(close);
        Ok(())
    }

    fn break_line(&self, depth: usize, out: &mut String) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            self.charge(out)?;
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
        Ok(())
    }

    /// Charges what has been written since the last time.
    fn charge(&self, out: &str) -> Result<(), Error> {
        // Keys that are no texts are written apart.
        charge(out.len().saturating_sub(self.charged.get()))?;
        self.charged.set(self.charged.get().max(out.len()));
        Ok(())
    }

    fn write_number(&self, value: &Value, out: &mut String) {
        if value.is_integer() {
            // Writing to a string cannot fail.
            let _ = write!(out, "{value}");
        } else {
            let float = f64::try_from(value.clone()).unwrap_or(f64::NAN);
            let _ = match float.is_finite() {
                true => write_float(float, out),
                false if float.is_nan() => out.write_str("NaN"),
                false => out.write_str(if float > 0.0 { "Infinity" } else { "-Infinity" }),
            };
        }
    }

    fn write_string(&self, text: &str, out: &mut String) {
        out.push('"');
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                _ if character < ' ' || (self.ensure_ascii && !character.is_ascii()) => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                _ => out.push(character),
            }
        }
        out.push('"');
    }
}
