//! The limits of a flow, and those of a table.

use std::net::IpAddr;

use crate::rules::limits::Gcra;

/// The limits of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTerms {
    /// The nanoseconds without a datagram, in either direction, after which it ends.
    pub idle: u64,
    /// The nanoseconds after which it ends in any case; 0 is none.
    pub total: u64,
    /// The number of datagrams of the client after which its next datagram begins another flow; 0 is any number.
    pub requests: u32,
    /// The number of responses to each datagram of the client: with the last of them the flow ends; 0 is any number.
    pub responses: u32,
    /// The most bytes that are sent to the client for each byte that came from it; 0 is any number. The source of any
    /// datagram may be forged.
    pub amplification: u32,
}

/// The limits of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLimits {
    /// The most flows at a time.
    pub flows: u32,
    /// The most flows of one client at a time: an IPv4 address, or a network of IPv6 of 64 bits.
    pub flows_per_client: u32,
    /// The rate of new flows; `None` is any.
    pub new_flows: Option<Gcra>,
}

/// The reason for which no flow may begin. Present flows go on: the source of a datagram may be forged, so that nothing
/// is done to it otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFlow {
    /// The table is full.
    Full,
    /// The client has as many flows as it may have.
    Client,
    /// Too many flows have begun within a short time.
    Rate,
}

/// A client as it is counted: the address of IPv4, or the first 64 bits of that of IPv6, which one user has for
/// itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientNetwork(u64);

impl ClientNetwork {
    /// Returns the client of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            // No network of IPv6 that clients have begins with 32 zeros (RFC 4291, section 2.4).
            IpAddr::V4(v4) => Self(u64::from(u32::from(v4))),
            IpAddr::V6(v6) => Self((u128::from(v6) >> 64) as u64),
        }
    }
}
