//! What a request's headers say of how its body is written, and unpacking it.
//!
//! Codings are `gzip` and `identity`. `deflate` is not among them: of two formats, clients send
//! either under that name.

use std::io::Write;

use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use backstop_protocol::ApiError;
use flate2::write::GzDecoder;

/// Names of what can be read, as a header lists them.
pub(crate) const ACCEPTED_CODINGS: &str = "gzip, identity";
/// Bytes of a packed body that are unpacked at once.
const PIECE_BYTES_MAX: usize = 4 << 10;

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// Not at all.
    Identity,
    /// As one gzip member (RFC 1952).
    Gzip,
}

/// How the body of a request with these headers is packed, if it can be read: its text must be in
/// UTF-8.
pub(crate) fn coding(headers: &HeaderMap) -> Result<Coding, ApiError> {
    if !is_utf8(headers) {
        return Err(ApiError::unsupported_charset());
    }
    let values = headers.get_all(CONTENT_ENCODING).into_iter();
    // What is no text names no coding that is known.
    let lists = values.map(|value| value.to_str().unwrap_or("?"));
    let codings = lists.flat_map(|list| list.split(',')).map(str::trim);
    let mut codings = codings.filter(|coding| !coding.is_empty());
    let coding = match codings.next() {
        None => return Ok(Coding::Identity),
        Some(name) if name.eq_ignore_ascii_case("identity") => Coding::Identity,
        // The second is an old name of the first (RFC 9110).
        Some(name)
            if ["gzip", "x-gzip"]
                .iter()
                .any(|it| name.eq_ignore_ascii_case(it)) =>
        {
            Coding::Gzip
        }
        Some(_) => return Err(ApiError::unsupported_content_encoding()),
    };
    match codings.next() {
        None => Ok(coding),
        Some(_) => Err(ApiError::several_content_encodings()),
    }
}

/// Whether no `Content-Type` says that the text is in anything but UTF-8, of which ASCII is a part.
fn is_utf8(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONTENT_TYPE).into_iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let mut parameters = texts.flat_map(|text| text.split(';').skip(1));
    parameters.all(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches(['"', '\'']);
        let known = ["utf-8", "utf8", "us-ascii", "ascii"];
        !name.trim().eq_ignore_ascii_case("charset")
            || known.iter().any(|it| value.eq_ignore_ascii_case(it))
    })
}

/// Makes a body's text of its bytes, as they come.
pub(crate) enum Unpacker {
    Identity(Vec<u8>),
    Gzip(Box<GzDecoder<Vec<u8>>>),
}

impl Unpacker {
    /// Nothing has come yet. `capacity` is a guess at the bytes of the text.
    pub(crate) fn new(coding: Coding, capacity: usize) -> Self {
        let text = Vec::with_capacity(capacity);
        match coding {
            Coding::Identity => Self::Identity(text),
            Coding::Gzip => Self::Gzip(Box::new(GzDecoder::new(text))),
        }
    }

    /// Takes in a part of `packed`, which is not empty, and returns how much. The text grows by no
    /// more than `packed`, or by what a small piece of it can hold.
    pub(crate) fn take(&mut self, packed: &[u8]) -> Result<usize, ApiError> {
        match self {
            Self::Identity(text) => {
                text.extend_from_slice(packed);
                Ok(packed.len())
            }
            Self::Gzip(decoder) => {
                let piece = &packed[..packed.len().min(PIECE_BYTES_MAX)];
                match decoder.write(piece) {
                    // Behind the end of the stream nothing is taken.
                    Err(_) | Ok(0) => Err(ApiError::body_not_unpacked()),
                    Ok(taken) => Ok(taken),
                }
            }
        }
    }

    /// Whether unpacking costs more than copying.
    pub(crate) fn is_work(&self) -> bool {
        matches!(self, Self::Gzip(_))
    }

    /// The text so far.
    pub(crate) fn unpacked(&self) -> &[u8] {
        match self {
            Self::Identity(text) => text,
            Self::Gzip(decoder) => decoder.get_ref(),
        }
    }

    /// The whole text, if nothing is missing of it.
    pub(crate) fn finish(self) -> Result<Vec<u8>, ApiError> {
        match self {
            Self::Identity(text) => Ok(text),
            Self::Gzip(decoder) => decoder.finish().map_err(|_| ApiError::body_not_unpacked()),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn coding_of(fields: &[(&'static str, &'static str)]) -> Result<Coding, u16> {
        coding(&headers(fields)).map_err(|error| error.status)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// The text, and by how much it grew at most at once.
    fn unpack(packed: &[u8], chunk_bytes: usize) -> Result<(Vec<u8>, usize), ApiError> {
        let mut unpacker = Unpacker::new(Coding::Gzip, 0);
        let mut growth = 0;
        for chunk in packed.chunks(chunk_bytes) {
            let mut rest = chunk;
            while !rest.is_empty() {
                let before = unpacker.unpacked().len();
                rest = &rest[unpacker.take(rest)?..];
                growth = growth.max(unpacker.unpacked().len() - before);
            }
        }
        let before = unpacker.unpacked().len();
        let text = unpacker.finish()?;
        growth = growth.max(text.len() - before);
        Ok((text, growth))
    }

    #[test]
    fn codings_are_found_in_any_spelling_and_others_are_refused() {
        assert_eq!(coding_of(&[]), Ok(Coding::Identity));
        let named = |name| coding_of(&[("content-encoding", name)]);
        for gzip in ["gzip", "GZIP", " x-gzip", "gzip,", ", gzip"] {
            assert_eq!(named(gzip), Ok(Coding::Gzip), "{gzip}");
        }
        assert_eq!(named("Identity"), Ok(Coding::Identity));
        for unknown in [
            "br",
            "deflate",
            "zstd",
            "compress",
            "br, gzip",
            "aws-chunked",
        ] {
            assert_eq!(named(unknown), Err(415), "{unknown}");
        }
        for several in ["gzip, gzip", "identity,gzip", "gzip, br"] {
            assert_eq!(named(several), Err(400), "{several}");
        }
        let twice = [("content-encoding", "gzip"), ("content-encoding", "gzip")];
        assert_eq!(coding_of(&twice), Err(400));
    }

    #[test]
    fn texts_are_in_utf8_or_refused() {
        let typed = |kind| coding_of(&[("content-type", kind)]);
        for good in [
            "application/json",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/json; Charset = utf8 ; x=y",
            "text/plain; charset=us-ascii",
            "multipart/form-data; boundary=charset",
            "",
        ] {
            assert_eq!(typed(good), Ok(Coding::Identity), "{good}");
        }
        for bad in [
            "application/json; charset=utf-16",
            "application/json; charset=\"latin-1\"",
            "application/json; a=b; CHARSET=ISO-8859-1",
            "application/json; charset=",
            "application/json; charset",
        ] {
            assert_eq!(typed(bad), Err(415), "{bad}");
        }
    }

    #[test]
    fn whole_streams_are_unpacked_and_damaged_ones_refused() {
        let text: Vec<u8> = (0..100_000u32)
            .map(|i| (i.wrapping_mul(i) >> 7) as u8)
            .collect();
        let packed = gzip(&text);
        for chunk_bytes in [1, 7, packed.len()] {
            assert_eq!(unpack(&packed, chunk_bytes).unwrap().0, text);
        }
        assert_eq!(unpack(&gzip(b""), 5).unwrap().0, b"");
        for cut in [
            0,
            1,
            9,
            10,
            11,
            packed.len() / 2,
            packed.len() - 8,
            packed.len() - 1,
        ] {
            assert!(unpack(&packed[..cut], 4096).is_err(), "{cut}");
        }
        for place in [0, 2, packed.len() / 2, packed.len() - 6, packed.len() - 2] {
            let mut damaged = packed.clone();
            damaged[place] ^= 0x55;
            assert!(unpack(&damaged, 4096).is_err(), "{place}");
        }
        // A second member is more than one stream.
        for trailer in [&b"\0"[..], b"garbage", &packed] {
            for chunk_bytes in [1, 4096, 1 << 30] {
                let longer = [&packed, trailer].concat();
                assert!(unpack(&longer, chunk_bytes).is_err());
            }
        }
        assert!(unpack(&text, 4096).is_err());
    }

    #[test]
    fn a_bomb_unpacks_in_small_pieces() {
        let packed = gzip(&vec![b' '; 16 << 20]);
        assert!(packed.len() < 20 << 10);
        let (text, growth) = unpack(&packed, 1 << 30).unwrap();
        assert_eq!(text.len(), 16 << 20);
        assert!(growth <= 64 << 10, "{growth}");
    }
}
