//! Values as Python writes them: `str`, and `repr` for what stands within lists and maps.

use std::fmt::{self, Write};

use minijinja::Value;
use minijinja::value::ValueKind;

use super::views::{Generator, MapView};

/// Nesting that is still written. Parsed JSON is never as deep; a template's own values can be.
const DEPTH_MAX: usize = 256;

/// Writes a value as Python's `str` does.
pub(super) fn write_str(value: &Value, out: &mut impl Write) -> fmt::Result {
    match value.as_str() {
        Some(text) => out.write_str(text),
        None if value.is_undefined() => Ok(()),
        None => write_nested(value, 0, out),
    }
}

/// Writes a value as Python's `repr` does.
pub(super) fn write_repr(value: &Value, out: &mut impl Write) -> fmt::Result {
    write_nested(value, 0, out)
}

fn write_nested(value: &Value, depth: usize, out: &mut impl Write) -> fmt::Result {
    if depth > DEPTH_MAX {
        return Err(fmt::Error);
    }
    match value.kind() {
        ValueKind::Undefined => out.write_str("Undefined"),
        ValueKind::None => out.write_str("None"),
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number if value.is_integer() => write!(out, "{value}"),
        ValueKind::Number => write_float(f64::try_from(value.clone()).unwrap_or(f64::NAN), out),
        ValueKind::String => write_quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq => {
            let is_tuple = value.is_tuple();
            let [open, close] = if is_tuple { ["(", ")"] } else { ["[", "]"] };
            out.write_str(open)?;
            let count = write_items(value, depth, out)?;
            out.write_str(if is_tuple && count == 1 { "," } else { "" })?;
            out.write_str(close)
        }
        ValueKind::Iterable => match value.downcast_object_ref::<MapView>() {
            Some(view) => {
                write!(out, "{}([", view.python_name())?;
                write_items(value, depth, out)?;
                out.write_str("])")
            }
            None if value.downcast_object_ref::<Generator>().is_some() => {
                out.write_str("<generator object>")
            }
            None => write!(out, "{value}"),
        },
        ValueKind::Map if !super::views::is_namespace(value) => {
            out.write_char('{')?;
            for (index, key) in value.try_iter().map_err(|_| fmt::Error)?.enumerate() {
                out.write_str(if index > 0 { ", " } else { "" })?;
                write_nested(&key, depth + 1, out)?;
                out.write_str(": ")?;
                let item = value.get_item(&key).map_err(|_| fmt::Error)?;
                write_nested(&item, depth + 1, out)?;
            }
            out.write_char('}')
        }
        ValueKind::Map => out.write_str("<Namespace>"),
        _ => write!(out, "{value}"),
    }
}

fn write_items(list: &Value, depth: usize, out: &mut impl Write) -> Result<usize, fmt::Error> {
    let mut count = 0;
    for item in list.try_iter().map_err(|_| fmt::Error)? {
        out.write_str(if count > 0 { ", " } else { "" })?;
        write_nested(&item, depth + 1, out)?;
        count += 1;
    }
    Ok(count)
}

/// A text between quotes: double ones if it has single quotes alone.
fn write_quoted(text: &str, out: &mut impl Write) -> fmt::Result {
    let quote = match text.contains('\'') && !text.contains('"') {
        true => '"',
        false => '\'',
    };
    out.write_char(quote)?;
    for character in text.chars() {
        match character {
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            _ if character == quote => write!(out, "\\{quote}")?,
            _ if is_printable(character) => out.write_char(character)?,
            _ => match character as u32 {
                code @ ..=0xff => write!(out, "\\x{code:02x}")?,
                code @ ..=0xffff => write!(out, "\\u{code:04x}")?,
                code => write!(out, "\\U{code:08x}")?,
            },
        }
    }
    out.write_char(quote)
}

/// What Python's `str.isprintable` says: neither control nor format characters, nor separators other than a space, nor
/// what is unassigned. Rust escapes the same in its own literals, but for what extends the character before it, where
/// nothing is before it.
pub(super) fn is_printable(character: char) -> bool {
    match character {
        ' '..='~' => true,
        _ => {
            let mut escaped = ['a', character].into_iter().collect::<String>();
            escaped = escaped.escape_debug().skip(1).collect();
            escaped.chars().eq([character])
        }
    }
}

/// Writes a float as Python does: the shortest digits that read back as the same number, with an exponent of at least
/// two digits below 1e-4 and from 1e16 on.
pub(super) fn write_float(value: f64, out: &mut impl Write) -> fmt::Result {
    if value.is_nan() {
        return out.write_str("nan");
    }
    if value.is_infinite() {
        return out.write_str(if value > 0.0 { "inf" } else { "-inf" });
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-4..1e16).contains(&magnitude) {
        // `Debug` of a float in this range writes the shortest digits and always a point.
        return write!(out, "{value:?}");
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    write!(out, "{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_does() {
        let cases = [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (123_456_789_012_345.6, "123456789012345.6"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (-2.5e300, "-2.5e+300"),
            (f64::INFINITY, "inf"),
            (f64::NAN, "nan"),
        ];
        for (value, expected) in cases {
            let mut out = String::new();
            write_float(value, &mut out).unwrap();
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn texts_are_quoted_as_python_does() {
        let cases = [
            ("it's", "\"it's\""),
            ("'\"", "'\\'\"'"),
            ("a\\\n\t\u{7f}\u{1}", "'a\\\\\\n\\t\\x7f\\x01'"),
            ("Zürich 世界 e\u{301} 👩", "'Zürich 世界 e\u{301} 👩'"),
            (
                "\u{a0}\u{200b}\u{e000}\u{1f1ff}\u{e0001}",
                "'\\xa0\\u200b\\ue000\u{1f1ff}\\U000e0001'",
            ),
        ];
        for (text, expected) in cases {
            let mut out = String::new();
            write_repr(&Value::from(text), &mut out).unwrap();
            assert_eq!(out, expected);
        }
    }
}
