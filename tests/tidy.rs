//! Style is a test: which room may use which, how large a file may grow, and that every room says what it is for.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test or a tool: what is not as it should be ends it"
)]

#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use imports::{Modules, circles};
use source::{ROOT, Source, sources};

#[test]
fn explore() {
    let all = sources("src");
    let modules = Modules::of(&all);
    let mut files: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for s in all.iter().filter(|s| !s.is_test()) {
        for e in modules.edges(s).into_iter().filter(|e| !e.in_test) {
            files.entry(s.module()).or_default().insert(e.to.clone());
            if let Some(r) = e.to.first() { if *r != s.room() { rooms.entry(s.room()).or_default().insert(r.clone()); } }
        }
    }
    println!("ROOMS {:#?}", circles(&rooms));
    for c in circles(&files) { println!("CIRCLE {:?}", c.iter().map(|m| m.join("/")).collect::<Vec<_>>()); }
    for folder in ["src", "tests", "benches"] {
        for s in sources(folder) {
            let n = s.text.lines().count();
            if n > 450 { println!("FILE {folder}/{} {n}", s.path.display()); }
            for f in s.functions() { if f.lines > 65 { println!("FN {folder}/{}:{} {} {}", s.path.display(), f.line, f.name, f.lines); } }
        }
    }
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
