//! The compilation of steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::config::{Conversion, EmptyElement, Format, HeaderChanges, JsonEdits, NewBody};
use super::facts::{OF_REQUESTS, of_responses};
use super::ops::{BodyChange, Convert, JsonChange, SetChange, SetValue};
use crate::exchange::{Edit, Template, TextForm, TextScope};
use crate::filters::mask_fields::compile_masks;
use crate::filters::rename_fields::{compile_renames, parse_field};
use crate::filters::{CompileContext, parse_editable_name};
use crate::notation::{FreeForm, HeaderText, Mistakes, OneOrMany, Place};
use crate::rules::payload::{Fields, Hashes, JsonToXml, Move, Selection, SelectionLimits, SetPaths, XmlToJson};
use crate::rules::templating::{BodyTemplate, OutputForm, has_template, is_template, template_of};

/// What a template of a head is for.
#[derive(Clone, Debug)]
pub(super) enum HeadTarget {
    SetHeader(HeaderName),
    AddHeader(HeaderName),
    SetParameter(Box<str>),
    AddParameter(Box<str>),
    SetCookie(Box<str>),
    Path,
}

/// The changes of a head: those that are known, and those that templates make.
#[derive(Debug, Default)]
pub(super) struct HeadChanges {
    pub edits: Vec<Edit>,
    pub rendered: Vec<(HeadTarget, BodyTemplate)>,
}

/// The compiler of the steps of one direction.
pub(super) struct Compiler<'a, 'c> {
    pub context: &'a mut CompileContext<'c>,
    /// Whether the steps are for requests.
    pub of_request: bool,
    /// The largest body that is held.
    pub max_size: u64,
}

impl Compiler<'_, '_> {
    /// Returns the errors so far.
    pub fn mistakes(&mut self) -> &mut Mistakes {
        self.context.mistakes
    }

    /// Compiles a template of a body, or of a value in one.
    fn body_template(&mut self, source: &str, form: OutputForm, place: &Place) -> Option<BodyTemplate> {
        let known = if self.of_request { OF_REQUESTS.to_vec() } else { of_responses() };
        let most = usize::try_from(self.max_size).unwrap_or(usize::MAX);
        let template = self.mistakes().take(place, BodyTemplate::new(source, form, &known))?;
        Some(template.with_max_output(most))
    }

    /// Compiles a value of a head: a text with values, or a template.
    pub fn head_value(
        &mut self,
        changes: &mut HeadChanges,
        text: &str,
        (form, target): (TextForm, HeadTarget),
        place: &Place,
    ) {
        if is_template(text) {
            let mut known = if self.of_request { OF_REQUESTS.to_vec() } else { of_responses() };
            if !self.of_request {
                // The head is sent before the body comes.
                known.retain(|name| !matches!(*name, "response.body" | "response.json"));
            }
            let output = if matches!(target, HeadTarget::Path) { OutputForm::Url } else { OutputForm::Text };
            let template = self.mistakes().take(place, BodyTemplate::new(text, output, &known));
            changes.rendered.extend(template.map(|template| (target, template)));
            return;
        }
        let route = &self.context.route;
        let scope = TextScope { form, errors: false, params: &|| route.params() };
        let Some(template) = self.context.mistakes.take(place, Template::new(text, &scope)) else { return };
        let fixed = template.as_text().and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok());
        changes.edits.push(match (target, fixed) {
            (HeadTarget::SetHeader(name), Some(value)) => Edit::Set(name, value),
            (HeadTarget::SetHeader(name), None) => Edit::SetText(name, template),
            (HeadTarget::AddHeader(name), Some(value)) => Edit::Add(name, value),
            (HeadTarget::AddHeader(name), None) => Edit::AddText(name, template),
            (HeadTarget::SetParameter(name), _) => Edit::SetParameter(name, template),
            (HeadTarget::AddParameter(name), _) => Edit::AddParameter(name, template),
            (HeadTarget::SetCookie(name), _) => Edit::SetCookie(name, template),
            (HeadTarget::Path, _) => Edit::Path(template),
        });
    }

    /// Compiles changes of headers.
    pub fn headers(&mut self, changes: &mut HeadChanges, config: &HeaderChanges, place: &Place) {
        for (index, name) in config.remove.iter().enumerate() {
            let place = place.key("remove").index(index);
            changes.edits.extend(parse_editable_name(name.0.as_str(), &place, self.mistakes()).map(Edit::Remove));
        }
        for (from, to) in &config.rename {
            let place = place.key("rename").key(from.clone());
            let from = parse_editable_name(from, &place, self.mistakes());
            let to = parse_editable_name(to.0.as_str(), &place, self.mistakes());
            changes.edits.extend(from.zip(to).map(|(from, to)| Edit::Rename(from, to)));
        }
        type Target = fn(HeaderName) -> HeadTarget;
        let lists: [(&str, &BTreeMap<String, HeaderText>, Target); 2] =
            [("set", &config.set, HeadTarget::SetHeader), ("add", &config.add, HeadTarget::AddHeader)];
        for (key, list, target) in lists {
            for (name, value) in list {
                let place = place.key(key).key(name.clone());
                let Some(name) = parse_editable_name(name, &place, self.mistakes()) else { continue };
                let text = String::from_utf8_lossy(value.0.as_bytes()).into_owned();
                self.head_value(changes, &text, (TextForm::Header, target(name)), &place);
            }
        }
    }

    /// Compiles the changes of a body, in their order.
    pub fn body(
        &mut self,
        convert: Option<&Conversion>,
        json: &OneOrMany<JsonEdits>,
        body: Option<&NewBody>,
        place: &Place,
    ) -> Vec<Arc<BodyChange>> {
        let mut changes = Vec::new();
        if let Some(convert) = convert {
            changes.extend(self.conversion(convert, &place.key("convert")).map(BodyChange::Convert));
        }
        for (edits, place) in json.placed(&place.key("json")) {
            self.json(&mut changes, edits, &place);
        }
        if let Some(body) = body {
            let form = form_of_type(&body.content_type.0);
            let template = self.body_template(&body.template, form, &place.key("body").key("template"));
            changes.extend(template.map(|template| {
                let content_type = body.content_type.0.clone();
                BodyChange::New(super::ops::NewBody { template: Arc::new(template), content_type })
            }));
        }
        changes.into_iter().map(Arc::new).collect()
    }

    fn conversion(&mut self, config: &Conversion, place: &Place) -> Option<Convert> {
        let is_of_xml = config.from == Format::Xml;
        let reads_xml = !config.arrays.is_empty() || config.drop_prefixes || config.empty == EmptyElement::Null;
        if reads_xml && !is_of_xml {
            self.mistakes().add(place, "arrays, empty and drop_prefixes are for conversions from xml");
        }
        if config.root.is_some() && config.to != Format::Xml {
            self.mistakes().add(&place.key("root"), "the root element is for conversions to xml");
        }
        match (config.from, config.to) {
            (Format::Xml, Format::Json) => {
                let arrays: Vec<_> = config.arrays.iter().map(|field| field.0.clone()).collect();
                let xml = XmlToJson::new(&arrays, config.empty == EmptyElement::Null, config.drop_prefixes);
                self.mistakes().take(&place.key("arrays"), xml).map(|xml| Convert::XmlToJson(Arc::new(xml)))
            }
            (Format::Json, Format::Xml) => {
                let json = JsonToXml::new(config.root.clone());
                self.mistakes().take(&place.key("root"), json).map(|json| Convert::JsonToXml(Arc::new(json)))
            }
            (Format::Form, Format::Json) => Some(Convert::FormToJson),
            (Format::Json, Format::Form) => Some(Convert::JsonToForm),
            _ => {
                self.mistakes().add(place, "expected json as one of both formats, and another as the other");
                None
            }
        }
    }

    /// Compiles edits of JSON, in the order of their keys.
    fn json(&mut self, changes: &mut Vec<BodyChange>, config: &JsonEdits, place: &Place) {
        let mut add = |change: Option<JsonChange>| changes.extend(change.map(BodyChange::Json));
        if !config.keep.is_empty() {
            let texts = config.keep.iter().map(String::as_str);
            let selection = Selection::of_all(texts, SelectionLimits::MOST).map_err(|(_, error)| error.to_string());
            add(self.mistakes().take(&place.key("keep"), selection).map(|keep| JsonChange::Keep(Arc::new(keep))));
        }
        if !config.remove.is_empty() {
            let paths: Vec<_> = config.remove.iter().map(|field| field.0.clone()).collect();
            let fields = self.mistakes().take(&place.key("remove"), Fields::new(&paths));
            add(fields.map(|fields| JsonChange::Remove(Arc::new(fields))));
        }
        if !config.rename.is_empty() {
            let renames = compile_renames(&config.rename, &place.key("rename"), self.mistakes());
            add(renames.map(|renames| JsonChange::Rename(Arc::new(renames))));
        }
        for (key, list, copies) in [("move", &config.moves, false), ("copy", &config.copy, true)] {
            for (from, to) in list {
                let moved = parse_field(from).and_then(|from| Move::new(from, to.0.clone(), copies));
                let moved = self.mistakes().take(&place.key(key).key(from.clone()), moved);
                add(moved.map(|moved| JsonChange::Move(Arc::new(moved))));
            }
        }
        for (key, list, only_missing) in [("set", &config.set, false), ("add", &config.add, true)] {
            if !list.is_empty() {
                let set = self.set(list, only_missing, &place.key(key));
                add(set.map(|set| JsonChange::Set(Arc::new(set))));
            }
        }
        if !config.mask.is_empty() {
            let masks = compile_masks(&config.mask, &place.key("mask"), self.mistakes());
            add(masks.map(|masks| JsonChange::Mask(Arc::new(masks))));
        }
        if let Some(hash) = &config.hash {
            let paths: Vec<_> = hash.fields.iter().map(|field| field.0.clone()).collect();
            let key = hash.key.as_ref().map(|key| key.0.reveal().as_bytes());
            let hashes = self.mistakes().take(&place.key("hash").key("fields"), Hashes::new(&paths, key));
            add(hashes.map(|hashes| JsonChange::Hash(Arc::new(hashes))));
        }
    }

    fn set(&mut self, list: &BTreeMap<String, FreeForm>, only_missing: bool, place: &Place) -> Option<SetChange> {
        let (mut paths, mut values) = (Vec::new(), Vec::new());
        for (field, literal) in list {
            let place = place.key(field.clone());
            let path = self.mistakes().take(&place, parse_field(field))?;
            let value = &literal.0;
            values.push(if has_template(value) {
                SetValue::Rendered(self.body_template(&template_of(value), OutputForm::Json, &place)?)
            } else {
                SetValue::Fixed(Bytes::from(value.to_string()))
            });
            paths.push(path);
        }
        let paths = self.mistakes().take(place, SetPaths::new(&paths, only_missing))?;
        Some(SetChange { paths: Arc::new(paths), values })
    }
}

/// Returns the form of a template for that media type.
fn form_of_type(content_type: &HeaderValue) -> OutputForm {
    let text = String::from_utf8_lossy(content_type.as_bytes()).to_ascii_lowercase();
    match text.split(';').next().unwrap_or_default().trim() {
        kind if kind.ends_with("json") => OutputForm::Json,
        kind if kind.ends_with("xml") || kind == "text/html" => OutputForm::Xml,
        "application/x-www-form-urlencoded" => OutputForm::Url,
        _ => OutputForm::Text,
    }
}
