//! Parsers of what strangers send, with inputs that are changed at random. The corpora are in tests/fuzz, a folder for
//! each target. `FUZZ_SECONDS` is the time for each target (1 by default), and `FUZZ_SEED` the seed; a failure prints
//! the input, which then belongs into the corpus.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test or a tool: what is not as it should be ends it"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis::parts::fuzz;

/// The longest input.
const MAX_INPUT: usize = 16_384;

/// A generator of random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Bytes that parsers treat in a way of their own.
const SPECIAL: &[&[u8]] = &[
    b"\0",
    b"\n",
    b"\r\n",
    b"\"",
    b"\\",
    b"'",
    b"(",
    b")",
    b"[",
    b"]",
    b"{",
    b"}",
    b".",
    b"..",
    b";",
    b",",
    b"=",
    b":",
    b"%",
    b"%00",
    b"%2F",
    b"&",
    b"?",
    b"+",
    b"-",
    b"!",
    b"*",
    b"/",
    b"@",
    b"\xff",
    b"\xc3\xa4",
    b"\xe2\x80\xae",
    b"0",
    b"-1",
    b"9223372036854775807",
    b"18446744073709551616",
    b"1e400",
    b"null",
    b"true",
    b"e30",
    b"W10",
    b"&&",
    b"||",
];

/// Returns an input of the corpus with some changes.
fn change(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        let end = (at + 1 + random.below(24)).min(input.len());
        match random.below(7) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < end => drop(input.drain(at..end)),
            2 if at < end => {
                let part = input[at..end].to_vec();
                let times = 1 + random.below(200);
                input.splice(at..at, part.repeat(times));
            }
            3 => {
                let special = SPECIAL[random.below(SPECIAL.len())];
                input.splice(at..at, special.iter().copied());
            }
            4 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                let to = (from + random.below(64)).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
            5 if at < input.len() => input[at] = random.next() as u8,
            _ => input.truncate(at.max(1)),
        }
    }
    input.truncate(MAX_INPUT);
    input
}

/// Runs a target with its corpus, and with changes of it until the time is over.
fn run(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(name);
    let entries = std::fs::read_dir(&folder).expect("the corpus");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).expect("a file")).collect();
    assert!(!corpus.is_empty(), "{name} has no corpus");
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(1));
    let mut random = Random(number("FUZZ_SEED").unwrap_or(0x5eed_cafe) | 1);
    let mut count = 0_u64;
    let check = |input: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
            panic!("{name} fails with {:?}", String::from_utf8_lossy(input));
        }
    };
    corpus.iter().for_each(|input| check(input));
    while Instant::now() < end {
        check(&change(&corpus, &mut random));
        count += 1;
    }
    println!("{name}: {count} inputs");
}

#[test]
fn tokens() {
    run("token", fuzz::token);
}

#[test]
fn http_signatures() {
    run("http_signature", fuzz::http_signature);
}

#[test]
fn signatures_of_aws() {
    run("sigv4", fuzz::sigv4);
}

/// The interpreter is recursive: it gets half of the stack that a thread of the runtime has.
#[test]
fn conditions() {
    let work = || run("condition", fuzz::condition);
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(work).expect("a thread");
    thread.join().expect("no failure");
}

#[test]
fn lists_of_addresses() {
    run("addresses", fuzz::addresses);
}

#[test]
fn payloads() {
    run("payload", fuzz::payload);
}

#[test]
fn first_bytes_of_streams() {
    run("opening", fuzz::opening);
}
