//! The README is executed: its commands run against a demo, and what they are said to print is looked for.

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
use std::process::{Command, Stdio};

use harness::gateway::{BINARY, run};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The blocks of a language: each command with the comment behind it.
fn commands(text: &str) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if !inside || line.is_empty() => {}
            _ => match line.strip_prefix("# ") {
                Some(comment) => out.last_mut().expect("a command before its comment").1.push_str(comment),
                None => out.push((line.to_owned(), String::new())),
            },
        }
    }
    out
}

fn readme() -> String {
    std::fs::read_to_string(format!("{ROOT}/README.md")).expect("the README")
}

struct Demo(std::process::Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A demo on free ports: the addresses of the gateway and of the operators' listener.
fn demo() -> (Demo, String, String) {
    let mut child = Command::new(BINARY)
        .args(["demo", "--port", "0", "--admin-port", "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines().map_while(Result::ok);
    let mut after = |word: &str| {
        let line = lines.find(|l| l.trim_start().starts_with(word)).expect("the table");
        line.split("http://").nth(1).expect("a URL").trim_end_matches("/metrics").to_owned()
    };
    let (gateway, operators) = (after("gateway"), after("operators"));
    std::thread::spawn(move || lines.for_each(drop));
    (Demo(child), gateway, operators)
}

#[test]
fn every_command_of_the_readme_does_what_it_says() {
    let (_demo, gateway, operators) = demo();
    let all = commands(&readme());
    assert!(all.len() >= 9);
    for (command, promised) in all {
        if command.starts_with(".ci/") {
            // Themselves what runs this test, or checked below.
            let script = command.split_whitespace().next().expect("a command");
            assert!(std::path::Path::new(ROOT).join(script).exists(), "{script}");
            continue;
        }
        let command = command.replace("127.0.0.1:8080", &gateway).replace("127.0.0.1:9901", &operators).replacen(
            "portcullis ",
            &format!("{BINARY} "),
            usize::from(command.starts_with("portcullis ")),
        );
        let output = Command::new("bash").args(["-c", &format!("{command} 2>&1")]).current_dir(ROOT).output().expect("bash");
        let printed = String::from_utf8_lossy(&output.stdout);
        let mut rest: &str = &printed;
        for part in promised.split('…').map(str::trim).filter(|p| !p.is_empty()) {
            if let Some(gone) = part.strip_prefix("and no ") {
                assert!(!printed.contains(gone), "{command}: {gone} is in {printed}");
                continue;
            }
            let at = rest.find(part).unwrap_or_else(|| panic!("{command}: {part:?} is not in {printed}"));
            rest = &rest[at + part.len()..];
        }
    }
}

#[test]
fn the_configuration_of_the_readme_is_right() {
    let text = readme();
    let yaml = text.split("```yaml\n").nth(1).and_then(|t| t.split("```").next()).expect("a configuration");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("c.yaml"), yaml).expect("written");
    let (code, _, told) = run(&["check", "-c", "c.yaml"], Some(folder.path()));
    assert_eq!(code, 0, "{told}");
}

#[test]
fn the_printed_calls_of_the_demo_can_be_pasted() {
    let mut child = Command::new(BINARY)
        .args(["demo", "--port", "0", "--admin-port", "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines().map_while(Result::ok);
    let _demo = Demo(child);
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
    for key in ["NoNewPrivileges=yes", "ProtectSystem=strict", "DynamicUser=yes", "Type=notify", "ExecReload="] {
        assert!(service.contains(key), "{key}");
    }
    let mut verify = Command::new("systemd-analyze");
    verify.arg("verify").args(["portcullis.service", "portcullis-upgrade.service", "portcullis.socket"]).current_dir(folder.path());
    let Ok(output) = verify.env("SYSTEMD_UNIT_PATH", format!("{}:", folder.path().display())).output() else {
        return; // a system without systemd has nothing to verify with
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let about_it: Vec<&str> = said.lines().filter(|l| l.contains("portcullis")).collect();
    assert!(about_it.is_empty(), "{about_it:?}");
}
