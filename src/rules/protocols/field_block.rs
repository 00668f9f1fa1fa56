//! Field blocks of HTTP/2 (HPACK, RFC 7541): the number of fields, and whether one of them is a pseudo-header.
//!
//! Neither needs the fields themselves. The parser tracks the end of each representation and, of the dynamic table,
//! one bit per entry: whether its name begins with a colon. An index counts from the latest entry (section 2.3.3), so
//! that evicted entries are never referred to and need not be known.

/// The last entry of the static table (appendix A) that is a pseudo-header, and the last of all.
const STATIC_PSEUDO: u32 = 14;
const STATIC: u32 = 61;

/// The first seven bits of a Huffman-coded `:` (appendix B).
const HUFFMAN_COLON: u8 = 0b101_1100;

/// The meaning of a multi-octet integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Indexed,
    /// The index of a name; whether the field is added to the table.
    Name(bool),
    TableSize,
    NameLength {
        huffman: bool,
    },
    ValueLength,
}

#[derive(Clone, Copy, Debug)]
enum BlockState {
    Representation,
    Number {
        what: Number,
        value: u32,
        shift: u32,
    },
    NameLength,
    /// The first octet of a name.
    Name {
        left: u32,
        huffman: bool,
    },
    RestOfName {
        left: u32,
    },
    ValueLength,
    Value {
        left: u32,
    },
}

/// Tracks the field blocks of one connection in one direction.
#[derive(Debug)]
pub struct FieldBlocks {
    at: BlockState,
    /// Whether the current field is added to the table, and whether it is a pseudo-header.
    adds: bool,
    pseudo: bool,
    /// One bit per entry of the dynamic table, the latest lowest: 4,096 bytes hold at most 128 entries.
    entries: u128,
    /// The number of fields in the current block.
    fields: u32,
    has_pseudo: bool,
}

impl Default for FieldBlocks {
    fn default() -> Self {
        Self { at: BlockState::Representation, adds: false, pseudo: false, entries: 0, fields: 0, has_pseudo: false }
    }
}

impl FieldBlocks {
    /// Returns the number of fields that have begun in the current block.
    pub fn fields(&self) -> u32 {
        self.fields
    }

    /// Returns whether one of them is a pseudo-header.
    pub fn has_pseudo(&self) -> bool {
        self.has_pseudo
    }

    /// Ends a block; another may begin.
    pub fn end(&mut self) {
        (self.at, self.fields, self.has_pseudo) = (BlockState::Representation, 0, false);
    }

    /// Processes a part of a block.
    pub fn push(&mut self, mut part: &[u8]) {
        while let Some((&octet, rest)) = part.split_first() {
            match &mut self.at {
                BlockState::RestOfName { left } | BlockState::Value { left } => {
                    let taken = part.len().min(*left as usize);
                    *left -= taken as u32;
                    let done = *left == 0;
                    part = &part[taken..];
                    if done {
                        self.end_of_string();
                    }
                    continue;
                }
                _ => self.octet(octet),
            }
            part = rest;
        }
    }

    fn octet(&mut self, octet: u8) {
        match self.at {
            BlockState::Representation => self.representation(octet),
            BlockState::Number { what, value, shift } => {
                // A value that does not fit is an error of the decoder behind this one, as are lengths beyond the
                // block.
                let more = u32::from(octet & 0x7f).checked_shl(shift).unwrap_or(u32::MAX);
                let value = value.saturating_add(more);
                if octet & 0x80 == 0 {
                    self.number(what, value);
                } else {
                    self.at = BlockState::Number { what, value, shift: shift + 7 };
                }
            }
            BlockState::NameLength => self.prefixed(octet, 7, Number::NameLength { huffman: octet & 0x80 != 0 }),
            BlockState::ValueLength => self.prefixed(octet, 7, Number::ValueLength),
            BlockState::Name { left, huffman } => {
                self.pseudo = if huffman { octet >> 1 == HUFFMAN_COLON } else { octet == b':' };
                self.at = BlockState::RestOfName { left: left - 1 };
                if left == 1 {
                    self.end_of_string();
                }
            }
            BlockState::RestOfName { .. } | BlockState::Value { .. } => {}
        }
    }

    fn representation(&mut self, octet: u8) {
        match octet {
            0x80.. => self.prefixed(octet, 7, Number::Indexed),
            0x40.. => self.prefixed(octet, 6, Number::Name(true)),
            0x20.. => self.prefixed(octet, 5, Number::TableSize),
            _ => self.prefixed(octet, 4, Number::Name(false)),
        }
    }

    /// Processes an integer that begins with so many bits of an octet (section 5.1).
    fn prefixed(&mut self, octet: u8, bits: u32, what: Number) {
        let most = (1_u32 << bits) - 1;
        let value = u32::from(octet) & most;
        if value < most {
            self.number(what, value);
        } else {
            self.at = BlockState::Number { what, value, shift: 0 };
        }
    }

    fn number(&mut self, what: Number, value: u32) {
        self.at = match what {
            Number::TableSize => BlockState::Representation,
            Number::Indexed => {
                (self.adds, self.pseudo) = (false, self.is_pseudo(value));
                self.field();
                BlockState::Representation
            }
            Number::Name(adds) => {
                (self.adds, self.pseudo) = (adds, self.is_pseudo(value));
                if value == 0 { BlockState::NameLength } else { BlockState::ValueLength }
            }
            Number::NameLength { huffman } if value > 0 => BlockState::Name { left: value, huffman },
            Number::NameLength { .. } => BlockState::ValueLength,
            Number::ValueLength if value > 0 => BlockState::Value { left: value },
            Number::ValueLength => {
                self.field();
                BlockState::Representation
            }
        };
    }

    fn end_of_string(&mut self) {
        self.at = match self.at {
            BlockState::RestOfName { .. } => BlockState::ValueLength,
            _ => {
                self.field();
                BlockState::Representation
            }
        };
    }

    /// Counts a complete field.
    fn field(&mut self) {
        self.fields = self.fields.saturating_add(1);
        self.has_pseudo |= self.pseudo;
        if self.adds {
            self.entries = self.entries << 1 | u128::from(self.pseudo);
        }
    }

    fn is_pseudo(&self, index: u32) -> bool {
        match index {
            0 => false,
            1..=STATIC_PSEUDO => true,
            15..=STATIC => false,
            _ => index - STATIC <= 128 && self.entries >> (index - STATIC - 1) & 1 == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A field as a client may write it; the naive model keeps the whole table.
    #[derive(Clone, Debug)]
    enum TestField {
        Static(u32),
        Dynamic(usize),
        NameOf { index: u32, adds: bool, value: Vec<u8> },
        New { name: String, adds: bool, value: Vec<u8> },
        TableSize(u32),
    }

    fn integer(out: &mut Vec<u8>, first: u8, bits: u32, mut value: u32) {
        let most = (1 << bits) - 1;
        if value < most {
            return out.push(first | value as u8);
        }
        out.push(first | most as u8);
        value -= most;
        while value >= 128 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    fn string(out: &mut Vec<u8>, text: &[u8]) {
        integer(out, 0, 7, text.len() as u32);
        out.extend_from_slice(text);
    }

    /// Writes a field; returns whether it is a pseudo-header, or `None` if it is no field.
    fn write(out: &mut Vec<u8>, table: &mut Vec<bool>, field: &TestField) -> Option<bool> {
        match field {
            TestField::TableSize(size) => {
                integer(out, 0x20, 5, *size);
                None
            }
            TestField::Static(index) => {
                integer(out, 0x80, 7, *index);
                Some(*index <= 14)
            }
            TestField::Dynamic(back) if table.is_empty() => {
                write(out, table, &TestField::Static(1 + *back as u32 % 61))
            }
            TestField::Dynamic(back) => {
                let back = back % table.len().min(128);
                integer(out, 0x80, 7, 62 + back as u32);
                Some(table[table.len() - 1 - back])
            }
            TestField::NameOf { index, adds, value } => {
                if *adds {
                    integer(out, 0x40, 6, *index);
                } else {
                    integer(out, 0x10, 4, *index);
                }
                string(out, value);
                table.extend(adds.then_some(*index <= 14));
                Some(*index <= 14)
            }
            TestField::New { name, adds, value } => {
                out.push(if *adds { 0x40 } else { 0 });
                string(out, name.as_bytes());
                string(out, value);
                table.extend(adds.then_some(name.starts_with(':')));
                Some(name.starts_with(':'))
            }
        }
    }

    fn field() -> impl Strategy<Value = TestField> {
        let value = || proptest::collection::vec(any::<u8>(), 0..300);
        prop_oneof![
            (1_u32..=61).prop_map(TestField::Static),
            any::<usize>().prop_map(TestField::Dynamic),
            (1_u32..=61, any::<bool>(), value()).prop_map(|(index, adds, value)| TestField::NameOf {
                index,
                adds,
                value
            }),
            (":?[a-z]{1,9}", any::<bool>(), value()).prop_map(|(name, adds, value)| TestField::New {
                name,
                adds,
                value
            }),
            (0_u32..5_000).prop_map(TestField::TableSize),
        ]
    }

    proptest! {
        #[test]
        fn fields_are_counted_however_they_are_cut(
            blocks in proptest::collection::vec(proptest::collection::vec(field(), 0..20), 1..4),
            cut in 1_usize..40,
        ) {
            let (mut follows, mut table) = (FieldBlocks::default(), Vec::new());
            for block in blocks {
                let mut out = Vec::new();
                let fields: Vec<bool> = block.iter().filter_map(|field| write(&mut out, &mut table, field)).collect();
                out.chunks(cut).for_each(|part| follows.push(part));
                prop_assert_eq!(follows.fields() as usize, fields.len());
                prop_assert_eq!(follows.has_pseudo(), fields.contains(&true));
                follows.end();
            }
        }
    }

    #[test]
    fn a_huffman_coded_colon_is_one() {
        // ":path" and "accept", Huffman-coded, each with an empty value.
        for (name, pseudo) in [(&[0xb9, 0x58, 0xd3, 0x3f][..], true), (&[0x19, 0x08, 0x5a, 0xd3][..], false)] {
            let mut follows = FieldBlocks::default();
            follows.push(&[0x00, 0x80 | name.len() as u8]);
            follows.push(name);
            follows.push(&[0]);
            assert_eq!((follows.fields(), follows.has_pseudo()), (1, pseudo));
        }
    }
}
