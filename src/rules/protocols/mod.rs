//! What is said on the wire, looked at before anything is built of it.

mod field_block;
mod h2_frames;

pub use h2_frames::{FrameScanner, Violation};
