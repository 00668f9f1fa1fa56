//! Messages from JSON (ProtoJSON). The encoding is written as the text is read: there is no tree of values, so that the
//! memory of a message is that of its text and its encoding.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::bound::Bound;
use super::json::{Cursor, MALFORMED, TOO_DEEP, Token};
use super::scalar::{Expected, put_bytes, put_json_number, put_text};
use super::types::{Field, Form, Kind, Label, MessageId, MessageType, Types};
use super::wire::{MAX_DEPTH, close_record, put_tag, put_varint};

/// The most messages of `Any` within each other: each is looked through twice.
const MAX_ANY_DEPTH: u32 = 8;

/// Why a text is not the JSON of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadJson {
    /// The steps to the place, the innermost first.
    steps: Vec<String>,
    /// The kind of the error, a word.
    pub keyword: &'static str,
    /// What is expected, or what is wrong.
    pub text: Expected,
}

impl BadJson {
    fn new(keyword: &'static str, text: impl Into<Expected>) -> Self {
        Self { steps: Vec::new(), keyword, text: text.into() }
    }

    fn expected(text: impl Into<Expected>) -> Self {
        Self::new("type", format!("expected {}", text.into()))
    }

    fn within(mut self, step: impl Into<String>) -> Self {
        self.steps.push(step.into());
        self
    }

    /// Returns the place of the error, a JSON Pointer (RFC 6901).
    pub fn pointer(&self) -> String {
        self.steps.iter().rev().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect()
    }
}

impl From<&'static str> for BadJson {
    fn from(text: &'static str) -> Self {
        Self::new("json", if text == MALFORMED { text.to_owned() } else { format!("expected {text}") })
    }
}

type Read<T = ()> = Result<T, BadJson>;

/// Reads messages from a text.
#[derive(Debug)]
pub struct JsonReader<'j, 't> {
    types: &'t Types,
    cursor: Cursor<'j>,
    depth: u32,
    any_depth: u32,
}

impl<'j, 't> JsonReader<'j, 't> {
    /// Returns a reader of a text.
    pub fn new(types: &'t Types, text: &'j str) -> Self {
        Self { types, cursor: Cursor::new(text), depth: 0, any_depth: 0 }
    }

    /// Returns whether nothing but spaces is left.
    pub fn is_at_end(&mut self) -> bool {
        self.cursor.peek().is_none()
    }

    /// Checks that nothing but spaces is left.
    ///
    /// # Errors
    /// Fails where there is more.
    pub fn end(&mut self) -> Read {
        if self.is_at_end() { Ok(()) } else { Err(MALFORMED.into()) }
    }

    /// Begins a list.
    ///
    /// # Errors
    /// Fails where there is none.
    pub fn open_list(&mut self) -> Read {
        if self.cursor.eat(b'[') { Ok(()) } else { Err(BadJson::expected("a list of messages")) }
    }

    /// Returns whether the list has another value.
    ///
    /// # Errors
    /// Fails where it is malformed.
    pub fn has_next(&mut self, is_first: bool) -> Read<bool> {
        Ok(self.cursor.has_next(is_first, b']')?)
    }

    /// Appends a message with the fields that are bound already.
    ///
    /// # Errors
    /// Returns why the next value is not that message.
    pub fn message(&mut self, id: MessageId, bound: Option<&Bound<'_>>, out: &mut Vec<u8>) -> Read {
        let of = self.types.message(id);
        if of.form != Form::Plain {
            let token = self.cursor.token()?;
            return self.special(of, token, out);
        }
        if !self.cursor.eat(b'{') {
            return Err(BadJson::expected("an object"));
        }
        self.members(of, bound, false, out)
    }

    /// Appends a field from the next value.
    ///
    /// # Errors
    /// Returns why the next value is not of that field.
    pub fn field(&mut self, field: &Field, bound: Option<&Bound<'_>>, out: &mut Vec<u8>) -> Read {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(TOO_DEEP.into());
        }
        if self.cursor.peek() == Some(b'n') && !self.takes_null(field) {
            self.cursor.token()?;
        } else {
            match field.label {
                Label::Single => self.single(field, bound, out)?,
                Label::Repeated { packed } => self.list(field, packed, out)?,
                Label::Map => self.map(field, out)?,
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Returns whether `null` is a value of the field, and not its absence.
    fn takes_null(&self, field: &Field) -> bool {
        field.label == Label::Single && self.is_nullable(field.kind)
    }

    fn is_nullable(&self, kind: Kind) -> bool {
        match kind {
            Kind::Enum(number) => self.types.enum_type(number).is_null,
            Kind::Message(id) => self.types.message(id).form == Form::Value,
            _ => false,
        }
    }

    /// Reads the members of an object that was opened, up to its end. Within `Any` it has a member for its type.
    fn members(&mut self, of: &MessageType, bound: Option<&Bound<'_>>, in_any: bool, out: &mut Vec<u8>) -> Read {
        let mut seen: SmallVec<[u32; 24]> = SmallVec::new();
        let mut oneofs: SmallVec<[u32; 4]> = SmallVec::new();
        let mut merged: SmallVec<[u32; 4]> = SmallVec::new();
        let mut is_first = true;
        while self.cursor.has_next(is_first, b'}')? {
            is_first = false;
            let name = self.cursor.name()?;
            if in_any && name == "@type" {
                self.cursor.skip(1)?;
                continue;
            }
            let Some(field) = of.field(&name) else {
                return Err(BadJson::new("unknown", format!("{} has no such field", of.name)).within(name));
            };
            if seen.contains(&field.number) {
                return Err(BadJson::new("duplicate", "is there twice").within(name));
            }
            seen.push(field.number);
            let before = out.len();
            let nested = bound.and_then(|bound| bound.within(field.number));
            self.field(field, nested, out).map_err(|bad| bad.within(name.clone()))?;
            if let (Some(oneof), true) = (field.oneof, out.len() > before) {
                if oneofs.contains(&oneof) {
                    return Err(BadJson::new("oneof", "another field of the same oneof is set").within(name));
                }
                oneofs.push(oneof);
            }
            if bound.is_some_and(|bound| bound.has(field.number)) {
                // The path and the query decide.
                out.truncate(before);
            } else if nested.is_some() && out.len() > before {
                merged.push(field.number);
            }
        }
        if let Some(bound) = bound {
            bound.write(&merged, out);
        }
        Ok(())
    }

    fn single(&mut self, field: &Field, bound: Option<&Bound<'_>>, out: &mut Vec<u8>) -> Read {
        put_tag(field.number, field.kind.wire_type(), out);
        self.value(field.kind, bound, out)?;
        if field.kind.wire_type() == 3 {
            put_tag(field.number, 4, out);
        }
        Ok(())
    }

    /// Appends the value of a kind: what follows the tag.
    fn value(&mut self, kind: Kind, bound: Option<&Bound<'_>>, out: &mut Vec<u8>) -> Read {
        match kind {
            Kind::Message(id) => {
                let start = out.len();
                out.push(0);
                self.message(id, bound, out)?;
                close_record(start, out);
                Ok(())
            }
            Kind::Group(id) => self.message(id, bound, out),
            _ => {
                let token = self.cursor.token()?;
                self.scalar(kind, &token, out)
            }
        }
    }

    fn scalar(&self, kind: Kind, token: &Token<'_>, out: &mut Vec<u8>) -> Read {
        let wrong = |text: &'static str| Err(BadJson::expected(text));
        match (token, kind) {
            (Token::Null, Kind::Enum(number)) if self.types.enum_type(number).is_null => put_varint(0, out),
            (Token::Text(_), Kind::Bool) => return wrong("true or false"),
            (Token::Text(text), _) => put_text(self.types, kind, text, true, out).map_err(BadJson::expected)?,
            (Token::Number(text), _) => put_json_number(self.types, kind, text, out).map_err(BadJson::expected)?,
            (Token::Bool(value), Kind::Bool) => out.push(u8::from(*value)),
            (_, Kind::String) => return wrong("a text"),
            (_, Kind::Bytes) => return wrong("a text in base64"),
            (_, Kind::Bool) => return wrong("true or false"),
            (_, Kind::Enum(_)) => return wrong("a name or a number of an enum"),
            _ => return wrong("a number"),
        }
        Ok(())
    }

    fn list(&mut self, field: &Field, packed: bool, out: &mut Vec<u8>) -> Read {
        if !self.cursor.eat(b'[') {
            return Err(BadJson::expected("a list"));
        }
        let mut index = 0_usize;
        let mut start = None;
        while self.cursor.has_next(index == 0, b']')? {
            if self.cursor.peek() == Some(b'n') && !self.is_nullable(field.kind) {
                return Err(BadJson::new("type", "expected a value, found null").within(index.to_string()));
            }
            if packed {
                if start.is_none() {
                    put_tag(field.number, 2, out);
                    start = Some(out.len());
                    out.push(0);
                }
                self.value(field.kind, None, out).map_err(|bad| bad.within(index.to_string()))?;
            } else {
                self.single(field, None, out).map_err(|bad| bad.within(index.to_string()))?;
            }
            index += 1;
        }
        start.iter().for_each(|start| close_record(*start, out));
        Ok(())
    }

    fn map(&mut self, field: &Field, out: &mut Vec<u8>) -> Read {
        let entry = field.kind.message().map(|id| self.types.message(id));
        let Some([key, value]) = entry.map(|entry| entry.fields.as_slice()) else { return Err(MALFORMED.into()) };
        if !self.cursor.eat(b'{') {
            return Err(BadJson::expected("an object"));
        }
        let mut names: Vec<Cow<'j, str>> = Vec::new();
        while self.cursor.has_next(names.is_empty(), b'}')? {
            let name = self.cursor.name()?;
            put_tag(field.number, 2, out);
            let start = out.len();
            out.push(0);
            put_tag(1, key.kind.wire_type(), out);
            put_text(self.types, key.kind, &name, true, out)
                .map_err(|what| BadJson::new("key", format!("expected {what} as the key")).within(name.clone()))?;
            if self.cursor.peek() == Some(b'n') && !self.is_nullable(value.kind) {
                return Err(BadJson::new("type", "expected a value, found null").within(name));
            }
            self.single(value, None, out).map_err(|bad| bad.within(name.clone()))?;
            close_record(start, out);
            // Keys that are numbers can be written in several ways.
            let name = match key.kind {
                Kind::String | Kind::Bool => name,
                _ => super::scalar::integer(&name).map_or(name, |number| number.to_string().into()),
            };
            names.push(name);
        }
        check_names(names)
    }

    /// Appends the content of a message whose form is another than that of an object of its fields.
    fn special(&mut self, of: &MessageType, token: Token<'j>, out: &mut Vec<u8>) -> Read {
        match of.form {
            Form::Plain => Ok(()),
            Form::Any => self.any(&token, out),
            Form::Struct if matches!(token, Token::Object) => self.structure(out),
            Form::Struct => Err(BadJson::expected("an object")),
            Form::List if matches!(token, Token::List) => self.any_list(out),
            Form::List => Err(BadJson::expected("a list")),
            Form::Value => self.any_value(token, out),
            Form::Wrapper => {
                let Some(field) = of.fields.first() else { return Ok(()) };
                put_tag(field.number, field.kind.wire_type(), out);
                self.scalar(field.kind, &token, out)
            }
            Form::Timestamp | Form::Duration | Form::FieldMask => {
                let Token::Text(text) = token else { return Err(BadJson::expected("a text")) };
                let id = self.types.id(&of.name).unwrap_or_default();
                // The length is not wanted here: the record is that of the caller.
                let mut record = Vec::new();
                put_text(self.types, Kind::Message(id), &text, true, &mut record).map_err(BadJson::expected)?;
                let header = record.iter().position(|octet| octet & 0x80 == 0).map_or(0, |at| at + 1);
                out.extend_from_slice(&record[header..]);
                Ok(())
            }
        }
    }

    /// Appends the content of a `google.protobuf.Value`.
    fn any_value(&mut self, token: Token<'j>, out: &mut Vec<u8>) -> Read {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(TOO_DEEP.into());
        }
        match token {
            Token::Null => out.extend_from_slice(&[1 << 3, 0]),
            Token::Number(text) => {
                put_tag(2, 1, out);
                put_json_number(self.types, Kind::Double, text, out).map_err(BadJson::expected)?;
            }
            Token::Text(text) => {
                put_tag(3, 2, out);
                put_bytes(text.as_bytes(), out);
            }
            Token::Bool(value) => out.extend_from_slice(&[4 << 3, u8::from(value)]),
            Token::Object | Token::List => {
                let is_object = matches!(token, Token::Object);
                put_tag(if is_object { 5 } else { 6 }, 2, out);
                let start = out.len();
                out.push(0);
                if is_object {
                    self.structure(out)?;
                } else {
                    self.any_list(out)?;
                }
                close_record(start, out);
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Appends the content of a `google.protobuf.Struct` whose object was opened.
    fn structure(&mut self, out: &mut Vec<u8>) -> Read {
        let mut names: Vec<Cow<'j, str>> = Vec::new();
        while self.cursor.has_next(names.is_empty(), b'}')? {
            let name = self.cursor.name()?;
            put_tag(1, 2, out);
            let start = out.len();
            out.push(0);
            put_tag(1, 2, out);
            put_bytes(name.as_bytes(), out);
            put_tag(2, 2, out);
            let inner = out.len();
            out.push(0);
            let token = self.cursor.token()?;
            self.any_value(token, out).map_err(|bad| bad.within(name.clone()))?;
            close_record(inner, out);
            close_record(start, out);
            names.push(name);
        }
        check_names(names)
    }

    /// Appends the content of a `google.protobuf.ListValue` whose list was opened.
    fn any_list(&mut self, out: &mut Vec<u8>) -> Read {
        let mut index = 0_usize;
        while self.cursor.has_next(index == 0, b']')? {
            put_tag(1, 2, out);
            let start = out.len();
            out.push(0);
            let token = self.cursor.token()?;
            self.any_value(token, out).map_err(|bad| bad.within(index.to_string()))?;
            close_record(start, out);
            index += 1;
        }
        Ok(())
    }

    /// Appends the content of a `google.protobuf.Any` whose object was opened.
    fn any(&mut self, token: &Token<'_>, out: &mut Vec<u8>) -> Read {
        if !matches!(token, Token::Object) {
            return Err(BadJson::expected("an object"));
        }
        self.any_depth += 1;
        if self.any_depth > MAX_ANY_DEPTH {
            return Err(BadJson::new(
                "depth",
                format!("at most {MAX_ANY_DEPTH} messages of Any are within each other"),
            ));
        }
        let missing =
            || BadJson::new("type", "expected a text, such as type.googleapis.com/package.Message").within("@type");
        let Some(url) = self.type_url()? else {
            // An empty object is an empty Any.
            return if self.cursor.eat(b'}') { Ok(()) } else { Err(missing()) };
        };
        let name = url.rsplit_once('/').map(|(_, name)| name).ok_or_else(missing)?;
        let Some(id) = self.types.id(name) else {
            return Err(BadJson::new("unknown", "no message of that name is known").within("@type"));
        };
        put_tag(1, 2, out);
        put_bytes(url.as_bytes(), out);
        put_tag(2, 2, out);
        let start = out.len();
        out.push(0);
        let of = self.types.message(id);
        if of.form == Form::Plain && &*of.name != "google.protobuf.Empty" {
            self.members(of, None, true, out)?;
        } else {
            self.any_special(of, id, out)?;
        }
        close_record(start, out);
        self.any_depth -= 1;
        Ok(())
    }

    /// Reads the members `@type` and `value`.
    fn any_special(&mut self, of: &MessageType, id: MessageId, out: &mut Vec<u8>) -> Read {
        let (mut is_first, mut has_value) = (true, false);
        while self.cursor.has_next(is_first, b'}')? {
            is_first = false;
            let name = self.cursor.name()?;
            match &*name {
                "@type" => self.cursor.skip(1)?,
                "value" if !has_value => {
                    has_value = true;
                    self.message(id, None, out).map_err(|bad| bad.within("value"))?;
                }
                _ => return Err(BadJson::new("unknown", format!("{} has no such field", of.name)).within(name)),
            }
        }
        Ok(())
    }

    /// Returns the `@type` of the object that was opened, wherever in it that is.
    fn type_url(&mut self) -> Read<Option<Cow<'j, str>>> {
        let mut ahead = self.cursor.clone();
        let (mut is_first, mut url) = (true, None);
        while ahead.has_next(is_first, b'}')? {
            is_first = false;
            if ahead.name()? != "@type" {
                ahead.skip(MAX_DEPTH.saturating_sub(self.depth))?;
                continue;
            }
            let before = match ahead.token()? {
                Token::Text(text) => url.replace(text),
                _ => return Ok(None),
            };
            if before.is_some() {
                return Err(BadJson::new("duplicate", "is there twice").within("@type"));
            }
        }
        Ok(url)
    }
}

/// Checks that no name is there twice.
fn check_names(mut names: Vec<Cow<'_, str>>) -> Read {
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(BadJson::new("duplicate", "is there twice").within(pair[0].clone())),
        None => Ok(()),
    }
}
