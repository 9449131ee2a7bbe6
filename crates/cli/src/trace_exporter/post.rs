//! One request over HTTP/1.1, and the status of its answer.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::Endpoint;

/// How long one attempt may take, and each wait in it.
const TIME_MAX: Duration = Duration::from_secs(10);
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// What is read of an answer: its status line is in it.
const ANSWER_BYTES_MAX: usize = 4096;

/// What became of an attempt.
pub(super) enum Outcome {
    Taken,
    /// It may help to try again.
    NotNow(String),
    Refused(String),
}

/// Posts JSON to whichever address answers first in order.
pub(super) fn post(endpoint: &Endpoint, addresses: &[SocketAddr], json: &str) -> Outcome {
    match exchange(endpoint, addresses, json) {
        Ok(200..=299) => Outcome::Taken,
        Ok(status @ (429 | 502 | 503 | 504)) => Outcome::NotNow(answered(endpoint, status)),
        Ok(status) => Outcome::Refused(answered(endpoint, status)),
        Err(error) => Outcome::NotNow(format!("{endpoint} does not answer: {error}")),
    }
}

fn answered(endpoint: &Endpoint, status: u16) -> String {
    format!("{endpoint} answered with status {status}")
}

fn exchange(endpoint: &Endpoint, addresses: &[SocketAddr], json: &str) -> io::Result<u16> {
    let deadline = Instant::now() + TIME_MAX;
    let mut stream = connect(addresses)?;
    stream.set_write_timeout(Some(TIME_MAX))?;
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         user-agent: backstop/{}\r\nconnection: close\r\n\r\n",
        endpoint.path,
        endpoint.authority(),
        json.len(),
        env!("CARGO_PKG_VERSION"),
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(json.as_bytes())?;
    read_status(&mut stream, deadline)
}

fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    for address in addresses {
        match TcpStream::connect_timeout(address, CONNECT_TIME) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The number in the first line of an answer.
fn read_status(stream: &mut TcpStream, deadline: Instant) -> io::Result<u16> {
    let mut answer = Vec::new();
    let mut bytes = [0; ANSWER_BYTES_MAX];
    while !answer.contains(&b'\n') && answer.len() < ANSWER_BYTES_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        // A time of zero would be none.
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match stream.read(&mut bytes)? {
            0 => break,
            count => answer.extend_from_slice(&bytes[..count]),
        }
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    status_of(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is not HTTP"))
}

fn status_of(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let version = words.next()?;
    let status = words.next()?.parse().ok()?;
    (version.starts_with("HTTP/1.") && (100..1000).contains(&status)).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_stands_in_the_first_line() {
        assert_eq!(status_of(b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n"), Some(200));
        assert_eq!(status_of(b"HTTP/1.0 503\r\n"), Some(503));
        for answer in [
            &b""[..],
            b"SSH-2.0-x\r\n",
            b"HTTP/1.1",
            b"HTTP/1.1 99999 x",
            b"\xff 200",
        ] {
            assert_eq!(status_of(answer), None);
        }
    }
}
