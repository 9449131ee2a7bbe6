//! Operators, filters and methods that can make much out of little, each charged to the rendering's
//! budget before it runs.

use std::sync::LazyLock;

use minijinja::value::{Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State};

use super::budget::{self, ELEMENT_BYTES, charge, charge_list, charge_text, check_shape, exceeded};

/// Filters that the guards of [`super::program`] go by. No template can name them.
pub(super) const BEFORE_ADD: &str = "before+";
pub(super) const BEFORE_MULTIPLY: &str = "before*";
pub(super) const BEFORE_CONCATENATE: &str = "before~";
pub(super) const BEFORE_KEEPING: &str = "before=";
pub(super) const AFTER_BUILDING: &str = "after[]";
pub(super) const AFTER_CALLING: &str = "after()";
pub(super) const AFTER_FUNCTION: &str = "after_function()";

/// Filters that are left out: no chat template needs them, and what they make has no near bound.
pub(super) const UNAVAILABLE_FILTERS: [&str; 5] = ["batch", "chain", "pprint", "slice", "zip"];
/// Bytes that a piece of a text takes as an element of a list, beside the text.
const PIECE_BYTES: usize = ELEMENT_BYTES + 32;
/// The longest that escaping makes a character.
const ESCAPED_CHARACTER_BYTES: usize = 6;
/// The most bytes that changing a character's case makes of one byte.
const CASED_BYTES: usize = 3;

/// What an operation charges before it runs.
type Price = fn(&[Value]) -> Result<(), Error>;

const PRICED_FILTERS: [(&str, Price); 16] = [
    ("capitalize", price_of_case),
    ("e", price_of_escaping),
    ("escape", price_of_escaping),
    ("format", price_of_format),
    ("indent", price_of_indent),
    ("join", price_of_join),
    ("lines", price_of_lines),
    ("list", price_of_list),
    ("lower", price_of_case),
    ("replace", price_of_replace),
    ("reverse", price_of_text),
    ("safe", price_of_text),
    ("split", price_of_split),
    ("title", price_of_case),
    ("trim", price_of_text),
    ("upper", price_of_case),
];

/// Takes the place of the engine's own operations.
pub(super) fn install(environment: &mut Environment<'static>) {
    for (name, price) in PRICED_FILTERS {
        let filter = move |arguments: Rest<ValueOrKwargs>| {
            let arguments = arguments.into_values();
            price(&arguments)?;
            PRISTINE.empty_state().apply_filter(name, &arguments)
        };
        environment.add_filter(name, filter);
    }
    for name in UNAVAILABLE_FILTERS {
        environment.remove_filter(name);
    }
    // It shows the whole request.
    environment.remove_global("debug");
    environment.add_filter("string", |value: Value| match value.as_str() {
        Some(_) => Ok(value),
        None => budget::text_of(&value).map(Value::from),
    });
    environment.add_filter(BEFORE_ADD, before_add);
    environment.add_filter(BEFORE_MULTIPLY, before_multiply);
    environment.add_filter(BEFORE_CONCATENATE, before_concatenate);
    environment.add_filter(BEFORE_KEEPING, before_keeping);
    environment.add_filter(AFTER_BUILDING, after_building);
    environment.add_filter(AFTER_CALLING, after_calling);
    environment.add_filter(AFTER_FUNCTION, after_function);
    environment.set_unknown_method_callback(call_method);
    environment.set_formatter(emit);
}

/// The engine's own filters.
static PRISTINE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment
});

/// Writes the value of `{{ … }}`, to the output or to a captured text.
fn emit(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    charge_text(value)?;
    if !matches!(state.auto_escape(), AutoEscape::None) {
        price_of_escaping(std::slice::from_ref(value))?;
    }
    minijinja::escape_formatter(out, state, value)
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn pair(left: Value, right: Value) -> Value {
    Value::from(vec![left, right])
}

fn before_add(left: Value, right: Value) -> Result<Value, Error> {
    if let (Some(left), Some(right)) = (left.as_str(), right.as_str()) {
        charge(left.len() + right.len())?;
    } else if is_list(&left) && is_list(&right) && !left.is_tuple() && !right.is_tuple() {
        // Sums of lists are made when they are used. One of such sums would have no near bound.
        return Ok(pair(materialized(&left)?, materialized(&right)?));
    } else if is_list(&left) && is_list(&right) {
        charge_list(left.len().unwrap_or(0) + right.len().unwrap_or(0))?;
    }
    Ok(pair(left, right))
}

fn materialized(list: &Value) -> Result<Value, Error> {
    let mut elements = Vec::new();
    for element in list.try_iter()? {
        if elements.len() == budget::ELEMENTS_MAX / 2 {
            return Err(exceeded());
        }
        charge(ELEMENT_BYTES)?;
        elements.push(element);
    }
    charge_list(0)?;
    Ok(Value::from(elements))
}

fn before_multiply(left: Value, right: Value) -> Result<Value, Error> {
    for (many, times) in [(&left, &right), (&right, &left)] {
        let Some(times) = times.as_usize() else {
            continue;
        };
        if let Some(text) = many.as_str() {
            charge(text.len().saturating_mul(times))?;
        } else if is_list(many) {
            charge_list(many.len().unwrap_or(usize::MAX).saturating_mul(times))?;
        }
    }
    Ok(pair(left, right))
}

fn before_concatenate(left: Value, right: Value) -> Result<Value, Error> {
    charge_text(&left)?;
    charge_text(&right)?;
    Ok(pair(left, right))
}

/// Before a namespace keeps a value. What is made when it is used is made now: one such list may
/// stand on another, without bound.
fn before_keeping(value: ValueOrKwargs) -> Result<Value, Error> {
    let value = value.into_value();
    let value = match value.kind() {
        ValueKind::Iterable => materialized(&value)?,
        _ => value,
    };
    check_shape(&value, true)?;
    Ok(value)
}

/// Behind a list or a map that was written out.
fn after_building(value: ValueOrKwargs) -> Result<Value, Error> {
    let value = value.into_value();
    charge_list(2 * value.len().unwrap_or(0))?;
    check_shape(&value, false)?;
    Ok(value)
}

/// Behind a function, which may put its arguments together like a map that is written out.
fn after_function(value: ValueOrKwargs) -> Result<Value, Error> {
    if value.kind() == ValueKind::Map {
        check_shape(&value, false)?;
    }
    after_calling(value)
}

/// Behind a filter, a method, a slice or named arguments.
fn after_calling(value: ValueOrKwargs) -> Result<Value, Error> {
    let value = value.into_value();
    if let Some(text) = value.as_str() {
        charge(text.len())?;
    } else if matches!(value.kind(), ValueKind::Seq | ValueKind::Map) {
        charge(value.len().unwrap_or(0).saturating_mul(ELEMENT_BYTES))?;
    }
    Ok(value)
}

fn call_method(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    if value.kind() == ValueKind::String {
        let mut all = vec![value.clone()];
        all.extend_from_slice(arguments);
        match method {
            "replace" => price_of_replace(&all)?,
            "format" => price_of_format(&all)?,
            "split" => price_of_split(&all)?,
            "splitlines" => price_of_lines(&all)?,
            "join" => {
                all.reverse();
                price_of_join(&all)?;
            }
            _ => price_of_case(&all)?,
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments)
}

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

fn price_of_escaping(arguments: &[Value]) -> Result<(), Error> {
    times(arguments, ESCAPED_CHARACTER_BYTES)
}

fn price_of_case(arguments: &[Value]) -> Result<(), Error> {
    times(arguments, CASED_BYTES)
}

fn price_of_replace(arguments: &[Value]) -> Result<(), Error> {
    let (whole, old, new) = (text(arguments, 0), text(arguments, 1), text(arguments, 2));
    let places = match old {
        "" => whole.chars().count() + 1,
        old => whole.matches(old).count(),
    };
    charge(whole.len() + places.saturating_mul(new.len()))?;
    // What is no text is made one.
    arguments
        .iter()
        .filter(|argument| argument.as_str().is_none())
        .try_for_each(charge_text)
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

fn price_of_join(arguments: &[Value]) -> Result<(), Error> {
    let joiner = text(arguments, 1);
    let Some(list) = arguments.first() else {
        return Ok(());
    };
    if let Some(whole) = list.as_str() {
        return charge(whole.len().saturating_mul(joiner.len() + 1));
    }
    for (index, item) in list.try_iter().into_iter().flatten().enumerate() {
        if index == budget::ELEMENTS_MAX {
            return Err(exceeded());
        }
        charge(joiner.len())?;
        charge_text(&item)?;
    }
    Ok(())
}

/// Integers among the arguments, those with names too.
fn numbers(arguments: &[Value]) -> impl Iterator<Item = usize> {
    let own = arguments.iter().filter_map(Value::as_usize);
    let named = arguments.iter().filter(|argument| argument.is_kwargs());
    let named = named.filter_map(|named| {
        let values = named.try_iter().ok()?;
        Some(values.filter_map(|name| named.get_item(&name).ok()?.as_usize()))
    });
    own.chain(named.flatten())
}

fn price_of_indent(arguments: &[Value]) -> Result<(), Error> {
    let whole = text(arguments, 0);
    let lines = whole.matches('\n').count() + 1;
    // The engine's own width, if none is given.
    let width = numbers(arguments).max().unwrap_or(4);
    charge(whole.len() + lines.saturating_mul(width))
}

/// A text with places for the other arguments, at widths that stand in it or are arguments.
fn price_of_format(arguments: &[Value]) -> Result<(), Error> {
    let pattern = text(arguments, 0);
    let places = pattern.matches(['%', '{']).count();
    let widths = pattern
        .split(|character: char| !character.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.parse().unwrap_or(usize::MAX));
    let widths = widths.fold(0, usize::saturating_add);
    let widest = numbers(arguments).max().unwrap_or(0);
    charge(pattern.len())?;
    charge(widths)?;
    charge(places.saturating_mul(widest))?;
    if places > budget::ELEMENTS_MAX {
        return Err(exceeded());
    }
    // Each place may show any of them, escaped.
    for argument in arguments.iter().skip(1) {
        for _ in 0..places {
            price_of_escaping(std::slice::from_ref(argument))?;
        }
    }
    Ok(())
}

/// The error of a template that uses what is left out.
pub(super) fn unavailable(filter: &str) -> Error {
    let message = format!("the filter {filter} is not available");
    Error::new(ErrorKind::UnknownFilter, message)
}
