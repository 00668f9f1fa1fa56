//! Transformations of a payload as it streams, a [`Step`] each: content codings are decoded and encoded, members of
//! JSON are removed, renamed, masked and selected.

mod accept;
mod decode;
mod encode;
mod fields;
mod json_limits;
mod lex;
mod mask;
mod media_range;
mod rename;
mod scan;
mod select;
mod selection;
mod step;
mod strip;

pub use accept::{Coding, choose as choose_coding, rank as rank_codings};
pub use decode::Decoder;
pub use encode::{CompressionLevel, Encoder};
pub use fields::{FieldPath, Fields};
pub use json_limits::{JsonLimits, MAX_DEPTH as MAX_JSON_DEPTH};
pub use mask::{MaskText, Masks};
pub use media_range::preferred_type;
pub use rename::Renames;
pub use scan::{Editor, MemberEdit};
pub use select::Selector;
pub use selection::{Selection, SelectionLimits};
pub use step::{BodyChain, Opaque, Step};
pub use strip::Stripper;
