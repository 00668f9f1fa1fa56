//! Datagrams of targets, on their way to clients, and targets that refuse those of clients.

use std::io;
use std::time::Instant;

use super::UdpServer;
use super::flow::{Leg, pick};
use super::requests::{Sent, send};
use crate::exchange::Reason;
use crate::rules::datagrams::{FlowId, Outgoing};
use crate::telemetry::DatagramDrop;
use crate::upstreams::TargetOutcome;

impl UdpServer {
    /// Relays datagrams of a flow's targets, `most` of each.
    pub(super) fn relay(&mut self, id: FlowId, buffer: &mut [u8], most: usize, now: u64) {
        let count = self.table.get(id).map_or(0, |flow| flow.owned.legs.len());
        for place in (0..count).rev() {
            for _ in 0..most {
                if !self.relay_one(id, place, buffer, now) {
                    break;
                }
            }
        }
    }

    /// Relays one datagram. Returns whether there may be another.
    fn relay_one(&mut self, id: FlowId, place: usize, buffer: &mut [u8], now: u64) -> bool {
        let Some(flow) = self.table.get_mut(id) else { return false };
        let Some(leg) = flow.owned.legs.get_mut(place) else { return false };
        let (length, segment) = match leg.socket.receive(buffer) {
            Ok(received) => received,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return false;
            }
            Err(_) => {
                self.refused(id, place, None);
                return false;
            }
        };
        if !leg.has_responded {
            leg.has_responded = true;
            leg.visit.note_datagram(Instant::now());
            flow.owned.first = None;
        }
        let (first, rest) = buffer[..length].split_at(segment.min(length));
        let mut goes_on = self.respond(id, first, now);
        if !rest.is_empty() && !self.respond_rest(id, rest, segment, now) {
            for bytes in rest.chunks(segment.max(1)) {
                goes_on = goes_on && self.respond(id, bytes, now);
            }
        }
        goes_on
    }

    /// Sends one datagram to the client of a flow. Returns whether the flow goes on.
    fn respond(&mut self, id: FlowId, bytes: &[u8], now: u64) -> bool {
        let Some(outgoing) = self.table.take_response(id, bytes.len(), now) else { return false };
        match outgoing {
            Outgoing::Send | Outgoing::SendLast => self.send_to_client(id, bytes),
            Outgoing::Withhold | Outgoing::WithholdLast => {
                self.metrics.count_dropped(DatagramDrop::Amplification, 1);
            }
        }
        let is_last = matches!(outgoing, Outgoing::SendLast | Outgoing::WithholdLast);
        if is_last {
            self.end_flow(id, Reason::SessionEnded);
        }
        !is_last
    }

    fn send_to_client(&self, id: FlowId, bytes: &[u8]) {
        let Some(flow) = self.table.get(id) else { return };
        match self.socket.try_send(bytes, flow.owned.peer, flow.owned.local) {
            Ok(()) => {
                self.metrics.count_out(1);
                flow.owned.metrics.count_bytes(0, bytes.len() as u64);
            }
            Err(error) if error.raw_os_error() == Some(nix::libc::EMSGSIZE) => {
                self.metrics.count_dropped(DatagramDrop::TooLarge, 1);
            }
            Err(_) => self.metrics.count_dropped(DatagramDrop::ClientFull, 1),
        }
    }

    /// Sends the datagrams that have come with the first one of a target. Returns false where each of them has to be
    /// looked at.
    fn respond_rest(&mut self, id: FlowId, bytes: &[u8], segment: usize, now: u64) -> bool {
        let Ok(length) = u16::try_from(segment) else { return false };
        let count = bytes.len().div_ceil(segment);
        if !self.table.take_responses(id, count, bytes.len(), now) {
            return false;
        }
        let Some(flow) = self.table.get(id) else { return false };
        let (peer, local) = (flow.owned.peer, flow.owned.local);
        if self.socket.try_send_segments(bytes, length, peer, local).is_ok() {
            self.metrics.count_out(count as u64);
            flow.owned.metrics.count_bytes(0, bytes.len() as u64);
        } else {
            // Not each of the system's devices can divide them.
            bytes.chunks(segment).for_each(|bytes| self.send_to_client(id, bytes));
        }
        true
    }

    /// Notes that a target has refused the datagrams of a flow (ICMP, or an error of the network). A target that has
    /// sent nothing yet is replaced by another one, to which the first datagram goes again, or `bytes`; otherwise the
    /// flow ends. Returns whether `bytes` were sent.
    pub(super) fn refused(&mut self, id: FlowId, place: usize, bytes: Option<&[u8]>) -> bool {
        let Some(flow) = self.table.get_mut(id) else { return false };
        let is_per_datagram = flow.owned.rule.datagrams.per_datagram;
        if place >= flow.owned.legs.len() {
            return false;
        }
        let mut leg = flow.owned.legs.swap_remove(place);
        let first = flow.owned.first.take();
        self.sockets.remove(&leg.socket);
        let next = if is_per_datagram {
            leg.visit.report(TargetOutcome::GatewayFailed);
            bytes.and_then(|_| self.leg_of_datagram(id).ok())
        } else {
            self.replace(id, leg)
        };
        let (Some(place), Some(flow)) = (next, self.table.get(id)) else {
            if !is_per_datagram {
                self.end_flow(id, Reason::ConnectRefused);
            }
            return false;
        };
        let (leg, bytes) = (flow.owned.legs.get(place), bytes.or(first.as_deref()));
        leg.zip(bytes).is_some_and(|(leg, bytes)| matches!(send(leg, bytes), Sent::Done))
    }

    /// Replaces a leg by one to another target. Returns its place.
    fn replace(&mut self, id: FlowId, leg: Leg) -> Option<usize> {
        let Leg { mut visit, has_responded, .. } = leg;
        if has_responded {
            visit.report(TargetOutcome::GatewayFailed);
            return None;
        }
        let flow = self.table.get_mut(id)?;
        if !visit.note_no_connection(Instant::now()) {
            return None;
        }
        let target = pick(&mut visit, flow.owned.origin.client.ip()).ok()?;
        let leg = Leg::open(visit, target, &flow.owned.origin).ok()?;
        self.sockets.add(&leg.socket, id).ok()?;
        Some(flow.owned.add(leg))
    }
}
