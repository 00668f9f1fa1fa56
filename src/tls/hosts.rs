//! The hosts of a listener that have TLS settings of their own.

use std::fmt;
use std::sync::Arc;

use ahash::AHashMap;

use super::client_verification::ClientVerification;
use super::server::ServerSettings;

/// The TLS settings of a listener by host. The first settings are those of the listener itself.
#[derive(Clone, Debug)]
pub struct TlsHosts {
    groups: Vec<HostGroup>,
    exact: AHashMap<String, usize>,
    below: AHashMap<String, usize>,
    verifies_clients: bool,
}

/// The TLS settings of some hosts.
#[derive(Clone, Debug)]
pub struct HostGroup {
    /// What distinguishes it from the others of the listener: its names; nothing for the listener itself.
    pub label: String,
    /// Its settings.
    pub settings: Arc<ServerSettings>,
}

/// The name of some hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostName {
    /// This name alone, in lower case.
    Exact(String),
    /// All names below this one, at any depth.
    Below(String),
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

impl TlsHosts {
    /// Returns the settings of a listener without hosts of their own.
    pub fn new(settings: ServerSettings) -> Self {
        let verifies_clients = settings.client.is_some();
        let groups = vec![HostGroup { label: String::new(), settings: Arc::new(settings) }];
        Self { groups, exact: AHashMap::new(), below: AHashMap::new(), verifies_clients }
    }

    /// Adds settings of hosts. Returns the first name that has settings already.
    pub fn add(&mut self, names: &[HostName], settings: ServerSettings) -> Option<HostName> {
        let label: Vec<String> = names.iter().map(ToString::to_string).collect();
        let place = self.groups.len();
        self.verifies_clients |= settings.client.is_some();
        self.groups.push(HostGroup { label: label.join(","), settings: Arc::new(settings) });
        let mut twice = None;
        for name in names {
            let before = match name {
                HostName::Exact(name) => self.exact.insert(name.clone(), place),
                HostName::Below(name) => self.below.insert(name.clone(), place),
            };
            if before.is_some() {
                twice.get_or_insert_with(|| name.clone());
            }
        }
        twice
    }

    /// Returns the groups, that of the listener itself first.
    pub fn groups(&self) -> &[HostGroup] {
        &self.groups
    }

    /// Returns the place of the group of a host; hosts without settings of their own belong to the first.
    pub fn place(&self, host: Option<&str>) -> usize {
        let Some(host) = host.filter(|_| self.groups.len() > 1) else { return 0 };
        let lower;
        let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = host.to_ascii_lowercase();
            &lower
        } else {
            host
        };
        if let Some(place) = self.exact.get(host) {
            return *place;
        }
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(place) = self.below.get(parent) {
                return *place;
            }
            rest = parent;
        }
        0
    }

    /// Returns whether a connection whose client was verified by that policy, or by none, may be used for requests to
    /// a host (RFC 9110, section 7.4): a client must not evade the verification of one host by the name of another.
    pub fn accepts(&self, host: &str, policy: Option<&[u8; 32]>) -> bool {
        self.client_of(host).map(|client| &client.policy) == policy
    }

    /// Returns whether clients of any host are verified.
    pub fn verifies_clients(&self) -> bool {
        self.verifies_clients
    }

    /// Returns the verification of a host's clients, if they are verified.
    pub fn client_of(&self, host: &str) -> Option<&ClientVerification> {
        self.groups.get(self.place(Some(host)))?.settings.client.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_name_counts() {
        let settings = ServerSettings::default;
        let mut hosts = TlsHosts::new(settings());
        let (exact, below) = (|n: &str| HostName::Exact(n.to_owned()), |n: &str| HostName::Below(n.to_owned()));
        assert_eq!(hosts.add(&[below("example.com"), exact("x.test")], settings()), None);
        assert_eq!(hosts.add(&[below("b.example.com"), exact("a.example.com")], settings()), None);
        assert_eq!(hosts.add(&[exact("x.test")], settings()), Some(exact("x.test")));
        for (host, place) in [
            ("example.com", 0),
            ("A.example.com", 2),
            ("c.example.com", 1),
            ("c.d.example.com", 1),
            ("b.example.com", 1),
            ("c.b.example.com", 2),
            ("notexample.com", 0),
            ("", 0),
        ] {
            assert_eq!(hosts.place(Some(host)), place, "{host}");
        }
        assert_eq!(hosts.place(None), 0);
    }
}
