//! Where a chunked body ends.

/// Bytes of chunk extensions in a body. Nobody reads them.
const EXTENSION_BYTES_MAX: usize = 4 << 10;
/// Bytes of trailers behind a body. Nobody reads them.
const TRAILER_BYTES_MAX: usize = 4 << 10;
/// Hexadecimal digits of a chunk's size, of which no body that is accepted needs as many.
const SIZE_DIGITS_MAX: usize = 15;

/// Follows a chunked body.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    state: State,
    extension_bytes: usize,
    trailer_bytes: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before or within the size.
    #[default]
    Start,
    Size {
        size: u64,
        digits: usize,
    },
    Extension {
        size: u64,
    },
    SizeLineFeed {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataReturn,
    DataLineFeed,
    TrailerStart,
    Trailer,
    TrailerLineFeed,
    LastLineFeed,
    Done,
}

impl Chunked {
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes bytes in, at most to the end of the body, and returns how many; `None` if they are no
    /// chunked body.
    pub(super) fn feed(&mut self, input: &[u8]) -> Option<usize> {
        let mut used = 0;
        while used < input.len() && !self.is_done() {
            if let State::Data { left } = self.state {
                let rest = input.len() - used;
                let taken = usize::try_from(left).map_or(rest, |left| left.min(rest));
                used += taken;
                self.state = match left - taken as u64 {
                    0 => State::DataReturn,
                    left => State::Data { left },
                };
                continue;
            }
            self.state = self.next(input[used])?;
            used += 1;
        }
        Some(used)
    }

    fn next(&mut self, byte: u8) -> Option<State> {
        match (self.state, byte) {
            (State::Start, _) => Some(State::Size {
                size: digit(byte)?,
                digits: 1,
            }),
            (State::Size { size, .. }, b'\r') => Some(State::SizeLineFeed { size }),
            (State::Size { size, .. }, b';') => self.extension(size, byte),
            (State::Size { size, digits }, _) => {
                let digits = digits + 1;
                let size = size * 16 + digit(byte)?;
                (digits <= SIZE_DIGITS_MAX).then_some(State::Size { size, digits })
            }
            (State::Extension { size }, b'\r') => Some(State::SizeLineFeed { size }),
            (State::Extension { size }, _) => self.extension(size, byte),
            (State::SizeLineFeed { size: 0 }, b'\n') => Some(State::TrailerStart),
            (State::SizeLineFeed { size }, b'\n') => Some(State::Data { left: size }),
            (State::DataReturn, b'\r') => Some(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Some(State::Start),
            (State::TrailerStart, b'\r') => Some(State::LastLineFeed),
            (State::Trailer, b'\r') => Some(State::TrailerLineFeed),
            (State::TrailerStart | State::Trailer, _) => self.trailer(byte),
            (State::TrailerLineFeed, b'\n') => Some(State::TrailerStart),
            (State::LastLineFeed, b'\n') => Some(State::Done),
            _ => None,
        }
    }

    fn extension(&mut self, size: u64, byte: u8) -> Option<State> {
        self.extension_bytes += 1;
        let allowed = is_text(byte) && self.extension_bytes <= EXTENSION_BYTES_MAX;
        allowed.then_some(State::Extension { size })
    }

    fn trailer(&mut self, byte: u8) -> Option<State> {
        self.trailer_bytes += 1;
        let allowed = is_text(byte) && self.trailer_bytes <= TRAILER_BYTES_MAX;
        allowed.then_some(State::Trailer)
    }
}

fn digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

fn is_text(byte: u8) -> bool {
    !byte.is_ascii_control() || byte == b'\t'
}
