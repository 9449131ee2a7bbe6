//! Filters as jinja2 has them, each charged to the rendering's budget before it runs. Those that the engine has as
//! jinja2 does are its own.

use std::sync::LazyLock;

use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};

use super::budget::{self, charge, charge_list, charge_text, exceeded, text_of};
use super::operations::{PIECE_BYTES, UNAVAILABLE_FILTERS, is_list};
use super::views::{Generator, MapView, Part};
use super::{formatting, methods, texts};

/// The longest that escaping makes a character.
const ESCAPED_CHARACTER_BYTES: usize = 6;
/// The most bytes that changing a character's case makes of one byte.
const CASED_BYTES: usize = 3;
/// Longest indentation.
const INDENTATION_BYTES_MAX: usize = 1 << 16;

/// What an operation charges before it runs.
type Price = fn(&[Value]) -> Result<(), Error>;

/// Filters of the engine whose first argument is made a text.
const TEXT_FILTERS: [(&str, Price); 4] = [
    ("lower", price_of_case),
    ("safe", price_of_text),
    ("title", price_of_case),
    ("upper", price_of_case),
];
/// Filters of the engine that go through a list.
const LIST_FILTERS: [(&str, Price); 12] = [
    ("first", free),
    ("groupby", free),
    ("last", free),
    ("lines", price_of_lines),
    ("list", price_of_list),
    ("max", free),
    ("min", free),
    ("reverse", price_of_text),
    ("sort", free),
    ("split", price_of_split),
    ("sum", free),
    ("length", free),
];
/// Those that make what can only be gone through.
const GENERATORS: [&str; 6] = [
    "map",
    "reject",
    "rejectattr",
    "select",
    "selectattr",
    "unique",
];

/// Takes the place of the engine's own filters.
pub(super) fn install(environment: &mut Environment<'static>) {
    for (name, price) in TEXT_FILTERS {
        environment.add_filter(name, move |arguments: Rest<ValueOrKwargs>| {
            let mut arguments = arguments.into_values();
            if let Some(first) = arguments
                .first_mut()
                .filter(|first| first.as_str().is_none())
            {
                *first = text_of(first)?.into();
            }
            price(&arguments)?;
            PRISTINE.empty_state().apply_filter(name, &arguments)
        });
    }
    for (name, price) in LIST_FILTERS {
        environment.add_filter(name, move |arguments: Rest<ValueOrKwargs>| {
            let mut arguments = arguments.into_values();
            refuse_none(&arguments)?;
            // What is undefined has nothing in it.
            if let Some(first) = arguments.first_mut().filter(|first| first.is_undefined()) {
                *first = Value::from(Vec::<Value>::new());
            }
            price(&arguments)?;
            PRISTINE.empty_state().apply_filter(name, &arguments)
        });
    }
    for name in UNAVAILABLE_FILTERS {
        environment.remove_filter(name);
    }
    environment.add_filter("string", |value: Value| match value.as_str() {
        Some(_) => Ok(value),
        None => text_of(&value).map(Value::from),
    });
    for name in ["e", "escape", "forceescape"] {
        environment.add_filter(name, escape);
    }
    for name in ["d", "default"] {
        environment.add_filter(name, default);
    }
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("dictsort", dictsort);
    environment.add_filter("attr", methods::own_attribute);
    environment.add_filter("capitalize", |value: Value| {
        price_of_case(std::slice::from_ref(&value))?;
        text_of(&value).map(|text| texts::capitalized(&text))
    });
    environment.add_filter("trim", trim);
    environment.add_filter("replace", replace);
    environment.add_filter("join", join);
    environment.add_filter("indent", indent);
    environment.add_filter("format", format);
    environment.add_filter("items", items);
    environment.add_filter("wordcount", |value: Value| {
        let text = text_of(&value)?;
        let is_of_word = |character: char| character.is_alphanumeric() || character == '_';
        let words = text.split(|character| !is_of_word(character));
        Ok::<usize, Error>(words.filter(|word| !word.is_empty()).count())
    });
    environment.add_filter("center", |value: Value, width: Option<i64>| {
        let width = [Value::from(width.unwrap_or(80))];
        texts::call(&text_of(&value)?, "center", &width).unwrap_or(Ok(value))
    });
}

/// Whether a filter makes what can only be gone through.
pub(super) fn is_generator(name: &str) -> bool {
    GENERATORS.contains(&name)
}

/// What can only be gone through, of what there is in a list.
pub(super) fn generator(value: Value) -> Result<Value, Error> {
    let mut items = Vec::new();
    for item in value.try_iter()? {
        if items.len() == budget::ELEMENTS_MAX {
            return Err(exceeded());
        }
        charge(budget::ELEMENT_BYTES)?;
        items.push(item);
    }
    Ok(Value::from_object(Generator(items)))
}

/// The engine takes none for an empty list.
pub(super) fn refuse_none(arguments: &[Value]) -> Result<(), Error> {
    match arguments.first().is_some_and(Value::is_none) {
        true => Err(Error::new(
            ErrorKind::InvalidOperation,
            "none is not iterable",
        )),
        false => Ok(()),
    }
}

fn free(_arguments: &[Value]) -> Result<(), Error> {
    Ok(())
}

/// jinja2 writes quotes by their numbers. What is safe stays as it is.
pub(super) fn escape(value: Value) -> Result<Value, Error> {
    if value.is_safe() {
        return Ok(value);
    }
    let text = text_of(&value)?;
    price_of_escaping(&[Value::from(text.as_str())])?;
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&#39;"),
            '"' => escaped.push_str("&#34;"),
            character => escaped.push(character),
        }
    }
    Ok(Value::from_safe_string(escaped))
}

fn default(
    value: Value,
    instead: Option<Value>,
    also_false: Option<Value>,
    named: Kwargs,
) -> Result<Value, Error> {
    let instead = instead.or(named.get("default_value")?);
    let also_false: Option<Value> = also_false.or(named.get("boolean")?);
    named.assert_all_used()?;
    let also_false = also_false.is_some_and(|flag| flag.is_true());
    match value.is_undefined() || (also_false && !value.is_true()) {
        true => Ok(instead.unwrap_or_else(|| Value::from(""))),
        false => Ok(value),
    }
}

/// A number, or the text of one, as an integer; what is none of them is the default.
fn int(
    value: Value,
    instead: Option<Value>,
    base: Option<u32>,
    named: Kwargs,
) -> Result<Value, Error> {
    let instead = instead
        .or(named.get("default")?)
        .unwrap_or_else(|| Value::from(0));
    let base = base.or(named.get("base")?).unwrap_or(10);
    named.assert_all_used()?;
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let of_float = |float: f64| {
        float
            .is_finite()
            .then(|| Value::from(float.trunc() as i128))
    };
    let converted = match value.as_str() {
        Some(text) => {
            let text = text.trim_matches(texts::is_space).replace('_', "");
            let prefix = match base {
                2 => "0b",
                8 => "0o",
                16 => "0x",
                _ => "",
            };
            let (sign, digits) = text
                .strip_prefix('-')
                .map_or((1, text.as_str()), |rest| (-1, rest));
            let digits = digits.strip_prefix(prefix).unwrap_or(digits);
            let whole = (2..=36)
                .contains(&base)
                .then(|| i128::from_str_radix(digits, base).ok());
            match whole.flatten() {
                Some(whole) => Some(Value::from(sign * whole)),
                None => text.parse().ok().and_then(of_float),
            }
        }
        None if value.kind() == ValueKind::Bool => Some(Value::from(i64::from(value.is_true()))),
        None if value.is_integer() => Some(value),
        None => f64::try_from(value).ok().and_then(of_float),
    };
    Ok(converted.map_or(instead, |whole| match whole.as_i64() {
        Some(small) => Value::from(small),
        None => whole,
    }))
}

fn float(value: Value, instead: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    let instead = instead
        .or(named.get("default")?)
        .unwrap_or_else(|| Value::from(0.0));
    named.assert_all_used()?;
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let converted = match value.as_str() {
        Some(text) => text.trim_matches(texts::is_space).parse().ok(),
        None => f64::try_from(value).ok(),
    };
    Ok(converted.map_or(instead, Value::from))
}

/// The entries of a map in order; the engine takes its settings by name alone.
fn dictsort(
    map: Value,
    case_sensitive: Option<bool>,
    by: Option<Value>,
    reverse: Option<bool>,
    named: Kwargs,
) -> Result<Value, Error> {
    let case_sensitive = case_sensitive
        .or(named.get("case_sensitive")?)
        .unwrap_or(false);
    let by = by
        .or(named.get("by")?)
        .unwrap_or_else(|| Value::from("key"));
    let reverse = reverse.or(named.get("reverse")?).unwrap_or(false);
    named.assert_all_used()?;
    charge_list(2 * map.len().unwrap_or(0))?;
    let settings = Kwargs::from_iter([
        ("case_sensitive", Value::from(case_sensitive)),
        ("by", by),
        ("reverse", Value::from(reverse)),
    ]);
    PRISTINE
        .empty_state()
        .apply_filter("dictsort", &[map, Value::from(settings)])
}

fn trim(value: Value, characters: Option<Value>) -> Result<Value, Error> {
    let arguments: Vec<Value> = characters.into_iter().collect();
    let text = text_of(&value)?;
    texts::call(&text, "strip", &arguments).unwrap_or(Ok(value))
}

fn replace(value: Value, old: Value, new: Value, count: Option<i64>) -> Result<Value, Error> {
    let mut arguments = vec![text_of(&old)?.into(), text_of(&new)?.into()];
    arguments.extend(count.map(Value::from));
    texts::replace(&text_of(&value)?, &arguments)
}

/// The attribute at a path such as `function.name`.
fn attribute(item: &Value, path: &Value) -> Result<Value, Error> {
    let Some(path) = path.as_str() else {
        return item.get_item(path);
    };
    let mut found = item.clone();
    for part in path.split('.') {
        found = match part.parse::<usize>() {
            Ok(index) => found.get_item(&Value::from(index))?,
            Err(_) => found.get_item(&Value::from(part))?,
        };
    }
    Ok(found)
}

fn join(
    list: Value,
    joiner: Option<Value>,
    by: Option<Value>,
    named: Kwargs,
) -> Result<String, Error> {
    let joiner = joiner.or(named.get("d")?);
    let by: Option<Value> = by.or(named.get("attribute")?);
    named.assert_all_used()?;
    refuse_none(std::slice::from_ref(&list))?;
    let joiner = joiner.map_or(Ok(String::new()), |joiner| text_of(&joiner))?;
    let mut joined = String::new();
    for (index, item) in list.try_iter()?.enumerate() {
        if index == budget::ELEMENTS_MAX {
            return Err(exceeded());
        }
        if index > 0 {
            charge(joiner.len())?;
            joined.push_str(&joiner);
        }
        let item = match &by {
            Some(path) => attribute(&item, path)?,
            None => item,
        };
        match item.as_str() {
            Some(text) => {
                charge(text.len())?;
                joined.push_str(text);
            }
            None => joined.push_str(&text_of(&item)?),
        }
    }
    Ok(joined)
}

/// Indents the lines of a text by so many spaces, or by a text.
fn indent(
    text: &str,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    named: Kwargs,
) -> Result<String, Error> {
    let width = width
        .or(named.get("width")?)
        .unwrap_or_else(|| Value::from(4));
    let first = first.or(named.get("first")?).unwrap_or(false);
    let blank = blank.or(named.get("blank")?).unwrap_or(false);
    named.assert_all_used()?;
    let indentation = match (width.as_str(), width.as_i64()) {
        (Some(indentation), _) => indentation.to_owned(),
        (None, Some(width)) => {
            let width = usize::try_from(width).unwrap_or(0);
            " ".repeat(width.min(INDENTATION_BYTES_MAX + 1))
        }
        _ => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "the width must be a number or a text",
            ));
        }
    };
    if indentation.len() > INDENTATION_BYTES_MAX {
        return Err(exceeded());
    }
    // An ending of the last line is left out, as one line would otherwise follow it.
    let lines: Vec<&str> = text.split('\n').collect();
    charge(
        text.len()
            + lines
                .len()
                .saturating_mul(indentation.len() + size_of::<&str>()),
    )?;
    let mut indented = String::new();
    for (index, line) in lines.iter().enumerate() {
        let is_indented = match index {
            0 => first,
            _ => blank || !line.trim_end_matches('\r').is_empty(),
        };
        indented.push_str(if index > 0 { "\n" } else { "" });
        indented.push_str(if is_indented { &indentation } else { "" });
        indented.push_str(line);
    }
    Ok(indented)
}

/// `pattern|format(…)`, which is `pattern % …`.
fn format(pattern: Value, arguments: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let pattern = text_of(&pattern)?;
    let arguments = arguments.into_values();
    match arguments.as_slice() {
        [named] if named.is_kwargs() => formatting::percent(&pattern, named),
        _ => formatting::percent(&pattern, &Value::from(Tuple::from(arguments))),
    }
}

fn items(map: Value) -> Result<Value, Error> {
    match map.kind() {
        ValueKind::Undefined => Ok(Value::from_object(Generator(Vec::new()))),
        ValueKind::Map => {
            let part = Part::Items;
            generator(Value::from_object(MapView { map, part }))
        }
        _ => Err(Error::new(
            ErrorKind::InvalidOperation,
            "only maps have items",
        )),
    }
}

/// The engine's own filters.
static PRISTINE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment
});

fn text(arguments: &[Value], index: usize) -> &str {
    arguments
        .get(index)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The text of the first argument as it stands, or as it is made.
fn price_of_text(arguments: &[Value]) -> Result<(), Error> {
    arguments.first().map_or(Ok(()), charge_text)
}

fn times(arguments: &[Value], factor: usize) -> Result<(), Error> {
    (0..factor).try_for_each(|_| price_of_text(arguments))
}

pub(super) fn price_of_escaping(arguments: &[Value]) -> Result<(), Error> {
    times(arguments, ESCAPED_CHARACTER_BYTES)
}

fn price_of_case(arguments: &[Value]) -> Result<(), Error> {
    times(arguments, CASED_BYTES)
}

fn price_of_split(arguments: &[Value]) -> Result<(), Error> {
    let (whole, separator) = (text(arguments, 0), text(arguments, 1));
    let places = match separator {
        "" => whole.split_whitespace().count(),
        separator => whole.matches(separator).count(),
    };
    charge(whole.len() + (places + 1) * PIECE_BYTES)
}

fn price_of_lines(arguments: &[Value]) -> Result<(), Error> {
    let whole = text(arguments, 0);
    charge(whole.len() + (whole.matches('\n').count() + 1) * PIECE_BYTES)
}

fn price_of_list(arguments: &[Value]) -> Result<(), Error> {
    match arguments.first().and_then(Value::as_str) {
        Some(whole) => charge_list(whole.chars().count()),
        None => charge_list(length(arguments.first())?),
    }
}

/// The number of elements, counted as far as it is allowed where it isn't known.
fn length(list: Option<&Value>) -> Result<usize, Error> {
    let Some(list) = list else {
        return Ok(0);
    };
    match list.len() {
        Some(length) => Ok(length),
        None if is_list(list) => Ok(list.try_iter()?.take(budget::ELEMENTS_MAX + 1).count()),
        None => Ok(0),
    }
}
