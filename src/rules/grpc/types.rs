//! The messages and enums of a set of descriptors, compiled for reading and writing: no type is found by its name then.

use ahash::AHashMap;
use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind as Described, MessageDescriptor, Syntax};

/// The number of a message in [`Types`].
pub type MessageId = u32;

/// All messages and enums.
#[derive(Debug, Default)]
pub struct Types {
    messages: Vec<MessageType>,
    enums: Vec<EnumType>,
    by_name: AHashMap<Box<str>, MessageId>,
}

/// A message.
#[derive(Debug)]
pub struct MessageType {
    /// Its full name.
    pub name: Box<str>,
    /// Its form in JSON.
    pub form: Form,
    /// Its fields in the order of their numbers.
    pub fields: Vec<Field>,
    by_name: AHashMap<Box<str>, u32>,
}

/// The form of a message in JSON (ProtoJSON, "Field representation").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An object with a member for each field.
    Plain,
    /// An object with `@type`.
    Any,
    /// A text, RFC 3339.
    Timestamp,
    /// A text such as `1.5s`.
    Duration,
    /// A text of paths with commas.
    FieldMask,
    /// The value of its only field.
    Wrapper,
    /// An object of any values.
    Struct,
    /// Any value.
    Value,
    /// A list of any values.
    List,
}

impl Form {
    /// Returns whether it is one text or number, so that it can stand in a path or a query.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Timestamp | Self::Duration | Self::FieldMask | Self::Wrapper)
    }
}

/// A field.
#[derive(Debug)]
pub struct Field {
    /// Its name in the `.proto` file.
    pub name: Box<str>,
    /// Its name in JSON.
    pub json_name: Box<str>,
    /// Its number.
    pub number: u32,
    /// The type of its value.
    pub kind: Kind,
    /// How often it may be there.
    pub label: Label,
    /// Whether its absence is distinct from its default.
    pub has_presence: bool,
    /// The number of its oneof, if it is in one.
    pub oneof: Option<u32>,
}

/// How often a field may be in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// At most once.
    Single,
    /// Any number of times.
    Repeated {
        /// Whether the values are written in one record.
        packed: bool,
    },
    /// As entries of a map: the type is that of the entries.
    Map,
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the language")]
pub enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(u32),
    Message(MessageId),
    /// A message between two tags (proto2).
    Group(MessageId),
}

impl Kind {
    /// Returns the message, if it is one.
    pub fn message(self) -> Option<MessageId> {
        match self {
            Self::Message(id) | Self::Group(id) => Some(id),
            _ => None,
        }
    }

    /// Returns its wire type (Protocol Buffers, "Encoding").
    pub fn wire_type(self) -> u8 {
        match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => 1,
            Self::Float | Self::Fixed32 | Self::Sfixed32 => 5,
            Self::String | Self::Bytes | Self::Message(_) => 2,
            Self::Group(_) => 3,
            _ => 0,
        }
    }
}

/// An enum.
#[derive(Debug)]
pub struct EnumType {
    /// Whether it is `google.protobuf.NullValue`.
    pub is_null: bool,
    /// Whether it has no other values than those of its declaration.
    pub is_closed: bool,
    /// The values in the order of their declaration.
    pub values: Vec<(Box<str>, i32)>,
    by_name: AHashMap<Box<str>, i32>,
    by_number: AHashMap<i32, u32>,
}

impl EnumType {
    /// Returns the number of a name.
    pub fn number(&self, name: &str) -> Option<i32> {
        self.by_name.get(name).copied()
    }

    /// Returns the first name of a number.
    pub fn name_of(&self, number: i32) -> Option<&str> {
        self.by_number.get(&number).and_then(|at| self.values.get(*at as usize)).map(|(name, _)| &**name)
    }
}

impl MessageType {
    /// Returns the index of the field with that name in JSON or in the `.proto` file.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).map(|index| *index as usize)
    }

    /// Returns the field with that name in JSON or in the `.proto` file.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.get(self.index_of(name)?)
    }

    /// Returns the index of the field with that number.
    pub fn index_of_number(&self, number: u32) -> Option<usize> {
        // Most messages number their fields from 1 on, without a gap.
        let guess = (number as usize).wrapping_sub(1);
        if self.fields.get(guess).is_some_and(|field| field.number == number) {
            return Some(guess);
        }
        self.fields.binary_search_by_key(&number, |field| field.number).ok()
    }
}

impl Types {
    /// Returns the types of all files of a pool.
    pub fn new(pool: &DescriptorPool) -> Self {
        let messages: Vec<MessageDescriptor> = pool.all_messages().collect();
        let enums: Vec<EnumDescriptor> = pool.all_enums().collect();
        let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let by_name: AHashMap<Box<str>, MessageId> =
            messages.iter().enumerate().map(|(at, message)| (message.full_name().into(), number(at))).collect();
        let enums_by_name: AHashMap<&str, u32> =
            enums.iter().enumerate().map(|(at, one)| (one.full_name(), number(at))).collect();
        let kind_of = |field: &FieldDescriptor| kind_of(field, &by_name, &enums_by_name);
        let messages = messages.iter().map(|message| message_type(message, &kind_of)).collect();
        Self { messages, enums: enums.iter().map(enum_type).collect(), by_name }
    }

    /// Returns a message.
    pub fn message(&self, id: MessageId) -> &MessageType {
        &self.messages[id as usize]
    }

    /// Returns the number of the message of that full name.
    pub fn id(&self, name: &str) -> Option<MessageId> {
        self.by_name.get(name).copied()
    }

    /// Returns an enum.
    pub fn enum_type(&self, number: u32) -> &EnumType {
        &self.enums[number as usize]
    }

    /// Returns the field of a path of names, with the indices of all steps.
    ///
    /// # Errors
    /// Returns why there is no such field, in the words of an error of a configuration.
    pub fn resolve(&self, start: MessageId, path: &[&str]) -> Result<FieldPath, String> {
        let mut steps = Vec::with_capacity(path.len());
        let mut message = Some(start);
        for (depth, name) in path.iter().enumerate() {
            let Some(id) = message else {
                return Err(format!("{} is no message: it has no field {name}", path[..depth].join(".")));
            };
            let of = self.message(id);
            if depth > 0 && of.form != Form::Plain {
                return Err(format!("{} has no fields that could be bound", of.name));
            }
            let index = of.index_of(name).ok_or_else(|| format!("{} has no field {name}", of.name))?;
            let field = &of.fields[index];
            if depth + 1 < path.len() && field.label != Label::Single {
                return Err(format!("{} is repeated: fields of it cannot be bound", path[..=depth].join(".")));
            }
            steps.push((id, number_of(index)));
            message = field.kind.message();
        }
        Ok(FieldPath(steps))
    }

    /// Returns the last field of a path.
    pub fn last(&self, path: &FieldPath) -> Option<&Field> {
        path.0.last().map(|step| self.step(*step))
    }

    /// Returns the field of one step of a path.
    pub fn step(&self, (message, field): (MessageId, u32)) -> &Field {
        &self.message(message).fields[field as usize]
    }

    /// Returns whether a value of that kind can be a text in a path or a query.
    pub fn is_text(&self, kind: Kind) -> bool {
        kind.message().is_none_or(|id| self.message(id).form.is_text())
    }
}

fn number_of(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// A path of fields: the message and the index of the field in it, for each step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath(pub Vec<(MessageId, u32)>);

fn message_type(message: &MessageDescriptor, kind_of: &dyn Fn(&FieldDescriptor) -> Kind) -> MessageType {
    let mut described: Vec<FieldDescriptor> = message.fields().collect();
    described.sort_by_key(FieldDescriptor::number);
    let oneofs: Vec<_> = message.oneofs().collect();
    let fields: Vec<Field> = described
        .iter()
        .map(|field| Field {
            name: field.name().into(),
            json_name: field.json_name().into(),
            number: field.number(),
            kind: kind_of(field),
            label: match (field.is_map(), field.is_list()) {
                (true, _) => Label::Map,
                (_, true) => Label::Repeated { packed: field.is_packed() },
                _ => Label::Single,
            },
            has_presence: field.supports_presence(),
            // The oneof of an `optional` field has it alone.
            oneof: field
                .containing_oneof()
                .filter(|oneof| oneof.fields().len() > 1)
                .and_then(|of| oneofs.iter().position(|oneof| *oneof == of))
                .map(number_of),
        })
        .collect();
    let mut by_name = AHashMap::with_capacity(fields.len() * 2);
    for (index, field) in fields.iter().enumerate() {
        by_name.entry(field.json_name.clone()).or_insert(number_of(index));
    }
    for (index, field) in fields.iter().enumerate() {
        by_name.entry(field.name.clone()).or_insert(number_of(index));
    }
    MessageType { name: message.full_name().into(), form: form_of(message.full_name()), fields, by_name }
}

fn form_of(name: &str) -> Form {
    match name.strip_prefix("google.protobuf.").unwrap_or_default() {
        "Any" => Form::Any,
        "Timestamp" => Form::Timestamp,
        "Duration" => Form::Duration,
        "FieldMask" => Form::FieldMask,
        "Struct" => Form::Struct,
        "Value" => Form::Value,
        "ListValue" => Form::List,
        "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value" | "BoolValue"
        | "StringValue" | "BytesValue" => Form::Wrapper,
        _ => Form::Plain,
    }
}

fn kind_of(field: &FieldDescriptor, messages: &AHashMap<Box<str>, MessageId>, enums: &AHashMap<&str, u32>) -> Kind {
    match field.kind() {
        Described::Double => Kind::Double,
        Described::Float => Kind::Float,
        Described::Int32 => Kind::Int32,
        Described::Int64 => Kind::Int64,
        Described::Uint32 => Kind::Uint32,
        Described::Uint64 => Kind::Uint64,
        Described::Sint32 => Kind::Sint32,
        Described::Sint64 => Kind::Sint64,
        Described::Fixed32 => Kind::Fixed32,
        Described::Fixed64 => Kind::Fixed64,
        Described::Sfixed32 => Kind::Sfixed32,
        Described::Sfixed64 => Kind::Sfixed64,
        Described::Bool => Kind::Bool,
        Described::String => Kind::String,
        Described::Bytes => Kind::Bytes,
        Described::Enum(one) => Kind::Enum(enums.get(one.full_name()).copied().unwrap_or_default()),
        Described::Message(one) => {
            let id = messages.get(one.full_name()).copied().unwrap_or_default();
            if field.is_group() { Kind::Group(id) } else { Kind::Message(id) }
        }
    }
}

fn enum_type(one: &EnumDescriptor) -> EnumType {
    let values: Vec<(Box<str>, i32)> =
        one.enum_descriptor_proto().value.iter().map(|value| (value.name().into(), value.number())).collect();
    let mut by_number = AHashMap::with_capacity(values.len());
    for (index, (_, number)) in values.iter().enumerate() {
        by_number.entry(*number).or_insert(number_of(index));
    }
    EnumType {
        is_null: one.full_name() == "google.protobuf.NullValue",
        is_closed: one.parent_file().syntax() == Syntax::Proto2,
        by_name: values.iter().cloned().collect(),
        by_number,
        values,
    }
}
