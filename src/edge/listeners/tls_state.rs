//! The TLS of a listener: what rustls needs for each of its hosts, which a reload may change.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::ServerConfig;

use crate::snapshot::ListenerTls;
use crate::tls::{
    CertificateSource, CertificateTable, HostGroup, ServerSettings, TicketKeys, Tickets, TlsHosts, challenge_config,
    server_config,
};

/// The TLS settings of a listener.
pub struct TlsService {
    hosts: TlsHosts,
    /// For each group of hosts its configuration.
    configs: Vec<Arc<ServerConfig>>,
    /// The configuration for challenges, if certificates are obtained by ACME.
    pub challenges: Option<Arc<ServerConfig>>,
}

impl TlsService {
    /// Returns the settings of a host and what rustls needs for it.
    pub fn of_host(&self, name: Option<&str>) -> (&Arc<ServerSettings>, &Arc<ServerConfig>) {
        let place = self.hosts.place(name);
        (&self.hosts.groups()[place].settings, &self.configs[place])
    }
}

/// The present TLS settings of a listener.
pub struct ListenerTlsState {
    present: ArcSwapOption<TlsService>,
    certificates: Arc<ArcSwap<CertificateTable>>,
}

impl Default for ListenerTlsState {
    fn default() -> Self {
        let certificates = Arc::new(ArcSwap::from_pointee(CertificateTable::new(&[])));
        Self { present: ArcSwapOption::empty(), certificates }
    }
}

impl ListenerTlsState {
    /// Returns the present settings, if TLS is spoken.
    pub fn present(&self) -> Option<Arc<TlsService>> {
        self.present.load_full()
    }

    /// Returns whether TLS is spoken.
    pub fn is_present(&self) -> bool {
        self.present.load().is_some()
    }

    /// Applies a new configuration to the listener of that name.
    pub fn update(&self, tls: Option<&ListenerTls>, name: &str, keys: &Arc<TicketKeys>) {
        let Some(tls) = tls else { return self.present.store(None) };
        self.certificates.store(Arc::new(CertificateTable::new(&tls.certificates)));
        let before = self.present.load_full();
        let config = |group| self.config_of(group, name, keys, before.as_deref());
        let configs = tls.hosts.groups().iter().map(config).collect();
        let is_obtained = |source: &CertificateSource| matches!(source, CertificateSource::Acme(_));
        let challenges =
            tls.certificates.iter().any(is_obtained).then(|| challenge_config(Arc::clone(&self.certificates)));
        self.present.store(Some(Arc::new(TlsService { hosts: tls.hosts.clone(), configs, challenges })));
    }

    /// Returns the configuration for a group of hosts. Where its settings are as before it is the one from before, with
    /// its cached sessions.
    fn config_of(
        &self,
        group: &HostGroup,
        listener: &str,
        keys: &Arc<TicketKeys>,
        before: Option<&TlsService>,
    ) -> Arc<ServerConfig> {
        let known = before.and_then(|before| {
            let same = |other: &HostGroup| other.label == group.label && other.settings == group.settings;
            before.configs.get(before.hosts.groups().iter().position(same)?)
        });
        if let Some(known) = known {
            return Arc::clone(known);
        }
        let client = group.settings.client.as_ref().map(|client| client.digest);
        let tickets = Tickets::new(Arc::clone(keys), listener, &group.label, client);
        server_config(&group.settings, Arc::clone(&self.certificates), tickets)
    }
}
