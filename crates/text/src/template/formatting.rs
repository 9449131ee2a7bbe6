//! Python's `%` and `str.format`. Fields are found here; the engine formats a single number or text by a field's
//! settings, and Python's writing makes texts of all else.

use std::fmt::Write;

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::budget::{self, ChargedWriter, charge, exceeded};
use super::python_text::{write_repr, write_str};

/// Widest field and longest precision.
const WIDTH_MAX: usize = 1 << 16;

fn error(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// A value as Python's `str` or `repr` writes it, charged.
fn text_of(value: &Value, as_repr: bool) -> Result<String, Error> {
    let mut text = String::new();
    let mut out = ChargedWriter(&mut text);
    match as_repr {
        true => write_repr(value, &mut out),
        false => write_str(value, &mut out),
    }
    .map_err(|_| exceeded())?;
    Ok(text)
}

/// Formats one value by the engine, by settings that hold no name.
fn by_engine(style: FormatStyle, pattern: &str, value: Value) -> Result<String, Error> {
    let digits = pattern.split(|character: char| !character.is_ascii_digit());
    for digits in digits.filter(|digits| !digits.is_empty()) {
        match digits.parse::<usize>() {
            Ok(width) if width <= WIDTH_MAX => charge(width)?,
            _ => return Err(exceeded()),
        }
    }
    let text = format(style, pattern, &[value])?;
    charge(text.len())?;
    Ok(text)
}

/// `pattern % arguments`.
pub(super) fn percent(pattern: &str, arguments: &Value) -> Result<String, Error> {
    let mut positional: Vec<Value> = match arguments.is_tuple() {
        true => arguments.try_iter()?.collect(),
        false => vec![arguments.clone()],
    };
    positional.reverse();
    let is_mapping = arguments.kind() == ValueKind::Map;
    let mut by_name = false;
    let mut text = String::new();
    let mut rest = pattern;
    while let Some(start) = rest.find('%') {
        push(&mut text, &rest[..start])?;
        rest = &rest[start + 1..];
        let name = match rest.strip_prefix('(') {
            Some(within) => {
                let end = within
                    .find(')')
                    .ok_or_else(|| error("incomplete format key"))?;
                rest = &within[end + 1..];
                Some(&within[..end])
            }
            None => None,
        };
        let end = rest.find(|character: char| character.is_ascii_alphabetic() || character == '%');
        let end = end.ok_or_else(|| error("incomplete format"))?;
        let (settings, kind) = (&rest[..end], &rest[end..=end]);
        rest = &rest[end + 1..];
        if settings.contains(|character: char| !"0123456789.#-+ ".contains(character)) {
            return Err(error("unsupported format character"));
        }
        if kind == "%" {
            push(&mut text, "%")?;
            continue;
        }
        let value = match name {
            Some(name) if is_mapping => {
                by_name = true;
                arguments.get_item(&Value::from(name))?
            }
            Some(_) => return Err(error("format requires a mapping")),
            None => positional
                .pop()
                .ok_or_else(|| error("not enough arguments for format string"))?,
        };
        if name.is_some() && value.is_undefined() {
            return Err(error("the mapping lacks a name of the format"));
        }
        push(&mut text, &percent_field(settings, kind, value)?)?;
    }
    push(&mut text, rest)?;
    match positional.is_empty() || by_name || is_mapping {
        true => Ok(text),
        false => Err(error(
            "not all arguments converted during string formatting",
        )),
    }
}

/// A text by settings such as `-10.3`: its first characters, up to a width. The engine counts bytes.
fn padded(settings: &str, text: &str) -> Result<String, Error> {
    let (width, precision) = settings.split_once('.').unwrap_or((settings, ""));
    let number = |digits: &str| match digits.parse::<usize>() {
        Ok(number) if number <= WIDTH_MAX => Ok(number),
        _ => Err(exceeded()),
    };
    let kept = match settings.contains('.') {
        true if precision.is_empty() => 0,
        true => number(precision)?,
        false => usize::MAX,
    };
    let digits = width.trim_start_matches(['-', '+', ' ', '#', '0']);
    let wide = if digits.is_empty() {
        0
    } else {
        number(digits)?
    };
    charge(text.len().saturating_add(wide))?;
    let text: String = text.chars().take(kept).collect();
    let spaces = " ".repeat(wide.saturating_sub(text.chars().count()));
    let is_left = width[..width.len() - digits.len()].contains('-');
    Ok(if is_left {
        text + &spaces
    } else {
        spaces + &text
    })
}

fn percent_field(settings: &str, kind: &str, value: Value) -> Result<String, Error> {
    let is_number = matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    match kind {
        "s" | "r" | "a" => {
            let written = text_of(&value, kind != "s")?;
            padded(settings, &written)
        }
        "c" => by_engine(FormatStyle::Printf, &format!("%{settings}c"), value),
        "d" | "i" | "u" if is_number => {
            let whole = match value.is_integer() || value.kind() == ValueKind::Bool {
                true => value,
                false => Value::from(f64::try_from(value)?.trunc() as i128),
            };
            by_engine(FormatStyle::Printf, &format!("%{settings}d"), whole)
        }
        "x" | "X" | "o" if is_number => {
            by_engine(FormatStyle::Printf, &format!("%{settings}{kind}"), value)
        }
        "e" | "E" | "f" | "F" | "g" | "G" if is_number => {
            let float = Value::from(f64::try_from(value)?);
            by_engine(FormatStyle::Printf, &format!("%{settings}{kind}"), float)
        }
        _ => Err(error("a number is required")),
    }
}

fn push(text: &mut String, piece: &str) -> Result<(), Error> {
    write!(ChargedWriter(text), "{piece}").map_err(|_| exceeded())
}

/// `pattern.format(…)`.
pub(super) fn braces(pattern: &str, arguments: &[Value]) -> Result<String, Error> {
    let (named, positional) = match arguments.split_last() {
        Some((last, rest)) if last.is_kwargs() => (Some(last), rest),
        _ => (None, arguments),
    };
    let mut fields = Fields {
        named,
        positional,
        next: 0,
        fields: 0,
    };
    let mut text = String::new();
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '}']) {
        push(&mut text, &rest[..at])?;
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            push(&mut text, brace)?;
            rest = after;
            continue;
        }
        if brace == "}" {
            return Err(error("single '}' in format string"));
        }
        let end = end_of_field(rest).ok_or_else(|| error("expected '}' before end of string"))?;
        push(&mut text, &fields.write(&rest[..end])?)?;
        rest = &rest[end + 1..];
    }
    push(&mut text, rest)?;
    Ok(text)
}

/// Where the brace that closes a field is; those within it are its own.
fn end_of_field(rest: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, byte) in rest.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(index),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// What the fields of a format show.
struct Fields<'a> {
    named: Option<&'a Value>,
    positional: &'a [Value],
    /// The next of those that are not named.
    next: usize,
    fields: usize,
}

impl Fields<'_> {
    /// The text of one field, which stands between braces.
    fn write(&mut self, field: &str) -> Result<String, Error> {
        self.fields += 1;
        if self.fields > budget::ELEMENTS_MAX {
            return Err(exceeded());
        }
        let (name, settings) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = match name.split_once('!') {
            Some((name, conversion)) => (name, Some(conversion)),
            None => (name, None),
        };
        let value = self.value(name)?;
        let settings = match settings.contains('{') {
            // Settings that are fields themselves.
            true => self.filled(settings)?,
            false => settings.to_owned(),
        };
        let value = match conversion {
            None if settings.is_empty() => return text_of(&value, false),
            None => value,
            Some("s") => Value::from(text_of(&value, false)?),
            Some("r" | "a") => Value::from(text_of(&value, true)?),
            Some(_) => return Err(error("unknown conversion")),
        };
        match (settings.as_str(), value.kind()) {
            ("", _) => text_of(&value, false),
            (_, ValueKind::String | ValueKind::Number | ValueKind::Bool) => {
                by_engine(FormatStyle::StrFormat, &format!("{{:{settings}}}"), value)
            }
            _ => Err(error("unsupported format string for this value")),
        }
    }

    fn filled(&mut self, settings: &str) -> Result<String, Error> {
        let mut filled = String::new();
        let mut rest = settings;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after
                .split_once('}')
                .ok_or_else(|| error("a field is not closed"))?;
            filled.push_str(before);
            filled.push_str(&text_of(&self.value(name)?, false)?);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    /// What a name such as `0`, `name`, `0.attribute` or `name[key]` stands for.
    fn value(&mut self, name: &str) -> Result<Value, Error> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut path) = name.split_at(end);
        let index = match first {
            "" => {
                self.next += 1;
                Some(self.next - 1)
            }
            first => first.parse::<usize>().ok(),
        };
        let missing = || error("the format names what is not given");
        let mut value = match index {
            Some(index) => self.positional.get(index).cloned().ok_or_else(missing)?,
            None => {
                let named = self.named.ok_or_else(missing)?;
                Some(named.get_attr(first)?)
                    .filter(|value| !value.is_undefined())
                    .ok_or_else(missing)?
            }
        };
        while !path.is_empty() {
            let (key, rest) = match path.strip_prefix('[') {
                Some(within) => within.split_once(']').ok_or_else(missing)?,
                None => {
                    let name = path.strip_prefix('.').ok_or_else(missing)?;
                    name.split_at(name.find(['.', '[']).unwrap_or(name.len()))
                }
            };
            value = match key.parse::<i64>() {
                Ok(index) => value.get_item(&Value::from(index))?,
                Err(_) => value.get_item(&Value::from(key))?,
            };
            if value.is_undefined() {
                return Err(missing());
            }
            path = rest;
        }
        Ok(value)
    }
}
