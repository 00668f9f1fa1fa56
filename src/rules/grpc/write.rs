//! JSON from messages (ProtoJSON). The text is written as the encoding is read: there is no tree of values.

use std::borrow::Cow;

use ahash::AHashMap;
use smallvec::SmallVec;

use super::literal::{write_base64, write_double, write_float, write_integer, write_quoted, write_text};
use super::types::{Field, Form, Kind, Label, MessageId, MessageType, Types};
use super::well_known::{write_duration, write_mask_path, write_timestamp};
use super::wire::{BadWire, MAX_DEPTH, Record, Records, unzigzag};

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonStyle {
    /// Whether fields are written that have their default, if their presence does not count.
    pub defaults: bool,
    /// Whether fields have the names of the `.proto` file.
    pub proto_names: bool,
    /// Whether enums are numbers.
    pub enum_numbers: bool,
}

/// Why a message has no JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwritable(pub Cow<'static, str>);

impl From<BadWire> for Unwritable {
    fn from(_: BadWire) -> Self {
        Self("it is no encoding of the message".into())
    }
}

type Written<T = ()> = Result<T, Unwritable>;

/// One record of a field: the index of the field, the place of its value, and the value if it has no place.
#[derive(Clone, Copy)]
struct Found<'w> {
    field: u32,
    record: Record<'w>,
}

/// Writes messages as JSON.
#[derive(Debug)]
pub struct JsonWriter<'t> {
    types: &'t Types,
    style: JsonStyle,
    /// The longest text in bytes: a few bytes of a message may be a long text, with all defaults.
    most: usize,
    depth: u32,
}

impl<'t> JsonWriter<'t> {
    /// Returns a writer of texts of about `most` bytes at most.
    pub fn new(types: &'t Types, style: JsonStyle, most: usize) -> Self {
        Self { types, style, most, depth: 0 }
    }

    /// Appends a message.
    ///
    /// # Errors
    /// Fails where the bytes are not its encoding, or have no form in JSON.
    pub fn message(&mut self, id: MessageId, bytes: &[u8], out: &mut Vec<u8>) -> Written {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Unwritable("its messages are too deep within each other".into()));
        }
        if out.len() > self.most {
            return Err(Unwritable("its JSON is too long".into()));
        }
        let of = self.types.message(id);
        match of.form {
            Form::Plain => {
                out.push(b'{');
                self.members(of, bytes, true, out)?;
                out.push(b'}');
            }
            _ => self.special(of, bytes, out)?,
        }
        self.depth -= 1;
        Ok(())
    }

    /// Appends the value of one field of a message, or its default.
    ///
    /// # Errors
    /// As for [`Self::message`].
    pub fn field(&mut self, id: MessageId, index: usize, bytes: &[u8], out: &mut Vec<u8>) -> Written {
        let of = self.types.message(id);
        let Some(field) = of.fields.get(index) else { return Ok(()) };
        let found = find(of, bytes)?;
        let of_field: SmallVec<[Record<'_>; 8]> =
            found.iter().filter(|f| f.field as usize == index).map(|f| f.record).collect();
        if of_field.is_empty() { self.default(field, out) } else { self.value(field, &of_field, out) }
    }

    /// Appends the members of an object, without its brackets.
    fn members(&mut self, of: &MessageType, bytes: &[u8], mut is_first: bool, out: &mut Vec<u8>) -> Written {
        let found = find(of, bytes)?;
        let mut at = 0;
        let mut records: SmallVec<[Record<'_>; 8]> = SmallVec::new();
        for (index, field) in of.fields.iter().enumerate() {
            records.clear();
            while let Some(one) = found.get(at).filter(|one| one.field as usize == index) {
                records.push(one.record);
                at += 1;
            }
            let is_there = match records.last() {
                None => false,
                Some(last) if field.label == Label::Single && !field.has_presence => !is_default(field.kind, last),
                Some(_) => self.is_last_of_oneof(of, field, index, bytes)?,
            };
            if !is_there && (!self.style.defaults || field.has_presence) {
                continue;
            }
            if !is_first {
                out.push(b',');
            }
            is_first = false;
            self.name(if self.style.proto_names { &field.name } else { &field.json_name }, out);
            if is_there { self.value(field, &records, out)? } else { self.default(field, out)? }
        }
        Ok(())
    }

    /// Returns whether the field is the last of its oneof that is there, which alone counts.
    fn is_last_of_oneof(&self, of: &MessageType, field: &Field, index: usize, bytes: &[u8]) -> Written<bool> {
        if field.oneof.is_none() {
            return Ok(true);
        }
        let (mut records, mut last) = (Records::new(bytes), index);
        while let Some((number, _)) = records.next()? {
            if let Some(at) = of.index_of_number(number).filter(|at| of.fields[*at].oneof == field.oneof) {
                last = at;
            }
        }
        Ok(last == index)
    }

    fn name(&self, name: &str, out: &mut Vec<u8>) {
        // The names of fields have no character that needs an escape.
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
    }

    fn default(&mut self, field: &Field, out: &mut Vec<u8>) -> Written {
        if let (Label::Single, Some(id)) = (field.label, field.kind.message())
            && self.types.message(id).form == Form::Plain
        {
            return self.message(id, &[], out);
        }
        let text: &[u8] = match (field.label, field.kind) {
            (Label::Map, _) => b"{}",
            (Label::Repeated { .. }, _) => b"[]",
            (_, Kind::Message(_) | Kind::Group(_)) => b"null",
            (_, Kind::String | Kind::Bytes) => b"\"\"",
            (_, Kind::Bool) => b"false",
            (_, Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64) => b"\"0\"",
            (_, Kind::Enum(number)) => {
                let first = self.types.enum_type(number).values.first().map_or(0, |(_, number)| *number);
                self.enum_value(number, first, out);
                return Ok(());
            }
            _ => b"0",
        };
        out.extend_from_slice(text);
        Ok(())
    }

    fn value(&mut self, field: &Field, records: &[Record<'_>], out: &mut Vec<u8>) -> Written {
        match field.label {
            Label::Single => self.last(field.kind, records, out),
            Label::Map => self.map(field, records, out),
            Label::Repeated { .. } => {
                out.push(b'[');
                let before = out.len();
                for record in records {
                    match (record, field.kind.wire_type()) {
                        (Record::Bytes(packed), wire @ (0 | 1 | 5)) => {
                            let mut packed = Records::new(packed);
                            while !packed.is_empty() {
                                let record = match wire {
                                    0 => Record::Varint(packed.varint()?),
                                    1 => Record::Fixed64(packed.fixed64()?),
                                    _ => Record::Fixed32(packed.fixed32()?),
                                };
                                comma(before, out);
                                self.one(field.kind, record, out)?;
                            }
                        }
                        _ => {
                            comma(before, out);
                            self.one(field.kind, *record, out)?;
                        }
                    }
                }
                out.push(b']');
                Ok(())
            }
        }
    }

    /// Appends a value that is there several times: the last counts, and messages are merged.
    fn last(&mut self, kind: Kind, records: &[Record<'_>], out: &mut Vec<u8>) -> Written {
        match (kind.message(), records) {
            (Some(id), [_, _, ..]) => {
                let mut merged = Vec::new();
                for record in records {
                    let (Record::Bytes(bytes) | Record::Group(bytes)) = record else { return Err(BadWire.into()) };
                    merged.extend_from_slice(bytes);
                }
                self.message(id, &merged, out)
            }
            (_, [.., last]) => self.one(kind, *last, out),
            (_, []) => Ok(()),
        }
    }

    fn one(&mut self, kind: Kind, record: Record<'_>, out: &mut Vec<u8>) -> Written {
        match (kind, record) {
            (Kind::Double, Record::Fixed64(value)) => write_double(f64::from_bits(value), out),
            (Kind::Float, Record::Fixed32(value)) => write_float(f32::from_bits(value), out),
            (Kind::Int32, Record::Varint(value)) => write_integer(value as i32, out),
            (Kind::Uint32, Record::Varint(value)) => write_integer(value as u32, out),
            (Kind::Sint32, Record::Varint(value)) => write_integer(unzigzag(u64::from(value as u32)) as i32, out),
            (Kind::Fixed32, Record::Fixed32(value)) => write_integer(value, out),
            (Kind::Sfixed32, Record::Fixed32(value)) => write_integer(value as i32, out),
            (Kind::Int64, Record::Varint(value)) => write_quoted(value as i64, out),
            (Kind::Uint64, Record::Varint(value)) => write_quoted(value, out),
            (Kind::Sint64, Record::Varint(value)) => write_quoted(unzigzag(value), out),
            (Kind::Fixed64, Record::Fixed64(value)) => write_quoted(value, out),
            (Kind::Sfixed64, Record::Fixed64(value)) => write_quoted(value as i64, out),
            (Kind::Bool, Record::Varint(value)) => {
                out.extend_from_slice(if value == 0 { b"false" } else { b"true" });
            }
            (Kind::Enum(number), Record::Varint(value)) => self.enum_value(number, value as i32, out),
            (Kind::String, Record::Bytes(bytes)) => write_text(text_of(bytes)?, out),
            (Kind::Bytes, Record::Bytes(bytes)) => write_base64(bytes, out),
            (Kind::Message(id), Record::Bytes(bytes)) | (Kind::Group(id), Record::Group(bytes)) => {
                return self.message(id, bytes, out);
            }
            _ => return Err(BadWire.into()),
        }
        Ok(())
    }

    fn enum_value(&self, number: u32, value: i32, out: &mut Vec<u8>) {
        let of = self.types.enum_type(number);
        match of.name_of(value) {
            _ if of.is_null => out.extend_from_slice(b"null"),
            Some(name) if !self.style.enum_numbers => {
                out.push(b'"');
                out.extend_from_slice(name.as_bytes());
                out.push(b'"');
            }
            _ => write_integer(value, out),
        }
    }

    fn map(&mut self, field: &Field, records: &[Record<'_>], out: &mut Vec<u8>) -> Written {
        let entry = field.kind.message().map(|id| self.types.message(id));
        let Some([key, value]) = entry.map(|entry| entry.fields.as_slice()) else { return Err(BadWire.into()) };
        let mut entries: Vec<(Vec<u8>, SmallVec<[Record<'_>; 1]>)> = Vec::with_capacity(records.len());
        let mut places: AHashMap<Vec<u8>, usize> = AHashMap::new();
        for record in records {
            let Record::Bytes(bytes) = record else { return Err(BadWire.into()) };
            let (mut inner, mut name, mut values) = (Records::new(bytes), None, SmallVec::new());
            while let Some((number, record)) = inner.next()? {
                match number {
                    1 => name = Some(record),
                    2 => values.push(record),
                    _ => {}
                }
            }
            let name = self.key(key, name)?;
            // A later entry of the same key replaces the earlier one.
            match (records.len() > 1).then(|| places.insert(name.clone(), entries.len())).flatten() {
                Some(at) => {
                    entries[at].1 = values;
                    places.insert(name, at);
                }
                None => entries.push((name, values)),
            }
        }
        out.push(b'{');
        let before = out.len();
        for (name, values) in &entries {
            comma(before, out);
            out.extend_from_slice(name);
            out.push(b':');
            match (values.as_slice(), value.kind) {
                ([], _) => self.default(value, out)?,
                (values, kind) => self.last(kind, values, out)?,
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// Returns the key of an entry as the name of a member, in quotes.
    fn key(&mut self, key: &Field, record: Option<Record<'_>>) -> Written<Vec<u8>> {
        let mut name = Vec::new();
        match record {
            Some(record) => self.one(key.kind, record, &mut name)?,
            None => self.default(key, &mut name)?,
        }
        if name.first() != Some(&b'"') {
            name.insert(0, b'"');
            name.push(b'"');
        }
        Ok(name)
    }

    fn special(&mut self, of: &MessageType, bytes: &[u8], out: &mut Vec<u8>) -> Written {
        match of.form {
            Form::Plain => Ok(()),
            Form::Any => self.any(bytes, out),
            Form::Timestamp | Form::Duration => {
                let (seconds, nanos) = seconds(bytes)?;
                let mut text = String::with_capacity(40);
                let is_time = of.form == Form::Timestamp;
                let write = if is_time { write_timestamp } else { write_duration };
                write(seconds, nanos, &mut text).map_err(|()| {
                    Unwritable(if is_time { "a time is out of range" } else { "a duration is out of range" }.into())
                })?;
                write_text(&text, out);
                Ok(())
            }
            Form::FieldMask => {
                let mut text = String::new();
                let mut records = Records::new(bytes);
                while let Some((number, record)) = records.next()? {
                    if let (1, Record::Bytes(path)) = (number, record) {
                        if !text.is_empty() {
                            text.push(',');
                        }
                        let bad = |()| Unwritable("a path of a field mask has no form in JSON".into());
                        write_mask_path(text_of(path)?, &mut text).map_err(bad)?;
                    }
                }
                write_text(&text, out);
                Ok(())
            }
            Form::Wrapper => {
                let Some(field) = of.fields.first() else { return Ok(()) };
                match find(of, bytes)?.last() {
                    Some(found) => self.one(field.kind, found.record, out),
                    None => self.default(field, out),
                }
            }
            Form::Struct => match of.fields.first() {
                Some(fields) => {
                    let found = find(of, bytes)?;
                    let records: SmallVec<[Record<'_>; 8]> = found.iter().map(|found| found.record).collect();
                    self.map(fields, &records, out)
                }
                None => Ok(()),
            },
            Form::List => match of.fields.first() {
                Some(values) => {
                    let found = find(of, bytes)?;
                    let records: SmallVec<[Record<'_>; 8]> = found.iter().map(|found| found.record).collect();
                    self.value(values, &records, out)
                }
                None => Ok(()),
            },
            Form::Value => {
                let (mut records, mut last) = (Records::new(bytes), None);
                while let Some((number, record)) = records.next()? {
                    last = of.index_of_number(number).map(|index| (index, record)).or(last);
                }
                let Some((index, record)) = last else {
                    out.extend_from_slice(b"null");
                    return Ok(());
                };
                self.one(of.fields[index].kind, record, out)
            }
        }
    }

    /// Appends a message of a type that is named with it. One that is not known is kept as it is, in base64.
    fn any(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Written {
        let (mut records, mut url, mut value) = (Records::new(bytes), "", &b""[..]);
        while let Some((number, record)) = records.next()? {
            match (number, record) {
                (1, Record::Bytes(bytes)) => url = text_of(bytes)?,
                (2, Record::Bytes(bytes)) => value = bytes,
                _ => {}
            }
        }
        if url.is_empty() && value.is_empty() {
            out.extend_from_slice(b"{}");
            return Ok(());
        }
        out.extend_from_slice(b"{\"@type\":");
        write_text(url, out);
        let name = url.rsplit_once('/').map_or(url, |(_, name)| name);
        match self.types.id(name) {
            Some(id) if self.types.message(id).form == Form::Plain => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(Unwritable("its messages are too deep within each other".into()));
                }
                self.members(self.types.message(id), value, false, out)?;
                self.depth -= 1;
            }
            Some(id) => {
                out.extend_from_slice(b",\"value\":");
                self.message(id, value, out)?;
            }
            None => {
                out.extend_from_slice(b",\"value\":");
                write_base64(value, out);
            }
        }
        out.push(b'}');
        Ok(())
    }
}

/// Returns the records of the fields that are known, in the order of the fields.
fn find<'w>(of: &MessageType, bytes: &'w [u8]) -> Written<SmallVec<[Found<'w>; 16]>> {
    let mut found: SmallVec<[Found<'w>; 16]> = SmallVec::new();
    let mut records = Records::new(bytes);
    let mut is_sorted = true;
    while let Some((number, record)) = records.next()? {
        if let Some(index) = of.index_of_number(number) {
            let field = u32::try_from(index).unwrap_or(u32::MAX);
            is_sorted &= found.last().is_none_or(|last| last.field <= field);
            found.push(Found { field, record });
        }
    }
    if !is_sorted {
        found.sort_by_key(|one| one.field);
    }
    Ok(found)
}

/// Returns whether a value is the default of its kind.
fn is_default(kind: Kind, record: &Record<'_>) -> bool {
    match record {
        Record::Varint(value) => match kind {
            Kind::Int32 | Kind::Uint32 | Kind::Enum(_) => *value as u32 == 0,
            _ => *value == 0,
        },
        // A negative zero is not the default.
        Record::Fixed64(value) => *value == 0,
        Record::Fixed32(value) => *value == 0,
        Record::Bytes(bytes) => bytes.is_empty(),
        Record::Group(_) => false,
    }
}

fn comma(before: usize, out: &mut Vec<u8>) {
    if out.len() > before {
        out.push(b',');
    }
}

fn text_of(bytes: &[u8]) -> Written<&str> {
    std::str::from_utf8(bytes).map_err(|_| Unwritable("a text is not UTF-8".into()))
}

fn seconds(bytes: &[u8]) -> Written<(i64, i32)> {
    let (mut records, mut seconds, mut nanos) = (Records::new(bytes), 0, 0);
    while let Some((number, record)) = records.next()? {
        match (number, record) {
            (1, Record::Varint(value)) => seconds = value as i64,
            (2, Record::Varint(value)) => nanos = value as i32,
            _ => {}
        }
    }
    Ok((seconds, nanos))
}
