//! Handing the listeners to a successor over a Unix socket.
//!
//! The successor leads: it connects, takes the sockets (SCM_RIGHTS, unix(7)), starts, and says
//! `ready`. Only then does the old process drain. If the successor dies or never says so, nothing has
//! changed: both hold the same sockets, and the old one never stopped accepting.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

use super::Supervisor;
use crate::edge::Bound;

/// How long a successor may take from the sockets to its `ready`.
const PATIENCE: Duration = Duration::from_secs(60);

const READY: &[u8] = b"ready\n";

/// One socket that is handed over; the message is this, with the socket beside it.
#[derive(Debug, Serialize, Deserialize)]
struct Handed {
    name: String,
    configured: std::net::SocketAddr,
    /// How many are still to come.
    left: usize,
}

/// The socket at which a successor is awaited.
#[derive(Debug)]
pub struct Offer {
    path: PathBuf,
    inode: u64,
}

/// Waits for successors, on a thread of its own.
pub fn offer(path: &Path, supervisor: Arc<Supervisor>) -> io::Result<Offer> {
    // Bound beside and renamed, so that there is a socket at the path at every moment.
    let beside = path.with_extension("new");
    let _ = std::fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside)?;
    restrict(&beside)?;
    std::fs::rename(&beside, path)?;
    let offer = Offer { inode: inode(path)?, path: path.to_owned() };
    let serve = move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            match hand_over(&stream, &supervisor) {
                Ok(()) => {
                    log::info!("a successor is ready: this process drains and ends");
                    return supervisor.end();
                }
                Err(error) => log::error!("the hand-over failed, this process goes on serving: {error}"),
            }
        }
    };
    std::thread::Builder::new().name("upgrade".to_owned()).spawn(serve)?;
    Ok(offer)
}

impl Offer {
    /// Removes the socket, so that the next start does not find one behind which nobody is. A
    /// successor's own at the same path is not touched.
    pub fn withdraw(&self) {
        if inode(&self.path).is_ok_and(|now| now == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::symlink_metadata(path)?.ino())
}

/// Only this user may take the sockets.
fn restrict(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

fn hand_over(stream: &UnixStream, supervisor: &Supervisor) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let sockets: Vec<(Handed, RawFd)> = {
        let listeners = supervisor.listeners.lock();
        // The operators' listener comes last, and so there is always one.
        let handed = |(index, l): (usize, &crate::edge::Listening)| {
            (Handed { name: l.name.clone(), configured: l.configured, left: listeners.len() - index }, l.fd())
        };
        let admin = &supervisor.admin;
        let last = (Handed { name: admin.name.clone(), configured: admin.configured, left: 0 }, admin.socket.as_raw_fd());
        listeners.iter().enumerate().map(handed).chain([last]).collect()
    };
    for (handed, fd) in &sockets {
        let text = serde_json::to_vec(handed)?;
        let length = (text.len() as u32).to_be_bytes();
        let fds = [*fd];
        // The socket travels with the first bytes of its message.
        sendmsg::<UnixAddr>(stream.as_raw_fd(), &[IoSlice::new(&length)], &[ControlMessage::ScmRights(&fds)], MsgFlags::empty(), None)?;
        (&mut &*stream).write_all(&text)?;
    }
    let mut answer = [0; READY.len()];
    (&mut &*stream).read_exact(&mut answer)?;
    if answer == READY { Ok(()) } else { Err(io::Error::other("the successor did not say that it is ready")) }
}

/// The predecessor, from whom the sockets were taken.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

/// Takes the sockets from the process behind `path`.
pub fn take(path: &Path) -> io::Result<(Vec<Bound>, Predecessor)> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut bound = Vec::new();
    loop {
        let (handed, fd) = receive(&stream)?;
        let left = handed.left;
        bound.push(Bound { name: handed.name, configured: handed.configured, socket: fd.into() });
        if left == 0 {
            return Ok((bound, Predecessor(stream)));
        }
    }
}

fn receive(stream: &UnixStream) -> io::Result<(Handed, OwnedFd)> {
    let mut length = [0; 4];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let fd = {
        let mut parts = [IoSliceMut::new(&mut length)];
        let message = recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let fds = message.cmsgs()?.find_map(|c| if let ControlMessageOwned::ScmRights(fds) = c { Some(fds) } else { None });
        fds.and_then(|fds| fds.first().copied())
    };
    let fd = fd.ok_or_else(|| io::Error::other("no socket came"))?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut text = vec![0; (u32::from_be_bytes(length) as usize).min(64 * 1024)];
    (&mut &*stream).read_exact(&mut text)?;
    Ok((serde_json::from_slice(&text)?, fd))
}

impl Predecessor {
    /// Tells it that this process serves.
    pub fn ready(mut self) -> io::Result<()> {
        self.0.write_all(READY)
    }
}
