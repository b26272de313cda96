//! The protobuf wire format, read where it lies: fields without copies, and whether a message is well formed.
//!
//! What the router passes on it does not decode, but it does walk through all of it ([`Schema`]): whatever the official
//! decoder would refuse is refused here, with the field's name, so that one caller's broken bytes never look like an
//! agent's fault. Unknown fields are passed over and stay as they are. Pure.
//!
//! Rejected: to look at the routing fields alone. An agent that cannot decode a request says INTERNAL, as it does when it
//! is ill, and a caller could make healthy agents look ill.

pub mod metadata;
pub mod schema;

pub use schema::Schema;

/// How deep messages may be nested; the official decoder takes as much.
pub const MAX_DEPTH: usize = 100;

/// Most bytes of a number.
const VARINT_BYTES: usize = 10;

/// What is wrong with an encoded message, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}{}{what}", if field.is_empty() { "" } else { " " })]
pub struct Defect {
    /// Path of the field, as in JSON; empty for the message itself.
    pub field: String,
    /// What is wrong, and what to do about it.
    pub what: &'static str,
}

/// A defect is rare and large, an outcome is neither.
pub type Checked<T> = Result<T, Box<Defect>>;

impl Defect {
    /// A defect of the message itself.
    #[must_use]
    pub fn new(what: &'static str) -> Box<Self> {
        let field = String::new();
        Box::new(Self { field, what })
    }

    /// The same defect, seen from the message that holds this one as `field`.
    #[must_use]
    pub fn inside(mut self: Box<Self>, field: &str) -> Box<Self> {
        if self.field.is_empty() {
            field.clone_into(&mut self.field);
        } else {
            self.field = format!("{field}.{}", self.field);
        }
        self
    }
}

/// What stands in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'b> {
    /// A number of variable length.
    Varint(u64),
    /// Eight bytes.
    Fixed64,
    /// Four bytes.
    Fixed32,
    /// Text, bytes or a message.
    Bytes(&'b [u8]),
    /// A group, which A2A has none of.
    Group,
}

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'b> {
    /// Its number.
    pub number: u32,
    /// What stands in it.
    pub value: Value<'b>,
    /// Where it begins in the message, key included.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

/// The fields of a message, one after the other.
#[derive(Debug, Clone)]
pub struct Fields<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Fields<'b> {
    /// The fields of this message.
    #[must_use]
    pub const fn of(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next field of a message that lies this deep in others; `None` at the end.
    ///
    /// # Errors
    /// When the bytes are no fields.
    pub fn next(&mut self, depth: usize) -> Checked<Option<Field<'b>>> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let start = self.at;
        let (number, wire_type) = self.key()?;
        let value = self.value(number, wire_type, depth)?;
        let end = self.at;
        Ok(Some(Field {
            number,
            value,
            start,
            end,
        }))
    }

    fn key(&mut self) -> Checked<(u32, u32)> {
        let key = u32::try_from(self.varint()?).map_err(|_| Defect::new(NO_FIELD))?;
        match key >> 3 {
            0 => Err(Defect::new(NO_FIELD)),
            number => Ok((number, key & 7)),
        }
    }

    fn value(&mut self, number: u32, wire_type: u32, depth: usize) -> Checked<Value<'b>> {
        match wire_type {
            0 => self.varint().map(Value::Varint),
            1 => self.take(8).map(|_| Value::Fixed64),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Defect::new(TRUNCATED))?;
                self.take(length).map(Value::Bytes)
            }
            3 => self.pass_group(number, depth).map(|()| Value::Group),
            5 => self.take(4).map(|_| Value::Fixed32),
            _ => Err(Defect::new(NO_FIELD)),
        }
    }

    fn pass_group(&mut self, number: u32, depth: usize) -> Checked<()> {
        if depth + 1 >= MAX_DEPTH {
            return Err(Defect::new(TOO_DEEP));
        }
        loop {
            match self.key()? {
                (ended, 4) if ended == number => return Ok(()),
                (inner, wire_type) => self.value(inner, wire_type, depth + 1)?,
            };
        }
    }

    fn varint(&mut self) -> Checked<u64> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let mut number = 0;
        for (index, &byte) in rest.iter().take(VARINT_BYTES).enumerate() {
            number |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                // The tenth byte has room for one bit.
                if index == VARINT_BYTES - 1 && byte > 1 {
                    break;
                }
                self.at += index + 1;
                return Ok(number);
            }
        }
        Err(Defect::new(if rest.len() < VARINT_BYTES {
            TRUNCATED
        } else {
            OVERLONG
        }))
    }

    fn take(&mut self, length: usize) -> Checked<&'b [u8]> {
        let end = self
            .at
            .checked_add(length)
            .filter(|end| *end <= self.bytes.len())
            .ok_or_else(|| Defect::new(TRUNCATED))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }
}

/// Appends a field that holds text.
pub fn put_text(number: u32, text: &str, buffer: &mut Vec<u8>) {
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, buffer);
    prost::encoding::encode_varint(text.len() as u64, buffer);
    buffer.extend_from_slice(text.as_bytes());
}

const NO_FIELD: &str = "is no protobuf here; encode it with the types of lf.a2a.v1";
const TRUNCATED: &str = "ends in the middle of a field; send it whole";
const OVERLONG: &str = "has a number of more than 64 bits; encode it with the types of lf.a2a.v1";
const TOO_DEEP: &str = "is nested deeper than 100 levels; send it flatter";
const WRONG_TYPE: &str = "has another type than lf.a2a.v1 declares; encode it with the types of lf.a2a.v1";
pub(crate) const NOT_UTF8: &str = "is not UTF-8; send text as UTF-8 and other bytes in `raw`";
pub(crate) const TWICE: &str = "stands there twice; send it once";

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Checked<Vec<(u32, Value<'_>)>> {
        let mut fields = Fields::of(bytes);
        let mut found = Vec::new();
        while let Some(field) = fields.next(0)? {
            found.push((field.number, field.value));
        }
        Ok(found)
    }

    #[test]
    fn every_wire_type_is_read() {
        let bytes = [
            0x08, 0x96, 0x01, // 1: 150
            0x11, 0, 0, 0, 0, 0, 0, 0, 0, // 2: eight bytes
            0x1a, 2, b'h', b'i', // 3: "hi"
            0x23, 0x08, 0x01, 0x24, // 4: a group with a number in it
            0x2d, 0, 0, 0, 0, // 5: four bytes
        ];
        assert_eq!(
            all(&bytes).unwrap(),
            [
                (1, Value::Varint(150)),
                (2, Value::Fixed64),
                (3, Value::Bytes(b"hi")),
                (4, Value::Group),
                (5, Value::Fixed32),
            ]
        );
    }

    #[test]
    fn what_is_no_field_is_refused_with_the_reason() {
        for (bytes, what) in [
            (&[0x08][..], TRUNCATED),
            (&[0x0a, 5, b'x'], TRUNCATED),
            (&[0x11, 0], TRUNCATED),
            (
                &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
                TRUNCATED,
            ),
            (
                &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
                OVERLONG,
            ),
            (
                &[
                    0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
                ],
                OVERLONG,
            ),
            (&[0x00, 0x01], NO_FIELD),
            (&[0x0f], NO_FIELD),
            (&[0x0c], NO_FIELD),
            (&[0x0b, 0x14], NO_FIELD),
            (&[0x0b], TRUNCATED),
        ] {
            assert_eq!(all(bytes).unwrap_err().what, what, "{bytes:x?}");
        }
        assert_eq!(all(&[0x0b; 1000]).unwrap_err().what, TOO_DEEP);
    }
}
