//! Products with weights in blocks and in several formats.

use backstop_kernels::random::random_values;
use backstop_kernels::{
    AlignedBytes, Bands, BlockFormat, CpuMatrix, Element, InputRows, InstructionSet, Product,
    WeightFormat,
};
use backstop_proof::product;

const COLUMNS: usize = 768;
/// More than two tiles.
const TOKENS: usize = 37;

/// Rows of blocks with random codes and small finite scales.
fn random_rows(format: WeightFormat, rows: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; format.bytes_of(rows * COLUMNS)];
    let values = random_values(seed, bytes.len(), 1.0);
    match format {
        WeightFormat::Numbers(element) => {
            for (index, value) in values[..rows * COLUMNS].iter().enumerate() {
                element.write(&mut bytes, index, *value);
            }
        }
        WeightFormat::Blocks(blocks) => {
            for (byte, value) in bytes.iter_mut().zip(&values) {
                *byte = value.to_bits() as u8;
            }
            for block in bytes.chunks_exact_mut(blocks.bytes()) {
                let exponent = 120 + block[0] % 4;
                if let Some(separate) = blocks.facts().separate {
                    separate.write_scale(block, 0.015_625);
                }
                if blocks == BlockFormat::Mxfp4 {
                    block[0] = exponent;
                }
                for &at in blocks.facts().half_scales {
                    // Some 2^-6.
                    block[at + 1] = 0x24 | (block[at + 1] & 0x81);
                }
            }
        }
    }
    bytes
}

fn matrix(parts: &[(usize, WeightFormat)]) -> CpuMatrix {
    let bands = Bands::stacked(parts.iter().copied()).expect("few formats");
    let mut data = AlignedBytes::zeroed(bands.bytes(COLUMNS));
    let mut first = 0;
    for (seed, &(rows, format)) in parts.iter().enumerate() {
        let range = bands.row_range(COLUMNS, first, rows);
        data.as_mut_slice()[range].copy_from_slice(&random_rows(format, rows, seed as u64));
        first += rows;
    }
    CpuMatrix::stacked(bands, COLUMNS, data)
}

fn multiply(matrix: &CpuMatrix, input: &[f32], instructions: Option<InstructionSet>) -> Vec<f32> {
    let product = Product::new(matrix.view(), InputRows::all(input, COLUMNS));
    let mut out = vec![0.0; input.len() / COLUMNS * matrix.rows()];
    match instructions {
        Some(instructions) => product.run(instructions, &mut out),
        None => product::reference(&product, &mut out),
    }
    out
}

/// As loaded, and arranged for products.
fn check(parts: &[(usize, WeightFormat)]) {
    check_matrix(&matrix(parts), &format!("{parts:?}"));
    check_matrix(&matrix(parts).arranged(), &format!("arranged {parts:?}"));
}

fn check_matrix(matrix: &CpuMatrix, label: &str) {
    let input = random_values(77, TOKENS * COLUMNS, 1.0);
    let expected = multiply(matrix, &input, None);
    let largest = expected
        .iter()
        .fold(0_f32, |most, value| most.max(value.abs()));
    for instructions in InstructionSet::available() {
        let all = multiply(matrix, &input, Some(instructions));
        for (actual, expected) in all.iter().zip(&expected) {
            let difference = (actual - expected).abs();
            assert!(
                difference <= 1e-5 * largest,
                "{label} with {instructions:?}: {actual} instead of {expected}"
            );
        }
        for (row, input) in input.chunks_exact(COLUMNS).enumerate() {
            let alone = multiply(matrix, input, Some(instructions));
            assert_eq!(alone, all[row * matrix.rows()..][..matrix.rows()]);
        }
    }
}

#[test]
fn products_with_blocks_agree_with_the_reference_and_rows_do_not_depend_on_one_another() {
    for &format in BlockFormat::ALL {
        check(&[(19, format.into())]);
    }
}

#[test]
fn a_matrix_may_be_stacked_from_parts_of_different_formats() {
    check(&[
        (9, BlockFormat::Q4K.into()),
        (3, BlockFormat::Q4K.into()),
        (5, BlockFormat::Q6K.into()),
    ]);
    check(&[
        (3, BlockFormat::Q6K.into()),
        (10, Element::F32.into()),
        (1, Element::BF16.into()),
        (8, BlockFormat::Q4_1.into()),
    ]);
}

#[test]
fn only_so_many_formats_are_stacked() {
    let formats = [
        BlockFormat::Q2K,
        BlockFormat::Q3K,
        BlockFormat::Q4K,
        BlockFormat::Q5K,
        BlockFormat::Q6K,
    ];
    let parts = |count: usize| {
        let parts = formats[..count].iter();
        Bands::stacked(parts.map(|&format| (1, format.into())))
    };
    assert!(parts(4).is_some());
    assert!(parts(5).is_none());
}

#[test]
fn bf16_in_panels_has_the_precision_of_f32() {
    for rows in [16, 19, 65, 160] {
        check(&[(rows, Element::BF16.into())]);
    }
}

#[test]
fn a_part_of_a_matrix_has_the_same_rows_and_products() {
    for format in [
        Element::BF16.into(),
        BlockFormat::Q4_1.into(),
        BlockFormat::Q6K.into(),
    ] {
        let arranged = matrix(&[(70, format)]).arranged();
        let input = random_values(78, 3 * COLUMNS, 1.0);
        for instructions in InstructionSet::available() {
            let all = multiply(&arranged, &input, Some(instructions));
            for (first, rows) in [(0, 70), (16, 16), (5, 9), (30, 40), (13, 25)] {
                let part = arranged.view().part(first, rows);
                let mut out = vec![f32::NAN; 3 * rows];
                Product::new(part, InputRows::all(&input, COLUMNS)).run(instructions, &mut out);
                for (out, all) in out.chunks(rows).zip(all.chunks(70)) {
                    assert_eq!(out, &all[first..first + rows], "{format:?}");
                }
                let [mut row, mut same] = [(); 2].map(|()| vec![0.0; COLUMNS]);
                part.widen_row(rows - 1, &mut row);
                matrix(&[(70, format)])
                    .view()
                    .widen_row(first + rows - 1, &mut same);
                assert_eq!(row, same);
            }
        }
    }
}
