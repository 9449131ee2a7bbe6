//! Finds NaN and infinity in raw weights, fast enough to run on every byte copied.

use crate::ElementType;

/// Bytes looked at before asking whether anything was bad. Small enough for the first-level cache,
/// so the second look at a bad block is free, and long enough to be worth vector instructions.
const BLOCK_BYTES: usize = 4096;

/// The index of the first element of `bytes` that is NaN or infinite, or `None` if every one is
/// finite or the type has no such values. A trailing part of an element is not looked at.
pub fn check_finite(element_type: ElementType, bytes: &[u8]) -> Option<usize> {
    match element_type {
        ElementType::BF16 => first_bad::<2>(bytes, |pair| magnitude_16(pair) >= 0x7f80),
        ElementType::F16 => first_bad::<2>(bytes, |pair| magnitude_16(pair) >= 0x7c00),
        ElementType::F32 => first_bad::<4>(bytes, |quad| magnitude_32(quad) >= 0x7f80_0000),
        ElementType::F64 => first_bad::<8>(bytes, |eight| !f64::from_le_bytes(eight).is_finite()),
        // E4M3 has no infinities; all ones but the sign is its only NaN.
        ElementType::F8E4M3 => first_bad::<1>(bytes, |[byte]| byte & 0x7f == 0x7f),
        ElementType::F8E5M2 => first_bad::<1>(bytes, |[byte]| byte & 0x7f >= 0x7c),
        ElementType::F8E8M0 => first_bad::<1>(bytes, |[byte]| byte == 0xff),
        ElementType::Block(format) => {
            let block = format.first_not_finite(bytes)?;
            Some(block * format.numbers())
        }
        _ => None,
    }
}

// Signed, because the baseline x86-64 instruction set compares only signed lanes.
fn magnitude_16(bytes: [u8; 2]) -> i16 {
    i16::from_le_bytes(bytes) & 0x7fff
}

fn magnitude_32(bytes: [u8; 4]) -> i32 {
    i32::from_le_bytes(bytes) & 0x7fff_ffff
}

#[inline(always)]
fn first_bad<const SIZE: usize>(
    bytes: &[u8],
    is_bad: impl Fn([u8; SIZE]) -> bool,
) -> Option<usize> {
    let (elements, _) = bytes.as_chunks::<SIZE>();
    let per_block = BLOCK_BYTES / SIZE;
    for (block_index, block) in elements.chunks(per_block).enumerate() {
        // No early exit here: a plain reduction is what the compiler turns into vector code.
        let any_bad = block
            .iter()
            .fold(false, |bad, &element| bad | is_bad(element));
        if any_bad {
            let within = block.iter().position(|&element| is_bad(element))?;
            return Some(block_index * per_block + within);
        }
    }
    None
}

#[cfg(test)]
mod tests;
