//! Reading `MessagePack` without building values, and writing the few forms that the wire has.
//!
//! Owns the format (the specification at msgpack.org). It must never trust a claimed length: nothing
//! is reserved by it, and every step takes a byte at least, so reading ends with the input.

use rmp::{Marker, encode};

/// Why bytes are not the `MessagePack` that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MsgPackError {
    /// Cut short, with something behind, or with a marker that is none.
    #[error("the bytes are not MessagePack")]
    Malformed,
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
}

/// Appends a string.
pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    encode::write_str(out, text).expect("writing to a Vec cannot fail");
}

/// Appends bytes.
pub(crate) fn write_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    encode::write_bin(out, bytes).expect("writing to a Vec cannot fail");
}

/// The payload of an extension has one byte of type in front of it.
fn extension(length: usize) -> Header {
    Header::Bytes(length.saturating_add(1))
}

pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, MsgPackError> {
    std::str::from_utf8(bytes).map_err(|_| MsgPackError::NotUtf8)
}

/// The values that the wire has, but for arrays and maps; whatever else comes has been passed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Nil,
    Unsigned(u64),
    Text(&'a str),
    Binary(&'a [u8]),
    Other,
}

/// What one marker stands for.
#[derive(Clone, Copy)]
pub(crate) enum Header {
    Nil,
    Unsigned(u64),
    Text(usize),
    Binary(usize),
    Array(u32),
    /// Scalars and extensions: bytes to pass.
    Bytes(usize),
    /// Values to pass, twice as many as pairs.
    Map(u64),
}

/// Reads value after value.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    /// Elements of the outermost array not read yet.
    pub(crate) left: u32,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, left: 0 }
    }

    /// The next element, nil if there are no more.
    pub(crate) fn next(&mut self) -> Result<Value<'a>, MsgPackError> {
        let header = self.next_header()?;
        self.value(header)
    }

    pub(crate) fn next_header(&mut self) -> Result<Header, MsgPackError> {
        if self.left == 0 {
            return Ok(Header::Nil);
        }
        self.left -= 1;
        self.header()
    }

    /// Passes what follows the known elements; then the input must end.
    pub(crate) fn end(&mut self) -> Result<(), MsgPackError> {
        self.skip(u64::from(self.left))?;
        if self.bytes.is_empty() { Ok(()) } else { Err(MsgPackError::Malformed) }
    }

    pub(crate) fn skip(&mut self, values: u64) -> Result<(), MsgPackError> {
        let mut values = values;
        while values > 0 {
            values -= 1;
            match self.header()? {
                Header::Nil | Header::Unsigned(_) => {}
                Header::Text(length) | Header::Binary(length) | Header::Bytes(length) => {
                    self.take(length)?;
                }
                Header::Array(elements) => values += u64::from(elements),
                Header::Map(parts) => values += parts,
            }
        }
        Ok(())
    }

    /// The value whose header was read.
    pub(crate) fn value(&mut self, header: Header) -> Result<Value<'a>, MsgPackError> {
        Ok(match header {
            Header::Nil => Value::Nil,
            Header::Unsigned(number) => Value::Unsigned(number),
            Header::Text(length) => Value::Text(utf8(self.take(length)?)?),
            Header::Binary(length) => Value::Binary(self.take(length)?),
            Header::Bytes(length) => {
                self.take(length)?;
                Value::Other
            }
            Header::Array(elements) => {
                self.skip(u64::from(elements))?;
                Value::Other
            }
            Header::Map(parts) => {
                self.skip(parts)?;
                Value::Other
            }
        })
    }

    pub(crate) fn header(&mut self) -> Result<Header, MsgPackError> {
        let marker = Marker::from_u8(self.take(1)?[0]);
        Ok(match marker {
            Marker::Null => Header::Nil,
            Marker::FixPos(number) => Header::Unsigned(u64::from(number)),
            Marker::U8 => Header::Unsigned(self.number(1)?),
            Marker::U16 => Header::Unsigned(self.number(2)?),
            Marker::U32 => Header::Unsigned(self.number(4)?),
            Marker::U64 => Header::Unsigned(self.number(8)?),
            Marker::FixStr(length) => Header::Text(usize::from(length)),
            Marker::Str8 => Header::Text(self.length(1)?),
            Marker::Str16 => Header::Text(self.length(2)?),
            Marker::Str32 => Header::Text(self.length(4)?),
            Marker::Bin8 => Header::Binary(self.length(1)?),
            Marker::Bin16 => Header::Binary(self.length(2)?),
            Marker::Bin32 => Header::Binary(self.length(4)?),
            Marker::FixArray(elements) => Header::Array(u32::from(elements)),
            Marker::Array16 => Header::Array(self.count(2)?),
            Marker::Array32 => Header::Array(self.count(4)?),
            Marker::FixMap(pairs) => Header::Map(2 * u64::from(pairs)),
            Marker::Map16 => Header::Map(2 * self.number(2)?),
            Marker::Map32 => Header::Map(2 * self.number(4)?),
            Marker::True | Marker::False | Marker::FixNeg(_) => Header::Bytes(0),
            Marker::I8 => Header::Bytes(1),
            Marker::I16 => Header::Bytes(2),
            Marker::I32 | Marker::F32 => Header::Bytes(4),
            Marker::I64 | Marker::F64 => Header::Bytes(8),
            Marker::FixExt1 => extension(1),
            Marker::FixExt2 => extension(2),
            Marker::FixExt4 => extension(4),
            Marker::FixExt8 => extension(8),
            Marker::FixExt16 => extension(16),
            Marker::Ext8 => extension(self.length(1)?),
            Marker::Ext16 => extension(self.length(2)?),
            Marker::Ext32 => extension(self.length(4)?),
            Marker::Reserved => return Err(MsgPackError::Malformed),
        })
    }

    fn length(&mut self, width: usize) -> Result<usize, MsgPackError> {
        usize::try_from(self.number(width)?).map_err(|_| MsgPackError::Malformed)
    }

    fn count(&mut self, width: usize) -> Result<u32, MsgPackError> {
        u32::try_from(self.number(width)?).map_err(|_| MsgPackError::Malformed)
    }

    fn number(&mut self, width: usize) -> Result<u64, MsgPackError> {
        let bytes = self.take(width)?;
        Ok(bytes.iter().fold(0, |number, &byte| (number << 8) | u64::from(byte)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], MsgPackError> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(MsgPackError::Malformed)?;
        self.bytes = rest;
        Ok(taken)
    }
}
