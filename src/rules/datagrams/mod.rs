//! Flows of datagrams: which datagrams belong together, for how long, and how many there may be.
//!
//! A flow is what a client at one address sends to one local address, with the responses to it. The table of flows is
//! a state machine without sockets: time is a parameter, and whatever belongs to a flow (its target, its socket) is a
//! value that the caller stores in it. Times are nanoseconds since an origin that the caller chooses.

mod counts;
mod slab;
mod table;
mod terms;
mod wheel;

#[cfg(test)]
mod simulation;

pub use counts::FlowCounts;
pub use slab::FlowId;
pub use table::{Flow, FlowKey, FlowTable, Incoming, Outgoing};
pub use terms::{FlowTerms, NoFlow, TableLimits};
