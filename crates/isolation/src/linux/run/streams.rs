//! What the program writes, as far as anybody wants to read it.

use std::io::{self, Read};
use std::process::{Child, ChildStderr, ChildStdout};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use std::os::unix::net::UnixStream;

const PIECE_BYTES: usize = 64 << 10;

/// Its output and its errors, with one limit for both.
pub(super) struct Streams {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    pub(super) output: Vec<u8>,
    pub(super) errors: Vec<u8>,
    room: usize,
    is_over: bool,
}

impl Streams {
    pub(super) fn of(child: &mut Child, room: usize) -> Self {
        Self {
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            output: Vec::new(),
            errors: Vec::new(),
            room,
            is_over: false,
        }
    }

    /// Whether more came than there is room for.
    pub(super) fn are_full(&self) -> bool {
        self.is_over
    }

    /// Whether nothing more can come.
    pub(super) fn are_closed(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none()
    }

    /// Waits until there is something, for so long at most, and reads it. Returns whether the socket has something to say.
    pub(super) fn wait(
        &mut self,
        control: Option<&UnixStream>,
        most: Duration,
    ) -> io::Result<bool> {
        let timeout = Timespec::try_from(most).map_err(io::Error::other)?;
        let mut polled = Vec::new();
        polled.extend(control.map(|control| PollFd::new(control, PollFlags::IN)));
        polled.extend(
            self.stdout
                .iter()
                .map(|out| PollFd::new(out, PollFlags::IN)),
        );
        polled.extend(
            self.stderr
                .iter()
                .map(|err| PollFd::new(err, PollFlags::IN)),
        );
        match poll(&mut polled, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => return Ok(false),
            other => other?,
        };
        let mut is_ready = polled.iter().map(|polled| !polled.revents().is_empty());
        let mut next = |is_asked: bool| is_asked && is_ready.next().unwrap_or(false);
        let is_told = next(control.is_some());
        let (out, err) = (next(self.stdout.is_some()), next(self.stderr.is_some()));
        drop(polled);
        self.read(out, err)?;
        Ok(is_told)
    }

    /// What is still there when nobody can write any more.
    pub(super) fn read_rest(&mut self) {
        while !self.are_closed() && !self.is_over {
            let (out, err) = (self.stdout.is_some(), self.stderr.is_some());
            if self.read(out, err).is_err() {
                return;
            }
        }
    }

    fn read(&mut self, out: bool, err: bool) -> io::Result<()> {
        let mut piece = [0; PIECE_BYTES];
        if let Some(stdout) = self.stdout.as_mut().filter(|_| out) {
            let length = stdout.read(&mut piece)?;
            self.is_over |= !keep(&mut self.output, &mut self.room, &piece[..length]);
            if length == 0 {
                self.stdout = None;
            }
        }
        if let Some(stderr) = self.stderr.as_mut().filter(|_| err) {
            let length = stderr.read(&mut piece)?;
            self.is_over |= !keep(&mut self.errors, &mut self.room, &piece[..length]);
            if length == 0 {
                self.stderr = None;
            }
        }
        Ok(())
    }
}

/// Keeps what there is room for; false if that is not all.
fn keep(kept: &mut Vec<u8>, room: &mut usize, piece: &[u8]) -> bool {
    let length = piece.len().min(*room);
    kept.extend_from_slice(&piece[..length]);
    *room -= length;
    length == piece.len()
}
