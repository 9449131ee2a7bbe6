//! Python's slices of texts and lists.

use minijinja::value::{Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::budget::{charge, charge_list};
use super::views::MapView;

fn error(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// `value[start:stop:step]`.
pub(super) fn slice(value: Value, start: Value, stop: Value, step: Value) -> Result<Value, Error> {
    let bound = |value: &Value| match value.kind() {
        ValueKind::None => Ok(None),
        ValueKind::Number | ValueKind::Bool if value.is_integer() || !value.is_number() => {
            i64::try_from(value.clone()).map(Some)
        }
        _ => Err(error("the bounds of a slice must be integers or none")),
    };
    let bounds = [bound(&start)?, bound(&stop)?];
    let step = bound(&step)?.unwrap_or(1);
    if step == 0 {
        return Err(error("the step of a slice cannot be zero"));
    }
    if let Some(text) = value.as_str() {
        charge(text.len())?;
        if step == 1 {
            let [start, stop] = places(text.chars().count(), bounds, step);
            let length = usize::try_from(stop - start).unwrap_or(0);
            return Ok(text
                .chars()
                .skip(start as usize)
                .take(length)
                .collect::<String>()
                .into());
        }
        charge(text.len().saturating_mul(size_of::<char>()))?;
        let characters: Vec<char> = text.chars().collect();
        let picked = indices(characters.len(), bounds, step).map(|index| characters[index]);
        return Ok(Value::from(picked.collect::<String>()));
    }
    let all = match value.kind() {
        ValueKind::Seq => value.clone(),
        // What is made when it is gone through, such as a range.
        ValueKind::Iterable if value.downcast_object_ref::<MapView>().is_none() => listed(&value)?,
        _ => return Err(error("this value has no slices")),
    };
    let indices: Vec<usize> = indices(all.len().unwrap_or(0), bounds, step).collect();
    charge_list(indices.len())?;
    let items = indices
        .into_iter()
        .map(|index| all.get_item_by_index(index));
    let items = items.collect::<Result<Vec<Value>, Error>>()?;
    Ok(match value.is_tuple() {
        true => Value::from(Tuple::from(items)),
        false => Value::from(items),
    })
}

/// What has a length, as a list.
fn listed(value: &Value) -> Result<Value, Error> {
    let length = value
        .len()
        .ok_or_else(|| error("this value has no slices"))?;
    charge_list(length)?;
    Ok(value.try_iter()?.take(length).collect())
}

/// The first place and the one behind the last, as Python's `slice.indices` gives them.
fn places(length: usize, [start, stop]: [Option<i64>; 2], step: i64) -> [i64; 2] {
    let length = length as i64;
    let (lowest, highest) = if step > 0 {
        (0, length)
    } else {
        (-1, length - 1)
    };
    let place = |bound: i64| {
        let bound = if bound < 0 {
            bound.saturating_add(length)
        } else {
            bound
        };
        bound.clamp(lowest, highest.max(lowest))
    };
    let (first, last) = if step > 0 {
        (lowest, highest)
    } else {
        (highest, lowest)
    };
    [start.map_or(first, place), stop.map_or(last, place)]
}

fn indices(length: usize, bounds: [Option<i64>; 2], step: i64) -> impl Iterator<Item = usize> {
    let [start, stop] = places(length, bounds, step);
    let is_before = move |place: i64| if step > 0 { place < stop } else { place > stop };
    std::iter::successors(Some(start), move |place| place.checked_add(step))
        .take_while(move |place| is_before(*place))
        .map(|place| place as usize)
}
