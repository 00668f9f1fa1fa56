//! Programs of other people as clients and targets, and the gateways between them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::harness::gateway::Gateway;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The time that a client has for all that it does.
const CLIENT_TIME: Duration = Duration::from_secs(30);

/// Returns a command that runs a script: by its ending with Python or Node.js.
#[track_caller]
pub fn script(name: &str, arguments: &[&str]) -> Command {
    let program = if name.ends_with(".py") {
        Path::new(ROOT).join("target/clients/python/bin/python")
    } else {
        PathBuf::from("node")
    };
    assert!(
        Path::new(ROOT).join("target/clients/installed").exists(),
        "the clients are not installed: run `.ci/setup clients`"
    );
    let mut command = Command::new(program);
    command.arg(Path::new(ROOT).join("tests/clients").join(name)).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1");
    for variable in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(variable);
    }
    command
}

#[track_caller]
fn spawn(command: &mut Command) -> Child {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|e| {
        panic!("{} cannot be run ({e}): run `.ci/setup clients`", command.get_program().to_string_lossy())
    })
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no line of JSON: {line}"))).collect()
}

/// A server in a script; it is killed with its handle.
pub struct Server {
    pub address: SocketAddr,
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts the script, and waits for the port that its first line names.
    #[track_caller]
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        let mut child = spawn(&mut script(name, arguments));
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let errors = read_all(child.stderr.take().expect("stderr"));
        let mut first = String::new();
        let _ = stdout.read_line(&mut first);
        let port = serde_json::from_str::<Value>(&first).ok().and_then(|v| v["port"].as_u64());
        let Some(port) = port.and_then(|p| u16::try_from(p).ok()) else {
            let _ = child.kill();
            panic!("{name} {arguments:?} does not start: {first}{}", errors.join().unwrap_or_default())
        };
        let lines: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                kept.lock().expect("the lines").extend(serde_json::from_str::<Value>(&line));
            }
        });
        Self { address: SocketAddr::from(([127, 0, 0, 1], port)), child, lines }
    }

    /// Node's own server: `http1`, or `http2` for h2c.
    #[track_caller]
    pub fn node(protocol: &str) -> Self {
        Self::start("targets.js", &[protocol])
    }

    /// The HTTP/1.1 target that prints what it gets byte by byte.
    #[track_caller]
    pub fn recorder() -> Self {
        Self::start("recorder.py", &[])
    }

    /// Returns what it printed so far, its port left out.
    pub fn lines(&self) -> Vec<Value> {
        self.lines.lock().expect("the lines").clone()
    }

    /// Waits for a line of which that holds.
    #[track_caller]
    pub fn await_line(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            if let Some(line) = self.lines().into_iter().find(|l| holds(l)) {
                return line;
            }
            assert!(Instant::now() < end, "the target never printed: {what}; it printed {:?}", self.lines());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asserts that the target got nothing but complete requests.
    #[track_caller]
    pub fn assert_clean(&self) {
        let wrong: Vec<Value> =
            self.lines().into_iter().filter(|l| !l["garbage"].is_null() || !l["incomplete"].is_null()).collect();
        assert!(wrong.is_empty(), "the target got {wrong:?}");
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// What a client left.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub errors: String,
    pub took: Duration,
}

impl Done {
    /// The lines of JSON that it printed.
    #[track_caller]
    pub fn json(&self) -> Vec<Value> {
        json_lines(&self.out)
    }
}

/// Runs a command to its end with that standard input, which is closed behind it.
#[track_caller]
pub fn finish(command: &mut Command, input: &[u8]) -> Done {
    let start = Instant::now();
    let mut child = spawn(command);
    let mut stdin = child.stdin.take().expect("stdin");
    let (out, errors) =
        (read_all(child.stdout.take().expect("stdout")), read_all(child.stderr.take().expect("stderr")));
    let input = input.to_vec();
    std::thread::spawn(move || stdin.write_all(&input));
    let mut late = false;
    let code = loop {
        if let Some(status) = child.try_wait().expect("a status") {
            break status.code().unwrap_or(-1);
        }
        if start.elapsed() > CLIENT_TIME {
            late = true;
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let done = Done {
        code,
        out: out.join().expect("its output"),
        errors: errors.join().expect("its errors"),
        took: start.elapsed(),
    };
    assert!(!late, "{command:?} did not end in {CLIENT_TIME:?}: {done:#?}");
    done
}

/// Runs a client script to its end, and returns the lines that it printed.
#[track_caller]
pub fn run(name: &str, arguments: &[&str]) -> Vec<Value> {
    let done = finish(&mut script(name, arguments), b"");
    assert_eq!(done.code, 0, "{name} {arguments:?} failed: {}{}", done.errors, done.out);
    done.json()
}

/// Runs a client script that prints one line.
#[track_caller]
pub fn run_one(name: &str, arguments: &[&str]) -> Value {
    let mut lines = run(name, arguments);
    assert_eq!(lines.len(), 1, "{name} {arguments:?} printed {lines:?}");
    lines.remove(0)
}

/// Runs curl, silent but for errors, with that standard input.
#[track_caller]
pub fn curl_with(arguments: &[&str], input: &[u8]) -> Done {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "25"]).args(arguments);
    finish(&mut command, input)
}

/// Runs curl.
#[track_caller]
pub fn curl(arguments: &[&str]) -> Done {
    curl_with(arguments, b"")
}

/// What lies between clients and a target: the rest of the upstream, of the route, and of the file.
#[derive(Default)]
pub struct Between<'a> {
    pub upstream: &'a str,
    pub route: &'a str,
    pub forward: &'a str,
    pub limits: &'a str,
    pub rest: &'a str,
}

impl Between<'_> {
    /// Starts a gateway of one thread, so that the connections to targets are the same for all clients.
    #[track_caller]
    pub fn start(&self, target: SocketAddr) -> Gateway {
        let Between { upstream, route, forward, limits, rest } = self;
        Gateway::start(&format!(
            "upstreams: {{one: {{targets: [\"{target}\"]{upstream}}}}}\n\
             routes: [{{name: all, match: {{path: /*}}{route}, action: {{forward: {{upstream: one{forward}}}}}}}]\n\
             listeners: [{{name: main, address: \"127.0.0.1:0\", protocols: [http1, http2]{limits}}}]\n\
             process: {{threads: 1, drain_time: 10s}}\n{rest}"
        ))
    }
}

/// The configuration of most tests: one listener for both protocols, one upstream, one route to it.
#[track_caller]
pub fn before(target: SocketAddr) -> Gateway {
    Between::default().start(target)
}

/// The same before an h2c target.
#[track_caller]
pub fn before_http2(target: SocketAddr) -> Gateway {
    Between { upstream: ", protocol: http2", ..Between::default() }.start(target)
}

/// Returns the values of a field of a response that a script printed as `[[name, value], …]`.
pub fn field<'a>(line: &'a Value, name: &str) -> Vec<&'a str> {
    let fields = line["headers"].as_array().map(Vec::as_slice).unwrap_or_default();
    fields
        .iter()
        .filter(|f| f[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)))
        .filter_map(|f| f[1].as_str())
        .collect()
}
