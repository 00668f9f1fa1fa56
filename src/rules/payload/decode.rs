//! Decoders of content codings, for a streaming body (RFC 9110, section 8.4.1).

use std::io::{self, Write};

use brotli_decompressor::DecompressorWriter;
use flate2::write::MultiGzDecoder;
use zstd::stream::raw::{self, DParameter, InBuffer, Operation, OutBuffer};

use super::accept::Coding;
use super::step::{Opaque, Step};

/// The maximum decoded size of one part of a body, in bytes: a higher compression ratio is an attempt to exhaust
/// memory.
pub const MAX_DECODED: usize = 4 << 20;

/// The largest zstd window that is decoded, as a power of two: 8 MiB, which every decoder of HTTP has to support and
/// no sender may exceed (RFC 9659, section 3).
const ZSTD_WINDOW: u32 = 23;

/// Decodes one content coding. A damaged or truncated body is an error and is never passed on.
pub struct Decoder {
    coding: Decoding,
    begun: bool,
    ended: bool,
}

enum Decoding {
    Gzip(MultiGzDecoder<Decoded>),
    Brotli(Box<DecompressorWriter<Decoded>>),
    Zstd(Box<ZstdFrames>),
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("begun", &self.begun).finish_non_exhaustive()
    }
}

/// Collects the decoded bytes of one part, at most [`MAX_DECODED`].
#[derive(Default)]
struct Decoded {
    out: Vec<u8>,
    most: usize,
}

impl Write for Decoded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.out.len() + bytes.len() > self.most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Decoder {
    /// Returns the decoder of the coding of that name (`gzip`, `br` or `zstd`), `None` for another.
    pub fn of(coding: &str) -> Option<Self> {
        let coding = match Coding::of(coding)? {
            Coding::Gzip => Decoding::Gzip(MultiGzDecoder::new(Decoded::default())),
            Coding::Br => Decoding::Brotli(Box::new(DecompressorWriter::new(Decoded::default(), 0))),
            Coding::Zstd => Decoding::Zstd(Box::new(ZstdFrames::new()?)),
        };
        Some(Self { coding, begun: false, ended: false })
    }

    fn decode(&mut self, part: &[u8], end: bool, out: &mut Vec<u8>) -> io::Result<()> {
        let most = out.len() + MAX_DECODED;
        match &mut self.coding {
            Decoding::Gzip(gzip) => {
                *gzip.get_mut() = Decoded { out: std::mem::take(out), most };
                let done = gzip
                    .write_all(part)
                    .and_then(|()| gzip.flush())
                    .and_then(|()| if end { gzip.try_finish() } else { Ok(()) });
                *out = std::mem::take(&mut gzip.get_mut().out);
                done
            }
            Decoding::Brotli(brotli) => {
                *brotli.get_mut() = Decoded { out: std::mem::take(out), most };
                let done = brotli.write_all(part).and_then(|()| if end { brotli.close() } else { push_out(brotli) });
                *out = std::mem::take(&mut brotli.get_mut().out);
                done
            }
            Decoding::Zstd(zstd) => zstd.decode(part, end, most, out),
        }
    }
}

/// Writes out what is decoded already: the decoder asks for more input as soon as its buffer of 4 KiB is full, and
/// would otherwise keep the rest until that arrives.
fn push_out(brotli: &mut DecompressorWriter<Decoded>) -> io::Result<()> {
    loop {
        let before = brotli.get_ref().out.len();
        let _ = brotli.write(b"")?;
        if brotli.get_ref().out.len() == before {
            return Ok(());
        }
    }
}

impl Step for Decoder {
    /// Decodes the part. An empty body decodes to an empty body.
    fn push(&mut self, part: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), Opaque> {
        self.begun |= !part.is_empty();
        if !self.begun || self.ended {
            return Ok(());
        }
        self.ended = end;
        self.decode(part, end, out).map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => Opaque::TooDense,
            _ => Opaque::Damaged,
        })
    }
}

/// Decodes consecutive zstd frames (RFC 8878, section 3.1).
struct ZstdFrames {
    decoder: raw::Decoder<'static>,
    /// Whether the last frame is complete.
    complete: bool,
}

impl ZstdFrames {
    fn new() -> Option<Self> {
        let mut decoder = raw::Decoder::new().ok()?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW)).ok()?;
        Some(Self { decoder, complete: false })
    }

    fn decode(&mut self, part: &[u8], end: bool, most: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let mut input = InBuffer::around(part);
        // Also when all input was read: the decoder may hold output that did not fit.
        let mut pending = !part.is_empty();
        while pending {
            if out.len() >= most {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            out.reserve((2 * part.len()).clamp(512, 32 << 10));
            let from = out.len();
            let mut output = OutBuffer::around_pos(out, from);
            self.complete = self.decoder.run(&mut input, &mut output)? == 0;
            let full = output.pos() == output.capacity();
            pending = input.pos() < part.len() || (full && !self.complete);
        }
        if end && !self.complete { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    fn packed(coding: &str, text: &[u8]) -> Vec<u8> {
        if coding == "zstd" {
            return zstd::encode_all(text, 3).expect("zstd");
        }
        if coding == "br" {
            let mut out = Vec::new();
            brotli::BrotliCompress(&mut &*text, &mut out, &brotli::enc::BrotliEncoderParams::default())
                .expect("brotli");
            return out;
        }
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(text).expect("gzip");
        gzip.finish().expect("gzip")
    }

    fn unpacked(coding: &str, packed: &[u8], cut: usize) -> Result<Vec<u8>, Opaque> {
        let mut decoder = Decoder::of(coding).expect("a known coding");
        let mut out = Vec::new();
        for part in packed.chunks(cut) {
            decoder.push(part, false, &mut out)?;
        }
        decoder.push(b"", true, &mut out)?;
        Ok(out)
    }

    proptest! {
        #[test]
        fn gives_back_what_was_packed(text in proptest::collection::vec(0_u8..4, 0..3000), cut in 1_usize..200) {
            for coding in ["gzip", "br", "zstd"] {
                prop_assert_eq!(&unpacked(coding, &packed(coding, &text), cut).expect(coding), &text);
            }
        }

        #[test]
        fn never_gives_more_of_what_is_damaged(text in "[a-f]{200,600}", at in 10_usize..90, cut in 1_usize..200) {
            let whole = packed("gzip", text.as_bytes());
            let mut damaged = whole.clone();
            let at = at.min(whole.len() - 1);
            damaged[at] ^= 0x55;
            prop_assert!(unpacked("gzip", &damaged, cut).is_err(), "the checksum differs");
            for coding in ["gzip", "br", "zstd"] {
                let whole = packed(coding, text.as_bytes());
                let short = &whole[..whole.len() - 1];
                prop_assert!(unpacked(coding, short, cut).is_err(), "{} that ends too early", coding);
            }
        }
    }

    #[test]
    fn members_follow_one_another_and_nothing_else_does() {
        for coding in ["gzip", "zstd"] {
            let two = [packed(coding, b"one "), packed(coding, b"two")].concat();
            for cut in 1..=two.len() {
                assert_eq!(unpacked(coding, &two, cut).expect("two members"), b"one two", "{coding} cut at {cut}");
            }
        }
        for coding in ["gzip", "br", "zstd"] {
            assert_eq!(unpacked(coding, b"{\"plain\":1}", 4), Err(Opaque::Damaged), "{coding}");
            assert_eq!(unpacked(coding, b"", 1).expect("no body"), b"");
        }
        assert!(Decoder::of("compress").is_none());
    }

    #[test]
    fn what_would_fill_memory_is_rejected() {
        for coding in ["gzip", "br", "zstd"] {
            let bomb = packed(coding, &vec![0; 2 * MAX_DECODED]);
            assert_eq!(unpacked(coding, &bomb, bomb.len()), Err(Opaque::TooDense), "{coding}");
        }
        let bomb = packed("gzip", &vec![0; 2 * MAX_DECODED]);
        assert_eq!(unpacked("gzip", &bomb, 1024).expect("in smaller parts").len(), 2 * MAX_DECODED);
    }

    #[test]
    fn a_window_that_no_sender_may_use_is_rejected() {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("zstd");
        encoder.window_log(ZSTD_WINDOW + 1).expect("a window");
        encoder.write_all(b"text").expect("zstd");
        let packed = encoder.finish().expect("zstd");
        assert_eq!(unpacked("zstd", &packed, packed.len()), Err(Opaque::Damaged));
    }
}
