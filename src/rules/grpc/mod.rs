//! gRPC: frames, status codes and messages, the time that a client waits, JSON by `google.api.http`; and what gRPC-Web
//! and the Connect protocol do in another way.

mod api;
mod bind;
mod bound;
mod bundled;
mod connect;
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
mod web;
mod well_known;
mod wire;
mod write;

pub use api::{Api, ApiScope, MethodPlan, RulePlan, is_http_body};
pub use bind::{BadCall, BindLimits, RequestParts};
pub use bundled::bundled_proto;
pub use connect::{ConnectError, decode_query_message, metadata, parse_timeout_ms, write_end_stream};
pub use frames::{COMPRESSED, FrameBounds, FrameError, FrameReader, write_frame};
pub use literal::write_text;
pub use openapi::{method_word, openapi_document};
pub use scalar::put_bytes;
pub use status::{GRPC_MESSAGE, GRPC_STATUS, GRPC_STATUS_DETAILS, GrpcStatus, decode_message, encode_message};
pub use timeout::parse_timeout;
pub use tree::Matched;
pub use types::MessageId;
pub use web::{decode_text, encode_text, write_trailers};
pub use wire::{Record, Records, put_tag};
pub use write::{JsonStyle, JsonWriter};

#[cfg(test)]
mod binding_tests;
#[cfg(test)]
mod describing_tests;
#[cfg(test)]
mod mapping_tests;
#[cfg(test)]
mod sample_tests;
