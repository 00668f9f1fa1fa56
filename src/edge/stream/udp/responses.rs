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
        let length = match leg.socket.receive(buffer) {
            Ok(length) => length,
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
        let (peer, local) = (flow.owned.peer, flow.owned.local);
        let Some(outgoing) = self.table.take_response(id, length, now) else { return false };
        match outgoing {
            Outgoing::Send | Outgoing::SendLast => match self.socket.try_send(&buffer[..length], peer, local) {
                Ok(()) => {
                    self.metrics.count_out();
                    self.table.get(id).iter().for_each(|flow| flow.owned.metrics.count_bytes(0, length as u64));
                }
                Err(error) if error.raw_os_error() == Some(nix::libc::EMSGSIZE) => {
                    self.metrics.count_dropped(DatagramDrop::TooLarge, 1);
                }
                Err(_) => self.metrics.count_dropped(DatagramDrop::ClientFull, 1),
            },
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
