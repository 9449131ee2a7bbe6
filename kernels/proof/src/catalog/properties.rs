//! Random shapes and contents, beyond the cases of the catalog.

use backstop_kernels::{Element, InstructionSet, decode_f8, encode_f8, round_f8};
use backstop_types::AttentionSpan;
use proptest::prelude::*;

use super::{Case, Tolerance};
use crate::ops::attention::{AttentionCase, Paged, PagedShape};
use crate::ops::experts::ExpertsCase;
use crate::ops::linear::LinearCase;

fn elements() -> impl Strategy<Value = Element> {
    prop_oneof![
        Just(Element::F32),
        Just(Element::BF16),
        Just(Element::F8E4M3)
    ]
}

/// The reference within tolerance, relative to the largest number of all rows, since those of a
/// short row may all cancel; and some row alone to the last bit.
fn check(case: &dyn Case, row: usize) -> Result<(), TestCaseError> {
    let expected = case.reference();
    let columns = expected.len() / case.rows();
    for instructions in InstructionSet::available() {
        let actual = case.cpu(instructions);
        let Tolerance(relative) = case.cpu_tolerance(instructions);
        // Random data comes in worse kinds than the catalog's.
        let violation = Tolerance(relative * 4.0).violation(&expected, &actual, expected.len());
        prop_assert_eq!(violation, None);
        let row = row % case.rows();
        let alone = case.cpu_row(instructions, row);
        let among = &actual[row * columns..(row + 1) * columns];
        let bits = |values: &[f32]| {
            values
                .iter()
                .map(|value| value.to_bits())
                .collect::<Vec<_>>()
        };
        prop_assert_eq!(bits(&alone), bits(among));
    }
    Ok(())
}

fn spans() -> impl Strategy<Value = AttentionSpan> {
    prop_oneof![
        Just(AttentionSpan::Full),
        (1..200u32).prop_map(|visible_keys| AttentionSpan::Sliding { visible_keys }),
    ]
}

prop_compose! {
    fn paged_shapes()(
        group in 1..6u32,
        kv_heads in 1..4u32,
        half_dim in 1..20u32,
        block_size in 1..70usize,
        element in elements(),
        span in spans(),
        sinks in any::<bool>(),
        sequences in prop::collection::vec((0..300usize, 1..20usize), 1..5),
    ) -> PagedShape {
        let heads = [group * kv_heads, kv_heads, 2 * half_dim];
        PagedShape { heads, sinks, block_size, element, span, sequences }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn linear(
        shape in (4..70usize, 1..150usize, 1..20usize),
        brain in any::<bool>(),
        row in any::<usize>(),
    ) {
        let element = if brain { Element::BF16 } else { Element::F32 };
        check(&LinearCase::random(shape, element), row)?;
    }

    #[test]
    fn experts(
        (num_experts, top_k) in (1..9usize).prop_flat_map(|n| (Just(n), 1..=n)),
        hidden in 1..80usize,
        width in 1..40usize,
        tokens in 1..12usize,
        element in elements(),
        row in any::<usize>(),
    ) {
        let case = ExpertsCase::random([num_experts, top_k, hidden, width, tokens], element);
        // A tiny width averages too few rounding errors of the quantised activation.
        if element != Element::F8E4M3 || width > 8 {
            check(&case, row)?;
        }
    }

    #[test]
    fn attention(shape in paged_shapes(), row in any::<usize>()) {
        check(&AttentionCase(Paged::new(&shape)), row)?;
    }

    #[test]
    fn f8_rounding_is_encoding_then_decoding(bits in any::<u32>()) {
        let value = f32::from_bits(bits);
        prop_assume!(!value.is_nan());
        prop_assert_eq!(round_f8(value).to_bits(), decode_f8(encode_f8(value)).to_bits());
    }
}
