//! `listeners.*.tls`: certificates, versions, cipher suites, and the certificates of clients.

use rustls::CipherSuite;

use crate::config::{
    Certificate, Cipher, ClientCertificates, ClientMode, Doubtful, Loaded, Tls, TlsHost, TlsPreset, TlsVersion,
};
use crate::live::AcmeManager;
use crate::notation::{Host, Mistakes, OneOrMany, Place};
use crate::rules::routing::HostPattern;
use crate::snapshot::{Listener, ListenerTls};
use crate::telemetry::metrics::CertificateState;
use crate::tls::{
    CertificateSource, ClientVerification, ClientVerificationFiles, HostName, ServerSettings, TlsHosts, is_of_13,
    stapled_chain_and_key, validity,
};

/// The most hosts with settings of their own on a listener.
const MAX_HOSTS: usize = 10_000;

/// Returns the TLS settings of a listener, with every error in them among `mistakes`.
pub fn compile(
    loaded: &Loaded,
    acme: Option<&AcmeManager>,
    tls: &Tls,
    alpn: Vec<Vec<u8>>,
    place: &Place,
    mistakes: &mut Mistakes,
) -> ListenerTls {
    let certificates = certificates(loaded, acme, tls, &place.key("certificates"), mistakes);
    let written = Written { preset: tls.preset, min_version: tls.min_version, ciphers: tls.ciphers.as_ref() };
    let mut settings = ServerSettings { alpn, ..ServerSettings::default() };
    written.apply(&mut settings, place, mistakes);
    if let Some(client) = &tls.client {
        if client.mode == ClientMode::None {
            mistakes.add(&place.key("client").key("mode"), "is for hosts alone: leave out client instead");
        }
        settings.client = self::client(loaded, client, &place.key("client"), mistakes);
    }
    let mut hosts = TlsHosts::new(settings.clone());
    if tls.hosts.iter().map(|host| host.names.len()).sum::<usize>() > MAX_HOSTS {
        mistakes.add(&place.key("hosts"), format!("at most {MAX_HOSTS} hosts may have settings of their own"));
        return ListenerTls { certificates, hosts };
    }
    for (index, host) in tls.hosts.iter().enumerate() {
        let place = place.key("hosts").index(index);
        let own = host_settings(loaded, host, &settings, &place, mistakes);
        if let Some(twice) = hosts.add(&names(host, &place.key("names"), mistakes), own) {
            mistakes.add(&place.key("names"), format!("the host {twice} has settings already"));
        }
    }
    ListenerTls { certificates, hosts }
}

fn names(host: &TlsHost, place: &Place, mistakes: &mut Mistakes) -> Vec<HostName> {
    if host.names.is_empty() {
        mistakes.add(place, "expected at least one host");
    }
    let mut names = Vec::new();
    for (index, name) in host.names.iter().enumerate() {
        match &name.0 {
            HostPattern::Exact(name) if name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok() => {
                let text = "clients request names in TLS and never addresses: give the listener these settings";
                mistakes.add(&place.index(index), text);
            }
            HostPattern::Exact(name) => names.push(HostName::Exact(name.clone())),
            HostPattern::Below(name) => names.push(HostName::Below(name.clone())),
            HostPattern::Any => {
                mistakes.add(&place.index(index), "settings of all hosts are those of the listener: write them there");
            }
        }
    }
    names
}

fn host_settings(
    loaded: &Loaded,
    host: &TlsHost,
    listener: &ServerSettings,
    place: &Place,
    mistakes: &mut Mistakes,
) -> ServerSettings {
    let mut own = listener.clone();
    let written = Written { preset: host.preset, min_version: host.min_version, ciphers: host.ciphers.as_ref() };
    if written.is_nothing() && host.client.is_none() {
        mistakes.add(place, "expected client, preset, min_version or ciphers: without them it has no effect");
    }
    written.apply(&mut own, place, mistakes);
    if let Some(client) = &host.client {
        own.client = self::client(loaded, client, &place.key("client"), mistakes);
    }
    own
}

/// Versions and cipher suites as they are written.
struct Written<'c> {
    preset: Option<TlsPreset>,
    min_version: Option<TlsVersion>,
    ciphers: Option<&'c OneOrMany<Cipher>>,
}

impl Written<'_> {
    fn is_nothing(&self) -> bool {
        self.preset.is_none() && self.min_version.is_none() && self.ciphers.is_none()
    }

    /// Sets what is written in place of what the settings have.
    fn apply(&self, settings: &mut ServerSettings, place: &Place, mistakes: &mut Mistakes) {
        if self.preset == Some(TlsPreset::Modern) && self.min_version == Some(TlsVersion::V12) {
            mistakes.add(&place.key("min_version"), "the preset modern has no TLS 1.2: write preset: intermediate");
        }
        if let Some(preset) = self.preset {
            (settings.only_13, settings.suites) = (preset == TlsPreset::Modern, Vec::new());
        }
        if let Some(version) = self.min_version {
            settings.only_13 = version == TlsVersion::V13;
        }
        if let Some(ciphers) = self.ciphers {
            settings.suites = ciphers.as_slice().iter().copied().map(suite).collect();
            if settings.suites.is_empty() {
                mistakes.add(&place.key("ciphers"), "expected at least one cipher suite");
            }
        }
        if settings.suites.is_empty() {
            return;
        }
        let place = place.key(if self.ciphers.is_some() { "ciphers" } else { "min_version" });
        let of_13 = settings.suites.iter().filter(|suite| is_of_13(**suite)).count();
        let of_12 = settings.suites.len() - of_13;
        if of_13 == 0 {
            mistakes.add(&place, "there is no cipher suite of TLS 1.3, such as TLS_AES_128_GCM_SHA256");
        }
        if (of_12 == 0) != settings.only_13 {
            mistakes.add(
                &place,
                if settings.only_13 {
                    "there are cipher suites of TLS 1.2, which the settings reject: leave them out"
                } else {
                    "there is no cipher suite of TLS 1.2: add one, or write min_version: \"1.3\""
                },
            );
        }
    }
}

fn suite(cipher: Cipher) -> CipherSuite {
    match cipher {
        Cipher::TLS_AES_256_GCM_SHA384 => CipherSuite::TLS13_AES_256_GCM_SHA384,
        Cipher::TLS_AES_128_GCM_SHA256 => CipherSuite::TLS13_AES_128_GCM_SHA256,
        Cipher::TLS_CHACHA20_POLY1305_SHA256 => CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        Cipher::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        Cipher::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        Cipher::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        Cipher::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        Cipher::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        Cipher::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

fn client(
    loaded: &Loaded,
    client: &ClientCertificates,
    place: &Place,
    mistakes: &mut Mistakes,
) -> Option<ClientVerification> {
    let has_list = client.crl.is_some();
    for (key, is_set) in [("expired_crl", client.expired_crl), ("unknown_revocation", client.unknown_revocation)] {
        if is_set.is_some() && !has_list {
            mistakes.add(&place.key(key), "has no effect without crl");
        }
    }
    if client.mode == ClientMode::None {
        if client.ca.is_some() || has_list {
            mistakes.add(place, "no certificate is requested (mode: none), so that ca and crl have no effect");
        }
        return None;
    }
    let Some(ca) = &client.ca else {
        mistakes.add(place, "the key \"ca\" is missing: the CA file that client certificates are verified by");
        return None;
    };
    let ca = loaded.base.join(ca);
    let lists = client.crl.as_ref().map_or(&[][..], OneOrMany::as_slice);
    let lists: Vec<_> = lists.iter().map(|path| loaded.base.join(path)).collect();
    let files = ClientVerificationFiles {
        ca: &ca,
        crl: lists.iter().map(std::path::PathBuf::as_path).collect(),
        required: client.mode == ClientMode::Required,
        accept_expired_crl: client.expired_crl == Some(Doubtful::Accept),
        accept_unknown_revocation: client.unknown_revocation == Some(Doubtful::Accept),
    };
    mistakes.take(place, ClientVerification::read(&files))
}

/// The time before the end of a certificate in which its end is a warning; of a short-lived one the last third.
const SOON: i64 = 14 * 86_400;

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs() as i64
}

fn day(at: i64) -> String {
    chrono::DateTime::from_timestamp(at, 0).unwrap_or_default().format("%Y-%m-%d").to_string()
}

/// Warns of certificates that are not valid now, or not for long, and of revocation lists that have expired.
pub fn warn(compiled: &ListenerTls, tls: &Tls, place: &Place, warnings: &mut Mistakes) {
    if compiled.certificates.len() == tls.certificates.len() {
        warn_of_validity(&compiled.certificates, &place.key("certificates"), warnings);
    }
    let hosts = tls.hosts.iter().enumerate();
    let hosts = hosts.map(|(index, host)| (host.client.as_ref(), place.key("hosts").index(index)));
    let written = std::iter::once((tls.client.as_ref(), place.clone())).chain(hosts);
    for (group, (client, place)) in compiled.hosts.groups().iter().zip(written) {
        let Some(expires) = group.settings.client.as_ref().and_then(|client| client.crl_expires) else { continue };
        let rejects = client.is_some_and(|client| client.expired_crl != Some(Doubtful::Accept));
        if client.is_some() && expires <= now() {
            let what = if rejects { "all clients are rejected" } else { "it may lack what was revoked since" };
            let text = format!("a revocation list expired on {}: {what}", day(expires));
            warnings.add(&place.key("client").key("crl"), text);
        }
    }
}

/// Warns of certificates that are not valid now, or not for long.
fn warn_of_validity(certificates: &[CertificateSource], place: &Place, warnings: &mut Mistakes) {
    let now = now();
    for (index, certificate) in certificates.iter().enumerate() {
        let CertificateSource::Files(certificate) = certificate else { continue };
        let Some((from, to)) = validity(certificate) else { continue };
        let text = if to <= now {
            format!("the certificate expired on {}: clients reject it", day(to))
        } else if from > now {
            format!("the certificate is not valid before {}: clients reject it", day(from))
        } else if to - now < SOON.min((to - from) / 3) {
            format!("the certificate expires on {}, in {} days", day(to), (to - now) / 86_400)
        } else {
            continue;
        };
        warnings.add(&place.index(index), text);
    }
}

/// Returns when each certificate expires.
pub fn certificate_states(loaded: &Loaded, listeners: &[Listener]) -> Vec<CertificateState> {
    let mut states: Vec<CertificateState> = Vec::new();
    for (written, listener) in loaded.config.listeners.iter().zip(listeners) {
        let files = written.tls.iter().flat_map(|tls| &tls.certificates);
        let pairs = listener.tls().map_or(&[][..], |tls| &tls.certificates);
        for (file, pair) in files.zip(pairs) {
            // Those of an ACME server change while the configuration serves.
            let (Some(cert), CertificateSource::Files(pair)) = (&file.cert, pair) else { continue };
            let Some((_, expires)) = validity(pair) else { continue };
            let file = loaded.redact(&cert.0.display().to_string());
            if !states.iter().any(|one| one.file == file && one.listener == listener.name) {
                states.push(CertificateState { listener: listener.name.clone(), file, expires });
            }
        }
    }
    states
}

fn certificates(
    loaded: &Loaded,
    acme: Option<&AcmeManager>,
    tls: &Tls,
    place: &Place,
    mistakes: &mut Mistakes,
) -> Vec<CertificateSource> {
    if tls.certificates.is_empty() {
        mistakes.add(place, "expected at least one certificate");
    }
    let read = |(index, certificate): (usize, &Certificate)| {
        let place = place.index(index);
        if let Some(names) = &certificate.acme {
            if certificate.cert.is_some() || certificate.key.is_some() || certificate.ocsp.is_some() {
                mistakes.add(
                    &place,
                    "a certificate is read from files or obtained by acme: leave out the one or the other",
                );
            }
            return obtained(loaded, acme, names, &place.key("acme"), mistakes);
        }
        let (Some(cert), Some(key)) = (&certificate.cert, &certificate.key) else {
            let missing = if certificate.cert.is_none() { "cert" } else { "key" };
            mistakes.add(&place, format!("the key \"{missing}\" is missing: a PEM file"));
            return None;
        };
        let ocsp = certificate.ocsp.as_ref().map(|path| loaded.base.join(path));
        let (cert, key) = (loaded.base.join(cert), loaded.base.join(key));
        mistakes.take(&place, stapled_chain_and_key(&cert, &key, ocsp.as_deref())).map(CertificateSource::Files)
    };
    tls.certificates.iter().enumerate().filter_map(read).collect()
}

fn obtained(
    loaded: &Loaded,
    acme: Option<&AcmeManager>,
    names: &OneOrMany<Host>,
    place: &Place,
    mistakes: &mut Mistakes,
) -> Option<CertificateSource> {
    let mut exact = Vec::new();
    for (index, name) in names.as_slice().iter().enumerate() {
        let place = if names.as_slice().len() > 1 { place.index(index) } else { place.clone() };
        match &name.0 {
            HostPattern::Exact(name) if name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok() => {
                mistakes.add(&place, "expected a name, not an address");
            }
            HostPattern::Exact(name) => exact.push(name.clone()),
            _ => mistakes.add(&place, "no certificate for *.NAME can be obtained: it would take a challenge by DNS"),
        }
    }
    if exact.is_empty() {
        mistakes.add(place, "expected at least one name");
        return None;
    }
    match acme {
        Some(acme) => mistakes.take(place, acme.certificate(&exact)).map(CertificateSource::Acme),
        None => {
            if loaded.config.acme.is_none() && !loaded.is_partial("acme") {
                mistakes
                    .add(place, "there is no account: write `acme: {terms_of_service_agreed: true, state: FOLDER}`");
            }
            None
        }
    }
}
