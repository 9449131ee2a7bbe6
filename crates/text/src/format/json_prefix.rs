//! Tells whether text that arrives in pieces could be the beginning of a JSON array or object, and
//! whether it ends inside one of its strings.

/// Reads the beginning of a JSON array or object.
#[derive(Clone, Debug, Default)]
pub(super) struct JsonPrefix {
    /// The arrays (`false`) and objects (`true`) that are open.
    open: Vec<bool>,
    expects: Expected,
    in_string: bool,
    escaped: bool,
}

/// What may come next, outside of strings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expected {
    /// The array or object itself.
    #[default]
    Structure,
    Value,
    /// A value, or the end of an empty array.
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    /// More of a number or a literal, or what may follow one.
    Scalar,
    CommaOrEnd,
    /// Nothing: it is complete, or no JSON.
    Nothing,
}

impl JsonPrefix {
    /// Whether a string of JSON is open.
    pub(super) fn in_string(&self) -> bool {
        self.in_string
    }

    /// Adds text.
    pub(super) fn push(&mut self, text: &str) {
        text.chars().for_each(|character| self.feed(character));
    }

    fn feed(&mut self, character: char) {
        use Expected::{
            Colon, CommaOrEnd, Key, KeyOrEnd, Nothing, Scalar, Structure, Value, ValueOrEnd,
        };
        if self.in_string {
            self.feed_string(character);
            return;
        }
        let in_object = self.open.last() == Some(&true);
        let is_scalar = character.is_ascii_alphanumeric() || "+-.".contains(character);
        self.expects = match (self.expects, character) {
            (Scalar, _) if is_scalar => Scalar,
            (expected, ' ' | '\n' | '\r' | '\t') if expected != Scalar => expected,
            (Scalar, ' ' | '\n' | '\r' | '\t') => CommaOrEnd,
            (Structure | Value | ValueOrEnd, '{') => self.begin(true),
            (Structure | Value | ValueOrEnd, '[') => self.begin(false),
            (Value | ValueOrEnd, '"') => self.begin_string(CommaOrEnd),
            (Key | KeyOrEnd, '"') => self.begin_string(Colon),
            (Value | ValueOrEnd, _) if is_scalar => Scalar,
            (Colon, ':') => Value,
            (Scalar | CommaOrEnd, ',') if in_object => Key,
            (Scalar | CommaOrEnd, ',') => Value,
            (KeyOrEnd | Scalar | CommaOrEnd, '}') if in_object => self.end(),
            (ValueOrEnd | Scalar | CommaOrEnd, ']') if !in_object => self.end(),
            _ => Nothing,
        };
    }

    fn feed_string(&mut self, character: char) {
        match character {
            _ if self.escaped => self.escaped = false,
            '\\' => self.escaped = true,
            '"' => self.in_string = false,
            // Strings of JSON have no line breaks.
            _ if character < ' ' => {
                self.in_string = false;
                self.expects = Expected::Nothing;
            }
            _ => {}
        }
    }

    fn begin(&mut self, object: bool) -> Expected {
        self.open.push(object);
        match object {
            true => Expected::KeyOrEnd,
            false => Expected::ValueOrEnd,
        }
    }

    fn begin_string(&mut self, then: Expected) -> Expected {
        self.in_string = true;
        then
    }

    fn end(&mut self) -> Expected {
        self.open.pop();
        match self.open.is_empty() {
            true => Expected::Nothing,
            false => Expected::CommaOrEnd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::JsonPrefix;

    #[test]
    fn only_text_that_may_be_json_ends_inside_its_strings() {
        let cases = [
            ("[\"a", true),
            (" {\"a\": [1, -2.5e3, null, true], \"b", true),
            ("[{\"a\": \"\\\"", true),
            ("{\"a\" : {} , \"b\" : [ ] , \"c\":\"", true),
            ("[\"a\", \"b\"", false),
            ("\"a", false),
            ("a \"b", false),
            ("{'a': \"b", false),
            ("[\"a\n", false),
            ("[\"a\" \"b", false),
            ("[1] \"b", false),
            ("{\"a\"} \"b", false),
            ("{\"a\": 1]\"", false),
            ("{1: \"", false),
        ];
        for (text, expected) in cases {
            let mut prefix = JsonPrefix::default();
            prefix.push(text);
            assert_eq!(prefix.in_string(), expected, "{text}");
        }
    }
}
