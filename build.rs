//! Records what a build was made from, for `portcullis version`: the commit, the cargo features, the compiler.
//!
//! A build without git, or from an archive of the source, has the commit of `PORTCULLIS_COMMIT`, or none.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PORTCULLIS_COMMIT");
    let given = std::env::var("PORTCULLIS_COMMIT").ok().filter(|commit| !commit.is_empty());
    // A development build is not made anew for each commit.
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = given.or_else(|| if is_release { commit_of_checkout() } else { None });
    println!("cargo::rustc-env=PORTCULLIS_COMMIT={}", commit.unwrap_or_else(|| "unknown".to_owned()));
    println!("cargo::rustc-env=PORTCULLIS_FEATURES={}", features());
    for (name, variable) in [("PORTCULLIS_TARGET", "TARGET"), ("PORTCULLIS_PROFILE", "PROFILE")] {
        println!("cargo::rustc-env={name}={}", std::env::var(variable).unwrap_or_default());
    }
    let compiler = std::env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"])).unwrap_or_default();
    println!("cargo::rustc-env=PORTCULLIS_COMPILER={compiler}");
}

/// Returns the commit of this checkout, with `-dirty` if tracked files differ from it. An archive of the source that
/// lies within another repository has none.
fn commit_of_checkout() -> Option<String> {
    let root = std::env::var("CARGO_MANIFEST_DIR").ok()?;
    let top = output("git", &["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&root).canonicalize().ok()? {
        return None;
    }
    // The first changes with each commit and each checkout.
    let log = output("git", &["rev-parse", "--git-path", "logs/HEAD"])?;
    for changing in [&log, "src", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={changing}");
    }
    output("git", &["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
}

/// Returns the names of the enabled cargo features, or `none`.
fn features() -> String {
    let mut names: Vec<String> = std::env::vars()
        .filter_map(|(name, _)| name.strip_prefix("CARGO_FEATURE_").map(str::to_lowercase))
        .filter(|name| name != "default")
        .collect();
    names.sort();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Returns what a program prints, if it succeeds.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
