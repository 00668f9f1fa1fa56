//! The file of a stored response: a head, and the body in blocks, each with a checksum.
//!
//! A file is written under another name and renamed when it is complete. The checksums of its blocks depend on a number
//! of the file and on their places, so that no block of another file, or of another place, passes for one of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use bytes::Bytes;
use nix::libc;
use rustix::buffer::spare_capacity;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2};

use super::head_form::{read_head, write_head};
use crate::live::cache::head::{StoredHead, StoredKey};

/// The first bytes of a file, with the version of the form.
const MAGIC: &[u8; 8] = b"PORTCCH2";

/// The bytes before the head.
const PREAMBLE: usize = 40;

/// The bytes of a block of the body: what is read at a time. Most bodies are one block, which is sent as it was read.
pub const BLOCK: usize = 256 * 1024;

/// The bytes of a checksum behind a block.
const CHECK: usize = 4;

/// The largest head that is read.
const MAX_HEAD: usize = 1 << 20;

/// The first read of a file, in which most heads are.
const FIRST_READ: usize = 4096;

/// The reason for which a file is not used.
#[derive(Debug)]
pub enum FileError {
    /// It does not exist.
    Missing,
    /// It is not what was written.
    Damaged,
    /// It is not in the memory of the system, where only that may be read.
    NotReady,
    /// The system fails.
    System(io::Error),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::UnexpectedEof => Self::Damaged,
            _ => Self::System(error),
        }
    }
}

impl From<Errno> for FileError {
    fn from(error: Errno) -> Self {
        match error {
            // The last three: by kernels and file systems that cannot say.
            Errno::AGAIN | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM => Self::NotReady,
            other => io::Error::from(other).into(),
        }
    }
}

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileReading {
    /// The thread waits for the device.
    Waiting,
    /// What is not in the memory of the system is an error (`RESOLVE_CACHED` of openat2(2), `RWF_NOWAIT` of
    /// preadv2(2)), so that a thread that serves others can read.
    Ready,
}

impl FileReading {
    fn open(self, path: &Path) -> Result<File, FileError> {
        match self {
            Self::Waiting => Ok(File::open(path)?),
            Self::Ready => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                Ok(File::from(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED)?))
            }
        }
    }

    /// Reads so many bytes from a place on.
    fn read_at(self, file: &File, count: usize, mut at: u64) -> Result<Vec<u8>, FileError> {
        let mut out = Vec::with_capacity(count);
        while out.len() < count {
            let read = match self {
                Self::Waiting => pread(file, spare_capacity(&mut out), at)?,
                Self::Ready => append_ready(file, &mut out, count, at)?,
            };
            if read == 0 {
                return Err(FileError::Damaged);
            }
            at += read as u64;
        }
        out.truncate(count);
        Ok(out)
    }

    fn read_exact_at(self, file: &File, mut into: &mut [u8], mut at: u64) -> Result<(), FileError> {
        if self == Self::Waiting {
            return Ok(file.read_exact_at(into, at)?);
        }
        while !into.is_empty() {
            let read = preadv2(file, &mut [io::IoSliceMut::new(into)], at, ReadWriteFlags::NOWAIT)?;
            if read == 0 {
                return Err(FileError::Damaged);
            }
            into = &mut into[read..];
            at += read as u64;
        }
        Ok(())
    }
}

/// Appends what can be read without waiting, up to a length in all. A large buffer is not set to zeros before.
fn append_ready(file: &File, out: &mut Vec<u8>, most: usize, at: u64) -> Result<usize, FileError> {
    let (length, at) = (out.len(), i64::try_from(at).map_err(|_| FileError::Damaged)?);
    let spare = out.spare_capacity_mut();
    let part = libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: spare.len().min(most - length) };
    // SAFETY: the part is memory of the vector behind its length, which nothing else refers to.
    let count = unsafe { libc::preadv2(file.as_raw_fd(), &raw const part, 1, at, libc::RWF_NOWAIT) };
    let Ok(count) = usize::try_from(count) else {
        let error = io::Error::last_os_error();
        return Err(error
            .raw_os_error()
            .map_or(FileError::System(error), |code| Errno::from_raw_os_error(code).into()));
    };
    // SAFETY: the system has written so many bytes there.
    unsafe { out.set_len(length + count) };
    Ok(count)
}

/// A file that is read.
#[derive(Debug)]
pub struct StoredFile {
    file: File,
    /// The key and the variant of the response.
    pub key: (StoredKey, Option<StoredKey>),
    /// The head.
    pub head: StoredHead,
    /// The generation in which its request began.
    pub generation: u64,
    /// The length of the body.
    pub length: u64,
    /// The bytes of the file.
    pub bytes: u64,
    nonce: u64,
    body_at: u64,
}

/// Returns the bytes of a body in blocks with their checksums.
fn in_blocks(length: u64) -> u64 {
    length + CHECK as u64 * length.div_ceil(BLOCK as u64)
}

/// Returns the size of the file of a response.
pub fn file_bytes(head: usize, length: u64) -> u64 {
    (PREAMBLE + head) as u64 + in_blocks(length)
}

fn block_check(nonce: u64, number: u64, block: &[u8]) -> u32 {
    let mut check = crc32fast::Hasher::new();
    check.update(&nonce.to_le_bytes());
    check.update(&number.to_le_bytes());
    check.update(block);
    check.finalize()
}

fn preamble(form: &[u8], length: u64, nonce: u64, generation: u64) -> [u8; PREAMBLE] {
    let mut out = [0; PREAMBLE];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&u32::try_from(form.len()).unwrap_or(u32::MAX).to_le_bytes());
    out[16..24].copy_from_slice(&length.to_le_bytes());
    out[24..32].copy_from_slice(&nonce.to_le_bytes());
    out[32..40].copy_from_slice(&generation.to_le_bytes());
    let check = head_check(&out, form);
    out[12..16].copy_from_slice(&check.to_le_bytes());
    out
}

/// Returns the checksum of a preamble, without that in it, and a head.
fn head_check(preamble: &[u8; PREAMBLE], form: &[u8]) -> u32 {
    let mut check = crc32fast::Hasher::new();
    check.update(&preamble[..12]);
    check.update(&preamble[16..]);
    check.update(form);
    check.finalize()
}

/// Writes the file of a response under a path at which none exists.
///
/// # Errors
/// When the system fails; a part of the file may exist then.
pub fn write_file(
    path: &Path,
    key: (&StoredKey, Option<&StoredKey>),
    head: &StoredHead,
    generation: u64,
    parts: &[Bytes],
) -> io::Result<u64> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let (form, nonce) = (write_head(key.0, key.1, head), fastrand::u64(..));
    let length = parts.iter().map(|part| part.len() as u64).sum();
    let mut out = Vec::with_capacity(PREAMBLE + form.len() + BLOCK + CHECK);
    out.extend_from_slice(&preamble(&form, length, nonce, generation));
    out.extend_from_slice(&form);
    let (mut number, mut begin) = (0, out.len());
    for mut rest in parts.iter().map(Bytes::as_ref) {
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(BLOCK - (out.len() - begin)));
            out.extend_from_slice(piece);
            rest = behind;
            if out.len() - begin == BLOCK {
                out.extend_from_slice(&block_check(nonce, number, &out[begin..]).to_le_bytes());
                file.write_all(&out)?;
                out.clear();
                (number, begin) = (number + 1, 0);
            }
        }
    }
    if out.len() > begin {
        let check = block_check(nonce, number, &out[begin..]);
        out.extend_from_slice(&check.to_le_bytes());
    }
    file.write_all(&out)?;
    Ok(file_bytes(form.len(), length))
}

/// Writes a file with another head and the body of an open one, whose blocks are copied as they are.
///
/// # Errors
/// When the system fails; a part of the file may exist then.
pub fn write_file_with_head(path: &Path, from: &StoredFile, head: &StoredHead, generation: u64) -> io::Result<u64> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let form = write_head(&from.key.0, from.key.1.as_ref(), head);
    file.write_all(&preamble(&form, from.length, from.nonce, generation))?;
    file.write_all(&form)?;
    let mut body = &from.file;
    body.seek(SeekFrom::Start(from.body_at))?;
    let copied = io::copy(&mut body.take(in_blocks(from.length)), &mut file)?;
    if copied != in_blocks(from.length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(file_bytes(form.len(), from.length))
}

/// Opens a file and reads its head.
///
/// # Errors
/// When it does not exist, is not complete, is damaged, or would have to be waited for.
pub fn open_file(path: &Path, reading: FileReading) -> Result<StoredFile, FileError> {
    let file = reading.open(path)?;
    let bytes = file.metadata()?.len();
    let mut first = vec![0; FIRST_READ.min(usize::try_from(bytes).unwrap_or(FIRST_READ))];
    reading.read_exact_at(&file, &mut first, 0)?;
    let preamble: [u8; PREAMBLE] = first.get(..PREAMBLE).and_then(|p| p.try_into().ok()).ok_or(FileError::Damaged)?;
    let number = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&preamble[at..at + 8]);
        u64::from_le_bytes(number)
    };
    let lengths = number(8);
    let (head_length, check) = ((lengths & 0xffff_ffff) as usize, (lengths >> 32) as u32);
    let (length, nonce, generation) = (number(16), number(24), number(32));
    let is_whole = preamble.starts_with(MAGIC)
        && head_length <= MAX_HEAD
        && length <= bytes
        && file_bytes(head_length, length) == bytes;
    if !is_whole {
        return Err(FileError::Damaged);
    }
    let mut form = first.split_off(PREAMBLE);
    let had = form.len().min(head_length);
    form.resize(head_length, 0);
    if had < head_length {
        reading.read_exact_at(&file, &mut form[had..], (PREAMBLE + had) as u64)?;
    }
    if head_check(&preamble, &form) != check {
        return Err(FileError::Damaged);
    }
    let (key, variant, head) = read_head(&form).ok_or(FileError::Damaged)?;
    let body_at = (PREAMBLE + head_length) as u64;
    Ok(StoredFile { file, key: (key, variant), head, generation, length, bytes, nonce, body_at })
}

impl StoredFile {
    /// Reads the blocks from that of a place on, at most `most` bytes of the body. Returns the place of the first byte,
    /// and the blocks.
    ///
    /// # Errors
    /// When a block is damaged, or would have to be waited for.
    pub fn read_blocks(&self, at: u64, most: usize, reading: FileReading) -> Result<(u64, Vec<Bytes>), FileError> {
        let first = at / BLOCK as u64;
        let begin = first * BLOCK as u64;
        let left = usize::try_from(self.length.saturating_sub(begin)).unwrap_or(usize::MAX);
        let wanted = left.min(most.max(1).next_multiple_of(BLOCK));
        let size = usize::try_from(in_blocks(wanted as u64)).unwrap_or(usize::MAX);
        let read = reading.read_at(&self.file, size, self.body_at + first * (BLOCK + CHECK) as u64)?;
        let mut read = Bytes::from(read);
        let (mut blocks, mut number) = (Vec::with_capacity(wanted.div_ceil(BLOCK)), first);
        while !read.is_empty() {
            let mut block = read.split_to(read.len().min(BLOCK + CHECK));
            let check = block.split_off(block.len().saturating_sub(CHECK));
            if block_check(self.nonce, number, &block).to_le_bytes() != *check {
                return Err(FileError::Damaged);
            }
            blocks.push(block);
            number += 1;
        }
        Ok((begin, blocks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::cache::tests::{head, key};

    fn write(path: &Path, body: &[u8]) -> u64 {
        let parts: Vec<Bytes> = body.chunks(10_000).map(Bytes::copy_from_slice).collect();
        write_file(path, (&key(1), Some(&key(2))), &head("http://a.test/", &["t"]), 9, &parts).expect("written")
    }

    #[test]
    fn bodies_of_all_sizes_come_back() {
        let folder = tempfile::tempdir().expect("a folder");
        for length in [0, 1, 9_999, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 17] {
            let body: Vec<u8> = (0..length).map(|n| (n % 253) as u8).collect();
            let path = folder.path().join(length.to_string());
            let bytes = write(&path, &body);
            assert_eq!(bytes, std::fs::metadata(&path).expect("a file").len());
            let file = open_file(&path, FileReading::Waiting).expect("open");
            assert_eq!((file.length, file.generation, file.key), (length as u64, 9, (key(1), Some(key(2)))));
            let (at, blocks) = file.read_blocks(0, usize::MAX / 2, FileReading::Waiting).expect("read");
            assert_eq!((at, blocks.concat()), (0, body.clone()));
            if length > 2 * BLOCK {
                let (at, blocks) = file.read_blocks(BLOCK as u64 + 5, 1, FileReading::Waiting).expect("read");
                assert_eq!((at, &blocks.concat()[..]), (BLOCK as u64, &body[BLOCK..2 * BLOCK]));
            }
            // Another head over the same blocks.
            let other = folder.path().join(format!("{length}.other"));
            write_file_with_head(&other, &file, &head("http://b.test/", &[]), 10).expect("written");
            let other = open_file(&other, FileReading::Waiting).expect("open");
            assert_eq!((&*other.head.url, other.generation), ("http://b.test/", 10));
            assert_eq!(other.read_blocks(0, usize::MAX / 2, FileReading::Waiting).expect("read").1.concat(), body);
        }
    }

    /// Wherever a byte is another one, or the file ends, that is found.
    #[test]
    fn a_changed_byte_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("one");
        let body: Vec<u8> = (0..BLOCK + 100).map(|n| (n % 253) as u8).collect();
        write(&path, &body);
        let whole = std::fs::read(&path).expect("read");
        let damaged = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("written");
            open_file(&path, FileReading::Waiting)
                .and_then(|file| file.read_blocks(0, 1 << 20, FileReading::Waiting))
                .is_err()
        };
        assert!(!damaged(&whole));
        let places = (0..600).chain((600..whole.len()).step_by(997)).chain(whole.len() - 110..whole.len());
        for at in places {
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 8);
            assert!(damaged(&changed), "byte {at}");
            if at % 5 == 0 {
                assert!(damaged(&whole[..at]), "{at} bytes");
            }
        }
        // A block of another file, and of another place.
        let other = folder.path().join("other");
        write(&other, &body);
        let other = std::fs::read(&other).expect("read");
        let last = whole.len() - 104;
        assert!(damaged(&[&whole[..last], &other[last..]].concat()));
    }
}
