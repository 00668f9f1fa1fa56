//! The gateway beside its peers, in one run.
//!
//! `compare run [SECONDS [ROUNDS]] [--only NAME,…]` measures; `compare table FILE` makes the table and the
//! plot from what was measured; `compare soak [REQUESTS_PER_SECOND [RUNS]]` upgrades and reloads under load,
//! `compare reloads` reloads 10,000 routes.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test or a tool: what is not as it should be ends it"
)]

mod configs;
mod large;
mod load;
mod measure;
mod peers;
mod report;
mod soak;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["run", options @ ..] => measure::run(options),
        ["table", file] => report::table(file),
        ["soak", options @ ..] => soak::run(options),
        ["reloads"] => large::run(),
        _ => {
            eprintln!(
                "compare run [SECONDS [ROUNDS]] [--only NAME,…] | compare table FILE | compare soak [REQUESTS_PER_SECOND [RUNS]] | compare reloads"
            );
            std::process::exit(2);
        }
    }
}
