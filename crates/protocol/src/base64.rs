//! Bytes as text, for vectors: the alphabet of RFC 4648 with padding.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Numbers as the base64 text of their little-endian bytes.
pub(crate) fn of_numbers(numbers: &[f32]) -> String {
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            // A group of n bytes fills n + 1 characters.
            text.push(match place <= group.len() {
                true => char::from(ALPHABET[(bits >> (18 - 6 * place)) as usize & 63]),
                false => '=',
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_other_programs_write_them() {
        assert_eq!(of_numbers(&[]), "");
        assert_eq!(of_numbers(&[1.0]), "AACAPw==");
        assert_eq!(of_numbers(&[1.0, -2.5]), "AACAPwAAIMA=");
        assert_eq!(of_numbers(&[0.1, 0.2, 0.3]), "zczMPc3MTD6amZk+");
    }
}
