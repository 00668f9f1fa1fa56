//! A gateway as a process of its own, from the binary that users get.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::client::{self, Answer};
use super::eventually;

/// The binary.
pub const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

/// A running gateway; it is killed with its handle.
pub struct Gateway {
    pub child: Child,
    pub folder: tempfile::TempDir,
    pub listeners: Vec<(String, SocketAddr)>,
    pub admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that is killed with its handle: a successor that nobody else waits for.
pub struct Orphan(pub u32);

impl Drop for Orphan {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-9", &self.0.to_string()]).status();
    }
}

/// Adds what every test wants: free ports and a log of its own.
pub fn complete(yaml: &str) -> String {
    let mut text = yaml.to_owned();
    if !text.contains("\nlisteners:") && !text.starts_with("listeners:") {
        text.push_str("\nlisteners: [{name: main, address: 127.0.0.1:0}]\n");
    }
    if !text.contains("\nadmin:") {
        text.push_str("\nadmin: {address: 127.0.0.1:0}\n");
    }
    if !text.contains("\nlog:") && !text.starts_with("log:") {
        text.push_str("\nlog: {access: {output: file, file: access.log}}\n");
    }
    if !text.contains("\nprocess:") {
        text.push_str("\nprocess: {threads: 2, drain_time: 10s}\n");
    }
    text
}

impl Gateway {
    /// Starts one with that configuration and waits until it is ready.
    #[track_caller]
    pub fn start(yaml: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::start_in(folder, yaml, &[])
    }

    /// Starts one whose relative paths begin in that folder.
    #[track_caller]
    pub fn start_in(folder: tempfile::TempDir, yaml: &str, arguments: &[&str]) -> Self {
        let config = folder.path().join("portcullis.yaml");
        std::fs::write(&config, complete(yaml)).expect("written");
        let mut command = Command::new(BINARY);
        command.args(["run", "-c"]).arg(config).args(arguments);
        Self::start_by(folder, command)
    }

    /// Starts one by that command, whose configuration is in that folder.
    #[track_caller]
    pub fn start_by(folder: tempfile::TempDir, mut command: Command) -> Self {
        let (child, lines) = spawn(&mut command);
        let mut gateway =
            Self { child, folder, listeners: Vec::new(), admin: ([127, 0, 0, 1], 0).into(), log: Arc::default() };
        gateway.await_ready(&lines);
        let log = Arc::clone(&gateway.log);
        std::thread::spawn(move || lines.iter().for_each(|line| log.lock().expect("the log").push(line)));
        gateway
    }

    #[track_caller]
    fn await_ready(&mut self, lines: &Receiver<String>) {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let line = lines.recv_timeout(end.saturating_duration_since(Instant::now()));
            let log = || self.log.lock().expect("the log").join("\n");
            let line = line.unwrap_or_else(|_| panic!("the gateway did not become ready:\n{}", log()));
            self.log.lock().expect("the log").push(line.clone());
            let line = message(line);
            let address = || line.rsplit(' ').next().and_then(|a| a.parse().ok()).expect("an address");
            if line.contains(" accepts on ") {
                let name = line.split("listener ").nth(1).and_then(|l| l.split(' ').next()).unwrap_or_default();
                self.listeners.push((name.to_owned(), address()));
            } else if line.contains("the admin listener is on") {
                // A Unix socket has no port.
                self.admin = line.rsplit(' ').next().and_then(|a| a.parse().ok()).unwrap_or(self.admin);
            } else if line.ends_with("ready") {
                return;
            }
        }
    }

    /// The address of the first listener.
    pub fn address(&self) -> SocketAddr {
        self.listeners[0].1
    }

    /// One `GET`.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        client::get(self.address(), path)
    }

    /// One request.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        client::request(self.address(), method, path, headers)
    }

    /// Replaces the configuration's file.
    pub fn write_config(&self, yaml: &str) {
        std::fs::write(self.config(), complete(yaml)).expect("written");
    }

    /// The configuration's file.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("portcullis.yaml")
    }

    /// Asks for a reload.
    #[track_caller]
    pub fn reload(&self) -> Answer {
        client::Connection::open(self.admin)
            .ask("POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    }

    /// The value of a metric, 0 if it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        let text = client::get(self.admin, "/metrics").text();
        let line = text.lines().find(|l| l.strip_prefix(series).is_some_and(|r| r.starts_with(' ')));
        line.and_then(|l| l.rsplit(' ').next()).and_then(|v| v.parse().ok()).unwrap_or(0.0)
    }

    /// The number of requests that ended with that reason, on all routes.
    pub fn ended(&self, reason: &str) -> f64 {
        let series = format!("portcullis_requests_ended_total{{reason=\"{reason}\",");
        let text = client::get(self.admin, "/metrics").text();
        let values = text.lines().filter(|l| l.starts_with(&series)).filter_map(|l| l.rsplit(' ').next());
        values.filter_map(|value| value.parse::<f64>().ok()).sum()
    }

    pub fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill");
        assert!(done.success());
    }

    /// Lines of the process's own log so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").join("\n")
    }

    /// The access log, once it has that many lines.
    #[track_caller]
    pub fn access_log(&self, lines: usize) -> Vec<serde_json::Value> {
        let path = self.folder.path().join("access.log");
        let read = || std::fs::read_to_string(&path).unwrap_or_default();
        eventually("the access log has its lines", || read().lines().count() >= lines);
        read().lines().map(|l| serde_json::from_str(l).expect("a line of JSON")).collect()
    }

    /// Waits for the process to end, and gives its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        eventually("the process ends", || self.child.try_wait().expect("a status").is_some());
        self.child.wait().ok().and_then(|s| s.code())
    }
}

/// The message of a line of the process's own log, which may be JSON.
fn message(line: String) -> String {
    let json = serde_json::from_str::<serde_json::Value>(&line).ok();
    json.and_then(|json| json["message"].as_str().map(str::to_owned)).unwrap_or(line)
}

fn spawn(command: &mut Command) -> (Child, Receiver<String>) {
    let mut child = command
        .env_remove("RUST_LOG")
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary");
    let stderr = child.stderr.take().expect("stderr");
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    (child, lines)
}

/// Runs the binary to its end: exit code, standard output, standard error.
pub fn run(arguments: &[&str], folder: Option<&Path>) -> (i32, String, String) {
    let mut command = Command::new(BINARY);
    command.args(arguments).env_remove("RUST_LOG");
    command.current_dir(folder.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), Path::to_path_buf));
    let output = command.output().expect("the binary");
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}
