//! The methods that Python's texts, maps, lists and numbers have.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};

use super::budget::charge_list;
use super::texts;
use super::views::{BoundMethod, MapView, Part, is_namespace};

/// Names that are methods of maps before they are keys.
const OF_MAPS: [&str; 11] = [
    "clear",
    "copy",
    "fromkeys",
    "get",
    "items",
    "keys",
    "pop",
    "popitem",
    "setdefault",
    "update",
    "values",
];
const OF_LISTS: [&str; 11] = [
    "append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse",
    "sort",
];

/// Whether an attribute of this name may be a method.
pub(super) fn is_name(name: &str) -> bool {
    OF_MAPS.contains(&name) || OF_LISTS.contains(&name) || texts::METHODS.contains(&name)
}

/// An attribute whose name is that of a method.
pub(super) fn attribute(value: Value, name: &str) -> Result<Value, Error> {
    let methods: &'static [&'static str] = match value.kind() {
        ValueKind::Map if !is_namespace(&value) => &OF_MAPS,
        ValueKind::String => &texts::METHODS,
        ValueKind::Seq if !value.is_tuple() => &OF_LISTS,
        ValueKind::Undefined => return Err(Error::from(ErrorKind::UndefinedError)),
        _ => &[],
    };
    match methods.iter().find(|method| **method == name) {
        Some(name) => Ok(Value::from_object(BoundMethod { value, name })),
        None => value.get_attr(name),
    }
}

/// The filter `attr`, for which the keys of a map are no attributes.
pub(super) fn own_attribute(value: Value, name: &str) -> Result<Value, Error> {
    match is_name(name) || value.kind() != ValueKind::Map || is_namespace(&value) {
        true => attribute(value, name),
        false => Ok(Value::UNDEFINED),
    }
}

/// Calls a method.
pub(super) fn call(
    _state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let result = match value.kind() {
        ValueKind::String => texts::call(value.as_str().unwrap_or_default(), name, arguments),
        ValueKind::Map if !is_namespace(value) => of_map(value, name, arguments),
        ValueKind::Seq => of_list(value, name, arguments),
        ValueKind::Number => of_number(value, name, arguments),
        _ => None,
    };
    result.unwrap_or_else(|| Err(Error::from(ErrorKind::UnknownMethod)))
}

fn forbidden() -> Error {
    let message = "a template may change neither maps nor lists";
    Error::new(ErrorKind::InvalidOperation, message)
}

fn of_map(map: &Value, name: &str, arguments: &[Value]) -> Option<Result<Value, Error>> {
    let part = match name {
        "get" => {
            return Some(
                from_args(arguments).map(|(key, default): (&Value, Option<Value>)| {
                    let found = map.get_item(key).ok().filter(|value| !value.is_undefined());
                    found.or(default).unwrap_or_else(|| Value::from(()))
                }),
            );
        }
        "copy" => return Some(from_args::<()>(arguments).map(|()| map.clone())),
        "keys" => Part::Keys,
        "values" => Part::Values,
        "items" => Part::Items,
        name if OF_MAPS.contains(&name) => return Some(Err(forbidden())),
        _ => return None,
    };
    let map = map.clone();
    Some(from_args::<()>(arguments).map(|()| Value::from_object(MapView { map, part })))
}

fn of_list(list: &Value, name: &str, arguments: &[Value]) -> Option<Result<Value, Error>> {
    let count = |wanted: &Value| Ok(list.try_iter()?.filter(|item| item == wanted).count());
    Some(match name {
        "count" => from_args(arguments)
            .and_then(|(wanted,)| count(wanted))
            .map(Value::from),
        "index" => from_args(arguments).and_then(|(wanted,): (&Value,)| {
            let place = list.try_iter()?.position(|item| item == *wanted);
            place.map(Value::from).ok_or_else(|| {
                Error::new(ErrorKind::InvalidOperation, "the value is not in the list")
            })
        }),
        "copy" if !list.is_tuple() => from_args::<()>(arguments).and_then(|()| {
            charge_list(list.len().unwrap_or(0))?;
            Ok(list.try_iter()?.collect())
        }),
        name if OF_LISTS.contains(&name) && !list.is_tuple() => Err(forbidden()),
        _ => return None,
    })
}

fn of_number(number: &Value, name: &str, arguments: &[Value]) -> Option<Result<Value, Error>> {
    let told = match name {
        "is_integer" => Value::from(
            number.is_integer()
                || f64::try_from(number.clone()).is_ok_and(|float| float.fract() == 0.0),
        ),
        "bit_length" if number.is_integer() => {
            let magnitude = i128::try_from(number.clone()).map_or(0, i128::unsigned_abs);
            Value::from(u128::BITS - magnitude.leading_zeros())
        }
        _ => return None,
    };
    Some(from_args::<()>(arguments).map(|()| told))
}
