//! Reading the files that a configuration names: regular files only, and only up to a size.
//!
//! A FIFO or a terminal would hold up whoever reads it, and a device such as `/dev/zero` has no end.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest file of certificates, keys or a key set.
pub const MAX_MATERIAL: u64 = 16 << 20;

/// Returns the content of a regular file of at most `most` bytes.
///
/// # Errors
/// Says why the file is not read, in words that follow its name and quote nothing out of it.
pub fn read_file(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let other = || "it is no regular file; FIFOs, devices and folders are not read".to_owned();
    // Before it is opened, which for a FIFO waits for a writer, and of some devices is more than a look.
    if !std::fs::metadata(path).map_err(|e| e.to_string())?.is_file() {
        return Err(other());
    }
    let file = File::open(path).map_err(|e| e.to_string())?;
    let data = file.metadata().map_err(|e| e.to_string())?;
    if !data.is_file() {
        return Err(other());
    }
    let too_large = |size: u64| format!("it is too large: {size} bytes or more, and at most {most} are read");
    if data.len() > most {
        return Err(too_large(data.len()));
    }
    let mut content = Vec::with_capacity(usize::try_from(data.len()).unwrap_or(0));
    // The length may grow meanwhile, and that of a file in /proc is 0.
    file.take(most + 1).read_to_end(&mut content).map_err(|e| e.to_string())?;
    if content.len() as u64 > most { Err(too_large(content.len() as u64)) } else { Ok(content) }
}

/// Returns the text of a regular file of at most `most` bytes.
///
/// # Errors
/// As for [`read_file`], and when the content is not UTF-8.
pub fn read_text(path: &Path, most: u64) -> Result<String, String> {
    String::from_utf8(read_file(path, most)?).map_err(|_| "it is no UTF-8 text".to_owned())
}

/// A file as it was at one time: two are the same when path and content are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct FileVersion {
    /// Where it is.
    pub path: PathBuf,
    /// The SHA-256 digest of its content; `None` of a file that cannot be read.
    digest: Option<[u8; 32]>,
}

impl FileVersion {
    /// Returns the present version of a file of at most [`MAX_MATERIAL`] bytes.
    pub fn of(path: PathBuf) -> Self {
        let digest = read_file(&path, MAX_MATERIAL).ok().map(|content| {
            let mut digest = [0; 32];
            digest.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &content).as_ref());
            digest
        });
        Self { path, digest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_files_up_to_a_size_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let (small, pipe) = (folder.path().join("small"), folder.path().join("pipe"));
        std::fs::write(&small, "12345").expect("written");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        assert_eq!(read_text(&small, 5).as_deref(), Ok("12345"));
        assert!(read_text(&small, 4).is_err_and(|e| e.contains("at most 4")));
        for other in [pipe.as_path(), folder.path(), Path::new("/dev/zero"), Path::new("/dev/null")] {
            assert!(read_file(other, 5).is_err_and(|e| e.contains("no regular file")), "{}", other.display());
        }
        // Its length is said to be 0.
        assert!(read_file(Path::new("/proc/self/maps"), 5).is_err_and(|e| e.contains("at most 5")));
    }
}
