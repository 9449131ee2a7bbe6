//! Copying tensors, and every way in which that fails.

use std::fs::OpenOptions;

use safetensors::Dtype;

use crate::test_support::{Directory, Tensor, assert_mentions, floats, zeros};
use crate::{Checkpoint, LoadError, LoadProblem, Piece, TensorInfo, read_in_order};

/// A BF16 tensor long enough to be copied in several chunks, counting up without a NaN.
fn long_tensor(name: &str) -> Tensor {
    let count = 6 << 20;
    let bytes = (0..count)
        .flat_map(|i: u32| ((i % 0x7f00) as u16).to_le_bytes())
        .collect();
    Tensor {
        name: name.to_owned(),
        dtype: Dtype::BF16,
        shape: vec![count as usize],
        bytes,
    }
}

/// Bytes of the chunks in which long tensors are read here.
const CHUNK: usize = 4 << 20;

/// Reads whole tensors in chunks.
fn read_all(checkpoint: &Checkpoint, jobs: Vec<(&str, &mut [u8])>) -> Result<(), LoadError> {
    let mut pieces = Vec::new();
    for (tensor, destination) in jobs {
        let info = checkpoint.tensor(tensor);
        let (file, start) = info.map_or((0, 0), TensorInfo::position);
        for (index, chunk) in destination.chunks_mut(CHUNK).enumerate() {
            let offset = (index * CHUNK) as u64;
            pieces.push(Piece {
                tensor,
                position: (file, start + offset),
                work: (tensor, offset, chunk),
            });
        }
    }
    read_in_order(pieces, |(tensor, offset, chunk)| {
        checkpoint.read_part(tensor, offset, chunk)
    })
}

#[test]
fn parts_are_copied_from_where_they_begin() {
    let directory = Directory::with_config();
    let long = long_tensor("long");
    directory.write_tensors("model.safetensors", std::slice::from_ref(&long));
    let checkpoint = directory.open().unwrap();
    let (mut first, mut second) = (vec![0; 6], vec![0; 5 << 20]);
    checkpoint.read_part("long", 4, &mut first).unwrap();
    checkpoint.read_part("long", 10, &mut second).unwrap();
    assert!(first == long.bytes[4..10]);
    assert!(second == long.bytes[10..][..5 << 20]);
}

#[test]
fn parts_that_are_not_whole_elements_of_the_tensor_are_refused() {
    let directory = Directory::with_config();
    directory.write_tensors("model.safetensors", &[floats("a", &[1.0, 2.0])]);
    let checkpoint = directory.open().unwrap();
    for (from, bytes) in [(8, 4), (4, 8), (2, 4), (0, 3), (u64::MAX, 8)] {
        let mut destination = vec![0; bytes];
        assert!(
            checkpoint.read_part("a", from, &mut destination).is_err(),
            "{from}"
        );
    }
}

#[test]
fn a_part_names_the_damaged_element_of_the_whole() {
    let directory = Directory::with_config();
    directory.write_tensors("model.safetensors", &[floats("a", &[1.0, 2.0, f32::NAN])]);
    let checkpoint = directory.open().unwrap();
    let mut destination = vec![0; 8];
    let error = checkpoint.read_part("a", 4, &mut destination).unwrap_err();
    assert_mentions(&error.to_string(), &["first at element 2"]);
}

#[test]
fn tensors_are_fused_into_one_buffer() {
    let directory = Directory::with_config();
    let long = long_tensor("long");
    let tensors = [
        long,
        floats("one", &[1.0, 2.0]),
        zeros("empty", Dtype::F32, &[0, 4]),
    ];
    directory.write_tensors("model.safetensors", &tensors);
    let checkpoint = directory.open().unwrap();

    let [long, one, _] = tensors;
    let mut fused = vec![0xaa; long.bytes.len() + one.bytes.len()];
    let (first, second) = fused.split_at_mut(one.bytes.len());
    let jobs = vec![("one", first), ("long", second), ("empty", &mut [][..])];
    read_all(&checkpoint, jobs).unwrap();
    assert!(fused == [one.bytes, long.bytes].concat());
    assert!(checkpoint.read("empty").unwrap().is_empty());
}

#[test]
fn everything_that_cannot_be_read_is_named() {
    let directory = Directory::with_config();
    directory.write_tensors(
        "model.safetensors",
        &[floats("a", &[1.0]), floats("b", &[2.0])],
    );
    let checkpoint = directory.open().unwrap();
    let (mut right, mut short, mut any) = ([9; 4], [9; 3], [9; 4]);
    let jobs = vec![
        ("a", &mut right[..]),
        ("b", &mut short[..]),
        ("c", &mut any[..]),
    ];
    let error = read_all(&checkpoint, jobs).unwrap_err();
    assert_eq!(error.problems.len(), 2);
    let message = error.to_string();
    assert_mentions(
        &message,
        &["b has 4 bytes but its destination has 3", "c is not in the"],
    );
    assert!(checkpoint.read("c").is_err());
}

#[test]
fn every_tensor_that_is_not_finite_is_named_with_its_first_bad_element() {
    let directory = Directory::with_config();
    let mut long = long_tensor("long");
    // Two bad values in different chunks: the earlier counts.
    for index in [5_000_000, 3_000_001] {
        long.bytes[2 * index..2 * index + 2].copy_from_slice(&0x7f80_u16.to_le_bytes());
    }
    let mut eight = zeros("eight", Dtype::F8_E4M3, &[3]);
    eight.bytes[2] = 0xff;
    let tensors = [
        long,
        eight,
        floats("good", &[1.0]),
        floats("nan", &[0.0, f32::NAN]),
    ];
    directory.write_tensors("model.safetensors", &tensors);
    let checkpoint = directory.open().unwrap();

    let mut buffers: Vec<Vec<u8>> = tensors.iter().map(|t| vec![0; t.bytes.len()]).collect();
    let jobs = tensors
        .iter()
        .zip(&mut buffers)
        .map(|(tensor, to)| (tensor.name.as_str(), to.as_mut_slice()))
        .collect();
    let error = read_all(&checkpoint, jobs).unwrap_err();
    let found: Vec<(&str, u64)> = error
        .problems
        .iter()
        .map(|problem| match problem {
            LoadProblem::NotFinite { name, index } => (name.as_str(), *index),
            other => panic!("{other}"),
        })
        .collect();
    // In the order of the file.
    assert_eq!(found, [("nan", 1), ("long", 3_000_001), ("eight", 2)]);
}

#[test]
fn a_file_truncated_after_opening_is_an_error() {
    let directory = Directory::with_config();
    directory.write_tensors(
        "model.safetensors",
        &[floats("a", &[1.0]), floats("b", &[2.0])],
    );
    let checkpoint = directory.open().unwrap();
    let path = directory.join("model.safetensors");
    let length = path.metadata().unwrap().len();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(length - 1)
        .unwrap();
    assert!(checkpoint.read("a").is_ok());
    let message = checkpoint.read("b").unwrap_err().to_string();
    assert_mentions(&message, &["b cannot be read from", "model.safetensors"]);
}
