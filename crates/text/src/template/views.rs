//! What Python makes of maps and lists and does not put into memory: it can be gone through, but has no JSON, and what
//! a filter makes has neither a length nor places.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Tuple, Value, ValueKind};
use minijinja::{Error, State};

/// What a map shows of its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Keys,
    Values,
    Items,
}

/// `dict.keys()`, `dict.values()` and `dict.items()`.
#[derive(Debug)]
pub(super) struct MapView {
    pub(super) map: Value,
    pub(super) part: Part,
}

impl MapView {
    pub(super) fn python_name(&self) -> &'static str {
        match self.part {
            Part::Keys => "dict_keys",
            Part::Values => "dict_values",
            Part::Items => "dict_items",
        }
    }
}

impl Object for MapView {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let (view, keys) = (Arc::clone(self), self.map.try_iter());
        let Ok(keys) = keys else {
            return Enumerator::Empty;
        };
        Enumerator::Iter(Box::new(keys.map(move |key| {
            let value = || view.map.get_item(&key).unwrap_or_default();
            match view.part {
                Part::Keys => key.clone(),
                Part::Values => value(),
                Part::Items => Value::from(Tuple::from([key.clone(), value()])),
            }
        })))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        self.map.len()
    }
}

/// What filters such as `map` and `select` make. Unlike Python's it can be gone through more than once.
#[derive(Debug)]
pub(super) struct Generator(pub(super) Vec<Value>);

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let generator = Arc::clone(self);
        let item = move |index: usize| generator.0[index].clone();
        Enumerator::Iter(Box::new((0..self.0.len()).map(item)))
    }

    /// None, and so it is true even if nothing is in it.
    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }
}

/// A method of a value that is not called on the spot.
#[derive(Debug)]
pub(super) struct BoundMethod {
    pub(super) value: Value,
    pub(super) name: &'static str,
}

impl Object for BoundMethod {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        self.value.call_method(state, self.name, args)
    }

    fn render(self: &Arc<Self>, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "<built-in method {}>", self.name)
    }
}

/// The engine's namespaces are maps, and its only objects that can be changed.
pub(super) fn is_namespace(value: &Value) -> bool {
    let object = value.as_object();
    object.is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

/// Functions, methods and macros.
pub(super) fn is_callable(value: &Value) -> bool {
    let object = value.as_object();
    value.kind() == ValueKind::Plain
        || object.is_some_and(|object| object.type_name().ends_with("::Macro"))
}
