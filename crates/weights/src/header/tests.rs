//! Headers of weight files: each defect by name, and arbitrary bytes against the reference.

use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors};

use crate::header::{HEADER_BYTES_MAX, header_length, parse_header};
use crate::test_support::{Directory, assert_mentions, raw_file, serialize, zeros};

/// Opens a checkpoint whose only weight file is `file`.
fn error_of(file: &[u8]) -> String {
    let directory = Directory::with_config();
    directory.write("model.safetensors", file);
    directory.open_error()
}

fn error_of_header(header: &str, data_bytes: usize) -> String {
    error_of(&raw_file(header.as_bytes(), data_bytes))
}

#[test]
fn short_and_absurd_files_are_named() {
    assert_mentions(&error_of(b""), &["0 bytes, too few", "model.safetensors"]);
    assert_mentions(&error_of(&[1, 0, 0]), &["3 bytes, too few"]);
    let absurd = u64::MAX.to_le_bytes();
    assert_mentions(&error_of(&absurd), &["claims 18446744073709551615 bytes"]);
    let long = (HEADER_BYTES_MAX + 1).to_le_bytes();
    assert_mentions(&error_of(&long), &["at most 33554432 are accepted"]);
    assert_mentions(
        &error_of(&100_u64.to_le_bytes()),
        &["truncated: the header needs 108"],
    );
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    assert_mentions(&error_of(pointer), &["Git LFS pointer"]);
}

#[test]
fn a_header_must_be_utf8_json_of_tensors() {
    assert_mentions(&error_of(&raw_file(b"{\"\xff\": 1}", 0)), &["not UTF-8"]);
    assert_mentions(&error_of_header("{", 0), &["header is not valid"]);
    assert_mentions(&error_of_header("[]", 0), &["one entry per tensor"]);
    assert_mentions(&error_of_header(r#"{"a": 3}"#, 0), &["\"a\""]);
    let unknown = r#"{"a":{"dtype":"Q4_K","shape":[2],"data_offsets":[0,2]}}"#;
    assert_mentions(&error_of_header(unknown, 2), &["\"a\"", "Q4_K"]);
    let negative = r#"{"a":{"dtype":"U8","shape":[-2],"data_offsets":[0,2]}}"#;
    assert_mentions(&error_of_header(negative, 2), &["\"a\"", "-2"]);
    let nameless = r#"{"":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#;
    assert_mentions(&error_of_header(nameless, 2), &["name has 0 bytes"]);
    let nested = "[".repeat(100_000);
    assert_mentions(
        &error_of_header(&format!("{{\"a\":{nested}"), 0),
        &["not valid"],
    );
}

#[test]
fn metadata_is_skipped_but_must_be_texts() {
    let header = |metadata: &str| {
        format!(
            r#"{{"__metadata__":{metadata},"a":{{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}}}"#
        )
    };
    assert_eq!(
        parse(&raw_file(header(r#"{"format":"pt"}"#).as_bytes(), 2)),
        Ok(1)
    );
    assert_mentions(
        &error_of_header(&header(r#"{"format":1}"#), 2),
        &["not valid"],
    );
    assert_mentions(
        &error_of_header(r#"{"__metadata__":{},"__metadata__":{}}"#, 0),
        &["twice"],
    );
}

#[test]
fn a_name_may_occur_once() {
    let twice = r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},
                    "a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]}}"#;
    assert_mentions(&error_of_header(twice, 2), &["names tensor \"a\" twice"]);
}

#[test]
fn offsets_must_follow_each_other_and_fit_the_shapes() {
    let pair = |first: &str, second: &str| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[2],"data_offsets":{first}}},
                "b":{{"dtype":"U8","shape":[2],"data_offsets":{second}}}}}"#
        )
    };
    assert_mentions(
        &error_of_header(&pair("[0,2]", "[1,3]"), 3),
        &["\"b\"", "overlaps"],
    );
    assert_mentions(
        &error_of_header(&pair("[0,2]", "[3,5]"), 5),
        &["\"b\"", "hole"],
    );
    assert_mentions(
        &error_of_header(&pair("[0,2]", "[4,2]"), 4),
        &["before it begins"],
    );
    assert_mentions(
        &error_of_header(&pair("[0,2]", "[2,5]"), 5),
        &["\"b\"", "does not fill"],
    );
    assert_mentions(&error_of_header(&pair("[2,4]", "[0,2]"), 3), &["truncated"]);
    assert_mentions(
        &error_of_header(&pair("[0,2]", "[2,4]"), 5),
        &["tensors end at byte"],
    );
}

#[test]
fn shapes_that_overflow_are_refused() {
    let huge = usize::MAX;
    let header =
        format!(r#"{{"a":{{"dtype":"F32","shape":[{huge},{huge}],"data_offsets":[0,{huge}]}}}}"#);
    assert_mentions(&error_of_header(&header, 0), &["overflows"]);
    let huge = usize::MAX / 8;
    let header = format!(r#"{{"a":{{"dtype":"U8","shape":[{huge}],"data_offsets":[0,{huge}]}}}}"#);
    assert_mentions(&error_of_header(&header, 0), &["truncated"]);
}

#[test]
fn every_truncation_of_a_file_is_an_error() {
    let file = serialize(&[
        zeros("a", Dtype::BF16, &[3, 2]),
        zeros("b", Dtype::F8_E4M3, &[5]),
    ]);
    for length in 0..file.len() {
        assert!(parse(&file[..length]).is_err(), "accepted {length} bytes");
    }
    assert!(parse(&file).is_ok());
}

/// Whether the file is accepted, by the same steps as opening it.
fn parse(file: &[u8]) -> Result<usize, String> {
    let file_bytes = file.len() as u64;
    let field = file.first_chunk::<8>().ok_or("short")?;
    let length = header_length(*field, file_bytes).map_err(|error| error.to_string())? as usize;
    parse_header(&file[8..8 + length], file_bytes)
        .map(|entries| entries.len())
        .map_err(|error| error.to_string())
}

/// What we accept must be what the reference implementation accepts.
fn assert_agrees(file: &[u8]) {
    if let Ok(count) = parse(file) {
        let (_, metadata) = SafeTensors::read_metadata(file).unwrap();
        assert_eq!(metadata.tensors().len(), count);
    }
}

/// A header entry: any sort of nonsense, or metadata.
fn entry() -> impl Strategy<Value = String> {
    let number = || prop_oneof![0_u64..9, Just(u64::MAX), Just(1 << 63), any::<u64>()];
    let dtype = prop::sample::select(vec!["U8", "BF16", "F32", "F8_E4M3", "F4", "F6_E2M3", "?"]);
    let shape = prop::collection::vec(number(), 0..4);
    (
        prop::sample::select(vec!["a", "b", "c", "__metadata__"]),
        dtype,
        shape,
        number(),
        number(),
    )
        .prop_map(|(name, dtype, shape, start, end)| {
            format!(
                r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
            )
        })
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(file in prop::collection::vec(any::<u8>(), 0..300)) {
        assert_agrees(&file);
    }

    #[test]
    fn arbitrary_headers_do_not_panic(header in prop::collection::vec(any::<u8>(), 0..300)) {
        assert_agrees(&raw_file(&header, 4));
    }

    #[test]
    fn arbitrary_entries_do_not_panic(
        entries in prop::collection::vec(entry(), 0..5),
        data_bytes in 0_usize..20,
    ) {
        assert_agrees(&raw_file(format!("{{{}}}", entries.join(",")).as_bytes(), data_bytes));
    }

    #[test]
    fn a_good_file_with_changed_bytes_does_not_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let tensors = [zeros("a", Dtype::BF16, &[3, 2]), zeros("b", Dtype::F32, &[2])];
        let mut file = serialize(&tensors);
        for (index, byte) in changes {
            let position = index.index(file.len());
            file[position] = byte;
        }
        assert_agrees(&file);
    }
}
