//! Lookaheads in the patterns of a schema: the library knows none within JSON schemas, so that they
//! are written out there. Strings that stand without quotes are a language of their own
//! (`constraint::strings`), which has them as they are.

use serde_json::{Map, Value, json};

use super::error::{ConstraintReason, Fault};
use super::omissions::Omissions;
use super::pattern::{self, Reach};
use super::schema::children;

/// What becomes of lookaheads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookaheads {
    /// They stay if they can be enforced.
    Kept,
    /// They are written with several patterns, or with long ones.
    WrittenOut,
}

/// Does so in a schema and all within it. Patterns that cannot be enforced are taken out where they
/// may be left out.
pub(super) fn treat(
    schema: &mut Value,
    lookaheads: Lookaheads,
    omitted: &Omissions,
) -> Result<(), Fault> {
    let mut walk = Walk {
        lookaheads,
        omitted,
        place: Vec::new(),
    };
    let visited = walk.visit(schema);
    visited.map_err(|reason| Fault::at(reason, &walk.place))
}

struct Walk<'a> {
    lookaheads: Lookaheads,
    omitted: &'a Omissions,
    /// Where the schema stands that is visited; where it was given up in the end.
    place: Vec<String>,
}

impl Walk<'_> {
    fn visit(&mut self, schema: &mut Value) -> Result<(), ConstraintReason> {
        let Some(entries) = schema.as_object_mut() else {
            return Ok(());
        };
        self.treat_pattern(entries)?;
        if self.lookaheads == Lookaheads::WrittenOut {
            write_out_names(entries)?;
        }
        children(entries).try_for_each(|(place, child)| {
            self.place.push(place);
            self.visit(child)?;
            self.place.pop();
            Ok(())
        })
    }

    fn treat_pattern(&self, entries: &mut Map<String, Value>) -> Result<(), ConstraintReason> {
        let Some(Value::String(source)) = entries.get("pattern") else {
            return Ok(());
        };
        let treated = match self.lookaheads {
            Lookaheads::Kept => pattern::language(source, Reach::Search).map(|_| None),
            Lookaheads::WrittenOut => pattern::without_lookaheads(source, true),
        };
        let patterns = match treated {
            Ok(None) => return Ok(()),
            Ok(Some(patterns)) => patterns,
            Err(ConstraintReason::Construct(_)) if self.omitted.has("pattern") => Vec::new(),
            Err(reason) => return Err(reason),
        };
        entries.shift_remove("pattern");
        let more = patterns
            .into_iter()
            .map(|pattern| json!({"pattern": pattern}));
        match entries.get_mut("allOf") {
            Some(Value::Array(all)) => all.extend(more),
            _ => {
                let all: Vec<Value> = more.collect();
                if !all.is_empty() {
                    entries.insert("allOf".to_owned(), all.into());
                }
            }
        }
        Ok(())
    }
}

/// Patterns of names.
fn write_out_names(entries: &mut Map<String, Value>) -> Result<(), ConstraintReason> {
    let Some(Value::Object(named)) = entries.get_mut("patternProperties") else {
        return Ok(());
    };
    for (pattern, schema) in std::mem::take(named) {
        let plain = pattern::without_lookaheads(&pattern, false)?;
        let plain = plain.and_then(|mut patterns| patterns.pop());
        named.insert(plain.unwrap_or(pattern), schema);
    }
    Ok(())
}
