//! Finds stop strings in text that arrives in pieces.

/// Looks for stop strings and says which text is safe to show.
///
/// Text that could still turn out to be the beginning of a stop string is held back. The match
/// that is complete first wins, and of those that end at the same place the longest: so the
/// result depends on the text alone, never on how it was cut into pieces.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    stops: Vec<StopString>,
    include: bool,
    held: String,
    stopped: bool,
}

/// What [`StopMatcher::push`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopMatch {
    /// Text to show now. After a match it ends where the stop string begins, or where it ends if
    /// the matcher includes stop strings in the text.
    pub text: String,
    /// The stop string that was found. Nothing is shown after it.
    pub stopped: Option<String>,
}

/// One stop string with its Knuth-Morris-Pratt automaton, so that long texts and unlucky stop
/// strings cost linear time.
#[derive(Clone, Debug)]
struct StopString {
    text: String,
    /// `failure[i]`: length of the longest proper border of the first `i + 1` bytes.
    failure: Vec<usize>,
    matched: usize,
}

impl StopString {
    fn new(text: String) -> Self {
        let bytes = text.as_bytes();
        let mut failure = vec![0; bytes.len()];
        let mut matched = 0;
        for index in 1..bytes.len() {
            while matched > 0 && bytes[matched] != bytes[index] {
                matched = failure[matched - 1];
            }
            if bytes[matched] == bytes[index] {
                matched += 1;
            }
            failure[index] = matched;
        }
        Self {
            text,
            failure,
            matched: 0,
        }
    }

    /// Advances by one byte; true if the stop string ends with it.
    fn advance(&mut self, byte: u8) -> bool {
        let bytes = self.text.as_bytes();
        while self.matched > 0 && bytes[self.matched] != byte {
            self.matched = self.failure[self.matched - 1];
        }
        if bytes[self.matched] == byte {
            self.matched += 1;
        }
        if self.matched < bytes.len() {
            return false;
        }
        self.matched = 0;
        true
    }
}

impl StopMatcher {
    /// Makes a matcher. Empty stop strings are ignored; `include` keeps the stop string that was
    /// found in the text.
    pub fn new(stops: Vec<String>, include: bool) -> Self {
        let stops = stops
            .into_iter()
            .filter(|stop| !stop.is_empty())
            .map(StopString::new);
        Self {
            stops: stops.collect(),
            include,
            held: String::new(),
            stopped: false,
        }
    }

    /// Adds text and returns what is safe to show. After a match everything is swallowed.
    pub fn push(&mut self, text: &str) -> StopMatch {
        if self.stopped {
            return StopMatch::default();
        }
        if self.stops.is_empty() {
            return StopMatch {
                text: text.to_owned(),
                stopped: None,
            };
        }
        let scanned = self.held.len();
        self.held.push_str(text);
        for (index, byte) in text.bytes().enumerate() {
            let mut found: Option<&str> = None;
            for stop in &mut self.stops {
                if stop.advance(byte) && found.is_none_or(|best| best.len() < stop.text.len()) {
                    found = Some(&stop.text);
                }
            }
            if let Some(stop) = found {
                let stop = stop.to_owned();
                return self.stop_at(scanned + index + 1, stop);
            }
        }
        let longest_prefix = self
            .stops
            .iter()
            .map(|stop| stop.matched)
            .max()
            .unwrap_or(0);
        // A prefix of a stop string begins with a whole character, so this cut is on a boundary.
        let kept = self.held.split_off(self.held.len() - longest_prefix);
        StopMatch {
            text: std::mem::replace(&mut self.held, kept),
            stopped: None,
        }
    }

    /// Ends the text and returns what was held back. Text that comes after it is a new text, in
    /// which stop strings that began in the old one are not found.
    pub fn finish(&mut self) -> String {
        self.stops.iter_mut().for_each(|stop| stop.matched = 0);
        std::mem::take(&mut self.held)
    }

    fn stop_at(&mut self, end: usize, stop: String) -> StopMatch {
        self.stopped = true;
        let mut text = std::mem::take(&mut self.held);
        text.truncate(if self.include { end } else { end - stop.len() });
        StopMatch {
            text,
            stopped: Some(stop),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::StopMatcher;

    fn run(stops: &[&str], include: bool, pieces: &[&str]) -> (String, Option<String>) {
        let stops = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut matcher = StopMatcher::new(stops, include);
        let mut shown = String::new();
        let mut stopped = None;
        for piece in pieces {
            let result = matcher.push(piece);
            shown.push_str(&result.text);
            stopped = stopped.or(result.stopped);
        }
        shown.push_str(&matcher.finish());
        (shown, stopped)
    }

    /// The first stop string to be complete, found by looking at every prefix of the text.
    fn naive(stops: &[&str], include: bool, text: &str) -> (String, Option<String>) {
        for (start, character) in text.char_indices() {
            let seen = &text[..start + character.len_utf8()];
            let found = stops
                .iter()
                .filter(|stop| !stop.is_empty() && seen.ends_with(**stop));
            if let Some(stop) = found.max_by_key(|stop| stop.len()) {
                let end = if include {
                    seen.len()
                } else {
                    seen.len() - stop.len()
                };
                return (seen[..end].to_owned(), Some((*stop).to_owned()));
            }
        }
        (text.to_owned(), None)
    }

    #[test]
    fn shows_what_cannot_be_a_stop_string() {
        let mut matcher = StopMatcher::new(vec!["END".to_owned()], false);
        assert_eq!(matcher.push("abcE").text, "abc");
        assert_eq!(matcher.push("Nx").text, "ENx");
        let result = matcher.push(".END tail");
        assert_eq!(result.text, ".");
        assert_eq!(result.stopped.as_deref(), Some("END"));
        assert_eq!(matcher.push("more").text, "");
        assert_eq!(matcher.finish(), "");
    }

    #[test]
    fn flushes_a_prefix_at_the_end() {
        assert_eq!(
            run(&["\n\nUser:"], false, &["hi\n", "\nUser"]),
            ("hi\n\nUser".into(), None)
        );
    }

    #[test]
    fn does_not_match_across_an_end() {
        let mut matcher = StopMatcher::new(vec!["ab".to_owned()], false);
        assert_eq!(matcher.push("a").text, "");
        assert_eq!(matcher.finish(), "a");
        assert_eq!(matcher.push("b").text, "b");
    }

    #[test]
    fn first_to_be_complete_wins_and_ties_go_to_the_longest() {
        let cut = |stop: &str, text: &str| (text.to_owned(), Some(stop.to_owned()));
        assert_eq!(run(&["abcd", "bc"], false, &["xabcd"]), cut("bc", "xa"));
        assert_eq!(run(&["bc", "abc"], false, &["xabcd"]), cut("abc", "x"));
        assert_eq!(run(&["bc", "abc"], true, &["xabcd"]), cut("abc", "xabc"));
        assert_eq!(run(&["", "é"], false, &["cafés"]), cut("é", "caf"));
    }

    proptest! {
        #[test]
        fn agrees_with_a_search_of_the_whole_text(
            text in "[abé\n]{0,40}",
            stops in prop::collection::vec("[abé\n]{0,5}", 0..4),
            include in any::<bool>(),
            cuts in prop::collection::vec(0usize..40, 0..6),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let pieces = split(&text, cuts);
            prop_assert_eq!(run(&stops, include, &pieces), naive(&stops, include, &text));
        }
    }

    fn split(text: &str, mut cuts: Vec<usize>) -> Vec<&str> {
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut start = 0;
        for cut in cuts.into_iter().filter(|cut| text.is_char_boundary(*cut)) {
            pieces.push(&text[start..cut]);
            start = cut;
        }
        pieces.push(&text[start..]);
        pieces
    }
}
