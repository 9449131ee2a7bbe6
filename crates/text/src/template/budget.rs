//! The memory that one rendering may take.
//!
//! The engine bounds the number of instructions, but a single one can make a text or a list of any
//! size. So everything that is made is charged to a budget before it is made, whether or not it is
//! let go of later. A rendering has a thread of its own, and with it a budget of its own.

use std::cell::Cell;
use std::fmt::{self, Write};

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::python_text::write_str;
use super::views::is_namespace;

/// Bytes of all texts and lists that one rendering may make, its output among them: many times the
/// largest body of a request.
pub(super) const BYTES_MAX: usize = 256 << 20;
/// Elements of one list that a template makes.
pub(super) const ELEMENTS_MAX: usize = 1 << 20;
/// Bytes of a list's element.
pub(super) const ELEMENT_BYTES: usize = size_of::<Value>();
/// Bytes that a list or map takes beside its elements, about.
const CONTAINER_BYTES: usize = 96;
/// Levels of lists and maps within one another. Parsed JSON never has more than 127.
const DEPTH_MAX: usize = 200;
/// Values within one value that a template puts together, each counted wherever it occurs.
const VISITS_MAX: usize = 1 << 20;
/// Values that are looked at in one rendering to count those.
const ALL_VISITS_MAX: usize = 64 << 20;

thread_local! {
    static BYTES_LEFT: Cell<usize> = const { Cell::new(0) };
    static VISITS_LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Begins a rendering on this thread.
pub(super) fn begin(bytes_max: usize) {
    BYTES_LEFT.set(bytes_max);
    VISITS_LEFT.set(ALL_VISITS_MAX);
}

/// What a rendering that takes too much ends with.
pub(super) fn exceeded() -> Error {
    Error::from(ErrorKind::OutOfFuel)
}

/// Takes bytes out of the budget.
pub(super) fn charge(bytes: usize) -> Result<(), Error> {
    let left = BYTES_LEFT.get().checked_sub(bytes).ok_or_else(exceeded)?;
    BYTES_LEFT.set(left);
    Ok(())
}

/// Charges a list of so many elements.
pub(super) fn charge_list(elements: usize) -> Result<(), Error> {
    if elements > ELEMENTS_MAX {
        return Err(exceeded());
    }
    charge(CONTAINER_BYTES + elements * ELEMENT_BYTES)
}

/// Charges the text of a value without making it.
pub(super) fn charge_text(value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => charge(text.len()),
        None => write_str(value, &mut ChargedWriter(NoText)).map_err(|_| exceeded()),
    }
}

/// The text of a value, as Python writes it.
pub(super) fn text_of(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    write_str(value, &mut ChargedWriter(&mut text)).map_err(|_| exceeded())?;
    Ok(text)
}

/// Charges all that is written to it.
pub(super) struct ChargedWriter<W>(pub(super) W);

impl<W: Write> Write for ChargedWriter<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        charge(text.len()).map_err(|_| fmt::Error)?;
        self.0.write_str(text)
    }
}

struct NoText;

impl Write for NoText {
    fn write_str(&mut self, _text: &str) -> fmt::Result {
        Ok(())
    }
}

/// Checks that a value that a template puts together can be compared, written and dropped: neither
/// nested without bound nor, because it holds another one many times, exponentially large.
/// `is_kept` forbids it to hold a namespace, which could then hold itself and be never freed.
pub(super) fn check_shape(value: &Value, is_kept: bool) -> Result<(), Error> {
    let mut visits = VISITS_MAX.min(VISITS_LEFT.get());
    let before = visits;
    let result = visit(value, is_kept, 0, &mut visits);
    VISITS_LEFT.set(VISITS_LEFT.get() - (before - visits));
    result
}

fn visit(value: &Value, is_kept: bool, depth: usize, visits: &mut usize) -> Result<(), Error> {
    *visits = visits.checked_sub(1).ok_or_else(exceeded)?;
    if value.as_object().is_none() {
        return Ok(());
    }
    if depth > DEPTH_MAX {
        return Err(exceeded());
    }
    if is_namespace(value) {
        return match is_kept {
            true => Err(Error::new(
                ErrorKind::InvalidOperation,
                "a namespace cannot hold a namespace",
            )),
            false => Ok(()),
        };
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            for item in value.try_iter()? {
                visit(&item, is_kept, depth + 1, visits)?;
            }
        }
        ValueKind::Map => {
            for key in value.try_iter()? {
                visit(&key, is_kept, depth + 1, visits)?;
                visit(&value.get_item(&key)?, is_kept, depth + 1, visits)?;
            }
        }
        _ => {}
    }
    Ok(())
}
