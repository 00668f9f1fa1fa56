//! The README and the guides are executed: their files are written, their commands run, and what they are said to print
//! is looked for.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test or a tool: what is not as it should be ends it"
)]

mod harness;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use harness::eventually;
use harness::gateway::{BINARY, Gateway, run};
use harness::page::{Step, mismatch, steps};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Where the commands of a page run, and the processes that they have started.
struct Place {
    folder: PathBuf,
    background: Vec<Child>,
}

impl Drop for Place {
    /// Ends what was started in the background, successors included.
    fn drop(&mut self) {
        for child in &mut self.background {
            let _ = Command::new("kill").args(["-9", "--", &format!("-{}", child.id())]).status();
            let _ = child.wait();
        }
    }
}

impl Place {
    fn shell(&self, line: &str) -> Command {
        let path = format!(
            "{}:{}",
            Path::new(BINARY).parent().expect("a folder").display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let mut command = Command::new("bash");
        command
            .args(["-c", &format!("{line} 2>&1")])
            .current_dir(&self.folder)
            .env("PATH", path)
            .env_remove("RUST_LOG");
        command
    }

    /// Runs a command, and looks for what it is said to print: the parts between the ellipses, in their order.
    fn run(&mut self, line: &str, prints: &str) {
        if let Some(line) = line.strip_suffix(" &") {
            return self.start(line, prints);
        }
        let output = self.shell(line).output().expect("bash");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() || !prints.is_empty(), "{line}: {printed}");
        if let Some(wrong) = mismatch(&printed, prints) {
            panic!("{line}: {wrong}");
        }
    }

    /// Starts a command of the background, and waits until it accepts on the address that it is said to print.
    fn start(&mut self, line: &str, prints: &str) {
        let address: SocketAddr =
            prints.rsplit(' ').next().and_then(|a| a.parse().ok()).expect("the address at which it accepts");
        let log = tempfile::NamedTempFile::new().expect("a file");
        let (out, error) = (log.reopen().expect("the file"), log.reopen().expect("the file"));
        let child = self.shell(&format!("exec {line}")).process_group(0).stdout(out).stderr(error).spawn();
        self.background.push(child.expect("bash"));
        eventually(line, || {
            let ended = self.background.last_mut().is_some_and(|child| child.try_wait().expect("a status").is_some());
            assert!(!ended, "{line}: {}", std::fs::read_to_string(log.path()).unwrap_or_default());
            TcpStream::connect(address).is_ok()
        });
    }
}

/// Free ports of that address, which nothing else uses.
fn free<const N: usize>(ip: Ipv4Addr) -> [SocketAddr; N] {
    let all = [(); N].map(|()| TcpListener::bind((ip, 0)).expect("a free port"));
    all.each_ref().map(|listener| listener.local_addr().expect("an address"))
}

fn replaced(text: &str, addresses: &[(&str, SocketAddr)]) -> String {
    addresses.iter().fold(text.to_owned(), |text, (written, actual)| {
        let slash = |address: &str| address.replace(':', "/");
        text.replace(written, &actual.to_string()).replace(&slash(written), &slash(&actual.to_string()))
    })
}

/// A demo on free ports: the addresses of the gateway and of the operators' listener.
fn demo() -> (Place, SocketAddr, SocketAddr) {
    let mut child = Command::new(BINARY)
        .args(["demo", "--port", "0", "--admin-port", "0"])
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines().map_while(Result::ok);
    let mut after = |word: &str| {
        let line = lines.find(|l| l.trim_start().starts_with(word)).expect("the table");
        let url = line.split("http://").nth(1).expect("a URL").trim_end_matches("/metrics");
        url.parse().expect("an address")
    };
    let (gateway, operators) = (after("gateway"), after("admin"));
    std::thread::spawn(move || lines.for_each(drop));
    (Place { folder: ROOT.into(), background: vec![child] }, gateway, operators)
}

/// What the README begins with is what runs this test; that it is there is checked.
fn builds(line: &str) -> bool {
    if line == "cargo install --locked --path ." {
        assert!(Path::new(ROOT).join("Cargo.lock").exists() && BINARY.ends_with("/portcullis"));
        return true;
    }
    let script = line.split_whitespace().next().expect("a command");
    assert!(!script.starts_with(".ci/") || Path::new(ROOT).join(script).exists(), "{script}");
    script.starts_with(".ci/")
}

#[test]
fn every_command_of_the_readme_does_what_it_says() {
    let readme = std::fs::read_to_string(format!("{ROOT}/README.md")).expect("the README");
    let (mut place, gateway, operators) = demo();
    let [first, second, third, of_samples] = free(own_address(0));
    let folder = tempfile::tempdir().expect("a folder");
    let targets = folder.path().join("targets.yaml");
    let addresses = [
        ("127.0.0.1:8080", gateway),
        ("127.0.0.1:9901", operators),
        ("127.0.0.1:9900", of_samples),
        ("127.0.0.1:9001", first),
        ("127.0.0.1:9002", second),
        ("127.0.0.1:9003", third),
    ];
    let example = std::fs::read_to_string(format!("{ROOT}/conf/examples/targets.yaml")).expect("the example");
    std::fs::write(&targets, replaced(&example, &addresses)).expect("written");
    let mut made = 0;
    for step in steps(&replaced(&readme, &addresses)) {
        match step {
            Step::Command { line, .. } if builds(&line) => {}
            Step::Command { line, prints } => {
                place.run(&line.replace("conf/examples/targets.yaml", &targets.display().to_string()), &prints);
                made += 1;
            }
            Step::File { name, text } => {
                std::fs::write(folder.path().join(&name), text).expect("written");
                let (code, _, printed) = run(&["check", "-c", &name], Some(folder.path()));
                assert_eq!(code, 0, "{printed}");
            }
        }
    }
    assert!(made >= 12);
}

/// An address of this machine that nothing but one page of this process uses.
fn own_address(page: u8) -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 100 + page, high, low)
}

/// Runs one guide in a folder of its own that shows the checkout's `conf`.
fn follow(page: &str, number: u8, samples: &Gateway) {
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(Path::new(ROOT).join("conf"), folder.path().join("conf")).expect("a link");
    let [plain, secure, operators] = free(own_address(number));
    let addresses = [
        ("127.0.0.1:8080", plain),
        ("127.0.0.1:8443", secure),
        ("127.0.0.1:9901", operators),
        ("127.0.0.1:9001", samples.listeners[0].1),
        ("127.0.0.1:9002", samples.listeners[1].1),
        ("127.0.0.1:9003", samples.listeners[2].1),
    ];
    let mut place = Place { folder: folder.path().to_owned(), background: Vec::new() };
    for step in steps(&replaced(page, &addresses)) {
        match step {
            Step::File { name, text } => std::fs::write(folder.path().join(name), text).expect("written"),
            Step::Command { line, prints } => place.run(&line, &prints),
        }
    }
}

/// The guides about an installed system, which tests/package.rs runs in one.
const OF_A_SYSTEM: &[&str] = &["container.md", "install.md", "service.md"];

#[test]
fn every_guide_can_be_followed() {
    let example = std::fs::read_to_string(format!("{ROOT}/conf/examples/targets.yaml")).expect("the example");
    let samples = Gateway::start(
        &[":9001", ":9002", ":9003", ":9900"].iter().fold(example, |text, port| text.replace(port, ":0")),
    );
    let readme = std::fs::read_to_string(format!("{ROOT}/README.md")).expect("the README");
    let folder = std::fs::read_dir(format!("{ROOT}/conf/guides")).expect("the guides");
    let mut guides: Vec<PathBuf> = folder.map(|e| e.expect("an entry").path()).collect();
    guides.sort();
    assert!(guides.len() >= 13);
    for (number, guide) in guides.iter().enumerate() {
        let name = guide.file_name().and_then(|n| n.to_str()).expect("a name");
        assert!(readme.contains(&format!("(conf/guides/{name})")), "the README does not name {name}");
        if OF_A_SYSTEM.contains(&name) {
            continue;
        }
        println!("guide {name}");
        let page = std::fs::read_to_string(guide).expect("the guide");
        follow(&page, 1 + number as u8, &samples);
    }
}

#[test]
fn links_lead_somewhere() {
    let pages = ["README.md".to_owned(), "benches/README.md".to_owned()].into_iter();
    let guides = std::fs::read_dir(format!("{ROOT}/conf/guides")).expect("the guides");
    let guides = guides.map(|e| format!("conf/guides/{}", e.expect("an entry").file_name().to_string_lossy()));
    for page in pages.chain(guides) {
        let text = std::fs::read_to_string(Path::new(ROOT).join(&page)).expect("the page");
        let links = text.split("](").skip(1).filter_map(|l| l.split(')').next());
        for link in links.filter(|l| !l.starts_with("https://")) {
            let to = Path::new(ROOT).join(&page).parent().expect("a folder").join(link);
            assert!(to.exists(), "{page}: {link}");
        }
    }
}

#[test]
fn the_printed_calls_of_the_demo_can_be_pasted() {
    let mut child = Command::new(BINARY)
        .args(["demo", "--port", "0", "--admin-port", "0"])
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines().map_while(Result::ok);
    let _demo = Place { folder: ROOT.into(), background: vec![child] };
    let mut calls = Vec::new();
    for line in lines.by_ref() {
        if line.contains("Ctrl-C") {
            break;
        }
        calls.push(line.trim().to_owned());
    }
    std::thread::spawn(move || lines.for_each(drop));
    let mut made = 0;
    for pair in calls.windows(2).filter(|p| p[0].starts_with("# ")) {
        let status = pair[0].rsplit(": ").next().map(|s| s[..3].to_owned()).expect("a status");
        let output = Command::new("bash").args(["-c", &pair[1]]).output().expect("bash");
        let printed = String::from_utf8_lossy(&output.stdout);
        let last = printed.lines().rfind(|l| l.starts_with("HTTP/1.1 ")).expect("an answer");
        assert!(last.contains(&status), "{}: {last}", pair[0]);
        made += 1;
    }
    assert!(made >= 12);
}

#[test]
fn the_systemd_units_are_verified() {
    // The verifier wants the binary where the units say, and the units beside each other.
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["portcullis.service", "portcullis-upgrade.service", "portcullis.socket"] {
        let unit = std::fs::read_to_string(format!("{ROOT}/systemd/{name}")).expect("the unit");
        std::fs::write(folder.path().join(name), unit.replace("/usr/bin/portcullis", BINARY)).expect("written");
    }
    let service = std::fs::read_to_string(folder.path().join("portcullis.service")).expect("the unit");
    for key in ["NoNewPrivileges=yes", "ProtectSystem=strict", "Type=notify", "ExecReload="] {
        assert!(service.contains(key), "{key}");
    }
    let mut verify = Command::new("systemd-analyze");
    verify
        .args(["verify", "--man=no"])
        .args(["portcullis.service", "portcullis-upgrade.service", "portcullis.socket"])
        .current_dir(folder.path());
    let Ok(output) = verify.env("SYSTEMD_UNIT_PATH", format!("{}:", folder.path().display())).output() else {
        return; // a system without systemd has nothing to verify with
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let about_it: Vec<&str> = said.lines().filter(|l| l.contains("portcullis")).collect();
    assert!(about_it.is_empty(), "{about_it:?}");
}
