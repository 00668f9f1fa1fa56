//! Whether a listener accepts.

/// The state of an accept loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptState {
    /// It accepts.
    Accept,
    /// New connections wait in the kernel's queue, or go to another process that has the socket.
    Pause,
    /// The connections in the queue are served first: they would be reset with the socket.
    Stop,
    /// The connections in the queue are left to another process that has the socket too.
    Leave,
}
