//! The head of a request: its lines, and what they say about the body.

use backstop_protocol::ApiError;

/// Longest head.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Longest request line, most of which is the target.
const REQUEST_LINE_BYTES_MAX: usize = 8 << 10;
/// Header fields in a head.
pub(in crate::serve) const FIELDS_MAX: usize = 100;

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadFault {
    /// A carriage return or a line feed without the other.
    LineEnd,
    /// Not a method, a target and a version, with one space between them.
    RequestLine,
    /// A folded line, or a name that is empty, has a space or other signs that names have not.
    FieldName,
    /// Control characters.
    FieldValue,
    /// More than one `Host`.
    Host,
    /// Another `Transfer-Encoding` than one `chunked`, or in HTTP/1.0.
    TransferEncoding,
    /// More than one `Content-Length`, or one that is no number.
    ContentLength,
    /// `Content-Length` beside `Transfer-Encoding`.
    TwoLengths,
    /// A request line that is too long.
    TargetTooLong,
    /// Too many bytes or fields.
    TooLarge,
    /// It did not arrive in time.
    TooSlow,
    /// It was not encrypted, where it should have been.
    NotEncrypted,
}

impl From<HeadFault> for ApiError {
    fn from(fault: HeadFault) -> Self {
        let malformed = |what| Self::malformed_head(what);
        match fault {
            HeadFault::LineEnd => malformed("a line does not end with CRLF"),
            HeadFault::RequestLine => {
                malformed("the request line is not a method, a target and HTTP/1.0 or HTTP/1.1")
            }
            HeadFault::FieldName => malformed("a header field has no valid name"),
            HeadFault::FieldValue => malformed("a header field's value has control characters"),
            HeadFault::Host => malformed("there is more than one Host"),
            HeadFault::TransferEncoding => malformed(
                "Transfer-Encoding may stand there once, in HTTP/1.1, and be chunked alone",
            ),
            HeadFault::ContentLength => {
                malformed("Content-Length may stand there once and be a number of bytes")
            }
            HeadFault::TwoLengths => {
                malformed("Content-Length and Transfer-Encoding exclude each other")
            }
            HeadFault::TargetTooLong => Self::target_too_long(REQUEST_LINE_BYTES_MAX),
            HeadFault::TooLarge => Self::head_too_large(HEAD_BYTES_MAX, FIELDS_MAX),
            HeadFault::TooSlow => Self::head_timeout(),
            HeadFault::NotEncrypted => Self::https_required(),
        }
    }
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    Known(u64),
    Chunked,
}

/// The lines of a head as they come in.
#[derive(Debug, Default)]
pub(super) struct HeadLines {
    bytes: Vec<u8>,
    line_start: usize,
    lines: usize,
    /// An empty line before the request line was passed over, as RFC 9112 2.2 wants it.
    passed_over: bool,
}

impl HeadLines {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes bytes in, at most to the end of the head. Returns how many, and whether it is whole.
    pub(super) fn feed(&mut self, input: &[u8]) -> Result<(usize, bool), HeadFault> {
        for (index, byte) in input.iter().enumerate() {
            let after_return = self.bytes.last() == Some(&b'\r');
            if after_return != (*byte == b'\n') {
                return Err(HeadFault::LineEnd);
            }
            self.bytes.push(*byte);
            if self.lines == 0 && self.bytes.len() > REQUEST_LINE_BYTES_MAX {
                return Err(HeadFault::TargetTooLong);
            }
            if self.bytes.len() > HEAD_BYTES_MAX {
                return Err(HeadFault::TooLarge);
            }
            if *byte == b'\n' && self.end_line()? {
                return Ok((index + 1, true));
            }
        }
        Ok((input.len(), false))
    }

    /// Returns whether this was the last line.
    fn end_line(&mut self) -> Result<bool, HeadFault> {
        let is_blank = self.bytes.len() - self.line_start == 2;
        if is_blank && self.lines == 0 {
            if self.passed_over {
                return Err(HeadFault::RequestLine);
            }
            self.passed_over = true;
            self.bytes.clear();
            return Ok(false);
        }
        if is_blank {
            return Ok(true);
        }
        self.line_start = self.bytes.len();
        self.lines += 1;
        if self.lines > FIELDS_MAX + 1 {
            return Err(HeadFault::TooLarge);
        }
        Ok(false)
    }

    /// Gives a whole head away, and begins with the next.
    pub(super) fn move_to(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
        *self = Self::default();
    }

    /// What a whole head says about the body.
    pub(super) fn body_length(&self) -> Result<BodyLength, HeadFault> {
        let mut lines = self.bytes.split(|byte| *byte == b'\n').map(without_return);
        let is_http_1_1 = is_http_1_1(lines.next().unwrap_or_default())?;
        let mut fields = Fields::default();
        // What comes after them is the blank line.
        for line in lines.take(self.lines - 1) {
            fields.take_in(line)?;
        }
        match (fields.is_chunked, fields.length) {
            (true, Some(_)) => Err(HeadFault::TwoLengths),
            (true, None) if !is_http_1_1 => Err(HeadFault::TransferEncoding),
            (true, None) => Ok(BodyLength::Chunked),
            (false, length) => Ok(BodyLength::Known(length.unwrap_or(0))),
        }
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn is_http_1_1(request_line: &[u8]) -> Result<bool, HeadFault> {
    let parts: Vec<&[u8]> = request_line.split(|byte| *byte == b' ').take(4).collect();
    match parts[..] {
        [method, target, b"HTTP/1.1"] if !method.is_empty() && !target.is_empty() => Ok(true),
        [method, target, b"HTTP/1.0"] if !method.is_empty() && !target.is_empty() => Ok(false),
        _ => Err(HeadFault::RequestLine),
    }
}

/// The fields that say where a request ends, or whom it is for.
#[derive(Default)]
struct Fields {
    has_host: bool,
    is_chunked: bool,
    length: Option<u64>,
}

impl Fields {
    fn take_in(&mut self, line: &[u8]) -> Result<(), HeadFault> {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.ok_or(HeadFault::FieldName)?);
        let value = &value[1..];
        // A folded line begins with a space, which is in no name.
        if name.is_empty() || !name.iter().all(|byte| is_in_token(*byte)) {
            return Err(HeadFault::FieldName);
        }
        if value
            .iter()
            .any(|byte| byte.is_ascii_control() && *byte != b'\t')
        {
            return Err(HeadFault::FieldValue);
        }
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case(b"host") {
            if self.has_host {
                return Err(HeadFault::Host);
            }
            self.has_host = true;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HeadFault::TransferEncoding);
            }
            self.is_chunked = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.is_some() {
                return Err(HeadFault::ContentLength);
            }
            self.length = Some(number(value).ok_or(HeadFault::ContentLength)?);
        }
        Ok(())
    }
}

/// Digits alone: `parse` would take a sign as well.
fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| digits)?;
    text.parse().ok()
}

fn is_in_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
