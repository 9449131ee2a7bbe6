//! A stream that passes on well-formed requests only, each head whole and in time.
//!
//! A request that is refused here still gets an answer like any other: in its place a request
//! without content is passed on, and the [`Refused`] of the connection says at which one that is.

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::framing::{Fault, Framing, HeadFault};

/// Bytes taken from the socket at once.
const READ_BYTES: usize = 16 << 10;
/// What is passed on in place of a refused request.
const STAND_IN: &[u8] = b"GET /refused HTTP/1.1\r\nconnection: close\r\n\r\n";
/// How long, and how much, what a client still sends is read and thrown away after an answer that
/// ended the connection: closing it with something unread could destroy the answer on its way.
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 4 << 20;

/// Which request of a connection was refused before it was one, and why.
#[derive(Debug, Default)]
pub(super) struct Refused(OnceLock<(u64, HeadFault)>);

impl Refused {
    /// What is wrong with the request that was passed on as number `index`, counted from 0.
    pub(super) fn at(&self, index: u64) -> Option<HeadFault> {
        let (refused, fault) = self.0.get()?;
        (*refused == index).then_some(*fault)
    }
}

/// The stream, under a server that reads requests from it one after the other.
pub(super) struct StrictStream<S> {
    stream: S,
    framing: Framing,
    /// Checked bytes, and how many of them were passed on.
    ready: Vec<u8>,
    passed_on: usize,
    end: Option<End>,
    head_limit: Duration,
    /// Runs from the beginning to the first head, and from the first byte of any later one.
    head_deadline: Option<Pin<Box<Sleep>>>,
    refused: Arc<Refused>,
    linger: Option<Linger>,
}

/// Why nothing more is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A head was refused. The answer comes, then the connection is closed.
    Refused,
    /// A body is malformed.
    Malformed,
    /// Nothing ever came.
    Silent,
}

struct Linger {
    deadline: Pin<Box<Sleep>>,
    bytes: usize,
}

impl<S> StrictStream<S> {
    pub(super) fn new(stream: S, head_limit: Duration, refused: Arc<Refused>) -> Self {
        Self {
            stream,
            framing: Framing::default(),
            ready: Vec::new(),
            passed_on: 0,
            end: None,
            head_limit,
            head_deadline: Some(after(head_limit)),
            refused,
            linger: None,
        }
    }

    /// The same, which refuses whatever comes.
    pub(super) fn refusing(mut self, fault: HeadFault) -> Self {
        self.refuse(fault);
        self
    }

    /// Passes on what is ready, and returns whether there was anything.
    fn pass_on(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let rest = &self.ready[self.passed_on..];
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        self.passed_on += count;
        if self.passed_on == self.ready.len() {
            self.ready.clear();
            self.passed_on = 0;
        }
        count > 0
    }

    fn take_in(&mut self, bytes: &[u8]) {
        let heads = self.framing.heads();
        match self.framing.feed(bytes, &mut self.ready) {
            Ok(()) => {}
            Err(Fault::Head(fault)) => self.refuse(fault),
            Err(Fault::Body) => self.end = Some(End::Malformed),
        }
        if self.framing.heads() != heads {
            self.head_deadline = None;
        }
        if self.framing.is_in_head() && self.head_deadline.is_none() {
            self.head_deadline = Some(after(self.head_limit));
        }
    }

    fn refuse(&mut self, fault: HeadFault) {
        // Only one request of a connection is refused: it is the last.
        let _ignored = self.refused.0.set((self.framing.heads(), fault));
        self.ready.extend_from_slice(STAND_IN);
        self.end = Some(End::Refused);
    }

    fn time_out(&mut self) {
        if self.framing.is_in_head() {
            self.refuse(HeadFault::TooSlow);
        } else {
            self.end = Some(End::Silent);
        }
    }

    fn poll_head_deadline(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.head_deadline {
            Some(deadline) => deadline.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

fn after(time: Duration) -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep_until(Instant::now() + time))
}

impl<S: AsyncRead + Unpin> AsyncRead for StrictStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.pass_on(buffer) {
                return Poll::Ready(Ok(()));
            }
            match this.end {
                None => {}
                // An end of the stream would cut off the answer.
                Some(End::Refused) => return Poll::Pending,
                Some(End::Malformed) => return Poll::Ready(Err(malformed())),
                Some(End::Silent) => return Poll::Ready(Ok(())),
            }
            let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
            let mut bytes = ReadBuf::uninit(&mut bytes);
            match Pin::new(&mut this.stream).poll_read(context, &mut bytes)? {
                Poll::Ready(()) if bytes.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(()) => this.take_in(bytes.filled()),
                Poll::Pending => {
                    ready!(this.poll_head_deadline(context));
                    this.time_out();
                }
            }
        }
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the body is not well chunked")
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for StrictStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        let may_still_send = this.framing.is_in_body() || this.end == Some(End::Refused);
        if !may_still_send {
            return Poll::Ready(Ok(()));
        }
        let linger = this.linger.get_or_insert_with(|| Linger {
            deadline: after(LINGER_TIME),
            bytes: 0,
        });
        linger.poll(&mut this.stream, context).map(Ok)
    }
}

impl Linger {
    /// Reads until the other side has nothing more to say, or has said too much.
    fn poll(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<()> {
        while self.bytes < LINGER_BYTES_MAX && self.deadline.as_mut().poll(context).is_pending() {
            let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
            let mut bytes = ReadBuf::uninit(&mut bytes);
            match ready!(Pin::new(&mut *stream).poll_read(context, &mut bytes)) {
                Ok(()) if !bytes.filled().is_empty() => self.bytes += bytes.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests;
