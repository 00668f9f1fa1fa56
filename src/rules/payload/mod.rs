//! What is done to a payload as it flows by, a [`Step`] each: content codings are decoded and put on, members of JSON
//! are removed, renamed and masked.

mod accept;
mod decode;
mod encode;
mod fields;
mod json_limits;
mod lex;
mod mask;
mod rename;
mod scan;
mod step;
mod strip;

pub use accept::{Coding, choose as choose_coding};
pub use decode::Decoder;
pub use encode::{Encoder, Level};
pub use fields::{FieldPath, Fields};
pub use json_limits::{JsonLimits, MAX_DEPTH as MAX_JSON_DEPTH};
pub use mask::{MaskText, Masks};
pub use rename::Renames;
pub use scan::{Editor, MemberEdit};
pub use step::{BodyChain, Opaque, Step};
pub use strip::Stripper;
