//! gRPC: frames, status codes and messages, and the time that a client waits.

mod api;
mod bind;
mod bound;
mod bundled;
mod frames;
mod json;
mod literal;
mod openapi;
mod read;
mod scalar;
mod status;
mod template;
mod timeout;
mod tree;
mod types;
mod well_known;
mod wire;
mod write;

pub use api::{Api, ApiScope, MethodPlan, RulePlan, is_http_body};
pub use bind::{BadCall, BindLimits, RequestParts};
pub use bundled::bundled_proto;
pub use frames::{COMPRESSED, Frame, FrameBounds, FrameError, FrameReader, HEADER, frame_header, write_frame};
pub use literal::write_text;
pub use openapi::{method_word, openapi_document};
pub use status::{GrpcStatus, decode_message, encode_message};
pub use timeout::parse_timeout;
pub use tree::Matched;
pub use types::MessageId;
pub use wire::{Record, Records};
pub use write::{JsonStyle, JsonWriter};

#[cfg(test)]
mod binding_tests;
#[cfg(test)]
mod describing_tests;
#[cfg(test)]
mod mapping_tests;
#[cfg(test)]
mod sample_tests;
