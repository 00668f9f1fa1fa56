//! Content codings, taken off a body while it streams by (RFC 9110, section 8.4.1).

use std::io::{self, Write};

use brotli_decompressor::DecompressorWriter;
use flate2::write::MultiGzDecoder;

use super::{Opaque, Step};

/// The most that one part may become, in bytes: what packs more tightly than that is made to fill memory.
const MOST: usize = 4 << 20;

/// Takes a coding off. What is damaged, or ends before its end, is an error and never passed on.
pub struct Decoder {
    coding: Coding,
    begun: bool,
    ended: bool,
}

enum Coding {
    Gzip(MultiGzDecoder<Part>),
    Brotli(Box<DecompressorWriter<Part>>),
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("begun", &self.begun).finish_non_exhaustive()
    }
}

/// What has been decoded of one part.
#[derive(Default)]
struct Part(Vec<u8>);

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MOST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Decoder {
    /// Of the coding of that name, `gzip` or `br`; `None` for another.
    pub fn of(coding: &str) -> Option<Self> {
        let is = |name: &str| coding.trim().eq_ignore_ascii_case(name);
        let coding = if is("gzip") || is("x-gzip") {
            Coding::Gzip(MultiGzDecoder::new(Part::default()))
        } else if is("br") {
            Coding::Brotli(Box::new(DecompressorWriter::new(Part::default(), 0)))
        } else {
            return None;
        };
        Some(Self { coding, begun: false, ended: false })
    }

    /// Takes the next part, the last if `end`, and gives what it stands for. A body of no bytes at all is one of none.
    ///
    /// # Errors
    /// When it is damaged, ends too early, or becomes too much at once; nothing more is to be passed on then.
    pub fn push(&mut self, part: &[u8], end: bool) -> io::Result<Vec<u8>> {
        self.begun |= !part.is_empty();
        if !self.begun || self.ended {
            return Ok(Vec::new());
        }
        self.ended = end;
        match &mut self.coding {
            Coding::Gzip(gzip) => {
                gzip.write_all(part)?;
                gzip.flush()?;
                if end {
                    gzip.try_finish()?;
                }
                Ok(std::mem::take(&mut gzip.get_mut().0))
            }
            Coding::Brotli(brotli) => {
                brotli.write_all(part)?;
                if end {
                    brotli.close()?;
                }
                Ok(std::mem::take(&mut brotli.get_mut().0))
            }
        }
    }
}

impl Step for Decoder {
    fn push(&mut self, part: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), Opaque> {
        let plain = Self::push(self, part, end).map_err(|error| Opaque::Coding(error.to_string()))?;
        if out.is_empty() {
            *out = plain;
        } else {
            out.extend(plain);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    fn packed(coding: &str, text: &[u8]) -> Vec<u8> {
        if coding == "br" {
            let mut out = Vec::new();
            brotli::BrotliCompress(&mut &*text, &mut out, &brotli::enc::BrotliEncoderParams::default()).expect("brotli");
            return out;
        }
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(text).expect("gzip");
        gzip.finish().expect("gzip")
    }

    fn unpacked(coding: &str, packed: &[u8], cut: usize) -> io::Result<Vec<u8>> {
        let mut decoder = Decoder::of(coding).expect("a known coding");
        let mut out = Vec::new();
        for part in packed.chunks(cut) {
            out.extend(decoder.push(part, false)?);
        }
        out.extend(decoder.push(b"", true)?);
        Ok(out)
    }

    proptest! {
        #[test]
        fn gives_back_what_was_packed(text in proptest::collection::vec(0_u8..4, 0..3000), cut in 1_usize..200) {
            for coding in ["gzip", "br"] {
                prop_assert_eq!(&unpacked(coding, &packed(coding, &text), cut).expect(coding), &text);
            }
        }

        #[test]
        fn never_gives_more_of_what_is_damaged(text in "[a-f]{200,600}", at in 10_usize..90, cut in 1_usize..200) {
            let whole = packed("gzip", text.as_bytes());
            let mut damaged = whole.clone();
            let at = at.min(whole.len() - 1);
            damaged[at] ^= 0x55;
            prop_assert!(unpacked("gzip", &damaged, cut).is_err(), "a checksum tells");
            for coding in ["gzip", "br"] {
                let whole = packed(coding, text.as_bytes());
                prop_assert!(unpacked(coding, &whole[..whole.len() - 1], cut).is_err(), "{} that ends too early", coding);
            }
        }
    }

    #[test]
    fn members_follow_one_another_and_nothing_else_does() {
        let two = [packed("gzip", b"one "), packed("gzip", b"two")].concat();
        for cut in 1..two.len() {
            assert_eq!(unpacked("gzip", &two, cut).expect("two members"), b"one two", "cut at {cut}");
        }
        assert!(unpacked("gzip", b"{\"plain\":1}", 4).is_err());
        assert!(unpacked("br", b"{\"plain\":1}", 4).is_err());
        assert_eq!(unpacked("gzip", b"", 1).expect("no body"), b"");
        assert!(Decoder::of("zstd").is_none());
    }

    #[test]
    fn what_would_fill_memory_is_refused() {
        let bomb = packed("gzip", &vec![0; 2 * MOST]);
        assert!(unpacked("gzip", &bomb, bomb.len()).is_err());
        assert_eq!(unpacked("gzip", &bomb, 1024).expect("in smaller parts").len(), 2 * MOST);
    }
}
