//! The changes of bodies, of requests and of responses.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;

use super::facts::HeadValues;
use crate::rules::payload::{
    DocumentStep, Editor, Fields, Hashes, JsonToXml, Masks, MemberEdit, Move, Opaque, Renames, Selection, Selector,
    SetPaths, SetValues, Step, XmlToJson, edit_document, form_to_json, json_to_form,
};
use crate::rules::templating::BodyTemplate;

/// One change of a body.
#[derive(Debug)]
pub(super) enum BodyChange {
    /// An edit of JSON.
    Json(JsonChange),
    /// A conversion.
    Convert(Convert),
    /// A new body.
    New(NewBody),
}

/// One edit of JSON.
#[derive(Debug)]
pub(super) enum JsonChange {
    Keep(Arc<Selection>),
    Remove(Arc<Fields>),
    Rename(Arc<Renames>),
    Move(Arc<Move>),
    Set(Arc<SetChange>),
    Mask(Arc<Masks>),
    Hash(Arc<Hashes>),
}

/// Values that are set or added.
#[derive(Debug)]
pub(super) struct SetChange {
    pub paths: Arc<SetPaths>,
    pub values: Vec<SetValue>,
}

/// A value that is set.
#[derive(Debug)]
pub(super) enum SetValue {
    /// The JSON text.
    Fixed(Bytes),
    /// A template of the JSON text.
    Rendered(BodyTemplate),
}

impl SetValue {
    /// Returns its template, if it has one.
    pub fn template(&self) -> Option<&BodyTemplate> {
        match self {
            Self::Fixed(_) => None,
            Self::Rendered(template) => Some(template),
        }
    }
}

/// A conversion from one format into another.
#[derive(Clone, Debug)]
pub(super) enum Convert {
    XmlToJson(Arc<XmlToJson>),
    JsonToXml(Arc<JsonToXml>),
    FormToJson,
    JsonToForm,
}

/// A new body.
#[derive(Debug)]
pub(super) struct NewBody {
    pub template: Arc<BodyTemplate>,
    pub content_type: HeaderValue,
}

/// The values for the templates of one message.
#[derive(Clone, Debug)]
pub(super) struct Values {
    pub heads: Arc<HeadValues>,
    /// Whether the message is a request.
    pub of_request: bool,
}

impl Values {
    fn render(&self, template: &BodyTemplate, body: &[u8]) -> Result<String, Opaque> {
        let values = self.heads.with_body(template, self.of_request, body);
        values.and_then(|values| template.render(values)).map_err(|why| Opaque::Template(why.into()))
    }
}

impl Convert {
    /// Returns the converted body.
    pub fn convert(&self, body: &[u8]) -> Result<Vec<u8>, Opaque> {
        let converted = match self {
            Self::XmlToJson(xml) => xml.convert(body),
            Self::JsonToXml(json) => json.convert(body),
            Self::FormToJson => form_to_json(body),
            Self::JsonToForm => json_to_form(body),
        };
        converted.map(String::into_bytes).map_err(|why| Opaque::Unconvertible(why.into()))
    }

    /// Returns the `Content-Type` of converted bodies.
    pub fn content_type(&self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::XmlToJson(_) | Self::FormToJson => "application/json",
            Self::JsonToXml(_) => "application/xml",
            Self::JsonToForm => "application/x-www-form-urlencoded",
        })
    }
}

impl SetChange {
    /// Returns whether a value is made from the body.
    fn reads_body(&self) -> bool {
        use super::facts::{REQUEST_BODY, REQUEST_JSON, RESPONSE_BODY, RESPONSE_JSON};
        let bodies = [REQUEST_BODY, REQUEST_JSON, RESPONSE_BODY, RESPONSE_JSON];
        let reads = |value: &SetValue| match value {
            SetValue::Fixed(_) => false,
            SetValue::Rendered(template) => bodies.iter().any(|path| template.reads(path)),
        };
        self.values.iter().any(reads)
    }

    /// Returns whether all values are known to be ASCII.
    fn is_ascii(&self) -> bool {
        self.values.iter().all(|value| matches!(value, SetValue::Fixed(text) if text.is_ascii()))
    }

    /// Returns the edit of one document. A template that makes nothing sets nothing.
    fn values(&self, values: &Values, body: &[u8]) -> Result<SetValues, Opaque> {
        let value = |value: &SetValue| match value {
            SetValue::Fixed(text) => Ok(Some(text.clone())),
            SetValue::Rendered(template) => values.render(template, body).map(|text| Some(Bytes::from(text))),
        };
        let all: Result<Vec<_>, Opaque> = self.values.iter().map(value).collect();
        Ok(SetValues::new(Arc::clone(&self.paths), all?))
    }
}

impl BodyChange {
    /// Returns whether the change needs the whole document.
    pub fn needs_whole(&self) -> bool {
        match self {
            Self::Convert(_) | Self::New(_) | Self::Json(JsonChange::Move(_)) => true,
            Self::Json(JsonChange::Set(set)) => set.reads_body(),
            Self::Json(_) => false,
        }
    }

    /// Returns the changed document.
    pub fn change(&self, body: &[u8], values: &Values) -> Result<Vec<u8>, Opaque> {
        match self {
            Self::Convert(convert) => convert.convert(body),
            Self::New(new) => values.render(&new.template, body).map(String::into_bytes),
            Self::Json(JsonChange::Move(moved)) => moved.apply(body.to_vec()),
            Self::Json(JsonChange::Set(set)) => edit_document(&set.values(values, body)?, body),
            Self::Json(JsonChange::Remove(fields)) => edit_document(&**fields, body),
            Self::Json(JsonChange::Rename(renames)) => edit_document(&**renames, body),
            Self::Json(JsonChange::Mask(masks)) => edit_document(&**masks, body),
            Self::Json(JsonChange::Hash(hashes)) => edit_document(&**hashes, body),
            Self::Json(JsonChange::Keep(selection)) => {
                let mut out = Vec::with_capacity(body.len());
                Selector::new(Arc::clone(selection)).push(body, true, &mut out)?;
                Ok(out)
            }
        }
    }

    /// Returns the step that changes a document as it streams; one that needs it whole holds at most that many bytes.
    pub fn step(self: &Arc<Self>, values: &Values, most: usize) -> Result<Box<dyn Step>, Opaque> {
        if self.needs_whole() {
            let (change, values) = (Arc::clone(self), values.clone());
            return Ok(Box::new(DocumentStep::new(most, Box::new(move |body| change.change(body, &values)))));
        }
        Ok(match &**self {
            Self::Json(JsonChange::Remove(fields)) => Box::new(Editor::new(Arc::clone(fields))),
            Self::Json(JsonChange::Rename(renames)) => Box::new(Editor::new(Arc::clone(renames))),
            Self::Json(JsonChange::Mask(masks)) => Box::new(Editor::new(Arc::clone(masks))),
            Self::Json(JsonChange::Hash(hashes)) => Box::new(Editor::new(Arc::clone(hashes))),
            Self::Json(JsonChange::Keep(selection)) => Box::new(Selector::new(Arc::clone(selection))),
            Self::Json(JsonChange::Set(set)) => Box::new(Editor::new(Arc::new(set.values(values, b"")?))),
            Self::Json(JsonChange::Move(_)) | Self::Convert(_) | Self::New(_) => return Err(Opaque::Unencodable),
        })
    }

    /// Returns whether names that are searched for are ASCII, so that the text may be in a superset of it.
    pub fn is_ascii(&self) -> bool {
        match self {
            Self::Json(JsonChange::Remove(fields)) => fields.is_ascii(),
            Self::Json(JsonChange::Rename(renames)) => renames.fields().is_ascii(),
            Self::Json(JsonChange::Mask(masks)) => masks.fields().is_ascii(),
            Self::Json(JsonChange::Hash(hashes)) => hashes.fields().is_ascii(),
            Self::Json(JsonChange::Set(set)) => set.paths.is_ascii() && set.is_ascii(),
            Self::Json(JsonChange::Keep(_) | JsonChange::Move(_)) => false,
            Self::Convert(_) | Self::New(_) => false,
        }
    }
}

/// The steps of a body, which are one step of the chain.
#[derive(Debug, Default)]
pub(super) struct StepList(pub Vec<Box<dyn Step>>);

impl Step for StepList {
    fn holds_head(&self) -> bool {
        self.0.iter().any(|step| step.holds_head())
    }

    fn push(&mut self, part: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), Opaque> {
        let Some((last, before)) = self.0.split_last_mut() else {
            out.extend_from_slice(part);
            return Ok(());
        };
        let mut current = None;
        for step in before {
            let mut next = Vec::new();
            step.push(current.as_deref().unwrap_or(part), end, &mut next)?;
            current = Some(next);
        }
        last.push(current.as_deref().unwrap_or(part), end, out)
    }
}
