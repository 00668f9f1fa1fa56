//! Style is a test: which room may use which, how large a file may grow, and that every room says what it is for.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test or a tool: what is not as it should be ends it"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Rooms from the top down; a room uses those below it and those on its own line.
const ORDER: &[&[&str]] = &[
    &["main", "cli", "allocator"],
    &["process"],
    &["edge", "admin"],
    &["compile"],
    &["snapshot", "config"],
    &["actions", "filters"],
    &["upstreams", "clients", "telemetry", "live", "tls"],
    &["exchange"],
    &["notation", "rules"],
];

fn sources() -> Vec<(PathBuf, String)> {
    let mut out = Vec::new();
    let mut folders = vec![Path::new(ROOT).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("the file");
                out.push((path.strip_prefix(Path::new(ROOT).join("src")).expect("below src").to_path_buf(), text));
            }
        }
    }
    out.sort();
    out
}

fn rank(room: &str) -> Option<usize> {
    ORDER.iter().position(|line| line.contains(&room))
}

fn room_of(path: &Path) -> String {
    path.components().next().map(|c| c.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()).unwrap_or_default()
}

#[test]
fn imports_run_downwards() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let room = room_of(&path);
        if room == "lib" {
            continue;
        }
        let own = rank(&room).unwrap_or_else(|| panic!("the room {room} is not in the order"));
        for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if rank(&used).is_some_and(|r| r < own) {
                    wrong.push(format!("{}:{}: {room} uses {used}, which is above it", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pingoras_proxy_stays_at_the_edge() {
    let above = |path: &Path| !matches!(room_of(path).as_str(), "edge" | "process");
    for (path, text) in sources().into_iter().filter(|(p, _)| above(p)) {
        for name in ["pingora::proxy", "pingora_proxy::", "pingora::server"] {
            assert!(!text.contains(name), "{} names {name}", path.display());
        }
    }
}

#[test]
fn rules_are_pure() {
    for (path, text) in sources().into_iter().filter(|(p, _)| p.starts_with("rules") && !p.to_string_lossy().contains("test")) {
        for name in ["tokio", "std::fs", "std::env", "Instant", "SystemTime", "TcpStream", "Mutex", "println!"] {
            let used = text.lines().any(|l| !l.trim_start().starts_with("//") && l.contains(name));
            assert!(!used, "{} uses {name}", path.display());
        }
    }
}

#[test]
fn files_and_functions_stay_small() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > 500 {
            wrong.push(format!("{}: {} lines; 500 are the most", path.display(), lines.len()));
        }
        for (start, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let is_fn = line.trim_start().split("fn ").count() > 1 && line.ends_with('{') && !line.trim_start().starts_with("//");
            if is_fn {
                let close = format!("{}}}", " ".repeat(indent));
                let length = lines[start..].iter().position(|l| **l == close).unwrap_or(0);
                if length > 70 {
                    wrong.push(format!("{}:{}: a function of {length} lines; 70 are the most", path.display(), start + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{} does not begin with //!", path.display());
    }
}

#[test]
fn nothing_is_left_undone() {
    let words = ["todo!(", "unimplemented!(", "FIXME", "XXX", "dbg!("];
    for (path, text) in sources() {
        for word in words {
            assert!(!text.contains(word), "{} has {word}", path.display());
        }
    }
}

#[test]
fn metric_names_are_in_one_file() {
    let holders: Vec<_> = sources().into_iter().filter(|(_, t)| t.contains("\"portcullis_")).map(|(p, _)| p).collect();
    assert_eq!(holders, [Path::new("telemetry/metrics.rs")]);
}

/// Licences, sources and duplicates of all dependencies, from what cargo has on disk already.
#[test]
fn dependencies_are_as_agreed() {
    const LICENCES: &[&str] = &[
        "MIT",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "Zlib",
        "Unicode-3.0",
        "0BSD",
        "CC0-1.0",
        "MIT-0",
        "OpenSSL",
        "Unlicense",
        "BSL-1.0",
        "CDLA-Permissive-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "MPL-2.0",
    ];
    /// Two versions at a time, each because crates of Pingora's or of their kind have not met yet.
    const TWICE: &[&str] = &[
        "base64",
        "blake2",
        "block-buffer",
        "core-foundation",
        "cpufeatures",
        "crypto-common",
        "digest",
        "getrandom",
        "hashbrown",
        "heck",
        "indexmap",
        "itertools",
        "lock_api",
        "parking_lot",
        "parking_lot_core",
        "pem",
        "r-efi",
        "rand",
        "rand_core",
        "rand_chacha",
        "syn",
        "synstructure",
        "thiserror",
        "thiserror-impl",
        "untrusted",
        "wasi",
        "windows-sys",
        "windows-targets",
        "asn1-rs",
        "asn1-rs-derive",
        "der-parser",
        "oid-registry",
        "x509-parser",
        "windows_aarch64_gnullvm",
        "windows_aarch64_msvc",
        "windows_i686_gnu",
        "windows_i686_gnullvm",
        "windows_i686_msvc",
        "windows_x86_64_gnu",
        "windows_x86_64_gnullvm",
        "windows_x86_64_msvc",
        "wit-bindgen",
    ];
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(ROOT)
        .output()
        .expect("cargo metadata");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let (mut versions, mut wrong) = (BTreeMap::<String, Vec<String>>::new(), Vec::new());
    for package in metadata["packages"].as_array().expect("packages") {
        let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
        let (name, licence, source) = (text("name"), text("license"), text("source"));
        versions.entry(name.clone()).or_default().push(text("version"));
        if name == "portcullis" {
            continue;
        }
        if !source.starts_with("registry+") {
            wrong.push(format!("{name} does not come from the registry: {source}"));
        }
        let fine = licence.replace('/', " OR ").split(" OR ").any(|choice| {
            choice.trim_matches(['(', ')', ' ']).split(" AND ").all(|one| LICENCES.contains(&one.trim_matches(['(', ')', ' '])))
        });
        if !fine {
            wrong.push(format!("{name} has the licence {licence:?}"));
        }
    }
    for (name, versions) in versions.iter().filter(|(n, v)| v.len() > 1 && !TWICE.contains(&n.as_str())) {
        wrong.push(format!("{name} is there in several versions: {}", versions.join(", ")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
