//! Weights in tiles, on the host executor: from checkpoints, and synthetic ones.
#![expect(unsafe_code, reason = "launches take pointers")]

use std::sync::Arc;

use backstop_card::layout::TiledMatrix;
use backstop_card::synthetic::{SyntheticMatrix, SyntheticTensor, gate_factors};
use backstop_card::{Device, DeviceBuffer, DevicePointer, Plain, Stream};
use backstop_kernels::Element;
use backstop_kernels::random::{random_indices, random_values};
use backstop_proof::PoisonedBuffer;
use backstop_proof::host::HostDevice;

fn device() -> Arc<dyn Device> {
    HostDevice::for_tests().expect("the kernels compile for the processor")
}

fn upload<T: Plain>(device: &Arc<dyn Device>, values: &[T]) -> DeviceBuffer {
    DeviceBuffer::from_slice(device, values).expect("memory")
}

fn poisoned(device: &Arc<dyn Device>, bytes: usize) -> PoisonedBuffer {
    PoisonedBuffer::new(device, bytes).expect("memory")
}

/// Matrices with and without padding, of both kinds and formats.
fn matrices() -> Vec<TiledMatrix> {
    let shapes = [(64, 128), (70, 130), (2, 7), (200, 768)];
    let formats = [Element::BF16, Element::F8E4M3];
    shapes
        .into_iter()
        .flat_map(|(rows, columns)| formats.map(move |element| (rows, columns, element)))
        .flat_map(|(rows, columns, element)| {
            [
                TiledMatrix::new(rows, columns, element),
                TiledMatrix::gate_up(rows / 2, columns, element),
            ]
        })
        .collect()
}

#[test]
fn weights_are_repacked_as_on_the_host_however_the_rows_arrive() {
    let device = device();
    for matrix in matrices() {
        let source: Vec<u8> = random_indices(5, matrix.source_bytes(), 251)
            .iter()
            .map(|&byte| byte as u8 + 1)
            .collect();
        let out = poisoned(&device, matrix.bytes());
        let row_bytes = matrix.columns * matrix.element.bytes();
        // SAFETY: the buffers have the sizes of the matrix.
        unsafe { matrix.clear(&*device, Stream::Main, out.pointer()) }.expect("zeroes");
        let cut = matrix.rows / 3 + 1;
        for rows in [cut..matrix.rows, 0..cut] {
            let bytes = &source[rows.start * row_bytes..rows.end * row_bytes];
            let staged = upload(&device, bytes);
            let pointers = [staged.pointer(), out.pointer()];
            // SAFETY: as above.
            unsafe { matrix.repack(&*device, Stream::Main, pointers, rows) }.expect("a launch");
        }
        assert!(
            out.read::<u8>().expect("tiles") == matrix.pack(&source),
            "{matrix:?}"
        );

        let scales = random_values(6, matrix.rows, 1.0);
        let staged = upload(&device, &scales);
        let out = poisoned(&device, matrix.padded_rows() * 4);
        let pointers = [staged.pointer(), out.pointer()];
        // SAFETY: as above.
        unsafe { matrix.repack_scales(&*device, Stream::Main, pointers) }.expect("a launch");
        let out: Vec<f32> = out.read().expect("scales");
        assert_eq!(out, matrix.pack_scales(&scales));
    }
}

#[test]
fn synthetic_weights_are_the_same_bits_on_device_and_host() {
    let device = device();
    for matrix in matrices() {
        let matrices = 3;
        let tensor = SyntheticTensor::new(11, 4);
        let weights = SyntheticMatrix::weights(tensor, matrix, matrices);
        for factors in [None, Some(gate_factors(tensor, matrices * matrix.rows))] {
            let out = poisoned(&device, matrices * matrix.bytes());
            let staged = factors.as_ref().map(|factors| upload(&device, factors));
            let pointer = staged
                .as_ref()
                .map_or(DevicePointer::NULL, DeviceBuffer::pointer);
            // SAFETY: the buffers have the sizes of the matrices.
            unsafe { weights.launch(&*device, Stream::Main, out.pointer(), pointer) }
                .expect("a launch");
            let host = weights.host(factors.as_deref());
            let expected = host
                .chunks(matrix.source_bytes())
                .flat_map(|one| matrix.pack(one));
            let out: Vec<u8> = out.read().expect("tiles");
            assert!(expected.eq(out), "{matrix:?}");
        }
        let scales = weights.scales(SyntheticTensor::new(11, 5));
        let out = poisoned(&device, matrices * matrix.padded_rows() * 4);
        // SAFETY: as above.
        unsafe { scales.launch_for_rows(&*device, Stream::Main, out.pointer(), matrix, matrices) }
            .expect("a launch");
        let host = scales.host(matrices * matrix.rows);
        let expected = host
            .chunks(matrix.rows)
            .flat_map(|one| matrix.pack_scales(one));
        let out: Vec<f32> = out.read().expect("scales");
        assert!(expected.eq(out), "{matrix:?}");
        let out = poisoned(&device, 1000 * 4);
        // SAFETY: as above.
        unsafe { scales.launch(&*device, Stream::Main, out.pointer(), 1000) }.expect("a launch");
        assert_eq!(out.read::<f32>().expect("a vector"), scales.host(1000));
    }
}
