//! The hand-over of listeners and state to a successor over a Unix socket.
//!
//! The successor leads, and the old process gives nothing up before the successor has confirmed it:
//!
//! 1. The successor connects and takes the sockets (SCM_RIGHTS, unix(7)) and the state. The old process goes on
//!    serving, and records changes.
//! 2. The successor starts, and sends `ready`. The old process accepts nothing while it hands over the rest of the
//!    state and the flows of datagrams; connections and datagrams wait in the kernel's queue meanwhile.
//! 3. The successor accepts, and sends `serving`. The old process drains, but stands by: should the successor end
//!    within `process.standby_time`, it accepts again.
//! 4. The successor sends `settled`. The old process hands over the TCP sessions that it neither encrypts nor decrypts,
//!    and ends with its last request.
//!
//! A failure before the end of step 3 leaves the old process serving. Only a successor that asks for open streams gets
//! any, so that a process of an earlier version may be on either side.

mod predecessor;
mod spawn;
mod streams;
mod upgrade_listener;
mod wire;

pub use predecessor::{Follower, Predecessor, take};
pub use spawn::{predecessor, remember_executable, start_successor};
pub use upgrade_listener::{PreparedSocket, UpgradeListener, check_not_taken};
pub use wire::{Message, receive, send};
