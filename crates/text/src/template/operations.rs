//! Operators, filters and methods that can make much out of little, each charged to the rendering's
//! budget before it runs.

use std::cmp::Ordering;

use minijinja::value::{Tuple, Value, ValueKind, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State};

use super::budget::{
    self, ChargedWriter, ELEMENT_BYTES, charge, charge_list, check_shape, exceeded,
};
use super::python_text::write_str;
use super::{filters, formatting, methods, slices};

/// Filters that the guards of [`super::program`] go by. No template can name them.
pub(super) const BEFORE_MULTIPLY: &str = "before*";
pub(super) const BEFORE_LOOP: &str = "before[";
pub(super) const BEFORE_KEEPING: &str = "before=";
pub(super) const AFTER_BUILDING: &str = "after[]";
pub(super) const AFTER_CALLING: &str = "after()";
pub(super) const AFTER_FUNCTION: &str = "after_function()";
pub(super) const AFTER_GENERATOR: &str = "after_generator()";
/// Filters that take the place of operators.
pub(super) const ADD: &str = "+";
pub(super) const CONCATENATE: &str = "~";
pub(super) const REMAINDER: &str = "%";
pub(super) const SLICE: &str = "[:]";
pub(super) const CONTAINS: &str = "@";
pub(super) const LESS: &str = "<(";
pub(super) const LESS_OR_EQUAL: &str = "<=(";
pub(super) const GREATER: &str = ">(";
pub(super) const GREATER_OR_EQUAL: &str = ">=(";
pub(super) const ATTRIBUTE: &str = ".";

/// Filters of the engine that are left out: no chat template needs them, and what they make has no near bound.
pub(super) const UNAVAILABLE_FILTERS: [&str; 5] = ["batch", "chain", "pprint", "slice", "zip"];
/// Bytes that a piece of a text takes as an element of a list, beside the text.
pub(super) const PIECE_BYTES: usize = ELEMENT_BYTES + 32;

/// Takes the place of the engine's own operations.
pub(super) fn install(environment: &mut Environment<'static>) {
    filters::install(environment);
    // It shows the whole request.
    environment.remove_global("debug");
    environment.add_filter(ADD, add);
    environment.add_filter(BEFORE_MULTIPLY, before_multiply);
    environment.add_filter(BEFORE_LOOP, before_loop);
    environment.add_filter(BEFORE_KEEPING, before_keeping);
    environment.add_filter(AFTER_BUILDING, after_building);
    environment.add_filter(AFTER_CALLING, after_calling);
    environment.add_filter(AFTER_FUNCTION, after_function);
    environment.add_filter(AFTER_GENERATOR, filters::generator);
    environment.add_filter(CONCATENATE, concatenate);
    environment.add_filter(REMAINDER, remainder);
    environment.add_filter(SLICE, slices::slice);
    environment.add_filter(CONTAINS, contains);
    for (name, is_so) in ORDERS {
        environment.add_filter(name, move |left: Value, right: Value| {
            check_order(&left, &right)?;
            Ok::<bool, Error>(is_so(left.cmp(&right)))
        });
    }
    environment.add_filter(ATTRIBUTE, methods::attribute);
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(emit);
}

/// Writes the value of `{{ … }}`, to the output or to a captured text.
fn emit(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    if matches!(state.auto_escape(), AutoEscape::None) {
        return write_str(value, &mut ChargedWriter(out)).map_err(|_| exceeded());
    }
    filters::price_of_escaping(std::slice::from_ref(value))?;
    minijinja::escape_formatter(out, state, value)
}

fn type_error(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

fn concatenate(left: Value, right: Value) -> Result<Value, Error> {
    let mut text = String::new();
    let mut out = ChargedWriter(&mut text);
    write_str(&left, &mut out)
        .and_then(|()| write_str(&right, &mut out))
        .map_err(|_| exceeded())?;
    Ok(Value::from(text))
}

/// `%`, which formats texts.
fn remainder(left: Value, right: Value) -> Result<Value, Error> {
    if let Some(pattern) = left.as_str() {
        return formatting::percent(pattern, &right).map(Value::from);
    }
    match numbers(&left, &right) {
        None => Err(type_error("unsupported operands of %")),
        Some(Numbers::Whole(_, 0)) => Err(type_error("modulo by zero")),
        Some(Numbers::Whole(left, right)) => {
            // The only remainder that overflows is none.
            let remainder = left.checked_rem(right).unwrap_or(0);
            let is_below = remainder != 0 && (remainder < 0) != (right < 0);
            Ok(integer(if is_below {
                remainder + right
            } else {
                remainder
            }))
        }
        Some(Numbers::Floats(_, 0.0)) => Err(type_error("modulo by zero")),
        Some(Numbers::Floats(left, right)) => {
            let remainder = left % right;
            Ok(Value::from(match remainder != 0.0 {
                true if (remainder < 0.0) != (right < 0.0) => remainder + right,
                true => remainder,
                false => 0.0_f64.copysign(right),
            }))
        }
    }
}

fn integer(number: i128) -> Value {
    match i64::try_from(number) {
        Ok(number) => Value::from(number),
        Err(_) => Value::from(number),
    }
}

/// Whether a comparison is true of values in this order.
type IsSo = fn(Ordering) -> bool;

/// Comparisons, by the order that makes each of them true.
const ORDERS: [(&str, IsSo); 4] = [
    (LESS, Ordering::is_lt),
    (LESS_OR_EQUAL, Ordering::is_le),
    (GREATER, Ordering::is_gt),
    (GREATER_OR_EQUAL, Ordering::is_ge),
];

/// Python orders numbers, texts, and lists, each among themselves.
fn check_order(left: &Value, right: &Value) -> Result<(), Error> {
    let order = |value: &Value| match value.kind() {
        ValueKind::Number | ValueKind::Bool => Some(0),
        ValueKind::String => Some(1),
        ValueKind::Seq if value.is_tuple() => Some(2),
        ValueKind::Seq => Some(3),
        _ => None,
    };
    match order(left).is_some() && order(left) == order(right) {
        true => Ok(()),
        false => Err(type_error("values of these types have no order")),
    }
}

/// `value in container`.
fn contains(value: Value, container: Value) -> Result<bool, Error> {
    match (container.as_str(), container.kind()) {
        (Some(container), _) => match value.as_str() {
            Some(value) => Ok(container.contains(value)),
            None => Err(type_error("only a text can be in a text")),
        },
        (None, ValueKind::Undefined) => Ok(false),
        (None, ValueKind::Map) => {
            let object = container.as_object();
            Ok(object.is_some_and(|object| object.get_value(&value).is_some()))
        }
        (None, ValueKind::Seq | ValueKind::Iterable) => {
            Ok(container.try_iter()?.any(|item| item == value))
        }
        _ => Err(type_error("nothing can be in this value")),
    }
}

/// The engine goes through none as if nothing were in it.
fn before_loop(value: Value) -> Result<Value, Error> {
    match value.is_none() {
        true => Err(type_error("none is not iterable")),
        false => Ok(value),
    }
}

pub(super) fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn pair(left: Value, right: Value) -> Value {
    Value::from(vec![left, right])
}

/// `+`, of texts, lists and numbers.
fn add(left: Value, right: Value) -> Result<Value, Error> {
    if let (Some(first), Some(second)) = (left.as_str(), right.as_str()) {
        if left.is_safe() || right.is_safe() {
            // What is added to a safe text is made safe.
            let [first, second] = [filters::escape(left)?, filters::escape(right)?];
            return Ok(Value::from_safe_string(joined(
                first.as_str().unwrap_or_default(),
                second.as_str().unwrap_or_default(),
            )?));
        }
        return joined(first, second).map(Value::from);
    }
    if let (ValueKind::Seq, ValueKind::Seq) = (left.kind(), right.kind()) {
        if left.is_tuple() != right.is_tuple() {
            return Err(type_error("a list and a tuple cannot be added"));
        }
        charge_list(
            left.len()
                .unwrap_or(0)
                .saturating_add(right.len().unwrap_or(0)),
        )?;
        let elements: Vec<Value> = left.try_iter()?.chain(right.try_iter()?).collect();
        return Ok(match left.is_tuple() {
            true => Value::from(Tuple::from(elements)),
            false => Value::from(elements),
        });
    }
    match numbers(&left, &right) {
        Some(Numbers::Whole(left, right)) => {
            let sum = left.checked_add(right);
            sum.map(integer)
                .ok_or_else(|| type_error("the sum is too large"))
        }
        Some(Numbers::Floats(left, right)) => Ok(Value::from(left + right)),
        None => Err(type_error("unsupported operands of +")),
    }
}

fn joined(first: &str, second: &str) -> Result<String, Error> {
    charge(first.len() + second.len())?;
    Ok([first, second].concat())
}

/// Two numbers, of the type of what is made of them.
enum Numbers {
    Whole(i128, i128),
    Floats(f64, f64),
}

fn numbers(left: &Value, right: &Value) -> Option<Numbers> {
    let is_number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    if !is_number(left) || !is_number(right) {
        return None;
    }
    let whole = |value: &Value| {
        let is_float = value.kind() == ValueKind::Number && !value.is_integer();
        i128::try_from(value.clone()).ok().filter(|_| !is_float)
    };
    let float = |value: &Value| match value.kind() {
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        _ => f64::try_from(value.clone()).ok(),
    };
    match (whole(left), whole(right)) {
        (Some(left), Some(right)) => Some(Numbers::Whole(left, right)),
        _ => Some(Numbers::Floats(float(left)?, float(right)?)),
    }
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
        let Some(times) = times.as_i64() else {
            continue;
        };
        if times < 0 && (many.as_str().is_some() || is_list(many)) {
            return Ok(pair(many.clone(), Value::from(0)));
        }
        let times = usize::try_from(times).unwrap_or(0);
        if let Some(text) = many.as_str() {
            charge(text.len().saturating_mul(times))?;
        } else if is_list(many) {
            charge_list(many.len().unwrap_or(usize::MAX).saturating_mul(times))?;
        }
    }
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
