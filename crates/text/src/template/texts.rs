//! The methods that Python's texts have.

use minijinja::value::{Kwargs, Tuple, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind};

use super::budget::charge;
use super::python_text::is_printable;
use super::{formatting, operations};

/// Methods of texts that a template may call.
pub(super) const METHODS: [&str; 42] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
];
/// Methods of texts that Python has beside those.
pub(super) const UNAVAILABLE_METHODS: [&str; 4] =
    ["encode", "format_map", "maketrans", "translate"];

/// The most bytes that changing a character's case makes of one byte.
const CASED_BYTES: usize = 3;

/// Calls a method of a text; `None` if there is none of this name.
pub(super) fn call(text: &str, name: &str, arguments: &[Value]) -> Option<Result<Value, Error>> {
    Some(match name {
        "strip" | "lstrip" | "rstrip" => strip(text, name, arguments),
        "split" | "rsplit" => split(text, name == "rsplit", arguments),
        "startswith" => has_affix(text, arguments, |text, affix| text.starts_with(affix)),
        "endswith" => has_affix(text, arguments, |text, affix| text.ends_with(affix)),
        "find" | "rfind" | "index" | "rindex" => find(text, name, arguments),
        "count" => count(text, arguments),
        "replace" => replace(text, arguments),
        "join" => join(text, arguments),
        "format" => formatting::braces(text, arguments).map(Value::from),
        "splitlines" => split_lines(text, arguments),
        "partition" | "rpartition" => partition(text, name == "rpartition", arguments),
        "removeprefix" | "removesuffix" => remove_affix(text, name, arguments),
        "center" | "ljust" | "rjust" => pad(text, name, arguments),
        "zfill" => fill_with_zeros(text, arguments),
        "expandtabs" => expand_tabs(text, arguments),
        "lower" | "upper" | "casefold" | "capitalize" | "title" | "swapcase" => {
            from_args::<()>(arguments).and_then(|()| {
                charge(text.len().saturating_mul(CASED_BYTES))?;
                Ok(Value::from(change_case(text, name)))
            })
        }
        _ => {
            let told = predicate(text, name)?;
            from_args::<()>(arguments).map(|()| Value::from(told))
        }
    })
}

/// White space to Python: what Unicode calls so, and four separators.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

fn type_error(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// A text that may be left out or none.
fn optional_text(value: Option<&Value>) -> Result<Option<&str>, Error> {
    match value {
        None => Ok(None),
        Some(value) if value.is_none() => Ok(None),
        Some(value) => match value.as_str() {
            Some(text) => Ok(Some(text)),
            None => Err(type_error("a text is expected")),
        },
    }
}

fn strip(text: &str, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (characters,): (Option<&Value>,) = from_args(arguments)?;
    let characters = optional_text(characters)?;
    let goes = |character: char| match characters {
        Some(characters) => characters.contains(character),
        None => is_space(character),
    };
    let kept = match name {
        "lstrip" => text.trim_start_matches(goes),
        "rstrip" => text.trim_end_matches(goes),
        _ => text.trim_matches(goes),
    };
    charge(kept.len())?;
    Ok(Value::from(kept))
}

/// Pieces as a list, charged.
fn list_of<'a>(pieces: impl IntoIterator<Item = &'a str>) -> Result<Value, Error> {
    let mut list = Vec::new();
    for piece in pieces {
        charge(piece.len() + operations::PIECE_BYTES)?;
        list.push(Value::from(piece));
    }
    Ok(Value::from(list))
}

fn split(text: &str, from_end: bool, arguments: &[Value]) -> Result<Value, Error> {
    let (separator, times, named): (Option<&Value>, Option<&Value>, Kwargs) = from_args(arguments)?;
    let separator_named: Option<&Value> = named.get("sep")?;
    let times_named: Option<&Value> = named.get("maxsplit")?;
    named.assert_all_used()?;
    let separator = optional_text(separator.or(separator_named))?;
    let times = match times.or(times_named) {
        None => usize::MAX,
        Some(times) => match times.as_i64() {
            Some(times) => usize::try_from(times).unwrap_or(usize::MAX),
            None => return Err(type_error("maxsplit must be an integer")),
        },
    };
    match (separator, from_end) {
        (Some(""), _) => Err(type_error("empty separator")),
        (Some(separator), false) => list_of(text.splitn(times.saturating_add(1), separator)),
        (Some(separator), true) => {
            charge(text.len())?;
            let mut pieces: Vec<&str> = text.rsplitn(times.saturating_add(1), separator).collect();
            pieces.reverse();
            list_of(pieces)
        }
        (None, false) => list_of(words(text, times)),
        (None, true) => {
            charge(text.len())?;
            let mut pieces = Vec::new();
            let mut rest = text.trim_end_matches(is_space);
            while !rest.is_empty() {
                let start = match pieces.len() < times {
                    true => rest
                        .rfind(is_space)
                        .map(|at| at + rest[at..].chars().next().map_or(1, char::len_utf8)),
                    false => None,
                };
                pieces.push(&rest[start.unwrap_or(0)..]);
                rest = rest[..start.unwrap_or(0)].trim_end_matches(is_space);
            }
            pieces.reverse();
            list_of(pieces)
        }
    }
}

/// The words of a text, cut so many times at most.
fn words(text: &str, mut times: usize) -> impl Iterator<Item = &str> {
    let mut rest = text.trim_start_matches(is_space);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = if times > 0 { rest.find(is_space) } else { None };
        times = times.saturating_sub(1);
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after.trim_start_matches(is_space);
        Some(word)
    })
}

/// The part of a text between two places, counted in characters and from the end if they are negative; with the byte
/// at which it begins. `None` if it begins behind the end.
fn window<'a>(
    text: &'a str,
    start: Option<&Value>,
    end: Option<&Value>,
) -> Result<Option<(usize, &'a str)>, Error> {
    let place = |value: Option<&Value>, missing: i64| match value {
        None => Ok(missing),
        Some(value) if value.is_none() => Ok(missing),
        Some(value) => value
            .as_i64()
            .ok_or_else(|| type_error("a place must be an integer")),
    };
    let length = text.chars().count() as i64;
    let clamp = |place: i64| {
        if place < 0 {
            (place + length).max(0)
        } else {
            place
        }
    };
    let (start, end) = (
        clamp(place(start, 0)?),
        clamp(place(end, length)?).min(length),
    );
    if start > end {
        return Ok(None);
    }
    let byte = |place: i64| {
        let mut places = text.char_indices();
        places
            .nth(place as usize)
            .map_or(text.len(), |(byte, _)| byte)
    };
    let (first, last) = (byte(start), byte(end));
    Ok(Some((first, &text[first..last])))
}

fn has_affix(
    text: &str,
    arguments: &[Value],
    has: impl Fn(&str, &str) -> bool,
) -> Result<Value, Error> {
    let (affix, start, end): (&Value, Option<&Value>, Option<&Value>) = from_args(arguments)?;
    let Some((_, text)) = window(text, start, end)? else {
        return Ok(Value::from(false));
    };
    if let Some(affix) = affix.as_str() {
        return Ok(Value::from(has(text, affix)));
    }
    if !affix.is_tuple() {
        return Err(type_error("a text or a tuple of texts is expected"));
    }
    for affix in affix.try_iter()? {
        match affix.as_str() {
            Some(affix) if has(text, affix) => return Ok(Value::from(true)),
            Some(_) => {}
            None => return Err(type_error("a tuple of texts is expected")),
        }
    }
    Ok(Value::from(false))
}

fn find(text: &str, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (wanted, start, end): (&str, Option<&Value>, Option<&Value>) = from_args(arguments)?;
    let window = window(text, start, end)?;
    let found = window.and_then(|(first, within)| {
        let at = match name {
            "find" | "index" => within.find(wanted),
            _ => within.rfind(wanted),
        };
        Some(first + at?)
    });
    match found {
        Some(byte) => Ok(Value::from(text[..byte].chars().count())),
        None if name.ends_with("index") => Err(type_error("substring not found")),
        None => Ok(Value::from(-1)),
    }
}

fn count(text: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (wanted, start, end): (&str, Option<&Value>, Option<&Value>) = from_args(arguments)?;
    let times = match window(text, start, end)? {
        None => 0,
        Some((_, within)) => within.matches(wanted).count(),
    };
    Ok(Value::from(times))
}

pub(super) fn replace(text: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (old, new, times): (&str, &str, Option<i64>) = from_args(arguments)?;
    let times = times.map_or(usize::MAX, |times| {
        usize::try_from(times).unwrap_or(usize::MAX)
    });
    let places = match old {
        "" => text.chars().count() + 1,
        old => text.matches(old).count(),
    };
    charge(text.len() + places.min(times).saturating_mul(new.len()))?;
    Ok(Value::from(text.replacen(old, new, times)))
}

fn join(joiner: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (list,): (&Value,) = from_args(arguments)?;
    if matches!(
        list.kind(),
        ValueKind::None | ValueKind::Undefined | ValueKind::Number | ValueKind::Bool
    ) && !list.is_undefined()
    {
        return Err(type_error("can only join an iterable"));
    }
    let mut joined = String::new();
    for (index, item) in list.try_iter()?.enumerate() {
        let Some(item) = item.as_str() else {
            return Err(type_error("can only join texts"));
        };
        let joiner = if index > 0 { joiner } else { "" };
        charge(joiner.len() + item.len())?;
        joined.push_str(joiner);
        joined.push_str(item);
    }
    Ok(Value::from(joined))
}

fn split_lines(text: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (keeps, named): (Option<&Value>, Kwargs) = from_args(arguments)?;
    let keeps_named: Option<&Value> = named.get("keepends")?;
    named.assert_all_used()?;
    let keeps_ends = keeps.or(keeps_named).is_some_and(Value::is_true);
    let is_end = |character: char| {
        matches!(
            character,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'
                ..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut rest = text;
    list_of(std::iter::from_fn(|| {
        if rest.is_empty() {
            return None;
        }
        let line = rest.find(is_end).unwrap_or(rest.len());
        let ending = match rest[line..].chars().next() {
            Some('\r') if rest[line..].starts_with("\r\n") => 2,
            Some(character) => character.len_utf8(),
            None => 0,
        };
        let kept = &rest[..if keeps_ends { line + ending } else { line }];
        rest = &rest[line + ending..];
        Some(kept)
    }))
}

fn partition(text: &str, from_end: bool, arguments: &[Value]) -> Result<Value, Error> {
    let (separator,): (&str,) = from_args(arguments)?;
    if separator.is_empty() {
        return Err(type_error("empty separator"));
    }
    let cut = if from_end {
        text.rsplit_once(separator)
    } else {
        text.split_once(separator)
    };
    let parts = match (cut, from_end) {
        (Some((before, after)), _) => [before, separator, after],
        (None, false) => [text, "", ""],
        (None, true) => ["", "", text],
    };
    charge(text.len() + 3 * operations::PIECE_BYTES)?;
    Ok(Value::from(Tuple::from(parts.map(Value::from).to_vec())))
}

fn remove_affix(text: &str, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (affix,): (&str,) = from_args(arguments)?;
    let rest = if name == "removeprefix" {
        text.strip_prefix(affix)
    } else {
        text.strip_suffix(affix)
    };
    charge(text.len())?;
    Ok(Value::from(rest.unwrap_or(text)))
}

/// What is missing to a width, in characters.
fn missing(text: &str, width: i64) -> usize {
    usize::try_from(width.saturating_sub(text.chars().count() as i64)).unwrap_or(0)
}

fn pad(text: &str, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (width, fill): (i64, Option<&str>) = from_args(arguments)?;
    let fill = fill.unwrap_or(" ");
    if fill.chars().count() != 1 {
        return Err(type_error("the fill must be one character"));
    }
    let missing = missing(text, width);
    let left = match name {
        "ljust" => 0,
        "rjust" => missing,
        // Python puts the odd one to the left where the width is odd.
        _ => missing / 2 + (missing & usize::try_from(width).unwrap_or(0) & 1),
    };
    charge(
        text.len()
            .saturating_add(missing.saturating_mul(fill.len())),
    )?;
    Ok(Value::from(
        [&fill.repeat(left), text, &fill.repeat(missing - left)].concat(),
    ))
}

fn fill_with_zeros(text: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (width,): (i64,) = from_args(arguments)?;
    let missing = missing(text, width);
    charge(text.len().saturating_add(missing))?;
    let sign = text.len() - text.strip_prefix(['+', '-']).unwrap_or(text).len();
    Ok(Value::from(
        [&text[..sign], &"0".repeat(missing), &text[sign..]].concat(),
    ))
}

fn expand_tabs(text: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (size, named): (Option<i64>, Kwargs) = from_args(arguments)?;
    let size = size.or(named.get("tabsize")?).unwrap_or(8);
    named.assert_all_used()?;
    let size = usize::try_from(size).unwrap_or(0);
    charge(
        text.len()
            .saturating_add(text.matches('\t').count().saturating_mul(size)),
    )?;
    let (mut expanded, mut column) = (String::new(), 0_usize);
    for character in text.chars() {
        match character {
            '\t' => {
                let spaces = size.saturating_sub(column.checked_rem(size).unwrap_or(0));
                expanded.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            _ => {
                expanded.push(character);
                column = if matches!(character, '\n' | '\r') {
                    0
                } else {
                    column + 1
                };
            }
        }
    }
    Ok(Value::from(expanded))
}

fn is_cased(character: char) -> bool {
    character.is_lowercase() || character.is_uppercase()
}

fn change_case(text: &str, name: &str) -> String {
    match name {
        "lower" => text.to_lowercase(),
        "upper" => text.to_uppercase(),
        // Full case folding differs in a few letters more.
        "casefold" => text.to_lowercase().replace('ß', "ss").replace('ς', "σ"),
        "capitalize" => capitalized(text),
        "title" => {
            let mut titled = String::with_capacity(text.len());
            let mut within_word = false;
            for character in text.chars() {
                match within_word {
                    true => titled.extend(character.to_lowercase()),
                    false => titled.extend(character.to_uppercase()),
                }
                within_word = is_cased(character);
            }
            titled
        }
        _ => {
            let mut swapped = String::with_capacity(text.len());
            for character in text.chars() {
                match character.is_uppercase() {
                    true => swapped.extend(character.to_lowercase()),
                    false => swapped.extend(character.to_uppercase()),
                }
            }
            swapped
        }
    }
}

/// The first character in upper case, the others in lower case.
pub(super) fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(char::to_uppercase);
    first
        .into_iter()
        .flatten()
        .chain(characters.as_str().to_lowercase().chars())
        .collect()
}

/// What a text is; beyond ASCII, all numbers count as digits.
fn predicate(text: &str, name: &str) -> Option<bool> {
    let all = |is: fn(char) -> bool| !text.is_empty() && text.chars().all(is);
    let cased = |is: fn(char) -> bool, is_not: fn(char) -> bool| {
        text.chars().any(is) && !text.chars().any(is_not)
    };
    Some(match name {
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isascii" => text.is_ascii(),
        "isdecimal" => all(|character| {
            character.is_ascii_digit() || is_other_digit(character) && !is_raised(character)
        }),
        "isdigit" => all(|character| character.is_ascii_digit() || is_other_digit(character)),
        "isnumeric" => all(char::is_numeric),
        "isidentifier" => {
            let mut characters = text.chars();
            let first = characters.next();
            first.is_some_and(|first| first == '_' || first.is_alphabetic())
                && characters.all(|character| character == '_' || character.is_alphanumeric())
        }
        "islower" => cased(char::is_lowercase, char::is_uppercase),
        "isupper" => cased(char::is_uppercase, char::is_lowercase),
        "isprintable" => text.chars().all(is_printable),
        "isspace" => all(is_space),
        "istitle" => is_title(text),
        _ => return None,
    })
}

/// Digits beyond ASCII: numbers that are no fractions, no letters of numerals and no characters of words.
fn is_other_digit(character: char) -> bool {
    let is_more = matches!(character, '¼'..='¾' | '\u{2150}'..='\u{218b}' | '\u{3000}'..='\u{9fff}' | '\u{20000}'..='\u{3ffff}');
    !character.is_ascii() && character.is_numeric() && !character.is_alphabetic() && !is_more
}

fn is_raised(character: char) -> bool {
    matches!(character, '²' | '³' | '¹' | '\u{2070}'..='\u{209f}')
}

fn is_title(text: &str) -> bool {
    let (mut within_word, mut any) = (false, false);
    for character in text.chars() {
        if is_cased(character) && character.is_uppercase() == within_word {
            return false;
        }
        within_word = is_cased(character);
        any |= within_word;
    }
    any
}
