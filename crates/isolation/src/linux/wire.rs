//! What the stages tell one another, over local sockets: lengths and JSON.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{IsolationError, Limits};

/// The longest message; arguments have a number for each byte.
const MESSAGE_BYTES_MAX: u32 = 16 << 20;

/// To `outer`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Whose numbers it writes by itself; else the one that asks writes them.
    pub(crate) maps: Option<(u32, u32)>,
}

/// To `init`, and on to `inner`. The input follows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) program: Vec<OsString>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) read_only: Vec<PathBuf>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) input_bytes: u64,
    pub(crate) limits: Limits,
    /// Whom the program runs as.
    pub(crate) user: u32,
    pub(crate) group: u32,
    /// Whether that is somebody else than who contains it.
    pub(crate) is_another: bool,
    /// Whether no control group bounds its memory.
    pub(crate) memory_is_watched: bool,
    /// Whether nothing is run: only the layers are tried.
    pub(crate) is_trial: bool,
}

/// From a stage to the one that asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The namespaces are there. The users' numbers are to be written.
    Entered,
    /// The program runs.
    Started,
    /// The program is over.
    Exited { status: i32, seconds: f64 },
    /// A signal ended it.
    Killed { signal: i32, seconds: f64 },
    /// It used up its time on the processor.
    OutOfTime { seconds: f64 },
    /// It used up its memory.
    OutOfMemory { seconds: f64 },
    /// Something could not be done.
    Failed(Failure),
}

/// Which layer could not be put around a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) layer: String,
    pub(crate) reason: String,
    /// Whether the program itself is at fault.
    pub(crate) is_programs: bool,
}

impl Failure {
    pub(crate) fn of(layer: &str, reason: impl Display) -> Self {
        Self {
            layer: layer.to_owned(),
            reason: reason.to_string(),
            is_programs: false,
        }
    }

    pub(crate) fn into_error(self) -> IsolationError {
        let Self {
            layer,
            reason,
            is_programs,
        } = self;
        match is_programs {
            true => IsolationError::Program {
                program: layer,
                reason,
            },
            false => IsolationError::Layer { layer, reason },
        }
    }
}

/// Says which layer a call was for, and what it was to do.
pub(crate) trait Layer<T> {
    fn layer(self, layer: &str, what: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> Layer<T> for Result<T, E> {
    fn layer(self, layer: &str, what: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::of(layer, format_args!("{what}: {error}")))
    }
}

pub(crate) fn send(mut socket: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let too_long = || io::Error::other("a message is too long");
    let length = u32::try_from(text.len()).map_err(|_| too_long())?;
    if length > MESSAGE_BYTES_MAX {
        return Err(too_long());
    }
    let mut whole = length.to_le_bytes().to_vec();
    whole.extend(text);
    socket.write_all(&whole)
}

/// The next message; none if the other side is gone.
pub(crate) fn receive<T: DeserializeOwned>(mut socket: &UnixStream) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match socket.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(length);
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::other("a message is too long"));
    }
    let mut text = vec![0; length as usize];
    socket.read_exact(&mut text)?;
    Ok(Some(serde_json::from_slice(&text)?))
}

/// The socket that a stage has as its standard input.
pub(crate) fn own_socket() -> io::Result<UnixStream> {
    Ok(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_and_an_end_is_none() {
        let (here, there) = UnixStream::pair().unwrap();
        send(&here, &Failure::of("mount", "no")).unwrap();
        drop(here);
        let failure: Option<Failure> = receive(&there).unwrap();
        assert_eq!(failure, Some(Failure::of("mount", "no")));
        assert_eq!(receive::<Failure>(&there).unwrap(), None);
    }

    #[test]
    fn a_length_of_nonsense_is_refused() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(receive::<Failure>(&there).is_err());
    }
}
