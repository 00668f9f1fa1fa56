//! Pipes through which bytes pass from one socket to another within the kernel (splice(2)), from a bounded pool.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use parking_lot::Mutex;

use crate::edge::descriptors::is_reserved;

/// The most pipes at a time. A user without privileges has 16,384 pages for pipes (pipe(7), `pipe-user-pages-soft`),
/// which are 64 of [`PIPE_SIZE`].
const MAX_PIPES: usize = 64;

/// The size that a pipe is to have: the most that a user without privileges may request.
const PIPE_SIZE: i32 = 1 << 20;

/// The least size that is of use: one that the system has made smaller for want of pages is not.
const MIN_PIPE_SIZE: i32 = 64 << 10;

static IDLE: Mutex<Vec<(OwnedFd, OwnedFd, usize)>> = Mutex::new(Vec::new());
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A pipe with what is in it.
#[derive(Debug)]
pub struct Pipe {
    /// Its two ends, `None` once they are given back.
    ends: Option<(OwnedFd, OwnedFd)>,
    size: usize,
    held: usize,
}

impl Pipe {
    /// Returns an empty pipe, if there are not too many.
    pub fn take() -> Option<Self> {
        // At this place nobody waits: bytes can be copied as well.
        let idle = IDLE.try_lock()?.pop();
        if let Some((output, input, size)) = idle {
            return Some(Self { ends: Some((output, input)), size, held: 0 });
        }
        let counted = COUNT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < MAX_PIPES).then_some(n + 1));
        counted.ok()?;
        let made = make();
        if made.is_none() {
            COUNT.fetch_sub(1, Ordering::Relaxed);
        }
        made
    }

    /// Returns the number of bytes in it.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Fills it from a socket; it has to be empty, so that a full pipe is never taken for an empty socket: the system
    /// reports both alike. Returns 0 at the end of the stream.
    pub fn fill(&mut self, from: impl AsFd, most: usize) -> io::Result<usize> {
        debug_assert_eq!(self.held, 0);
        let (_, input) = self.ends.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        let count = splice(from, None, input, None, most.min(self.size), flags())?;
        self.held = count;
        Ok(count)
    }

    /// Empties it into a socket as far as that takes it.
    pub fn drain(&mut self, to: impl AsFd) -> io::Result<usize> {
        let (output, _) = self.ends.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        let count = splice(output, None, to, None, self.held, flags())?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.held = self.held.saturating_sub(count);
        Ok(count)
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE
}

fn make() -> Option<Pipe> {
    let (output, input) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).ok()?;
    if is_reserved(input.as_raw_fd()) {
        return None;
    }
    let size = match fcntl(&input, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE)) {
        Ok(size) => size,
        Err(_) => fcntl(&input, FcntlArg::F_GETPIPE_SZ).ok()?,
    };
    let size = usize::try_from(size).ok().filter(|_| size >= MIN_PIPE_SIZE)?;
    Some(Pipe { ends: Some((output, input)), size, held: 0 })
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some((output, input)) = self.ends.take() else { return };
        // What is left in one belongs to a session that has failed.
        if self.held == 0 {
            IDLE.lock().push((output, input, self.size));
        } else {
            COUNT.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
