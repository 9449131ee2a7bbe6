//! Where requests begin and end in the bytes of a connection, read as strictly as RFC 9112 allows.
//!
//! Backstop stands behind gateways. Where a gateway and the server behind it read the same bytes
//! differently, a client can smuggle requests past the gateway. So everything is refused that
//! anybody might read differently: line feeds without a carriage return, two lengths or two
//! encodings, folded lines, spaces around names. hyper, which reads the same bytes afterwards, is
//! more lenient: it takes bare line feeds, and drops a `Content-Length` beside a
//! `Transfer-Encoding` without a word.
//!
//! Heads are kept back until they are whole and checked; bodies pass through.

mod chunked;
mod head;

use self::chunked::Chunked;
pub(super) use self::head::FIELDS_MAX;
pub(crate) use self::head::HeadFault;
use self::head::{BodyLength, HeadLines};

/// What is wrong with the bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A head, of which nothing was passed on.
    Head(HeadFault),
    /// The encoding of a body, of which some may have been passed on.
    Body,
}

/// Follows the bytes of one connection. After a fault there is nothing more to follow.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
    head: HeadLines,
    heads: u64,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    /// So many bytes are left.
    Body(u64),
    Chunked(Chunked),
}

impl Framing {
    /// Takes bytes in, and appends to `out` what may be passed on.
    pub(super) fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        while !input.is_empty() {
            let used = match &mut self.state {
                State::Head => self.feed_head(input, out).map_err(Fault::Head)?,
                State::Body(left) => {
                    let used = usize::try_from(*left).map_or(input.len(), |n| n.min(input.len()));
                    *left -= used as u64;
                    out.extend_from_slice(&input[..used]);
                    if *left == 0 {
                        self.state = State::Head;
                    }
                    used
                }
                State::Chunked(chunked) => {
                    let used = chunked.feed(input).ok_or(Fault::Body)?;
                    out.extend_from_slice(&input[..used]);
                    if chunked.is_done() {
                        self.state = State::Head;
                    }
                    used
                }
            };
            input = &input[used..];
        }
        Ok(())
    }

    fn feed_head(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, HeadFault> {
        let (used, whole) = self.head.feed(input)?;
        if whole {
            self.state = match self.head.body_length()? {
                BodyLength::Known(0) => State::Head,
                BodyLength::Known(bytes) => State::Body(bytes),
                BodyLength::Chunked => State::Chunked(Chunked::default()),
            };
            self.head.move_to(out);
            self.heads += 1;
        }
        Ok(used)
    }

    /// Heads that were passed on.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// A head has begun and is not whole.
    pub(super) fn is_in_head(&self) -> bool {
        !self.head.is_empty()
    }

    /// A body has begun and is not whole.
    pub(super) fn is_in_body(&self) -> bool {
        !matches!(self.state, State::Head)
    }
}

#[cfg(test)]
mod tests;
