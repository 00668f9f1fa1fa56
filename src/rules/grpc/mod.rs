//! gRPC: frames, status codes and messages, and the time that a client waits.

mod frames;
mod status;
mod timeout;

pub use frames::{COMPRESSED, Frame, FrameBounds, FrameError, FrameReader, HEADER, frame_header, write_frame};
pub use status::{GrpcStatus, decode_message, encode_message};
pub use timeout::parse_timeout;
