//! From a configuration to a snapshot: names become references, tables are built, every check is made.
//!
//! All errors are noted, none ends the work early. Nothing is started or changed here: the live state is only read.

mod access_log;
mod acme;
mod apis;
mod caches;
mod ceiling;
mod consumers;
mod datagram_probe;
mod errors;
mod filters;
mod folder;
mod identity;
mod listener_tls;
mod listeners;
mod openapi;
mod paths;
mod route_warnings;
mod routes;
mod streams;
mod underscores;
mod unknown_name;
mod upstream_checks;
mod upstreams;
mod work;
mod zones;

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use ahash::AHashSet;

use self::folder::check_folder;
use crate::config::{Config, Loaded, LogLevel, ProcessLogFormat};
use crate::exchange::Edit;
use crate::filters::SharedValues;
use crate::live::{Live, Maintained};
use crate::notation::{AdminAddress, Mistakes, Place};
use crate::snapshot::{Admin, Process, Route, Snapshot};
use crate::telemetry::ProcessLog;
use crate::upstreams::Upstream;

/// The least time between two checks of the configuration's files.
const MIN_WATCH: std::time::Duration = std::time::Duration::from_millis(50);

/// The longest path of a socket that unix(7) allows.
const MAX_SOCKET_PATH: usize = 107;

/// Compiles a configuration, taking over from `live` whatever is still needed.
///
/// # Errors
/// Returns all errors, each with its place.
pub fn compile(loaded: &Loaded, live: &Live) -> Result<Snapshot, Mistakes> {
    let config = &loaded.config;
    let (mut mistakes, mut warnings) = (loaded.mistakes.clone(), Mistakes::default());
    let root = Place::default();
    let mut shared = SharedValues::default();
    let consumers = Arc::new(consumers::compile(loaded, live, &mut shared, &mut mistakes, &mut warnings));
    shared.caches = caches::compile(loaded, &mut mistakes);
    let acme = acme::compile(loaded, live, &mut mistakes, &mut warnings);
    let mut listeners = listeners::compile(loaded, acme.as_deref(), &mut mistakes, &mut warnings);
    let upstreams = upstreams::compile(loaded, live, &mut mistakes);
    streams::compile(loaded, &upstreams, &mut listeners, &mut mistakes, &mut warnings);
    let admin = admin(loaded, &root.key("admin"), &mut mistakes);
    check_process(loaded, &root.key("process"), &mut mistakes);
    let errors = errors::compile(&config.errors, &root.key("errors"), &Vec::new, &mut mistakes);
    let apis = apis::compile(&config.apis, &mut mistakes);
    let mut work = work::RouteCompiler {
        loaded,
        live,
        consumers: &consumers,
        upstreams: &upstreams,
        listeners: &listeners,
        mistakes: &mut mistakes,
        warnings: &mut warnings,
        shared,
        filters: HashMap::new(),
        conditions: HashMap::new(),
        apis: &apis,
        api_uses: AHashSet::default(),
        keyed_splits: 0,
        consumer_uses: BTreeMap::new(),
    };
    let (routes, routers, unrouted) = work.compile();
    let caches = caches::used(&work.shared.caches, work.warnings);
    let SharedValues { mut kept, files, .. } = work.shared;
    kept.extend(acme.iter().map(|acme| Arc::clone(acme) as Arc<dyn Maintained>));
    kept.iter().for_each(|kept| kept.name_for_operators(&|source| loaded.redact(source)));
    let credentials = if config.log.access.add.is_empty() { Vec::new() } else { credentials(&routes) };
    let log = access_log::compile(loaded, &credentials, &root.key("log").key("access"), &mut mistakes);
    let identity_headers = identity::compile(config, &mut mistakes);
    let underscored = underscores::compile(loaded, openapi::headers(loaded, &routes), &mut mistakes);
    ceiling::check(loaded, &listeners, &caches, &mut mistakes, &mut warnings);
    if !mistakes.is_empty() {
        return Err(loaded.locate(mistakes));
    }
    warn_of_upstreams(config, &upstreams, &root.key("upstreams"), &mut warnings);
    Ok(Snapshot {
        warnings: loaded.locate(warnings).0,
        certificates: listener_tls::certificate_states(loaded, &listeners),
        places: listeners.iter().enumerate().map(|(i, l)| (l.key(), i)).collect(),
        listeners,
        routers,
        secret_parameters: loaded.secret_parameters().to_vec(),
        underscored,
        routes,
        upstreams: upstreams.into_values().collect(),
        kept,
        acme,
        caches,
        consumers: Arc::clone(&consumers),
        files,
        errors,
        unrouted,
        identity_headers,
        shield: config.shield.requests_per_address.as_ref().map(|r| r.0),
        admin,
        log,
        process_log: process_log(config),
        process: process(loaded),
    })
}

/// Returns the edits that remove the credentials which the filters of these routes read.
fn credentials(routes: &[Route]) -> Vec<Edit> {
    let chains = routes.iter().flat_map(|route| route.chains.all());
    chains.flat_map(|chain| chain.filters().flat_map(|filter| filter.credentials())).collect()
}

/// Warns of upstreams that nothing uses, and of those whose targets cannot be verified on this system.
fn warn_of_upstreams(
    config: &Config,
    upstreams: &BTreeMap<String, Arc<Upstream>>,
    place: &Place,
    warnings: &mut Mistakes,
) {
    // Only the table holds it: no route, no backup and no mirror does.
    for (name, _) in upstreams.iter().filter(|(_, upstream)| Arc::strong_count(upstream) == 1) {
        warnings.add(&place.key(name.clone()), "nothing uses this upstream");
    }
    for (name, _) in
        config.upstreams.iter().filter(|(_, u)| u.tls.as_ref().is_some_and(|tls| tls.verify && tls.ca.is_none()))
    {
        if crate::tls::system_roots().is_empty() {
            warnings.add(
                &place.key(name.clone()).key("tls"),
                "the system has no CA certificates, so that no target can be verified: set ca, or install them",
            );
        }
    }
}

fn process(loaded: &Loaded) -> Process {
    let process = &loaded.config.process;
    Process {
        threads: process.threads,
        body_memory: process.body_memory.0,
        readiness_time: process.readiness_time.0,
        drain_time: process.drain_time.0,
        websocket_time: process.websocket_time.0,
        upgrade_socket: process.upgrade_socket.as_ref().map(|p| loaded.base.join(p)),
        upgrade_time: process.upgrade_time.0,
        standby_time: process.standby_time.0,
        watch: process.watch.as_ref().map(|w| w.0.max(MIN_WATCH)),
    }
}

fn admin(loaded: &Loaded, place: &Place, mistakes: &mut Mistakes) -> Admin {
    let admin = &loaded.config.admin;
    let has_token = admin.token.is_some() || loaded.is_left_out("admin", "token");
    let mut address = admin.address.0.clone();
    match &mut address {
        AdminAddress::Tcp(address) if !address.ip().is_loopback() && !has_token => {
            mistakes.add(&place.key("address"), "an address that others can reach needs a token: set admin.token");
        }
        AdminAddress::Unix(path) => {
            *path = loaded.base.join(&path);
            check_socket(path, path.as_os_str().len(), &place.key("address"), mistakes);
        }
        AdminAddress::None if admin.token.is_some() => {
            mistakes.add(&place.key("token"), "without an admin listener (address: none) nothing asks for it");
        }
        AdminAddress::Tcp(_) | AdminAddress::None => {}
    }
    Admin { address, token: admin.token.as_ref().map(|t| t.0.clone()) }
}

fn process_log(config: &Config) -> ProcessLog {
    let level = match config.log.process.level {
        LogLevel::Error => log::LevelFilter::Error,
        LogLevel::Warn => log::LevelFilter::Warn,
        LogLevel::Info => log::LevelFilter::Info,
        LogLevel::Debug => log::LevelFilter::Debug,
        LogLevel::Trace => log::LevelFilter::Trace,
    };
    ProcessLog { json: config.log.process.format == ProcessLogFormat::Json, level }
}

fn check_process(loaded: &Loaded, place: &Place, mistakes: &mut Mistakes) {
    if loaded.config.process.watch.as_ref().is_some_and(|watch| watch.0.is_zero()) {
        let text = "expected a time longer than nothing; without the key nothing is watched";
        mistakes.add(&place.key("watch"), text);
    }
    zones::check_gateways(loaded, place, mistakes);
    upgrade_socket(loaded, &place.key("upgrade_socket"), mistakes);
}

fn upgrade_socket(loaded: &Loaded, place: &Place, mistakes: &mut Mistakes) {
    let Some(path) = &loaded.config.process.upgrade_socket else { return };
    let path = loaded.base.join(path);
    // With the suffix that it has before it is renamed to its path.
    let length = path.with_extension("4194304.new").as_os_str().len().max(path.as_os_str().len());
    check_socket(&path, length, place, mistakes);
}

/// Notes a path at which no socket could be made.
fn check_socket(path: &Path, length: usize, place: &Place, mistakes: &mut Mistakes) {
    check_folder(path, place, mistakes);
    if length > MAX_SOCKET_PATH {
        mistakes.add(place, format!("is too long for a socket by {} bytes", length - MAX_SOCKET_PATH));
    }
    if std::fs::metadata(path).is_ok_and(|there| !there.file_type().is_socket()) {
        mistakes.add(place, format!("{} is there already, and is no socket", path.display()));
    }
}
