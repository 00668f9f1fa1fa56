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

use imports::{Modules, circles};
use source::{ROOT, Source, sources};

/// Rooms from the top down; a room uses those below it and those on its own line, and no two use each other.
const ORDER: &[&[&str]] = &[
    &["main", "parts", "cli", "allocator"],
    &["process"],
    &["edge", "admin"],
    &["compile"],
    &["snapshot", "config"],
    &["filters", "actions"],
    &["upstreams", "clients", "telemetry", "live", "tls"],
    &["exchange"],
    &["notation"],
    &["rules"],
];

/// Folders in which no files use each other in a circle, those of their root included. In others a circle may be within
/// the folder, where the parts of one type stand in several files.
const WITHOUT_CIRCLES: &[&str] = &["clients", "compile", "edge/listeners", "live", "telemetry"];

fn rank(room: &str) -> Option<usize> {
    ORDER.iter().position(|line| line.contains(&room))
}

/// The folder of a module's file: for `a/b.rs` it is `a`, and for `a/mod.rs` too.
fn folder(source: &Source) -> String {
    source.path.parent().map(|p| p.display().to_string()).unwrap_or_default()
}

#[test]
fn imports_run_downwards() {
    let all = sources("src");
    let modules = Modules::of(&all);
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for source in all.iter().filter(|s| s.path.to_str() != Some("lib.rs")) {
        let room = source.room();
        let own = rank(&room).unwrap_or_else(|| panic!("the room {room} is not in the order"));
        for edge in modules.edges(source) {
            seen += 1;
            // What is written, and where it leads: a re-export hides nothing.
            let used: BTreeSet<&String> = [edge.written.first(), edge.to.first()].into_iter().flatten().collect();
            for used in used.into_iter().filter(|used| rank(used).is_some_and(|r| r < own)) {
                wrong.push(format!("{}:{}: {room} uses {used}, which is above it", source.path.display(), edge.line));
            }
        }
    }
    assert!(seen > 1_000, "only {seen} imports were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_run_in_no_circle() {
    let all = sources("src");
    let modules = Modules::of(&all);
    let (mut rooms, mut files) = (BTreeMap::<_, BTreeSet<_>>::new(), BTreeMap::<_, BTreeSet<_>>::new());
    let folders: BTreeMap<_, _> = all.iter().map(|source| (source.module(), folder(source))).collect();
    for source in &all {
        for edge in modules.edges(source).into_iter().filter(|edge| !edge.in_test) {
            if let Some(to) = edge.to.first().filter(|to| **to != source.room()) {
                rooms.entry(source.room()).or_default().insert(to.clone());
            }
            files.entry(source.module()).or_default().insert(edge.to);
        }
    }
    let mut wrong: Vec<_> = circles(&rooms).into_iter().map(|circle| format!("rooms: {circle:?}")).collect();
    for circle in circles(&files) {
        let within: BTreeSet<&String> = circle.iter().map(|module| &folders[module]).collect();
        let shortest = within.iter().min_by_key(|f| f.len()).map_or("", |f| f.as_str());
        // A folder and those within it may be one thing in several files; folders beside each other are not.
        let across = within.iter().any(|f| f.as_str() != shortest && !f.starts_with(&format!("{shortest}/")));
        if across || within.iter().any(|f| WITHOUT_CIRCLES.contains(&f.as_str())) {
            let files: Vec<_> = circle.iter().map(|module| module.join("/")).collect();
            wrong.push(format!("files: {}", files.join(", ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A module is where its path says, so that the checks above see all there is; tests may stand beside their file.
#[test]
fn modules_are_where_they_are_called() {
    for source in sources("src") {
        let words: Vec<&str> = source.tokens.iter().map(|t| t.text.as_str()).collect();
        let moved = words.windows(7).any(|w| w[..6] == ["#", "[", "path", "=", "]", "mod"] && !w[6].ends_with("tests"));
        let included = words.windows(2).any(|w| w == ["include", "!"]);
        let own = source.path.to_str() != Some("main.rs") && words.windows(2).any(|w| w == ["portcullis", "::"]);
        assert!(!moved && !included && !own, "{}: #[path], include! or the crate's own name", source.path.display());
    }
}

#[test]
fn pingoras_proxy_stays_at_the_edge() {
    let crates = ["proxy", "server", "apps", "listeners", "services"];
    let mut wrong = Vec::new();
    for source in sources("src").into_iter().filter(|s| !matches!(s.room().as_str(), "edge" | "process")) {
        for used in source.used() {
            let words: Vec<&str> = used.segments.iter().map(String::as_str).collect();
            let is_it = match words[..] {
                ["pingora", name, ..] => crates.contains(&name) || name == "*",
                ["pingora_core", name, ..] => crates.contains(&name),
                [name, ..] => name == "pingora_proxy",
                [] => false,
            };
            if is_it {
                wrong.push(format!("{}:{} names {}", source.path.display(), used.line, used.segments.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rules_are_pure() {
    let words =
        ["tokio", "Instant", "SystemTime", "TcpStream", "UdpSocket", "Mutex", "RwLock", "println", "eprintln", "log"];
    let paths = ["fs", "env", "net", "process", "thread"];
    let mut wrong = Vec::new();
    for source in sources("src").into_iter().filter(|s| s.room() == "rules" && !s.is_test()) {
        for used in source.used() {
            let first = |n: usize| used.segments.get(n).map_or("", String::as_str);
            let address = ["IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr"].contains(&first(2));
            if words.contains(&first(0)) || (first(0) == "std" && paths.contains(&first(1)) && !address) {
                wrong.push(format!("{}:{} uses {}", source.path.display(), used.line, used.segments.join("::")));
            }
        }
        for token in source.tokens.iter().filter(|t| words.contains(&t.text.as_str()) && t.text != "log") {
            wrong.push(format!("{}:{} uses {}", source.path.display(), token.line, token.text));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The most lines of a file and of a function, in each folder.
const SIZES: &[(&str, usize, usize)] = &[("src", 500, 70), ("tests", 500, 100), ("benches", 500, 80)];

#[test]
fn files_and_functions_stay_small() {
    let mut wrong = Vec::new();
    for (folder, lines, of_function) in SIZES {
        for source in sources(folder) {
            let count = source.text.lines().count();
            if count > *lines {
                wrong.push(format!("{folder}/{}: {count} lines; {lines} are the most", source.path.display()));
            }
            for function in source.functions().into_iter().filter(|f| f.lines > *of_function) {
                let place = format!("{folder}/{}:{}", source.path.display(), function.line);
                wrong.push(format!(
                    "{place}: {} has {} lines; {of_function} are the most",
                    function.name, function.lines
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// rustfmt leaves comments and texts as long as they are. In tests and benches a text may be: it is a configuration.
#[test]
fn lines_stay_short() {
    let settings = std::fs::read_to_string(format!("{ROOT}/rustfmt.toml")).expect("the settings");
    let width =
        settings.lines().find_map(|l| l.strip_prefix("max_width = ")).and_then(|w| w.parse().ok()).expect("a width");
    let mut wrong = Vec::new();
    for (folder, _, _) in SIZES {
        for source in sources(folder) {
            for (number, line) in source.text.lines().enumerate().filter(|(_, line)| line.chars().count() > width) {
                let of_code: usize =
                    source.tokens.iter().filter(|t| t.line == number + 1).map(|t| t.text.len() + 1).sum();
                if *folder == "src" || of_code > width || line.trim_start().starts_with("//") {
                    let count = line.chars().count();
                    wrong.push(format!(
                        "{folder}/{}:{}: {count} columns; {width} are the most",
                        source.path.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    for source in sources("src") {
        assert!(source.text.starts_with("//!"), "{} does not begin with //!", source.path.display());
    }
}

/// rustc asks for this only where the crate itself is public.
#[test]
fn what_other_files_see_is_documented() {
    let kinds =
        ["fn ", "struct ", "enum ", "trait ", "const ", "static ", "type ", "async fn ", "const fn ", "unsafe fn "];
    let mut wrong = Vec::new();
    for source in sources("src").into_iter().filter(|s| !s.is_test()) {
        let lines: Vec<&str> = source.text.lines().map(str::trim_start).collect();
        for (at, line) in lines.iter().enumerate() {
            let item = line.strip_prefix("pub ").filter(|item| kinds.iter().any(|kind| item.starts_with(kind)));
            let mut above = lines[..at].iter().rev().take_while(|l| !l.is_empty() && !l.ends_with(['{', '}']));
            if item.is_some_and(|item| !item.contains('$')) && !above.any(|l| l.starts_with("///")) {
                wrong.push(format!("{}:{}: {line}", source.path.display(), at + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_undone() {
    let words = ["todo!(", "unimplemented!(", "FIXME", "XXX", "dbg!("];
    for source in sources("src") {
        for word in words {
            assert!(!source.text.contains(word), "{} has {word}", source.path.display());
        }
    }
}

#[test]
fn metric_names_are_in_one_file() {
    let holders: Vec<_> =
        sources("src").into_iter().filter(|s| s.text.contains("\"portcullis_")).map(|s| s.path).collect();
    assert_eq!(holders, [std::path::Path::new("telemetry/catalogue.rs")]);
}

/// The checks see through what would hide an import or the length of a function.
#[test]
fn the_checks_see_what_is_hidden() {
    let file =
        |path: &str, text: &str| Source { path: path.into(), tokens: source::tokens(text), text: text.to_owned() };
    let all = [
        file("edge/mod.rs", "mod proxy; pub use proxy::{Gateway as Renamed, *};"),
        file("edge/proxy/mod.rs", "pub struct Gateway; pub fn hook() {}"),
        file("live/mod.rs", "pub mod deep; pub use crate::edge::Renamed;"),
        file(
            "live/deep.rs",
            "// use crate::process;\nconst T: &str = \"crate::cli::x\"; use crate::{\n  telemetry::{self},\n  \
             edge::{Renamed, hook as h},\n};\nfn f() { super::super::edge::hook(); }\nuse super::Renamed as Again;",
        ),
        file("telemetry/mod.rs", "mod inner { use super::super::live::deep; }"),
    ];
    let modules = Modules::of(&all);
    let seen = |at: usize| modules.edges(&all[at]).into_iter().map(|e| (e.line, e.to.join("/"))).collect::<Vec<_>>();
    let edges = |list: &[(usize, &str)]| list.iter().map(|(line, to)| (*line, (*to).to_owned())).collect::<Vec<_>>();
    let (telemetry, proxy) = ("telemetry", "edge/proxy");
    assert_eq!(seen(3), edges(&[(3, telemetry), (4, proxy), (4, proxy), (6, proxy), (7, proxy)]));
    assert_eq!(seen(4), edges(&[(1, "live/deep")]));
    let long = file(
        "a.rs",
        "fn one(\n  a: [u8; 2],\n) -> u8\nwhere\n  u8: Copy,\n{\n  '{'; b'}'; r#\"}\"#;\n  a[0]\n}\ntrait T { fn two(&self); }",
    );
    let functions: Vec<_> = long.functions().into_iter().map(|f| (f.name, f.line, f.lines)).collect();
    assert_eq!(functions, [("one".to_owned(), 1, 9)]);
}

/// A dependency has one of these licences.
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

/// These crates may have two versions at a time, because crates of Pingora's or of their kind have not met yet.
const TWICE: &[&str] = &[
    "base64",
    "bit-set",
    "bit-vec",
    "bitflags",
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
    "openssl-probe",
    "rustls-native-certs",
    "sfv",
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
    "unicode-width",
    "wit-bindgen",
    "strum",
    "strum_macros",
];

/// Licences, sources and duplicates of all dependencies, from what cargo has on disk already.
#[test]
fn dependencies_are_as_agreed() {
    let output = std::process::Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
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
            choice
                .trim_matches(['(', ')', ' '])
                .split(" AND ")
                .all(|one| LICENCES.contains(&one.trim_matches(['(', ')', ' '])))
        });
        // It names its file, which is the MIT licence.
        let by_file = name == "jsonpath-rust" && licence.is_empty();
        if !fine && !by_file {
            wrong.push(format!("{name} has the licence {licence:?}"));
        }
    }
    for (name, versions) in versions.iter().filter(|(n, v)| v.len() > 1 && !TWICE.contains(&n.as_str())) {
        wrong.push(format!("{name} is there in several versions: {}", versions.join(", ")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
