//! Ends a middle by its lines, as llama.cpp does.

use std::time::Duration;

/// Follows the lines of one middle.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    min_indent: u32,
    max_time: Option<Duration>,
    /// How far the current line is indented, until that is known. Never of the first line.
    indent: Option<u32>,
}

impl Lines {
    /// A middle whose lines but the first are indented by so many characters, and which is not
    /// begun anew with a line after so much time.
    pub(super) fn new(min_indent: u32, max_time: Option<Duration>) -> Self {
        Self {
            min_indent,
            max_time,
            indent: None,
        }
    }

    /// The length of what is left of `text`, the middle's next piece, if it ends there. `elapsed`: since
    /// the first token.
    pub(super) fn end_in(&mut self, text: &str, elapsed: Duration) -> Option<usize> {
        for (at, character) in text.char_indices() {
            match (&mut self.indent, character) {
                (Some(indent), ' ' | '\t') => *indent += 1,
                (Some(indent), _) if *indent < self.min_indent => return Some(at),
                (indent, _) => *indent = None,
            }
            if character == '\n' {
                self.indent = (self.min_indent > 0).then_some(0);
                if self.max_time.is_some_and(|most| elapsed > most) {
                    return Some(at + 1);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    #[test]
    fn a_line_that_is_indented_less_ends_the_middle_before_it() {
        let mut lines = Lines::new(2, None);
        assert_eq!(lines.end_in("a\n  b\n", SOON), None);
        assert_eq!(lines.end_in("\t c\n ", SOON), None);
        assert_eq!(lines.end_in(" d\n e", SOON), Some(4));
        let mut lines = Lines::new(1, None);
        // An empty line is not indented at all.
        assert_eq!(lines.end_in("a\n\n b", SOON), Some(2));
        assert_eq!(Lines::new(0, None).end_in("a\n\nb", SOON), None);
    }

    #[test]
    fn time_that_is_over_ends_the_middle_with_the_line() {
        let most = Duration::from_millis(100);
        let mut lines = Lines::new(0, Some(most));
        assert_eq!(lines.end_in("a\nb", most), None);
        assert_eq!(lines.end_in("c", most + SOON), None);
        assert_eq!(lines.end_in("d\ne\n", most + SOON), Some(2));
    }
}
