//! The least HTTP client that can time a stream: one request a connection, on the caller's thread.
//!
//! A client that shares the machine with the server takes processor time from it, so this one
//! does nothing while it reads but note times; bodies are parsed after the measurement.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longest silence of a server of which nothing else is said.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(300);

/// A server, and how long it may be silent before it counts as dead.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// Longest pause between two pieces of an answer.
    pub silence_max: Duration,
}

impl From<SocketAddr> for Server {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            silence_max: SILENCE_MAX,
        }
    }
}

/// An answer and when its pieces came.
#[derive(Clone, Debug)]
pub struct Timed {
    /// The HTTP status.
    pub status: u16,
    /// When the request was sent.
    pub sent: Instant,
    /// The lines of the body that are not empty, with the time when each was complete. The body
    /// of an answer that is no stream is one line.
    pub lines: Vec<(Instant, String)>,
}

impl Timed {
    /// The body as one text.
    pub fn body(&self) -> String {
        self.lines.iter().map(|(_, line)| line.as_str()).collect()
    }
}

/// `GET path`.
pub fn get(server: impl Into<Server>, path: &str) -> io::Result<Timed> {
    let server = server.into();
    let address = server.address;
    exchange(
        server,
        &format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"),
    )
}

/// `POST path` with a JSON body.
pub fn post(server: impl Into<Server>, path: &str, body: &str) -> io::Result<Timed> {
    let server = server.into();
    let address = server.address;
    exchange(
        server,
        &format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ),
    )
}

/// An answer that does not come in time is [`io::ErrorKind::TimedOut`].
fn exchange(server: Server, request: &str) -> io::Result<Timed> {
    exchange_in_time(server, request).map_err(|error| match error.kind() {
        // What Linux calls it.
        io::ErrorKind::WouldBlock => {
            let seconds = server.silence_max.as_secs();
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the server said nothing for {seconds} s"),
            )
        }
        _ => error,
    })
}

fn exchange_in_time(server: Server, request: &str) -> io::Result<Timed> {
    let sent = Instant::now();
    let mut stream = TcpStream::connect(server.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(server.silence_max))?;
    stream.write_all(request.as_bytes())?;
    let mut reader = BufReader::new(stream);
    let (status, chunked) = read_head(&mut reader)?;
    let lines = if chunked {
        read_lines(BufReader::new(Chunks {
            reader,
            left: 0,
            ended: false,
        }))?
    } else {
        read_lines(reader)?
    };
    Ok(Timed {
        status,
        sent,
        lines,
    })
}

/// The status, and whether the body comes in chunks.
fn read_head(reader: &mut impl BufRead) -> io::Result<(u16, bool)> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|number| number.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("no HTTP status"))?;
    let mut chunked = false;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let header = line.trim().to_ascii_lowercase();
        chunked |= header == "transfer-encoding: chunked";
        if header.is_empty() {
            return Ok((status, chunked));
        }
    }
}

fn read_lines(reader: impl BufRead) -> io::Result<Vec<(Instant, String)>> {
    let mut lines = Vec::new();
    for line in reader.lines() {
        let line = line?;
        if !line.is_empty() {
            lines.push((Instant::now(), line));
        }
    }
    Ok(lines)
}

/// Reads the content of a chunked body.
struct Chunks<R> {
    reader: R,
    /// Bytes left of the present chunk.
    left: usize,
    ended: bool,
}

impl<R: BufRead> Chunks<R> {
    fn begin_chunk(&mut self) -> io::Result<()> {
        let mut line = String::new();
        while line.trim().is_empty() {
            line.clear();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.left = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        self.ended = self.left == 0;
        Ok(())
    }
}

impl<R: BufRead> Read for Chunks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.ended {
            self.begin_chunk()?;
        }
        let wanted = buffer.len().min(self.left);
        let count = self.reader.read(&mut buffer[..wanted])?;
        if count == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_and_an_early_end_is_an_error() {
        let read = |text: &'static str| {
            let chunks = Chunks {
                reader: text.as_bytes(),
                left: 0,
                ended: false,
            };
            let lines = read_lines(BufReader::new(chunks))?;
            Ok::<_, io::Error>(lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>())
        };
        let lines = read("9\r\ndata: a\n\n\r\n5\r\ndata:\r\n3\r\n b\n\r\n0\r\n\r\n").unwrap();
        assert_eq!(lines, ["data: a", "data: b"]);
        assert!(read("9\r\ndata").is_err());
    }

    #[test]
    fn a_server_that_says_nothing_has_timed_out() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let server = Server {
            address: listener.local_addr().unwrap(),
            silence_max: Duration::from_millis(20),
        };
        let error = get(server, "/ready").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }
}
