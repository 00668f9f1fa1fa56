//! Eviction at a full listener: the connection that has been idle longest is ended for a new one, and no address has
//! more connections than its share.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use ahash::AHashMap;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpListener;

use super::clock;
use super::connection::{Connection, Connections};
use crate::telemetry::metrics::METRICS;

/// The least number of idle connections that one scan of all of them finds.
const MIN_FOUND: usize = 256;

/// The idle connections of a listener in the order in which they may be ended. All connections are scanned once per
/// [`clock::TICK`] at most, however many come meanwhile.
pub struct IdleConnections {
    connections: Connections,
    found: Vec<Weak<Connection>>,
    looked: u64,
}

impl IdleConnections {
    /// Returns the idle connections among `connections`.
    pub fn new(connections: Connections) -> Self {
        Self { connections, found: Vec::new(), looked: 0 }
    }

    /// Ends the connection that has been idle longest, if there is any.
    pub fn end_one(&mut self) {
        loop {
            while let Some(idler) = self.found.pop() {
                if idler.upgrade().is_some_and(|connection| connection.end_if_idle()) {
                    METRICS.refused.with_label_values(&["idle"]).inc();
                    return;
                }
            }
            let now = clock::now();
            if self.looked == now {
                return;
            }
            self.looked = now;
            self.scan();
            if self.found.is_empty() {
                return;
            }
        }
    }

    /// Finds the connections that have been idle longest.
    fn scan(&mut self) {
        let connections = self.connections.lock();
        let since =
            |(place, connection): (usize, &Weak<Connection>)| Some((connection.upgrade()?.idle_since()?, place));
        let mut idle: Vec<(u64, usize)> = connections.iter().enumerate().filter_map(since).collect();
        let batch = MIN_FOUND.max(idle.len() / 16);
        if idle.len() > batch {
            idle.select_nth_unstable(batch);
            idle.truncate(batch);
        }
        idle.sort_unstable_by(|a, b| b.cmp(a));
        self.found = idle.into_iter().map(|(_, place)| connections[place].clone()).collect();
    }
}

/// Watches whether a client waits in a socket's queue, without accepting it: it may be another process's.
pub struct AcceptQueue(AsyncFd<OwnedFd>);

impl AcceptQueue {
    /// Returns the queue of a listening socket.
    ///
    /// # Errors
    /// Fails when no file descriptor is left.
    pub fn of(socket: &TcpListener) -> std::io::Result<Self> {
        let socket = socket.as_fd().try_clone_to_owned()?;
        // SAFETY: the descriptor is owned by what is registered, and nothing takes it from there.
        Ok(Self(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?))
    }

    /// Resolves when a client waits.
    pub async fn wait_for_client(&self) {
        loop {
            let Ok(mut ready) = self.0.readable().await else { return };
            let mut polled = [PollFd::new(self.0.get_ref().as_fd(), PollFlags::POLLIN)];
            if poll(&mut polled, PollTimeout::ZERO).is_ok_and(|count| count > 0) {
                return;
            }
            ready.clear_ready();
        }
    }
}

/// The number of connections of each address.
#[derive(Debug, Default)]
pub struct AddressCounts(Mutex<AHashMap<u64, u32>>);

/// The place of one connection of an address.
#[derive(Debug)]
pub struct AddressPlace {
    addresses: Arc<AddressCounts>,
    address: u64,
}

/// Returns the key under which an address is counted: an IPv6 /64 is one.
pub fn address_key(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(u32::from(v4)),
        IpAddr::V6(v6) => u64::from_be_bytes(v6.octets()[..8].try_into().unwrap_or_default()) | 1 << 63,
    }
}

impl AddressCounts {
    /// Counts a connection of that address; an IPv6 /64 counts as one. Returns `None` where it has as many as it may
    /// have.
    pub fn count(self: &Arc<Self>, address: IpAddr, most: u32) -> Option<AddressPlace> {
        let address = address_key(address);
        let mut counts = self.0.lock();
        let count = counts.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(AddressPlace { addresses: Arc::clone(self), address })
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_not_more() {
        let addresses = Arc::new(AddressCounts::default());
        let one: IpAddr = "10.0.0.1".parse().expect("an address");
        let for_worker: Vec<_> = (0..3).filter_map(|_| addresses.count(one, 2)).collect();
        assert_eq!(for_worker.len(), 2);
        assert!(addresses.count("::ffff:10.0.0.1".parse().expect("an address"), 2).is_none());
        assert!(addresses.count("10.0.0.2".parse().expect("an address"), 2).is_some());
        let six = addresses.count("2001:db8::1".parse().expect("an address"), 1);
        assert!(six.is_some() && addresses.count("2001:db8::2".parse().expect("an address"), 1).is_none());
        drop((for_worker, six));
        assert!(addresses.0.lock().is_empty());
    }
}
