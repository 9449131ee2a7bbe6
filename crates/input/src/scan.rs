//! How many values a JSON text can have at most, found without parsing it.

/// Counts while a text arrives in pieces. What it says is never less than the number of values
/// and keys of the text, if that is JSON, and at most twice as much.
#[derive(Clone, Copy, Debug, Default)]
pub struct ValueScan {
    marks: usize,
    in_string: bool,
    is_escaped: bool,
}

impl ValueScan {
    /// Looks at the next piece.
    pub fn add(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while !rest.is_empty() {
            rest = match self.in_string {
                true => self.pass_string(rest),
                false => self.pass_structure(rest),
            };
        }
    }

    /// Values and keys of what has been seen, at most.
    pub fn values(&self) -> usize {
        // Every value and key stands behind a mark, but for the outermost.
        self.marks + 1
    }

    /// Goes on within a string; returns what is behind it.
    fn pass_string<'a>(&mut self, text: &'a [u8]) -> &'a [u8] {
        if self.is_escaped {
            self.is_escaped = false;
            return &text[1..];
        }
        let Some(end) = text.iter().position(|byte| matches!(byte, b'"' | b'\\')) else {
            return &[];
        };
        match text[end] {
            b'"' => self.in_string = false,
            _ => self.is_escaped = true,
        }
        &text[end + 1..]
    }

    /// Goes on outside of strings; returns what is behind the next quotation mark.
    fn pass_structure<'a>(&mut self, text: &'a [u8]) -> &'a [u8] {
        let end = text.iter().position(|byte| *byte == b'"');
        let (structure, rest) = match end {
            None => (text, &text[text.len()..]),
            Some(end) => {
                self.in_string = true;
                (&text[..end], &text[end + 1..])
            }
        };
        let is_mark = |byte: &&u8| matches!(byte, b',' | b':' | b'[' | b'{');
        self.marks += structure.iter().filter(is_mark).count();
        rest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
    use serde_json::Value;

    use super::*;
    use crate::ValueAllowance;

    fn values(pieces: &[&str]) -> usize {
        let mut scan = ValueScan::default();
        pieces.iter().for_each(|piece| scan.add(piece.as_bytes()));
        scan.values()
    }

    #[test]
    fn what_stands_in_strings_does_not_count() {
        assert_eq!(values(&["1"]), 1);
        assert_eq!(values(&["[1,2]"]), 3);
        assert_eq!(values(&["{\"a\":0}"]), 3);
        assert_eq!(values(&["\"[,:{\\\",\""]), 1);
        assert_eq!(values(&["[\"\\\\\",1]"]), 3);
        assert_eq!(values(&["[\"a\\", "\",", "b\",", "1]"]), 3);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            "[,:\\[{\"\\\\a\n]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec(("[,:\"\\\\a-c]{0,4}", inner), 0..6)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_text_has_more_values_than_the_scan_says(value in json(), cut in any::<prop::sample::Index>()) {
            let text = value.to_string();
            let (head, tail) = text.as_bytes().split_at(cut.index(text.len() + 1));
            let mut scan = ValueScan::default();
            scan.add(head);
            scan.add(tail);
            let allowance = ValueAllowance::new(scan.values());
            assert_eq!(allowance.parse(text.as_bytes()).unwrap(), value);
            let used = scan.values() - allowance.left();
            assert!(scan.values() <= 2 * used, "{} {used}", scan.values());
        }
    }
}
