//! Queries to name servers, with the time to live of the results: the system's resolver does not return that, and
//! does not support SRV records.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// The time-out of a query, and the number of queries to each server.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
const QUERIES_PER_SERVER: usize = 2;

/// The time for which the result of one address family is awaited after that of the other.
const SECOND_FAMILY_TIME: Duration = Duration::from_millis(1_500);

/// The time after which a name with an unknown address family is looked up again.
const UNKNOWN_FAMILY_RETRY: Duration = Duration::from_secs(10);

/// The addresses of one family, and their time to live.
type FamilyResult = Result<(Vec<IpAddr>, Duration), DnsError>;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Returns whether an address belongs to the family.
    pub fn has(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }
}

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedAddresses {
    /// The addresses, sorted.
    pub found: Vec<IpAddr>,
    /// The time for which they are valid.
    pub fresh_for: Duration,
    /// The family for which the query failed.
    pub unknown: Option<Family>,
}

/// The maximum size of a response over UDP. It exceeds that of RFC 1035, section 4.2.1, for servers that send more.
const MAX_UDP: usize = 4096;

/// The reason for which there is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsError {
    /// The name does not exist, or has no such record.
    NoName,
    /// No server responded, or none with a result.
    Failed(String),
}

impl std::fmt::Display for DnsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoName => f.write_str("there is no such name"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// The SRV record of a service (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvRecord {
    /// The priority; lower ones are used first.
    pub priority: u16,
    /// The weight among records of the same priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The host name.
    pub target: String,
}

/// Queries name servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
}

impl Resolver {
    /// Returns a resolver that queries these servers, in this order.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers }
    }

    /// Returns a resolver that queries the servers of the system (`/etc/resolv.conf`).
    pub fn of_system() -> Self {
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let servers =
            text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
        Self { servers: servers.map(|ip| SocketAddr::new(ip, 53)).take(3).collect() }
    }

    /// Returns all known addresses of a name. Where the query for one family fails, or its response is late, those of
    /// the other are returned: name servers that fail for AAAA alone are not rare.
    ///
    /// # Errors
    /// When the name does not exist, or no server responds.
    pub async fn addresses(&self, name: &str) -> Result<ResolvedAddresses, DnsError> {
        let (four, six) = self.query_families(name).await;
        let (mut found, fresh_for, unknown) = match (four, six) {
            (Ok((mut four, a)), Ok((six, b))) => {
                four.extend(six);
                (four, a.min(b), None)
            }
            // Many names have one family alone.
            (Ok((one, ttl)), Err(DnsError::NoName)) | (Err(DnsError::NoName), Ok((one, ttl))) => (one, ttl, None),
            (Ok((four, ttl)), Err(DnsError::Failed(_))) => (four, ttl.min(UNKNOWN_FAMILY_RETRY), Some(Family::V6)),
            (Err(DnsError::Failed(_)), Ok((six, ttl))) => (six, ttl.min(UNKNOWN_FAMILY_RETRY), Some(Family::V4)),
            (Err(error @ DnsError::Failed(_)), _) | (_, Err(error)) => return Err(error),
        };
        found.sort_unstable();
        found.dedup();
        Ok(ResolvedAddresses { found, fresh_for, unknown })
    }

    /// Queries both families. When one has addresses, the other has [`SECOND_FAMILY_TIME`] to respond.
    async fn query_families(&self, name: &str) -> (FamilyResult, FamilyResult) {
        let (four, six) = (self.query(name, TYPE::A, address), self.query(name, TYPE::AAAA, address));
        tokio::pin!(four, six);
        let late = || DnsError::Failed("no response came in time".to_owned());
        tokio::select! {
            four = &mut four => {
                let rest = async { if four.is_ok() { tokio::time::timeout(SECOND_FAMILY_TIME, &mut six).await }
                else { Ok(six.await) } };
                let six = rest.await.unwrap_or_else(|_| Err(late()));
                (four, six)
            }
            six = &mut six => {
                let rest = async { if six.is_ok() { tokio::time::timeout(SECOND_FAMILY_TIME, &mut four).await }
                else { Ok(four.await) } };
                let four = rest.await.unwrap_or_else(|_| Err(late()));
                (four, six)
            }
        }
    }

    /// Returns the SRV records of a service, and the time for which they are valid.
    ///
    /// # Errors
    /// When there is no such service, or no server responds.
    pub async fn srv_records(&self, name: &str) -> Result<(Vec<SrvRecord>, Duration), DnsError> {
        self.query(name, TYPE::SRV, service).await
    }

    async fn query<T>(
        &self,
        name: &str,
        kind: TYPE,
        take: fn(&RData<'_>) -> Option<T>,
    ) -> Result<(Vec<T>, Duration), DnsError> {
        let owner = name.trim_end_matches('.');
        let name = Name::new(owner).map_err(|e| DnsError::Failed(format!("{name} is no name: {e}")))?;
        // From the system's generator: an attacker who could predict it could respond first.
        let mut random = [0; 2];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| DnsError::Failed("no random numbers".to_owned()))?;
        let id = u16::from_be_bytes(random);
        let mut query = Packet::new_query(id);
        query.set_flags(PacketFlag::RECURSION_DESIRED);
        query.questions.push(Question::new(name, kind.into(), CLASS::IN.into(), false));
        let bytes = query.build_bytes_vec().map_err(|e| DnsError::Failed(e.to_string()))?;
        let mut last = DnsError::Failed("no name server is configured".to_owned());
        for server in self.servers.iter().cycle().take(self.servers.len() * QUERIES_PER_SERVER) {
            match tokio::time::timeout(QUERY_TIMEOUT, send_query(*server, &bytes, id)).await {
                Err(_) => last = DnsError::Failed(format!("{server} does not respond")),
                Ok(Err(error)) => last = DnsError::Failed(format!("{server}: {error}")),
                Ok(Ok(response)) => match parse_response(&response, id, owner, take) {
                    Err(DnsError::Failed(why)) => last = DnsError::Failed(format!("{server}: {why}")),
                    result => return result,
                },
            }
        }
        Err(last)
    }
}

/// Sends one query to one server: over UDP, and over TCP when the response is truncated.
async fn send_query(server: SocketAddr, query: &[u8], id: u16) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    // Connected, so that only this server's responses are received.
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; MAX_UDP];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let response = &buffer[..length];
        if simple_dns::header_buffer::id(response).ok() != Some(id) {
            continue;
        }
        if simple_dns::header_buffer::has_flags(response, PacketFlag::TRUNCATION).unwrap_or(false) {
            return send_query_over_tcp(server, query).await;
        }
        buffer.truncate(length);
        return Ok(buffer);
    }
}

async fn send_query_over_tcp(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let length = stream.read_u16().await?;
    let mut response = vec![0; usize::from(length)];
    stream.read_exact(&mut response).await?;
    Ok(response)
}

fn parse_response<T>(
    response: &[u8],
    id: u16,
    owner: &str,
    take: fn(&RData<'_>) -> Option<T>,
) -> Result<(Vec<T>, Duration), DnsError> {
    let packet = Packet::parse(response).map_err(|e| DnsError::Failed(format!("malformed response: {e}")))?;
    let asked = packet.questions.first().is_some_and(|q| q.qname.to_string().eq_ignore_ascii_case(owner));
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || !asked {
        return Err(DnsError::Failed("a response to another query".to_owned()));
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Err(DnsError::NoName),
        other => return Err(DnsError::Failed(format!("{other:?}"))),
    }
    // Aliases are among the records; the smallest time to live bounds that of the result.
    let ttl = packet.answers.iter().map(|r| r.ttl).min().unwrap_or(0);
    // Records of the name itself, or of its canonical name.
    let mut names = vec![owner.to_ascii_lowercase()];
    for record in &packet.answers {
        if let RData::CNAME(alias) = &record.rdata
            && names.contains(&record.name.to_string().to_ascii_lowercase())
        {
            names.push(alias.0.to_string().to_ascii_lowercase());
        }
    }
    let own = packet.answers.iter().filter(|r| names.contains(&r.name.to_string().to_ascii_lowercase()));
    let found: Vec<T> = own.filter_map(|r| take(&r.rdata)).collect();
    if found.is_empty() { Err(DnsError::NoName) } else { Ok((found, Duration::from_secs(u64::from(ttl)))) }
}

fn address(data: &RData<'_>) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(IpAddr::from(a.address.to_be_bytes())),
        RData::AAAA(aaaa) => Some(IpAddr::from(aaaa.address.to_be_bytes())),
        _ => None,
    }
}

fn service(data: &RData<'_>) -> Option<SrvRecord> {
    let RData::SRV(srv) = data else { return None };
    let target = srv.target.to_string();
    // A root target means that there is no such service.
    let some = !matches!(target.as_str(), "" | ".");
    some.then_some(SrvRecord { priority: srv.priority, weight: srv.weight, port: srv.port, target })
}
