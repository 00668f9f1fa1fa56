//! PostgreSQL by server name: psql and two servers with TLS, behind one port.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::programs::{Done, finish};

/// A server with a cluster of its own, which is its name; it is ended with its handle.
struct Postgres {
    child: Child,
    address: SocketAddr,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // It ends its own processes, which it would not if it were killed.
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// Returns the folder of the programs of a server, the newest that is installed.
fn programs() -> PathBuf {
    let folders =
        std::fs::read_dir("/usr/lib/postgresql").map(|all| all.flatten().map(|entry| entry.path().join("bin")));
    let newest = folders.ok().and_then(|all| all.filter(|bin| bin.join("initdb").exists()).max());
    newest.expect("PostgreSQL is not installed: run `.ci/setup clients`")
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Returns a command that runs as a user without privileges: a server does not run as root.
fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "nobody", "--"]).arg(program);
    command
}

fn give(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
    if is_root() {
        assert!(Command::new("chown").arg("nobody").arg(path).status().expect("run").success());
    }
}

/// Returns a free port of an address that nothing but this process uses: a server cannot name the port that it got.
fn free() -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    let listener = TcpListener::bind((Ipv4Addr::new(127, 98, high, low), 0)).expect("a free port");
    listener.local_addr().expect("an address")
}

impl Postgres {
    fn start(folder: &Path, name: &str) -> Self {
        let data = folder.join(format!("{name}.data"));
        std::fs::create_dir(&data).expect("a folder");
        give(&data, 0o700);
        for file in [format!("{name}.pem"), format!("{name}.key")] {
            give(&folder.join(file), 0o600);
        }
        let bin = programs();
        let made = unprivileged(&bin.join("initdb"))
            .args(["--auth=trust", "--username=app", "--no-sync", "--no-instructions", "--encoding=UTF8"])
            .arg("-D")
            .arg(&data)
            .current_dir("/")
            .output()
            .expect("run");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // Clients come from addresses that initdb does not allow by itself.
        std::fs::write(data.join("pg_hba.conf"), "host all all 127.0.0.0/8 trust\n").expect("written");
        let address = free();
        let settings = [
            format!("listen_addresses={}", address.ip()),
            format!("port={}", address.port()),
            "unix_socket_directories=".to_owned(),
            format!("cluster_name={name}"),
            "fsync=off".to_owned(),
            "shared_buffers=16MB".to_owned(),
            "max_connections=20".to_owned(),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", folder.join(format!("{name}.pem")).display()),
            format!("ssl_key_file={}", folder.join(format!("{name}.key")).display()),
        ];
        let log = std::fs::File::create(folder.join(format!("{name}.log"))).expect("a log");
        let mut command = unprivileged(&bin.join("postgres"));
        command.arg("-D").arg(&data).current_dir("/");
        settings.iter().for_each(|setting| _ = command.args(["-c", setting]));
        command.stdout(Stdio::null()).stderr(log);
        let server = Self { child: command.spawn().expect("run"), address };
        let plain = format!("host={} port={} sslmode=disable user=app dbname=postgres", address.ip(), address.port());
        eventually("the server is ready", || finish(&mut psql(&plain, "select 1"), b"").code == 0);
        server
    }
}

fn psql(connection: &str, query: &str) -> Command {
    let mut command = Command::new("psql");
    // Nothing of the user's own.
    command.args(["-XAt", "-F,", "-c", query, connection]).env("HOME", "/nonexistent").env("PGCONNECT_TIMEOUT", "20");
    command
}

/// Writes a certificate for a name, by that authority.
fn issue(folder: &Path, name: &str, authority: &CertifiedIssuer<'_, KeyPair>) {
    let key = KeyPair::generate().expect("a key");
    let parameters = CertificateParams::new(vec![format!("{name}.db.test")]).expect("parameters");
    let certificate = parameters.signed_by(&key, authority).expect("a certificate");
    std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).expect("written");
    std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).expect("written");
}

#[test]
fn servers_are_reached_by_name_over_one_port() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("set");
    let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("an authority");
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).expect("written");
    ["one", "two", "ended"].iter().for_each(|name| issue(folder.path(), name, &authority));
    let (one, two) = (Postgres::start(folder.path(), "one"), Postgres::start(folder.path(), "two"));
    let ca = folder.path().join("ca.pem").display().to_string();
    let gateway = Gateway::start_in(
        folder,
        &format!(
            "listeners: [{{name: main, address: 127.0.0.1:0, kind: tcp, tls: {{certificates: [{{cert: ended.pem, key: \
             ended.key}}]}}}}]\nupstreams:\n  one: {{targets: [\"{0}\"]}}\n  two: {{targets: [\"{1}\"]}}\n  encrypted: \
             {{targets: [\"{0}\"], tls: {{ca: ca.pem, name: one.db.test}}}}\nstreams:\n  - {{name: one, match: \
             {{server_name: one.db.test}}, tls: pass, action: {{forward: one}}}}\n  - {{name: two, match: {{server_name: \
             two.db.test}}, tls: pass, action: {{forward: two}}}}\n  - {{name: ended, match: {{server_name: \
             ended.db.test}}, action: {{forward: one}}}}\n  - {{name: again, match: {{server_name: again.db.test}}, \
             action: {{forward: encrypted}}}}\n  - {{name: rest, tls: pass, action: {{forward: two}}}}\n",
            one.address, two.address
        ),
        &[],
    );
    let port = gateway.address().port();
    let ask = |host: &str, mode: &str| -> Done {
        let connection = format!(
            "host={host}.db.test hostaddr=127.0.0.1 port={port} sslmode={mode} sslrootcert={ca} user=app dbname=postgres"
        );
        let query = "select current_setting('cluster_name'), ssl from pg_stat_ssl where pid = pg_backend_pid()";
        finish(&mut psql(&connection, query), b"")
    };
    // Passed on: the certificate is that of the server.
    for (host, answer) in [("one", "one,t\n"), ("two", "two,t\n"), ("ended", "one,f\n")] {
        let done = ask(host, "verify-full");
        assert_eq!(done.out, answer, "{host}: {}", done.errors);
    }
    // Ended here and begun anew; the certificate is for another name.
    let done = ask("again", "require");
    assert_eq!(done.out, "one,t\n", "{}", done.errors);
    assert!(ask("again", "verify-full").errors.contains("does not match host name"));
    // Without TLS there is no name: the rule without conditions.
    for (host, mode) in [("one", "disable"), ("other", "allow")] {
        assert_eq!(ask(host, mode).out, "two,f\n");
    }
    assert_eq!(ask("other", "require").out, "two,t\n");
    // A request to cancel is a connection without a name.
    let connection = format!("host=127.0.0.1 port={port} sslmode=disable user=app dbname=postgres");
    let sleeping = psql(&connection, "select pg_sleep(60)").stderr(Stdio::piped()).spawn().expect("run");
    let active = "select count(*) from pg_stat_activity where query like 'select pg_sleep%'";
    eventually("it sleeps", || finish(&mut psql(&connection, active), b"").out == "1\n");
    let id = sleeping.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("run").success());
    let ended = sleeping.wait_with_output().expect("an end");
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(errors.contains("canceling statement due to user request"), "{errors}");
    // Each session is in the log, by its rule.
    eventually("it is logged", || {
        let lines = gateway.access_log(6);
        lines.iter().any(|line| line["stream"] == "one" && line["server_name"] == "one.db.test")
    });
}
