//! The values of facts as the interpreter sees them.

use std::any::Any;
use std::collections::HashMap;

use cel::ExecutionError;
use cel::common::traits::{Container, Indexer};
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt, MAP_TYPE, Type,
};
use cel::common::value::{CowVal, StaticVal, Val};
use serde_json::Value as Json;

use super::{Fact, MAX_ITEMS, Members};

/// The type of a compiled pattern, which no expression can name.
pub const PATTERN_TYPE: Type = Type::new_unspecified_type("@pattern");
static TYPE_OF_PATTERN: Type = PATTERN_TYPE;
static TYPE_OF_MAP: Type = MAP_TYPE;
static TYPE_OF_ERROR: Type = Type::new_unspecified_type("@error");

/// A compiled pattern of `matches`.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// The pattern.
    pub regex: regex::Regex,
}

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        &TYPE_OF_PATTERN
    }

    fn cel_type() -> &'static Type {
        &TYPE_OF_PATTERN
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

/// Values by name, read when they are asked for.
#[derive(Clone, Debug)]
struct MembersValue<'v>(&'v dyn Members);

impl Val for MembersValue<'_> {
    fn get_type(&self) -> &Type {
        &TYPE_OF_MAP
    }

    fn cel_type() -> &'static Type {
        &TYPE_OF_MAP
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'w>(&'b self) -> Option<&'b (dyn Indexer + 'w)>
    where
        Self: 'w,
    {
        Some(self)
    }

    fn clone_as_boxed<'w>(&self) -> Box<dyn Val + 'w>
    where
        Self: 'w,
    {
        Box::new(self.clone())
    }
}

/// Returns the name by which a member is asked for.
fn name(key: &dyn Val) -> Result<&str, ExecutionError> {
    let text = key.downcast_ref::<CelString<'_>>();
    text.map(CelString::inner).ok_or_else(|| ExecutionError::function_error("[]", "the name is not a text"))
}

impl Container for MembersValue<'_> {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        let found = self.0.member(name(key)?).map_err(|why| ExecutionError::function_error("in", why))?;
        Ok(found.is_some())
    }
}

impl Indexer for MembersValue<'_> {
    fn get<'b, 'w>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'w>, ExecutionError>
    where
        Self: 'w,
    {
        let name = name(key)?;
        let found = self.0.member(name).map_err(|why| ExecutionError::function_error("[]", why))?;
        found.map(of_fact).ok_or_else(|| ExecutionError::no_such_key(name))
    }

    fn steal<'w>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'w>, ExecutionError>
    where
        Self: 'w,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

/// A value with which every operation fails: a list that is too long.
#[derive(Clone, Debug)]
struct Unusable;

impl Val for Unusable {
    fn get_type(&self) -> &Type {
        &TYPE_OF_ERROR
    }

    fn cel_type() -> &'static Type {
        &TYPE_OF_ERROR
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }
}

/// Returns a fact as the interpreter sees it.
pub fn of_fact<'b, 'v>(fact: Fact<'v>) -> CowVal<'b, 'v> {
    CowVal::Owned(boxed(fact))
}

fn boxed<'v>(fact: Fact<'v>) -> Box<dyn Val + 'v> {
    match fact {
        Fact::Text(text) => Box::new(CelString::from(text)),
        Fact::Number(number) => Box::new(CelInt::from(number)),
        Fact::Flag(flag) => Box::new(CelBool::from(flag)),
        Fact::Texts(texts) if texts.len() > MAX_ITEMS => Box::new(Unusable),
        Fact::Texts(texts) => {
            let items = texts.into_iter().map(|text| Box::new(CelString::from(text)) as Box<dyn Val + 'v>);
            Box::new(CelList::from(items.collect::<Vec<_>>()))
        }
        Fact::Json(json) => of_json(json),
        Fact::Members(members) => Box::new(MembersValue(members)),
    }
}

fn of_json<'v>(json: &'v Json) -> Box<dyn Val + 'v> {
    match json {
        Json::Null => Box::new(CelNull),
        Json::Bool(flag) => Box::new(CelBool::from(*flag)),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Box::new(CelInt::from(number)),
            (None, Some(number)) => Box::new(CelUInt::from(number)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Json::String(text) => Box::new(CelString::from(text.as_str())),
        Json::Array(items) if items.len() > MAX_ITEMS => Box::new(Unusable),
        Json::Array(items) => Box::new(CelList::from(items.iter().map(of_json).collect::<Vec<_>>())),
        Json::Object(members) if members.len() > MAX_ITEMS => Box::new(Unusable),
        Json::Object(members) => {
            let entries = members.iter().map(|(key, value)| (CelMapKey::from(key.as_str()), of_json(value)));
            Box::new(CelMap::from(entries.collect::<HashMap<_, _>>()))
        }
    }
}
