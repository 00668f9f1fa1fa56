//! The encoding of Protocol Buffers: tags, integers of variable length, records with a length.

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadWire;

/// The deepest nesting of messages and groups, as in the libraries of Protocol Buffers.
pub const MAX_DEPTH: u32 = 100;

/// Appends an integer.
pub fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the tag of a field.
pub fn put_tag(number: u32, wire_type: u8, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | u64::from(wire_type), out);
}

/// Returns the unsigned integer for a signed one whose absolute value is small.
pub fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// Returns the signed integer for an unsigned one.
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Appends a record with its length, which `write` appends without it.
///
/// # Errors
/// Returns the error of `write`.
pub fn put_record<E>(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
    let start = out.len();
    out.push(0);
    write(out)?;
    close_record(start, out);
    Ok(())
}

/// Writes the length of a record that began at `start` with an octet for it.
pub fn close_record(start: usize, out: &mut Vec<u8>) {
    let length = out.len() - start - 1;
    if let (true, Some(first)) = (length < 0x80, out.get_mut(start)) {
        *first = length as u8;
        return;
    }
    let (mut octets, mut count, mut rest) = ([0; 10], 0, length);
    while rest >= 0x80 {
        octets[count] = rest as u8 | 0x80;
        (rest, count) = (rest >> 7, count + 1);
    }
    octets[count] = rest as u8;
    out.resize(out.len() + count, 0);
    let end = start + 1 + length;
    out.copy_within(start + 1..end, start + 1 + count);
    out[start..=start + count].copy_from_slice(&octets[..=count]);
}

/// The value of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'w> {
    /// An integer.
    Varint(u64),
    /// Eight octets.
    Fixed64(u64),
    /// Octets with their length.
    Bytes(&'w [u8]),
    /// The fields of a group.
    Group(&'w [u8]),
    /// Four octets.
    Fixed32(u32),
}

/// Reads the records of a message.
#[derive(Clone, Debug)]
pub struct Records<'w> {
    bytes: &'w [u8],
}

impl<'w> Records<'w> {
    /// Returns the records of these bytes.
    pub fn new(bytes: &'w [u8]) -> Self {
        Self { bytes }
    }

    /// Returns the next integer of a packed field.
    pub fn varint(&mut self) -> Result<u64, BadWire> {
        let mut value = 0_u64;
        for (at, octet) in self.bytes.iter().take(10).enumerate() {
            value |= u64::from(octet & 0x7f) << (7 * at);
            if octet & 0x80 == 0 {
                self.bytes = &self.bytes[at + 1..];
                return Ok(value);
            }
        }
        Err(BadWire)
    }

    /// Returns the next eight octets.
    pub fn fixed64(&mut self) -> Result<u64, BadWire> {
        let (value, rest) = self.bytes.split_first_chunk().ok_or(BadWire)?;
        self.bytes = rest;
        Ok(u64::from_le_bytes(*value))
    }

    /// Returns the next four octets.
    pub fn fixed32(&mut self) -> Result<u32, BadWire> {
        let (value, rest) = self.bytes.split_first_chunk().ok_or(BadWire)?;
        self.bytes = rest;
        Ok(u32::from_le_bytes(*value))
    }

    /// Returns whether all was read.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns the number of a field and its value, or `None` at the end.
    pub fn next(&mut self) -> Result<Option<(u32, Record<'w>)>, BadWire> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| BadWire)?;
        if number == 0 {
            return Err(BadWire);
        }
        let value = match tag & 7 {
            0 => Record::Varint(self.varint()?),
            1 => Record::Fixed64(self.fixed64()?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| BadWire)?;
                let (value, rest) = self.bytes.split_at_checked(length).ok_or(BadWire)?;
                self.bytes = rest;
                Record::Bytes(value)
            }
            3 => {
                let before = self.bytes;
                let left = self.skip_group(number)?;
                Record::Group(&before[..before.len() - left])
            }
            5 => Record::Fixed32(self.fixed32()?),
            _ => return Err(BadWire),
        };
        Ok(Some((number, value)))
    }

    /// Skips the fields of a group and its end, and returns how many bytes were left before that.
    fn skip_group(&mut self, number: u32) -> Result<usize, BadWire> {
        let mut open = vec![number];
        loop {
            let left = self.bytes.len();
            let tag = self.varint()?;
            let number = u32::try_from(tag >> 3).map_err(|_| BadWire)?;
            match tag & 7 {
                0 => _ = self.varint()?,
                1 => _ = self.fixed64()?,
                2 => {
                    let length = usize::try_from(self.varint()?).map_err(|_| BadWire)?;
                    self.bytes = self.bytes.get(length..).ok_or(BadWire)?;
                }
                3 if open.len() < MAX_DEPTH as usize => open.push(number),
                4 if open.pop() == Some(number) => {
                    if open.is_empty() {
                        return Ok(left);
                    }
                }
                5 => _ = self.fixed32()?,
                _ => return Err(BadWire),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_come_back(value: u64, signed: i64) {
            let mut out = Vec::new();
            put_varint(value, &mut out);
            let mut records = Records::new(&out);
            prop_assert_eq!(records.varint(), Ok(value));
            prop_assert!(records.is_empty());
            prop_assert_eq!(unzigzag(zigzag(signed)), signed);
        }

        #[test]
        fn records_come_back(number in 1_u32..1 << 29, lengths in proptest::collection::vec(0_usize..20_000, 0..4)) {
            let mut out = Vec::new();
            for length in &lengths {
                put_tag(number, 2, &mut out);
                let _ = put_record::<()>(&mut out, |out| {
                    out.resize(out.len() + length, 7);
                    Ok(())
                });
            }
            let mut records = Records::new(&out);
            for length in &lengths {
                prop_assert_eq!(records.next(), Ok(Some((number, Record::Bytes(&vec![7; *length])))));
            }
            prop_assert_eq!(records.next(), Ok(None));
        }

        #[test]
        fn any_bytes_are_records_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut records = Records::new(&bytes);
            while let Ok(Some(_)) = records.next() {}
        }
    }

    #[test]
    fn groups_end_where_they_began() {
        let read = |bytes: &'static [u8]| Records::new(bytes).next();
        assert_eq!(read(&[0x0b, 0x10, 5, 0x0c]), Ok(Some((1, Record::Group(&[0x10, 5])))));
        assert_eq!(read(&[0x0b, 0x13, 0x14, 0x0c]), Ok(Some((1, Record::Group(&[0x13, 0x14])))));
        assert_eq!(read(&[0x0b, 0x14]), Err(BadWire));
        assert_eq!(read(&[0x0c]), Err(BadWire));
    }
}
