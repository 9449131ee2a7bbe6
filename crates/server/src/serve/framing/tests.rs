//! What is refused, what is let through, and that it does not matter how the bytes arrive.

use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};

use super::*;

const POST: &str = "POST /v1/completions HTTP/1.1\r\nhost: a\r\n";

/// What comes out, how many heads, and the fault.
fn fed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, u64, Option<Fault>) {
    let mut framing = Framing::default();
    let mut out = Vec::new();
    let fault = pieces
        .into_iter()
        .find_map(|piece| framing.feed(piece, &mut out).err());
    (out, framing.heads(), fault)
}

fn fault(text: &str) -> Option<Fault> {
    fed([text.as_bytes()]).2
}

fn head_fault(fields: &str) -> Option<HeadFault> {
    match fault(&format!("{POST}{fields}\r\n")) {
        Some(Fault::Head(fault)) => Some(fault),
        Some(Fault::Body) => panic!("{fields}"),
        None => None,
    }
}

#[test]
fn lines_end_with_both_characters_or_the_request_is_refused() {
    for text in [
        "GET /health HTTP/1.1\nhost: a\n\n",
        "GET /health HTTP/1.1\r\nhost: a\n\r\n",
        "GET /health HTTP/1.1\r\nhost: a\r\n\n",
        "GET /health HTTP/1.1\r\nhost: a\rb: c\r\n\r\n",
        "GET /health HTTP/1.1\r\r\nhost: a\r\n\r\n",
        "\nGET /health HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(
            fault(text),
            Some(Fault::Head(HeadFault::LineEnd)),
            "{text:?}"
        );
        assert_eq!(fed([text.as_bytes()]).0, b"", "{text:?}");
    }
}

#[test]
fn whatever_could_be_read_as_two_lengths_is_refused() {
    let cases = [
        (
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            HeadFault::TransferEncoding,
        ),
        (
            "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
            HeadFault::TransferEncoding,
        ),
        (
            "transfer-encoding: gzip, chunked\r\n",
            HeadFault::TransferEncoding,
        ),
        (
            "transfer-encoding: identity, chunked\r\n",
            HeadFault::TransferEncoding,
        ),
        (
            "transfer-encoding: chunked, chunked\r\n",
            HeadFault::TransferEncoding,
        ),
        (
            "transfer-encoding: identity\r\n",
            HeadFault::TransferEncoding,
        ),
        (
            "transfer-encoding: xchunked\r\n",
            HeadFault::TransferEncoding,
        ),
        (
            "transfer-encoding: \"chunked\"\r\n",
            HeadFault::TransferEncoding,
        ),
        ("transfer-encoding:\r\n", HeadFault::TransferEncoding),
        (
            "transfer-encoding: chunked\r\ncontent-length: 3\r\n",
            HeadFault::TwoLengths,
        ),
        (
            "content-length: 3\r\nTransfer-Encoding: Chunked\r\n",
            HeadFault::TwoLengths,
        ),
        (
            "content-length: 3\r\ncontent-length: 4\r\n",
            HeadFault::ContentLength,
        ),
        (
            "content-length: 3\r\nContent-Length: 3\r\n",
            HeadFault::ContentLength,
        ),
        ("content-length: 3, 3\r\n", HeadFault::ContentLength),
        ("content-length: +3\r\n", HeadFault::ContentLength),
        ("content-length: -1\r\n", HeadFault::ContentLength),
        ("content-length: 0x3\r\n", HeadFault::ContentLength),
        ("content-length:\r\n", HeadFault::ContentLength),
        (
            "content-length: 99999999999999999999999\r\n",
            HeadFault::ContentLength,
        ),
        ("host: b\r\n", HeadFault::Host),
    ];
    for (fields, expected) in cases {
        assert_eq!(head_fault(fields), Some(expected), "{fields:?}");
    }
    let old = "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(fault(old), Some(Fault::Head(HeadFault::TransferEncoding)));
}

#[test]
fn names_and_values_are_what_the_grammar_allows() {
    let cases = [
        ("a: b\r\n folded\r\n", HeadFault::FieldName),
        ("a: b\r\n\tfolded: c\r\n", HeadFault::FieldName),
        (" a: b\r\n", HeadFault::FieldName),
        ("a : b\r\n", HeadFault::FieldName),
        ("a b: c\r\n", HeadFault::FieldName),
        ("transfer-encoding\t: chunked\r\n", HeadFault::FieldName),
        (": b\r\n", HeadFault::FieldName),
        ("a\r\n", HeadFault::FieldName),
        ("\u{e9}: b\r\n", HeadFault::FieldName),
        ("a: b\0c\r\n", HeadFault::FieldValue),
        ("a: \u{7f}\r\n", HeadFault::FieldValue),
    ];
    for (fields, expected) in cases {
        assert_eq!(head_fault(fields), Some(expected), "{fields:?}");
    }
    for line in [
        "GET  / HTTP/1.1",
        "GET /",
        "GET / HTTP/2.0",
        "GET / HTTP/1.1 ",
        " / HTTP/1.1",
        "GET\t/ HTTP/1.1",
    ] {
        let fault = fault(&format!("{line}\r\nhost: a\r\n\r\n"));
        assert_eq!(fault, Some(Fault::Head(HeadFault::RequestLine)), "{line}");
    }
}

#[test]
fn heads_are_bounded_before_they_end() {
    let cases = [
        (
            format!("GET /{}", "a".repeat(8 << 10)),
            HeadFault::TargetTooLong,
        ),
        (
            format!("{POST}x: {}", "y".repeat(32 << 10)),
            HeadFault::TooLarge,
        ),
        (
            format!("{POST}{}", "x: y\r\n".repeat(100)),
            HeadFault::TooLarge,
        ),
        ("\r\n\r\n".to_owned(), HeadFault::RequestLine),
    ];
    for (text, expected) in cases {
        assert_eq!(fault(&text), Some(Fault::Head(expected)));
    }
    assert_eq!(head_fault(&"x: y\r\n".repeat(99)), None);
    assert_eq!(fault("\r\nGET / HTTP/1.1\r\n\r\n"), None);
}

#[test]
fn chunked_bodies_are_read_strictly_and_within_bounds() {
    let chunked = |body: &str| fault(&format!("{POST}transfer-encoding: chunked\r\n\r\n{body}"));
    let long = "x".repeat(5000);
    let chunk_of_extensions = format!("1;{}\r\na\r\n", "x".repeat(100));
    for body in [
        "zz\r\n",
        "\r\n",
        "1 \r\na\r\n",
        " 1\r\na\r\n",
        "-1\r\n",
        "0x1\r\n",
        "1\na\r\n",
        "1\r\na\n0\r\n",
        "1\r\nab\r\n",
        "1;a\nb\r\n",
        "ffffffffffffffff\r\n",
        &format!("1;{long}"),
        &chunk_of_extensions.repeat(50),
        "0\r\nx: y\n\r\n",
        &format!("0\r\nx: {long}"),
        &format!("0\r\n{}", "x: y\r\n".repeat(2000)),
    ] {
        assert_eq!(chunked(body), Some(Fault::Body), "{body:?}");
    }
    for body in [
        "0\r\n\r\n",
        "1;a=\"b\"\r\na\r\n0\r\nx: y\r\n\r\n",
        "A\r\n0123456789\r\n00\r\n\r\n",
    ] {
        assert_eq!(chunked(body), None, "{body:?}");
    }
}

/// A request and whether it has a body.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let body = prop::collection::vec(any::<u8>(), 0..40);
    let known = body.clone().prop_map(|body| {
        let head = format!("{POST}content-length: {}\r\n\r\n", body.len());
        [head.as_bytes(), &body].concat()
    });
    let chunks = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..4);
    let chunked = chunks.prop_map(|chunks| {
        let mut bytes = format!("{POST}transfer-encoding: chunked\r\n\r\n").into_bytes();
        for chunk in chunks {
            bytes.extend(format!("{:x};a=b\r\n", chunk.len()).into_bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        bytes
    });
    prop_oneof![known, chunked]
}

proptest! {
    #[test]
    fn good_requests_pass_unchanged_however_they_arrive(
        requests in prop::collection::vec(request(), 1..5),
        size in 1usize..50,
    ) {
        let bytes = requests.concat();
        let (out, heads, fault) = fed(bytes.chunks(size));
        assert_eq!(fault, None);
        assert_eq!(heads as usize, requests.len());
        assert_eq!(out, bytes);
    }

    #[test]
    fn any_bytes_are_judged_alike_however_they_arrive(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            (request(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, index, byte)| {
                let index = index.index(bytes.len());
                bytes[index] = byte;
                bytes
            }),
        ],
        size in 1usize..50,
    ) {
        let (_, whole_heads, whole_fault) = fed([&bytes[..]]);
        let (_, heads, fault) = fed(bytes.chunks(size));
        assert_eq!((heads, fault), (whole_heads, whole_fault));
    }
}
