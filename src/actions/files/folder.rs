//! The folder whose files are sent. What is here blocks: it runs on threads of its own.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::HeaderValue;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::super::media_type::media_type_of;
use crate::rules::files::FileName;
use crate::rules::payload::Coding;

/// A folder with the rules for its files.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    index: Vec<String>,
    fallback: Option<FileName>,
}

/// What a name stands for.
#[derive(Debug)]
pub enum Found {
    /// A file.
    File(Box<OpenedFile>),
    /// A folder with an index, of which the path lacks the slash.
    Folder,
    /// Nothing that is served; the text says why, for the log.
    Missing(String),
}

/// A file that was opened.
#[derive(Debug)]
pub struct OpenedFile {
    file: File,
    /// Its size when it was opened.
    pub size: u64,
    /// When it was modified, in seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
    /// The content coding, if it is a precompressed one.
    pub coding: Option<Coding>,
    /// The type of its content.
    pub media_type: HeaderValue,
}

/// How often a name is resolved again when a folder on its way was renamed meanwhile.
const RESOLVE_TRIES: usize = 4;

impl Folder {
    /// Returns the folder at that absolute path.
    pub fn new(root: PathBuf, index: Vec<String>, fallback: Option<FileName>) -> Self {
        Self { root, index, fallback }
    }

    /// Checks whether the folder is there and can be opened.
    ///
    /// # Errors
    /// Returns why it cannot.
    pub fn check(&self) -> io::Result<()> {
        self.open_root().map(drop)
    }

    /// Returns whether the fallback is there, or none is configured.
    pub fn has_fallback(&self) -> bool {
        let Some(fallback) = &self.fallback else { return true };
        self.open_root().and_then(|root| self.open_regular(&root, fallback.as_bytes())).is_ok()
    }

    /// Finds the file of that name, in the first of those codings in which it is there.
    ///
    /// # Errors
    /// Fails where it is unknown whether the file is there, or the process has no descriptor left.
    pub fn find(&self, name: &FileName, codings: &[Coding]) -> io::Result<Found> {
        // Opened for each request: a folder that is replaced as a whole is served as it is from then on.
        let root = self.open_root().map_err(of_root)?;
        let named = self.find_named(&root, name, codings);
        let missing = match named {
            Ok(found) => return Ok(found),
            Err(error) if is_missing(&error) => error,
            Err(error) => return Err(error),
        };
        let Some(fallback) = &self.fallback else { return Ok(Found::Missing(reason_text(&missing))) };
        match self.open_coded(&root, fallback.as_bytes().to_vec(), codings) {
            Ok(file) => Ok(Found::File(Box::new(file))),
            Err(error) if is_missing(&error) => Ok(Found::Missing(format!("fallback: {}", reason_text(&error)))),
            Err(error) => Err(error),
        }
    }

    fn find_named(&self, root: &OwnedFd, name: &FileName, codings: &[Coding]) -> io::Result<Found> {
        if !name.is_folder() {
            match self.open_coded(root, name.as_bytes().to_vec(), codings) {
                Err(error) if error.kind() == io::ErrorKind::IsADirectory => {}
                other => return other.map(|file| Found::File(Box::new(file))),
            }
        }
        let mut missing = io::Error::from(io::ErrorKind::NotFound);
        for index in &self.index {
            match self.open_coded(root, name.join(index), codings) {
                Ok(_) if !name.is_folder() => return Ok(Found::Folder),
                Ok(file) => return Ok(Found::File(Box::new(file))),
                Err(error) if is_missing(&error) => missing = error,
                Err(error) => return Err(error),
            }
        }
        Err(missing)
    }

    /// Opens a file in the first of the codings in which it is there, or as it is.
    fn open_coded(&self, root: &OwnedFd, mut path: Vec<u8>, codings: &[Coding]) -> io::Result<OpenedFile> {
        let plain = self.open_regular(root, &path)?;
        let media_type = media_type_of(Path::new(OsStr::from_bytes(&path)));
        let length = path.len();
        for coding in codings {
            path.truncate(length);
            path.extend_from_slice(extension(*coding));
            match self.open_regular(root, &path) {
                Ok(file) => return OpenedFile::new(file, Some(*coding), media_type),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        OpenedFile::new(plain, None, media_type)
    }

    fn open_root(&self) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(nix::fcntl::open(&self.root, flags, nix::sys::stat::Mode::empty())?)
    }

    /// Opens a regular file below the root. Its kind is looked at first: opening a FIFO or a device may have effects.
    fn open_regular(&self, root: &OwnedFd, path: &[u8]) -> io::Result<File> {
        let path: &[u8] = if path.is_empty() { b"." } else { path };
        let looked_at = self.open_beneath(root, path, OFlag::O_PATH)?;
        check_kind(&looked_at)?;
        let file = self.open_beneath(root, path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        check_kind(&file)?;
        Ok(file)
    }

    /// Opens what a path leads to, unless it leads out of the root.
    fn open_beneath(&self, root: &OwnedFd, path: &[u8], flags: OFlag) -> io::Result<File> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        for _ in 0..RESOLVE_TRIES {
            match openat2(root, path, how) {
                Ok(file) => return Ok(file.into()),
                // A folder was renamed while a `..` of a link was resolved.
                Err(Errno::EAGAIN) => {}
                // Kernels before 5.6 do not know the call, and some containers forbid it.
                Err(Errno::ENOSYS | Errno::EPERM) => return self.open_resolved(path, flags),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::EAGAIN.into())
    }

    /// Does the same with the path resolved beforehand. A link that somebody replaces meanwhile could lead elsewhere,
    /// which `openat2` makes impossible.
    fn open_resolved(&self, path: &[u8], flags: OFlag) -> io::Result<File> {
        let root = self.root.canonicalize()?;
        let resolved = root.join(OsStr::from_bytes(path)).canonicalize()?;
        if !resolved.starts_with(&root) {
            return Err(Errno::EXDEV.into());
        }
        let flags = flags | OFlag::O_NOFOLLOW;
        std::fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(resolved)
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root.display())?;
        if !self.index.is_empty() {
            write!(f, ", index {}", self.index.join(" or "))?;
        }
        if let Some(fallback) = &self.fallback {
            write!(f, ", fallback /{}", String::from_utf8_lossy(fallback.as_bytes()))?;
        }
        Ok(())
    }
}

impl OpenedFile {
    fn new(file: File, coding: Option<Coding>, media_type: HeaderValue) -> io::Result<Self> {
        let facts = file.metadata()?;
        Ok(Self { size: facts.size(), modified: (facts.mtime(), facts.mtime_nsec()), file, coding, media_type })
    }

    /// Reads the bytes at that place.
    ///
    /// # Errors
    /// Fails, too, where the file does not have that many bytes any more.
    pub fn read(&self, at: u64, length: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; length];
        self.file.read_exact_at(&mut buffer, at)?;
        Ok(buffer.into())
    }
}

/// Adds to an error of the root that it is one, so that nobody looks for the fault in what is below.
fn of_root(error: io::Error) -> io::Error {
    if is_missing(&error) { io::Error::new(error.kind(), format!("the root: {error}")) } else { error }
}

/// Returns the end of the name of a file in that coding.
fn extension(coding: Coding) -> &'static [u8] {
    match coding {
        Coding::Zstd => b".zst",
        Coding::Br => b".br",
        Coding::Gzip => b".gz",
    }
}

/// Fails for what is no regular file.
fn check_kind(file: &File) -> io::Result<()> {
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if kind.is_file() { Ok(()) } else { Err(Errno::ENXIO.into()) }
}

/// Returns whether an error says that there is no file that may be sent.
fn is_missing(error: &io::Error) -> bool {
    let Some(code) = error.raw_os_error() else {
        return matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory);
    };
    matches!(
        Errno::from_raw(code),
        Errno::ENOENT
            | Errno::ENOTDIR
            | Errno::EACCES
            | Errno::ELOOP
            | Errno::ENAMETOOLONG
            | Errno::EXDEV
            | Errno::ENXIO
            | Errno::EISDIR
            | Errno::EINVAL
    )
}

/// Returns the text of such an error for the log.
fn reason_text(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EXDEV) => "a symbolic link leads out of the root".to_owned(),
        Some(Errno::ENXIO) => "it is no regular file".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Both ways to open a file: with `openat2`, and where the kernel has none.
    #[test]
    fn both_ways_to_resolve_a_name_keep_within_the_root() {
        let place = tempfile::tempdir().expect("a folder");
        let site = place.path().join("site");
        std::fs::create_dir_all(site.join("docs")).expect("made");
        for (name, text) in [("secret", "secret"), ("site/a.txt", "a"), ("site/docs/b.txt", "b")] {
            std::fs::write(place.path().join(name), text).expect("written");
        }
        for (to, link) in
            [("../secret", "up"), ("a.txt", "link"), ("docs", "also"), ("..", "docs/root"), ("/etc", "etc")]
        {
            symlink(to, site.join(link)).expect("a link");
        }
        // The root itself may be a link.
        symlink("site", place.path().join("current")).expect("a link");
        let folder = Folder::new(place.path().join("current"), Vec::new(), None);
        let root = folder.open_root().expect("the root");
        for (name, text) in
            [("a.txt", "a"), ("docs/b.txt", "b"), ("link", "a"), ("also/b.txt", "b"), ("docs/root/a.txt", "a")]
        {
            let read = |file: io::Result<File>| io::read_to_string(file.expect(name)).expect("read");
            assert_eq!(read(folder.open_beneath(&root, name.as_bytes(), OFlag::O_RDONLY)), text, "{name}");
            assert_eq!(read(folder.open_resolved(name.as_bytes(), OFlag::O_RDONLY)), text, "{name}");
        }
        for name in ["up", "etc/passwd", "../secret", "docs/root/../secret", "nothing", "a.txt/x"] {
            for opened in [
                folder.open_beneath(&root, name.as_bytes(), OFlag::O_RDONLY),
                folder.open_resolved(name.as_bytes(), OFlag::O_RDONLY),
            ] {
                assert!(opened.is_err_and(|error| is_missing(&error)), "{name}");
            }
        }
    }
}
