//! The fields of a message in the wire format of Protocol Buffers.

/// A field's value.
#[derive(Debug, PartialEq)]
pub(super) enum Field<'a> {
    /// An integer, a truth value or one of several names.
    Number(u64),
    /// A text or a message.
    Bytes(&'a [u8]),
    Float(f32),
    /// Eight bytes, which nothing here has.
    Double,
}

/// Goes through the fields of a message: numbers and values.
pub(super) struct Message<'a> {
    rest: &'a [u8],
}

const ENDS_EARLY: &str = "it ends within a field";

impl<'a> Message<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn field(&mut self) -> Result<(u64, Field<'a>), String> {
        let key = self.number()?;
        let value = match key & 7 {
            0 => Field::Number(self.number()?),
            1 => {
                self.bytes(8)?;
                Field::Double
            }
            2 => {
                let length = self.number()?;
                Field::Bytes(self.bytes(length)?)
            }
            5 => {
                let bytes = self.bytes(4)?.try_into().map_err(|_| ENDS_EARLY)?;
                Field::Float(f32::from_le_bytes(bytes))
            }
            other => return Err(format!("it has a field of the unknown kind {other}")),
        };
        Ok((key >> 3, value))
    }

    fn bytes(&mut self, length: u64) -> Result<&'a [u8], String> {
        let length = usize::try_from(length).map_err(|_| ENDS_EARLY)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Seven bits a byte, the lowest first.
    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.bytes(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("it has a number of more than 64 bits".to_owned())
    }
}

impl<'a> Iterator for Message<'a> {
    type Item = Result<(u64, Field<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_every_kind_are_read() {
        let bytes = [
            8, 0xac, 2, // 1: 300
            0x12, 2, b'h', b'i', // 2: "hi"
            0x1d, 0, 0, 0x80, 0x3f, // 3: 1.0
            0x21, 0, 0, 0, 0, 0, 0, 0, 0, // 4: eight bytes
        ];
        let fields: Result<Vec<_>, _> = Message::new(&bytes).collect();
        let expected = [
            (1, Field::Number(300)),
            (2, Field::Bytes(b"hi")),
            (3, Field::Float(1.0)),
            (4, Field::Double),
        ];
        assert_eq!(fields.unwrap(), expected);
    }

    #[test]
    fn damaged_messages_are_refused() {
        let damaged: [&[u8]; 5] = [&[8], &[0x12, 9, 1], &[0x1d, 0], &[0x0b], &[0xff; 11]];
        for bytes in damaged {
            let fields: Result<Vec<_>, _> = Message::new(bytes).collect();
            assert!(fields.is_err(), "{bytes:?}");
        }
    }
}
