//! Probes of targets for datagrams: a request and the expected response, or a query of the DNS.

use std::net::SocketAddr;

use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE, header_buffer};
use tokio::net::UdpSocket;

use super::probe::UNSENT;

/// The largest response that is looked at.
const MAX_RESPONSE: usize = 4_096;

/// A request in a datagram, and the expected response.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DatagramProbe {
    /// What is sent.
    pub request: Vec<u8>,
    /// What a healthy response contains; `None` is any response.
    pub expected: Option<Vec<u8>>,
}

/// A query of the DNS (RFC 1035). A server that responds to it is healthy, whether or not the name exists.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsProbe {
    /// The name, without a dot at its end; empty is the root.
    pub name: String,
    /// The type of the record.
    pub kind: u16,
}

impl DatagramProbe {
    /// Sends it once, behind that header.
    ///
    /// # Errors
    /// Describes what is wrong with the target.
    pub async fn check(&self, target: SocketAddr, header: &[u8]) -> Result<(), String> {
        let is_healthy = |response: &[u8]| match &self.expected {
            None => Some(Ok(())),
            Some(expected) if memchr::memmem::find(response, expected).is_some() => Some(Ok(())),
            Some(_) => Some(Err("the response does not contain what is expected".to_owned())),
        };
        exchange(target, &[header, &self.request].concat(), is_healthy).await
    }
}

impl DnsProbe {
    /// Sends it once, behind that header.
    ///
    /// # Errors
    /// Describes what is wrong with the target.
    pub async fn check(&self, target: SocketAddr, header: &[u8]) -> Result<(), String> {
        let id = fastrand::u16(..);
        let query = self.query(id).map_err(|error| format!("the probe is malformed: {error}"))?;
        // A response with another id is not one to this query.
        let is_healthy = |response: &[u8]| {
            let is_own = header_buffer::id(response).ok() == Some(id)
                && header_buffer::has_flags(response, PacketFlag::RESPONSE).unwrap_or(false);
            is_own.then(|| match header_buffer::rcode(response) {
                Ok(RCODE::NoError | RCODE::NameError) => Ok(()),
                Ok(other) => Err(format!("the response is {other:?}")),
                Err(error) => Err(format!("malformed response: {error}")),
            })
        };
        exchange(target, &[header, &query].concat(), is_healthy).await
    }

    fn query(&self, id: u16) -> simple_dns::Result<Vec<u8>> {
        let mut query = Packet::new_query(id);
        query.set_flags(PacketFlag::RECURSION_DESIRED);
        let kind = QTYPE::TYPE(TYPE::from(self.kind));
        query.questions.push(Question::new(Name::new(&self.name)?, kind, QCLASS::CLASS(CLASS::IN), false));
        query.build_bytes_vec()
    }
}

/// Sends a datagram and waits for a response that `judge` decides on.
async fn exchange(
    target: SocketAddr,
    request: &[u8],
    judge: impl Fn(&[u8]) -> Option<Result<(), String>>,
) -> Result<(), String> {
    let any: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let Ok(socket) = UdpSocket::bind(any).await else { return Err(UNSENT.to_owned()) };
    let text = |error: std::io::Error| error.to_string();
    // Connected, so that only this target's responses are received, and its refusals.
    socket.connect(target).await.map_err(text)?;
    socket.send(request).await.map_err(text)?;
    let mut buffer = vec![0; MAX_RESPONSE];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(text)?;
        if let Some(judged) = judge(&buffer[..length]) {
            return judged;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_its_name_and_type() {
        let query = DnsProbe { name: "example.com".to_owned(), kind: 6 }.query(0x1234).expect("a query");
        assert_eq!(query, b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x06\x00\x01");
        let root = DnsProbe { name: String::new(), kind: 2 }.query(1).expect("a query");
        assert_eq!(root[12..], *b"\x00\x00\x02\x00\x01");
    }
}
