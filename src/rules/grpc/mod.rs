//! gRPC: frames, status codes and messages, and the time that a client waits; and what gRPC-Web and the Connect
//! protocol do in another way.

mod connect;
mod frames;
mod status;
mod timeout;
mod web;

pub use connect::{ConnectError, decode_query_message, metadata, parse_timeout_ms, write_end_stream};
pub use frames::{COMPRESSED, FrameBounds, FrameError, FrameReader, write_frame};
pub use status::{GRPC_MESSAGE, GRPC_STATUS, GRPC_STATUS_DETAILS, GrpcStatus, encode_message};
pub use timeout::parse_timeout;
pub use web::{decode_text, encode_text, write_trailers};
