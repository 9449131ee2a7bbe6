//! Finds the end of a JSON value in text that arrives in pieces.

/// Text that no JSON value begins with.
#[derive(Debug)]
pub(super) struct Malformed;

/// Finds the end of one JSON value, without checking what is in it.
#[derive(Clone, Debug, Default)]
pub(super) struct JsonScanner {
    depth: usize,
    pub(super) in_string: bool,
    escaped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// The value goes on.
    Inside,
    /// This character is the value's last.
    Last,
    /// The value ended before this character.
    Before,
}

impl JsonScanner {
    /// Begins a value with its first character.
    pub(super) fn begin(character: char) -> Result<Self, Malformed> {
        match character {
            '{' | '[' => Ok(Self {
                depth: 1,
                ..Self::default()
            }),
            '"' => Ok(Self {
                in_string: true,
                ..Self::default()
            }),
            '-' | '0'..='9' | 't' | 'f' | 'n' => Ok(Self::default()),
            _ => Err(Malformed),
        }
    }

    /// Adds a character.
    pub(super) fn feed(&mut self, character: char) -> Scan {
        if self.in_string {
            if self.escaped {
                self.escaped = false;
            } else if character == '\\' {
                self.escaped = true;
            } else if character == '"' {
                self.in_string = false;
            }
            return if self.in_string || self.depth > 0 {
                Scan::Inside
            } else {
                Scan::Last
            };
        }
        match character {
            ',' | '}' | ']' if self.depth == 0 => return Scan::Before,
            _ if self.depth == 0 && character.is_ascii_whitespace() => return Scan::Before,
            '"' => self.in_string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' => {
                self.depth -= 1;
                if self.depth == 0 {
                    return Scan::Last;
                }
            }
            _ => {}
        }
        Scan::Inside
    }
}
