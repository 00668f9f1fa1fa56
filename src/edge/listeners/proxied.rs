//! The PROXY header at the start of a load balancer's connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::admitted::Admitted;
use super::greet;
use super::layer4::{self, StreamConnection};
use super::peek::peek_until;
use super::service::Service;
use super::settings::Settings;
use crate::exchange::ProxyFacts;
use crate::rules::protocols::{HeaderStart, MAX_V1, NoHeader, ProxyHeader, header_length, parse_proxy_header};
use crate::telemetry::metrics::METRICS;

/// The most memory that values of a header may take; those of a header with more are not kept.
const MAX_VALUES: usize = 4 * 1024;

/// Reads the header, counts the connection as one of the client that it names, and serves it.
pub fn begin(stream: TcpStream, proxy: SocketAddr, settings: Arc<Settings>, mut admitted: Admitted) {
    tokio::spawn(async move {
        let header_time = settings.service.header_time();
        let Some((stream, header)) = read_in_time(stream, proxy, header_time, &settings).await else { return };
        let client = header.addresses.map_or(proxy, |(client, _)| client);
        // The proxy's own connections, such as health checks, are not counted.
        if header.addresses.is_some() {
            match settings.count_address(client.ip()) {
                Ok(address) => admitted.count_address(address),
                Err(why) => return METRICS.refused.with_label_values(&[why.word()]).inc(),
            }
        }
        let facts = proxy_facts(header);
        match &settings.service {
            Service::Http(service) => {
                greet::begin(stream, client, facts, &settings.listener_state, service, admitted);
            }
            Service::Tcp(service) => layer4::begin(StreamConnection {
                stream,
                client,
                proxy: facts,
                listener_state: Arc::clone(&settings.listener_state),
                service: Arc::clone(service),
                admitted,
            }),
            // Each datagram has a header of its own.
            Service::Udp(_) => {}
        }
    });
}

/// Returns what a header says beside the address of the client, if it says anything.
pub fn proxy_facts(header: ProxyHeader) -> Option<ProxyFacts> {
    let size = header.values.iter().map(|(_, value)| value.len() + size_of::<(u16, Box<[u8]>)>()).sum::<usize>();
    let destination = header.addresses.map(|(_, destination)| destination);
    let values = if size <= MAX_VALUES { header.values } else { Vec::new() };
    (destination.is_some() || !values.is_empty()).then_some(ProxyFacts { destination, values })
}

async fn read_in_time(
    mut stream: TcpStream,
    proxy: SocketAddr,
    header_time: Duration,
    settings: &Settings,
) -> Option<(TcpStream, ProxyHeader)> {
    let read = tokio::time::timeout(header_time, read(&mut stream)).await;
    let fault = match read {
        Ok(Ok(Some(header))) => return Some((stream, header)),
        // A load balancer that only looks whether the port is open.
        Ok(Ok(None)) => return None,
        Ok(Err(error)) if error.kind() != io::ErrorKind::InvalidData => return None,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it did not come in time".to_owned(),
    };
    log::debug!("listener {}: no PROXY header of {proxy}: {fault}", settings.listener_state.name.load());
    METRICS.refused.with_label_values(&["proxy_header"]).inc();
    None
}

/// Reads a header and nothing behind it; returns `None` if the connection is closed before its end.
async fn read(stream: &mut TcpStream) -> io::Result<Option<ProxyHeader>> {
    let malformed = |NoHeader(why)| io::Error::new(io::ErrorKind::InvalidData, why);
    let decide = |seen: &[u8]| match header_length(seen) {
        Ok(HeaderStart::Incomplete) => None,
        Ok(HeaderStart::Length(length)) => Some(Ok(length)),
        Err(fault) => Some(Err(fault)),
    };
    let mut start = [0; MAX_V1];
    let Some(length) = peek_until(stream, &mut start, decide).await? else { return Ok(None) };
    let mut header = vec![0; length.map_err(malformed)?];
    stream.read_exact(&mut header).await?;
    parse_proxy_header(&header).map(Some).map_err(malformed)
}
