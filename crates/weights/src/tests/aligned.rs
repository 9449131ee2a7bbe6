//! Aligned buffers, their typed views, and the search for values that are not finite.

use half::bf16;

use crate::{ALIGNMENT_BYTES, AlignedBytes, ElementType, check_finite};

#[test]
fn buffers_are_aligned_and_zeroed_and_stay_so_when_moved_or_cloned() {
    for length in [0, 1, 63, 64, 65, 1000, 1 << 20] {
        let mut bytes = AlignedBytes::zeroed(length);
        assert_eq!(bytes.len(), length);
        assert!(bytes.as_slice().iter().all(|&byte| byte == 0));
        bytes.as_mut_slice().fill(7);
        let moved = Box::new(bytes);
        let copy = moved.clone();
        for buffer in [&*moved, &copy] {
            assert_eq!(buffer.as_slice().as_ptr().align_offset(ALIGNMENT_BYTES), 0);
            assert_eq!(buffer.as_slice(), vec![7; length]);
        }
    }
}

#[test]
fn typed_views_show_whole_elements() {
    let mut bytes = AlignedBytes::zeroed(11);
    bytes.as_f32_mut()[1] = 1.5;
    assert_eq!(bytes.as_f32(), [0.0, 1.5]);
    assert_eq!(bytes.as_slice()[4..8], 1.5_f32.to_le_bytes());
    bytes.as_bf16_mut()[0] = bf16::from_f32(-2.0);
    assert_eq!(bytes.as_bf16().len(), 5);
    assert_eq!(bytes.as_bf16()[0].to_f32(), -2.0);
    assert!(AlignedBytes::zeroed(0).as_f32().is_empty());
}

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
