//! Encoders of content codings, for a streaming body (RFC 9110, section 8.4.1).
//!
//! The cost of one stream, measured on JSON of 1 KB, 100 KB and 1 MB (one core of 2026; sizes are those of the
//! output):
//!
//! | coding, level    | memory           | 1 KB   | 100 KB           | 1 MB   |
//! |------------------|------------------|--------|------------------|--------|
//! | gzip, fast       | 0.34 MiB         | 4 µs   | 0.14 ms, 30.1 KB | 2 ms   |
//! | gzip, balanced   | 0.34 MiB         | 8 µs   | 0.56 ms, 19.7 KB | 6 ms   |
//! | gzip, best       | 0.34 MiB         | 10 µs  | 0.95 ms, 19.1 KB | 11 ms  |
//! | br, fast         | 0.01 to 0.9 MiB  | 8 µs   | 0.38 ms, 20.2 KB | 4.5 ms |
//! | br, balanced     | 0.5 to 2.1 MiB   | 25 µs  | 0.94 ms, 19.0 KB | 10 ms  |
//! | br, best         | 1.1 to 4.2 MiB   | 38 µs  | 1.8 ms, 18.3 KB  | 20 ms  |
//! | zstd, fast       | 0.48 MiB         | 5 µs   | 0.14 ms, 18.7 KB | 2.2 ms |
//! | zstd, balanced   | 0.58 MiB         | 6 µs   | 0.17 ms, 18.9 KB | 2.3 ms |
//! | zstd, best       | 0.61 MiB         | 13 µs  | 0.81 ms, 18.2 KB | 9.6 ms |
//!
//! Of 300 streams of events at a time, at the level `balanced`, each took 0.37 (gzip), 0.2 (zstd) and 0.94 MiB (br) of
//! resident memory more than without a coding.
//!
//! A new zstd context costs 8 to 17 µs more, so each thread keeps a few (the numbers are with a reused one).

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Write};

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use flate2::{Compress, Compression, FlushCompress, Status};
use zstd::stream::raw::{self, CParameter, InBuffer, Operation, OutBuffer};

use super::accept::Coding;
use super::step::{Opaque, Step};

/// The trade-off between time and size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompressionLevel {
    /// The least time: gzip 1, br 1, zstd 1.
    Fast,
    /// gzip 4, br 4, zstd 3.
    #[default]
    Balanced,
    /// The smallest body for which a client may still be kept waiting: gzip 6, br 5, zstd 6.
    Best,
}

/// Applies a content coding to a body.
pub struct Encoder {
    coding: Encoding,
    flushes: bool,
    ended: bool,
}

enum Encoding {
    Gzip(Compress),
    /// `None` after the end.
    Brotli(Option<Box<CompressorWriter<Vec<u8>>>>),
    Zstd(ZstdContext),
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("flushes", &self.flushes).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Encoder {
    /// Returns an encoder. With `flushes`, the receiver can decode at once whatever has been pushed, for bodies that
    /// arrive in pieces over time; without, output comes when enough of it is there.
    ///
    /// # Errors
    /// When no memory can be allocated.
    pub fn new(coding: Coding, level: CompressionLevel, flushes: bool) -> Result<Self, Opaque> {
        let coding = match coding {
            Coding::Gzip => Encoding::Gzip(Compress::new_gzip(Compression::new(gzip_level(level)), 15)),
            Coding::Br => {
                let writer = CompressorWriter::with_params(Vec::new(), BROTLI_BUFFER, &brotli_params(level));
                Encoding::Brotli(Some(Box::new(writer)))
            }
            Coding::Zstd => Encoding::Zstd(ZstdContext::take(level).map_err(|_| Opaque::Unencodable)?),
        };
        Ok(Self { coding, flushes, ended: false })
    }

    /// Returns how many bytes of memory an encoder takes at most, by the measurements above.
    pub fn cost(coding: Coding, level: CompressionLevel) -> u64 {
        match (coding, level) {
            (Coding::Gzip, _) => 350 << 10,
            (Coding::Br, CompressionLevel::Fast) => 1 << 20,
            (Coding::Br, CompressionLevel::Balanced) => 2_200 << 10,
            (Coding::Br, CompressionLevel::Best) => 4_400 << 10,
            (Coding::Zstd, _) => 640 << 10,
        }
    }

    fn encode(&mut self, part: &[u8], end: bool, out: &mut Vec<u8>) -> io::Result<()> {
        let flushes = self.flushes && !part.is_empty();
        match &mut self.coding {
            Encoding::Gzip(gzip) => encode_gzip(gzip, part, end, flushes, out),
            Encoding::Brotli(brotli) => encode_brotli(brotli, part, end, flushes, out),
            Encoding::Zstd(zstd) => zstd.encode(part, end, flushes, out),
        }
    }
}

impl Step for Encoder {
    fn push(&mut self, part: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), Opaque> {
        if self.ended || (part.is_empty() && !end) {
            return Ok(());
        }
        self.ended = end;
        self.encode(part, end, out).map_err(|_| Opaque::Unencodable)
    }
}

/// The buffer between brotli and the output, in bytes.
const BROTLI_BUFFER: usize = 4_096;

/// The capacity reserved for output before each call, in bytes: above 6, so that no flush is written twice.
const MIN_ROOM: usize = 256;

/// Reserves capacity for the encoded form of `input` bytes.
fn make_room(out: &mut Vec<u8>, input: usize) {
    out.reserve((input / 4).clamp(MIN_ROOM, 32 << 10));
}

fn gzip_level(level: CompressionLevel) -> u32 {
    match level {
        CompressionLevel::Fast => 1,
        CompressionLevel::Balanced => 4,
        CompressionLevel::Best => 6,
    }
}

fn encode_gzip(gzip: &mut Compress, part: &[u8], end: bool, flushes: bool, out: &mut Vec<u8>) -> io::Result<()> {
    let flush = match (end, flushes) {
        (true, _) => FlushCompress::Finish,
        (false, true) => FlushCompress::Sync,
        (false, false) => FlushCompress::None,
    };
    let mut rest = part;
    loop {
        make_room(out, rest.len());
        let before = gzip.total_in();
        let status = gzip.compress_vec(rest, out, flush)?;
        rest = &rest[(gzip.total_in() - before) as usize..];
        let full = out.len() == out.capacity();
        if status == Status::StreamEnd || (!end && rest.is_empty() && !full) {
            return Ok(());
        }
    }
}

/// Returns the parameters: windows of 64 KiB, and of 256 KiB at the best level, since with a smaller one its hash
/// tables take 33 MiB.
fn brotli_params(level: CompressionLevel) -> BrotliEncoderParams {
    let (quality, lgwin) = match level {
        CompressionLevel::Fast => (1, 16),
        CompressionLevel::Balanced => (4, 16),
        CompressionLevel::Best => (5, 18),
    };
    BrotliEncoderParams { quality, lgwin, ..BrotliEncoderParams::default() }
}

fn encode_brotli(
    brotli: &mut Option<Box<CompressorWriter<Vec<u8>>>>,
    part: &[u8],
    end: bool,
    flushes: bool,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let Some(writer) = brotli else { return Ok(()) };
    *writer.get_mut() = std::mem::take(out);
    let mut done = writer.write_all(part);
    if done.is_ok() && flushes && !end {
        done = writer.flush();
    }
    *out = match (end, brotli.take()) {
        (true, Some(writer)) => writer.into_inner(),
        (_, Some(mut writer)) => {
            let written = std::mem::take(writer.get_mut());
            *brotli = Some(writer);
            written
        }
        (_, None) => Vec::new(),
    };
    done
}

/// The maximum number of zstd contexts that one thread keeps, of any level: at most 2.5 MiB.
const MAX_IDLE: usize = 4;

thread_local! {
    static IDLE: RefCell<Vec<(CompressionLevel, raw::Encoder<'static>)>> = const { RefCell::new(Vec::new()) };
}

/// A zstd context, which returns to its thread's pool when it is dropped.
struct ZstdContext {
    level: CompressionLevel,
    /// `None` only while it is dropped.
    encoder: Option<raw::Encoder<'static>>,
}

impl ZstdContext {
    fn take(level: CompressionLevel) -> io::Result<Self> {
        let idle = IDLE.with_borrow_mut(|idle| {
            let place = idle.iter().position(|(of, _)| *of == level)?;
            Some(idle.swap_remove(place).1)
        });
        let encoder = match idle {
            Some(mut encoder) => {
                encoder.reinit()?;
                encoder
            }
            None => new_zstd(level)?,
        };
        Ok(Self { level, encoder: Some(encoder) })
    }

    fn encode(&mut self, part: &[u8], end: bool, flushes: bool, out: &mut Vec<u8>) -> io::Result<()> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        let mut input = InBuffer::around(part);
        loop {
            make_room(out, part.len() - input.pos());
            let from = out.len();
            let mut output = OutBuffer::around_pos(out, from);
            if input.pos() < part.len() {
                encoder.run(&mut input, &mut output)?;
                continue;
            }
            let rest = match (end, flushes) {
                (true, _) => encoder.finish(&mut output, true)?,
                (false, true) => encoder.flush(&mut output)?,
                (false, false) => 0,
            };
            if rest == 0 {
                return Ok(());
            }
        }
    }
}

impl Drop for ZstdContext {
    fn drop(&mut self) {
        let Some(encoder) = self.encoder.take() else { return };
        let level = self.level;
        // The thread may be ending, and its list be destroyed.
        let _ = IDLE.try_with(|idle| {
            if let Ok(mut idle) = idle.try_borrow_mut()
                && idle.len() < MAX_IDLE
            {
                idle.push((level, encoder));
            }
        });
    }
}

/// Returns a context with a window of 64 KiB and tables to match, a third of the memory that the level takes by
/// default.
fn new_zstd(level: CompressionLevel) -> io::Result<raw::Encoder<'static>> {
    let (level, tables) = match level {
        CompressionLevel::Fast => (1, 14),
        CompressionLevel::Balanced => (3, 14),
        CompressionLevel::Best => (6, 15),
    };
    let mut encoder = raw::Encoder::new(level)?;
    encoder.set_parameter(CParameter::WindowLog(16))?;
    encoder.set_parameter(CParameter::HashLog(tables))?;
    encoder.set_parameter(CParameter::ChainLog(tables))?;
    Ok(encoder)
}

#[cfg(test)]
mod tests {
    use super::super::Decoder;
    use super::*;
    use proptest::prelude::*;

    const LEVELS: [CompressionLevel; 3] = [CompressionLevel::Fast, CompressionLevel::Balanced, CompressionLevel::Best];

    fn encoded(coding: Coding, level: CompressionLevel, flushes: bool, text: &[u8], cut: usize) -> Vec<u8> {
        let (mut encoder, mut out) = (Encoder::new(coding, level, flushes).expect("memory"), Vec::new());
        for part in text.chunks(cut) {
            encoder.push(part, false, &mut out).expect("encodes");
        }
        encoder.push(b"", true, &mut out).expect("ends");
        out
    }

    fn decoded(coding: Coding, body: &[u8]) -> Vec<u8> {
        let (mut decoder, mut out) = (Decoder::of(coding.name()).expect("known"), Vec::new());
        decoder.push(body, true, &mut out).expect("what was encoded");
        out
    }

    fn text(length: usize) -> Vec<u8> {
        (0..length)
            .flat_map(|at| format!("{{\"id\":{at},\"of\":{}}},", at * at % 977).into_bytes())
            .take(length)
            .collect()
    }

    #[test]
    fn what_is_encoded_can_be_decoded() {
        for coding in Coding::ALL {
            for level in LEVELS {
                for length in [0, 1, 300, 5_000, 300_000] {
                    let text = text(length);
                    for (cut, flushes) in [(length.max(1), false), (16_384, false), (1 + length / 40, true)] {
                        let body = encoded(coding, level, flushes, &text, cut);
                        assert!(decoded(coding, &body) == text, "{coding:?} {level:?} {length} in {cut}");
                        assert!(
                            length < 5_000 || flushes || body.len() < length / 2,
                            "{coding:?} {level:?}: {}",
                            body.len()
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_part_that_is_flushed_arrives_whole() {
        for coding in Coding::ALL {
            for level in LEVELS {
                let mut encoder = Encoder::new(coding, level, true).expect("memory");
                let mut decoder = Decoder::of(coding.name()).expect("known");
                for number in 0..50 {
                    let event = format!("data: {{\"number\":{number}}}\n\n").repeat(1 + number % 7 * 300);
                    let (mut sent, mut read) = (Vec::new(), Vec::new());
                    encoder.push(event.as_bytes(), false, &mut sent).expect("encodes");
                    decoder.push(&sent, false, &mut read).expect("decodes");
                    assert!(read == event.as_bytes(), "{coding:?} {level:?} event {number}");
                    sent.clear();
                    encoder.push(b"", false, &mut sent).expect("nothing");
                    assert!(sent.is_empty(), "an empty part costs nothing");
                }
            }
        }
    }

    #[test]
    fn incompressible_bodies_grow_little() {
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(200_000).collect();
        for coding in Coding::ALL {
            for level in LEVELS {
                let body = encoded(coding, level, false, &noise, 8_192);
                // gzip 1 does not fall back to stored blocks.
                assert!(body.len() < noise.len() * 106 / 100, "{coding:?} {level:?}: {}", body.len());
                assert!(decoded(coding, &body) == noise);
            }
        }
    }

    #[test]
    fn a_context_that_was_left_in_the_middle_starts_anew() {
        let mut left = Encoder::new(Coding::Zstd, CompressionLevel::Fast, false).expect("memory");
        left.push(&text(5_000), false, &mut Vec::new()).expect("encodes");
        drop(left);
        assert_eq!(decoded(Coding::Zstd, &encoded(Coding::Zstd, CompressionLevel::Fast, false, b"text", 4)), b"text");
        let many: Vec<_> =
            (0..10).map(|_| Encoder::new(Coding::Zstd, CompressionLevel::Fast, false).expect("memory")).collect();
        drop(many);
        assert_eq!(IDLE.with_borrow(Vec::len), MAX_IDLE);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn in_whatever_parts(
            parts in proptest::collection::vec(proptest::collection::vec(0_u8..8, 0..2000), 0..12),
            flushes: bool,
            level in 0_usize..3,
        ) {
            for coding in Coding::ALL {
                let mut encoder = Encoder::new(coding, LEVELS[level], flushes).expect("memory");
                let mut out = Vec::new();
                for (at, part) in parts.iter().enumerate() {
                    encoder.push(part, at + 1 == parts.len(), &mut out).expect("encodes");
                }
                if parts.is_empty() {
                    encoder.push(b"", true, &mut out).expect("ends");
                }
                prop_assert_eq!(decoded(coding, &out), parts.concat());
            }
        }
    }
}
