//! Finds a fixed set of tags in text that arrives in pieces.

/// A stretch of text, or one of the tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Text without a tag.
    Text(&'a str),
    /// A tag, as given to the scanner.
    Tag(&'static str),
}

/// Cuts text at tags. The end of the text is held back while it could become one.
#[derive(Clone, Debug)]
pub(super) struct TagScanner {
    tags: &'static [&'static str],
    held: String,
}

impl TagScanner {
    /// Looks for these tags. None may be a prefix of another.
    pub(super) fn new(tags: &'static [&'static str]) -> Self {
        Self {
            tags,
            held: String::new(),
        }
    }

    /// Adds text and hands each piece that is now certain to `handle`.
    pub(super) fn push(&mut self, text: &str, mut handle: impl FnMut(Piece<'_>)) {
        self.held.push_str(text);
        let pending = std::mem::take(&mut self.held);
        let mut text_start = 0;
        let mut cursor = 0;
        while let Some(candidate) = pending.get(cursor..).and_then(|rest| self.candidate(rest)) {
            let start = cursor + candidate;
            let rest = &pending[start..];
            if let Some(tag) = self.tags.iter().find(|tag| rest.starts_with(**tag)) {
                if start > text_start {
                    handle(Piece::Text(&pending[text_start..start]));
                }
                handle(Piece::Tag(tag));
                cursor = start + tag.len();
                text_start = cursor;
            } else if self.tags.iter().any(|tag| tag.starts_with(rest)) {
                self.held.push_str(rest);
                if start > text_start {
                    handle(Piece::Text(&pending[text_start..start]));
                }
                return;
            } else {
                cursor = start + rest.chars().next().map_or(1, char::len_utf8);
            }
        }
        if text_start < pending.len() {
            handle(Piece::Text(&pending[text_start..]));
        }
    }

    /// Ends the text and returns what was held back, which is no tag.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The next place where a tag may begin.
    fn candidate(&self, text: &str) -> Option<usize> {
        text.find(|character| self.tags.iter().any(|tag| tag.starts_with(character)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::{Piece, TagScanner};

    const TAGS: &[&str] = &["<|A|>", "<|AB|>"];

    fn scan<'a>(pieces: impl IntoIterator<Item = &'a str>) -> String {
        let mut scanner = TagScanner::new(TAGS);
        let mut seen = String::new();
        let mut note = |piece: Piece<'_>| match piece {
            Piece::Text(text) => seen.push_str(text),
            Piece::Tag(tag) => seen.extend(["[", tag.trim_matches(['<', '|', '>']), "]"]),
        };
        for piece in pieces {
            scanner.push(piece, &mut note);
        }
        let rest = scanner.finish();
        note(Piece::Text(&rest));
        seen
    }

    #[test]
    fn finds_tags_and_keeps_the_rest() {
        assert_eq!(scan(["x<|A|>y<|AB|><|A|>"]), "x[A]y[AB][A]");
        assert_eq!(scan(["<<|", "A|", "> <|A", "C|>é<|"]), "<[A] <|AC|>é<|");
        assert_eq!(scan(["<|A<|A|>"]), "<|A[A]");
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(text in "(<|\\||A|B|>|é|<\\|A\\|>|<\\|AB\\|>){0,24}") {
            let mut buffer = [0; 4];
            let mut scanner = TagScanner::new(TAGS);
            let mut seen = String::new();
            let mut note = |piece: Piece<'_>| match piece {
                Piece::Text(text) => seen.push_str(text),
                Piece::Tag(tag) => seen.push_str(&tag.replace(['<', '|', '>'], "#")),
            };
            for character in text.chars() {
                scanner.push(character.encode_utf8(&mut buffer), &mut note);
            }
            let rest = scanner.finish();
            note(Piece::Text(&rest));
            let expected = text.replace("<|A|>", "##A##").replace("<|AB|>", "##AB##");
            prop_assert_eq!(seen, expected);
        }
    }
}
