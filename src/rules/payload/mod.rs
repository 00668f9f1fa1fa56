//! Transformations of a payload as it streams, a [`Step`] each: content codings are decoded and encoded, members of
//! JSON are removed, renamed, masked, hashed, set and selected; and conversions of whole documents.

mod accept;
mod decode;
mod document;
mod edit;
mod encode;
mod fields;
mod form;
mod hash;
mod json_limits;
mod lex;
mod mask;
mod media_range;
mod rename;
mod scan;
mod select;
mod selection;
mod set;
mod step;
mod strip;
mod xml;

pub use accept::{Coding, choose as choose_coding, rank as rank_codings};
pub use decode::Decoder;
pub use document::{DocumentStep, Move, check_json_texts, edit_document};
pub use edit::MemberEdit;
pub use encode::{CompressionLevel, Encoder};
pub use fields::{FieldPath, Fields};
pub use form::{form_to_json, json_to_form};
pub use hash::Hashes;
pub use json_limits::{JsonLimits, MAX_DEPTH as MAX_JSON_DEPTH};
pub use lex::string_end;
pub use mask::{MaskText, Masks};
pub use media_range::preferred_type;
pub use rename::Renames;
pub use scan::Editor;
pub use select::Selector;
pub use selection::{Selection, SelectionLimits};
pub use set::{SetPaths, SetValues};
pub use step::{BodyChain, Opaque, Step};
pub use strip::Stripper;
pub use xml::{JsonToXml, XmlToJson};
