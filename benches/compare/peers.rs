//! The peers, and how they are started: on one core, without logs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    Bare,
    Portcullis,
    /// Built with a profile of its work, by benches/compare/pgo.sh.
    Profiled,
    Nginx,
    Haproxy,
    Envoy,
    Traefik,
    Caddy,
}

pub const PEERS: [Peer; 8] =
    [Peer::Bare, Peer::Portcullis, Peer::Profiled, Peer::Nginx, Peer::Haproxy, Peer::Envoy, Peer::Traefik, Peer::Caddy];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    Plain,
    Tls,
    Handshakes,
    Http2,
    Routes,
    ApiKey,
    Jwt,
    Headers,
    /// JWT, rate limit and 1,000 routes.
    Full,
    /// 1 KiB of JSON as it comes, and without its sensitive fields.
    Json,
    Strip,
    /// A response from the cache.
    Cached,
}

pub const SCENARIOS: [Scenario; 12] = [
    Scenario::Plain,
    Scenario::Tls,
    Scenario::Handshakes,
    Scenario::Http2,
    Scenario::Routes,
    Scenario::ApiKey,
    Scenario::Jwt,
    Scenario::Headers,
    Scenario::Full,
    Scenario::Json,
    Scenario::Strip,
    Scenario::Cached,
];

/// How many routes, and how many API keys, there are where there are many.
pub const MANY: usize = 1_000;

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare Pingora",
            Self::Portcullis => "Portcullis",
            Self::Profiled => "Portcullis, PGO",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::Traefik => "Traefik",
            Self::Caddy => "Caddy",
        }
    }

    /// Whether it has what the scenario needs, without a plug-in.
    pub fn can(self, scenario: Scenario) -> bool {
        match self {
            Self::Portcullis | Self::Profiled => true,
            _ if matches!(scenario, Scenario::Full | Scenario::Json | Scenario::Strip) => false,
            _ if scenario == Scenario::Cached => self == Self::Nginx,
            Self::Envoy | Self::Haproxy => true,
            Self::Bare => scenario == Scenario::Plain,
            Self::Nginx => scenario != Scenario::Jwt,
            Self::Traefik | Self::Caddy => !matches!(scenario, Scenario::Jwt | Scenario::ApiKey),
        }
    }
}

impl Scenario {
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain HTTP/1.1",
            Self::Tls => "TLS keep-alive",
            Self::Handshakes => "TLS handshakes",
            Self::Http2 => "HTTP/2 over TLS",
            Self::Routes => "1,000 routes",
            Self::ApiKey => "API key",
            Self::Jwt => "JWT + rate limit",
            Self::Headers => "header edits",
            Self::Full => "JWT, limit, 1,000 routes",
            Self::Json => "1 KiB of JSON",
            Self::Strip => "1 KiB of JSON, stripped",
            Self::Cached => "from the cache",
        }
    }

    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Handshakes | Self::Http2)
    }
}

/// Where everything is.
pub struct Ground {
    pub folder: PathBuf,
    pub origin: SocketAddr,
    /// Answers with JSON.
    pub json: SocketAddr,
    /// Where the peers' binaries are; else they are looked for in the path.
    pub binaries: PathBuf,
    pub portcullis: PathBuf,
    /// May not be there.
    pub profiled: PathBuf,
    pub bare: PathBuf,
    /// The modulus of the key that signs tokens, as a JWKS has it.
    pub modulus: String,
}

/// A peer at work; it ends with this.
pub struct Running {
    pub child: Child,
    pub address: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        for _ in 0..200 {
            if self.child.try_wait().is_ok_and(|s| s.is_some()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Nanoseconds of CPU that it and its children have used.
    pub fn cpu(&self) -> u64 {
        self.processes().iter().map(|pid| cpu_of(*pid)).sum()
    }

    /// Kibibytes of memory that are its own.
    pub fn memory(&self) -> u64 {
        self.processes().iter().map(|pid| memory_of(*pid)).sum()
    }

    fn processes(&self) -> Vec<u32> {
        let own = self.child.id();
        let parent = |pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
        };
        let all = std::fs::read_dir("/proc")
            .expect("proc")
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        all.filter(|pid| *pid == own || parent(*pid) == Some(own)).collect()
    }
}

pub fn cpu_of(pid: u32) -> u64 {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let time = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    tasks.flatten().filter_map(time).sum()
}

pub fn memory_of(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("Pss:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address")
}

impl Ground {
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn binary(&self, name: &str) -> PathBuf {
        let places = [self.binaries.join(name), PathBuf::from("/usr/sbin").join(name)];
        places.into_iter().find(|place| place.exists()).unwrap_or_else(|| PathBuf::from(name))
    }

    /// Starts a peer on the first core and waits until it accepts.
    pub fn start(&self, peer: Peer, scenario: Scenario) -> Running {
        let address = free();
        let (binary, arguments) = self.prepare(peer, scenario, address);
        let log = std::fs::File::create(self.folder.join(format!("{peer:?}-{scenario:?}.log"))).expect("a log");
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(binary).args(arguments).env("GOMAXPROCS", "1").env("XDG_DATA_HOME", &self.folder);
        command.env("XDG_CONFIG_HOME", &self.folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("the peer");
        let running = Running { child, address };
        for _ in 0..500 {
            if std::net::TcpStream::connect(address).is_ok() {
                return running;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let log = std::fs::read_to_string(self.folder.join(format!("{peer:?}-{scenario:?}.log"))).unwrap_or_default();
        panic!("{} does not start for {scenario:?}: {log}", peer.name());
    }

    fn prepare(&self, peer: Peer, scenario: Scenario, address: SocketAddr) -> (PathBuf, Vec<String>) {
        let arguments = |list: &[&str]| list.iter().map(|a| (*a).to_owned()).collect();
        match peer {
            Peer::Bare => (self.bare.clone(), arguments(&[&address.to_string(), &self.origin.to_string()])),
            Peer::Portcullis | Peer::Profiled => {
                let config = self.write(&format!("{peer:?}.yaml"), &self.portcullis(scenario, address));
                let binary = if peer == Peer::Profiled { &self.profiled } else { &self.portcullis };
                (binary.clone(), arguments(&["run", "-q", "-c", &config]))
            }
            Peer::Nginx => {
                let config = self.write("nginx.conf", &self.nginx(scenario, address));
                (self.binary("nginx"), arguments(&["-c", &config, "-p", &self.path(""), "-e", &self.path("nginx.log")]))
            }
            Peer::Haproxy => {
                let config = self.write("haproxy.cfg", &self.haproxy(scenario, address));
                (self.binary("haproxy"), arguments(&["-db", "-f", &config]))
            }
            Peer::Envoy => {
                let config = self.write("envoy.yaml", &self.envoy(scenario, address));
                let flags = ["-c", &config, "--concurrency", "1", "-l", "error", "--disable-hot-restart"];
                (self.binary("envoy"), arguments(&flags))
            }
            Peer::Traefik => {
                let dynamic = self.write("traefik-dynamic.yaml", &self.traefik(scenario));
                let config = format!(
                    "global: {{sendAnonymousUsage: false, checkNewVersion: false}}\nlog: {{level: ERROR}}\nentryPoints: {{main: {{address: \"{address}\"}}}}\nproviders: {{file: {{filename: {dynamic}}}}}\nserversTransport: {{maxIdleConnsPerHost: 1024}}"
                );
                let config = self.write("traefik.yaml", &config);
                (self.binary("traefik"), arguments(&["--configfile", &config]))
            }
            Peer::Caddy => {
                let config = self.write("Caddyfile", &self.caddy(scenario, address));
                (self.binary("caddy"), arguments(&["run", "--adapter", "caddyfile", "--config", &config]))
            }
        }
    }
}
