//! The search for values that are not finite.

use half::bf16;

use crate::{ElementType, check_finite};

#[test]
fn every_16_bit_pattern_is_judged_as_half_judges_it() {
    for bits in 0..=u16::MAX {
        let bytes = bits.to_le_bytes();
        let brain = check_finite(ElementType::BF16, &bytes).is_none();
        assert_eq!(brain, bf16::from_bits(bits).is_finite(), "BF16 {bits:#x}");
        let half = check_finite(ElementType::F16, &bytes).is_none();
        assert_eq!(
            half,
            half::f16::from_bits(bits).is_finite(),
            "F16 {bits:#x}"
        );
    }
}

#[test]
fn every_8_bit_pattern_is_judged_by_its_format() {
    for bits in 0..=u8::MAX {
        let e4m3 = check_finite(ElementType::F8E4M3, &[bits]).is_none();
        assert_eq!(e4m3, bits != 0x7f && bits != 0xff, "{bits:#x}");
        // E5M2 is the upper half of an F16.
        let e5m2 = check_finite(ElementType::F8E5M2, &[bits]).is_none();
        assert_eq!(
            e5m2,
            half::f16::from_bits(u16::from(bits) << 8).is_finite(),
            "{bits:#x}"
        );
        assert_eq!(check_finite(ElementType::U8, &[bits]), None);
    }
}

#[test]
fn the_first_bad_element_is_found_wherever_it_is() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for bad in [0, 1, 1023, 1024, 4095, 4096, 4999] {
            let mut values = vec![f32::MAX; 5000];
            values[bad] = value;
            values[4999] = f32::NAN;
            let bytes: Vec<u8> = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            assert_eq!(check_finite(ElementType::F32, &bytes), Some(bad));
        }
    }
    let subnormal = 1_u32.to_le_bytes();
    assert_eq!(check_finite(ElementType::F32, &subnormal), None);
    assert_eq!(
        check_finite(ElementType::F64, &f64::NAN.to_le_bytes()),
        Some(0)
    );
    assert_eq!(check_finite(ElementType::F32, &[]), None);
    assert_eq!(check_finite(ElementType::F32, &[0xff, 0xff, 0xff]), None);
}
