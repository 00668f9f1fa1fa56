//! The old process's side.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{Shutdown, getsockopt, shutdown};
use parking_lot::Mutex;

use super::spawn::start_successor;
use super::wire::{Message, PROTOCOL, give, incoming, is_timeout, receive, send};
use crate::live::Part;
use crate::process::{Phase, Progress, Supervisor, notify};

/// How long whoever connects may take to say what it wants.
const GREETING: Duration = Duration::from_secs(5);

/// How long a successor that has the rest may take to accept.
const MOMENT: Duration = Duration::from_secs(10);

/// How often the successor is told what came in meanwhile.
const LATE: Duration = Duration::from_millis(50);

/// Conversations at a time; more are hung up on.
const MOST: usize = 16;

/// The socket at which successors and people are awaited.
#[derive(Debug)]
pub struct Offer {
    path: PathBuf,
    inode: Mutex<u64>,
    /// The socket that is waited at; changed when it is made anew.
    listener: Mutex<Option<UnixListener>>,
    talking: AtomicUsize,
}

/// A socket beside the path where it is to be, so that there is one at the path at every moment, and so that what
/// can go wrong about it goes wrong before anybody relies on it. Removed if it does not come to its path.
#[derive(Debug)]
pub struct Prepared {
    path: PathBuf,
    beside: PathBuf,
    listener: UnixListener,
}

impl Prepared {
    /// Makes it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(path: &Path) -> io::Result<Self> {
        let beside = path.with_extension(format!("{}.new", std::process::id()));
        let _ = std::fs::remove_file(&beside);
        let prepared = Self { path: path.to_owned(), listener: UnixListener::bind(&beside)?, beside };
        restrict(&prepared.beside)?;
        Ok(prepared)
    }

    /// Puts it at its path and waits there for successors, on a thread of its own.
    ///
    /// # Errors
    /// When it cannot be put there, or no thread can be had.
    pub fn open(&self, supervisor: &Arc<Supervisor>) -> io::Result<Arc<Offer>> {
        let offer = Offer { path: self.path.clone(), inode: Mutex::new(0), listener: Mutex::default(), talking: AtomicUsize::new(0) };
        let offer = Arc::new(offer);
        offer.put(self, supervisor)?;
        Ok(offer)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // It is not there any more where all went well.
        let _ = std::fs::remove_file(&self.beside);
    }
}

impl Offer {
    /// Puts a socket at the path (a second time where a successor that has ended has put its own there).
    fn put(self: &Arc<Self>, prepared: &Prepared, supervisor: &Arc<Supervisor>) -> io::Result<()> {
        let listener = prepared.listener.try_clone()?;
        std::fs::rename(&prepared.beside, &self.path)?;
        *self.inode.lock() = inode(&self.path)?;
        if let Some(before) = self.listener.lock().replace(listener.try_clone()?) {
            // Whoever waits there wakes up, and ends.
            let _ = shutdown(before.as_raw_fd(), Shutdown::Both);
        }
        let (offer, supervisor) = (Arc::clone(self), Arc::clone(supervisor));
        std::thread::Builder::new().name("offer".to_owned()).spawn(move || offer.wait(&listener, &supervisor))?;
        Ok(())
    }

    fn wait(self: &Arc<Self>, listener: &UnixListener, supervisor: &Arc<Supervisor>) {
        loop {
            match listener.accept() {
                Ok((stream, _)) if self.talking.load(Ordering::Acquire) < MOST => self.talk(stream, supervisor),
                Ok(_) => {}
                // It was shut down.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
                #[expect(clippy::disallowed_methods, reason = "a thread of its own")]
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn talk(self: &Arc<Self>, stream: UnixStream, supervisor: &Arc<Supervisor>) {
        let (offer, supervisor) = (Arc::clone(self), Arc::clone(supervisor));
        self.talking.fetch_add(1, Ordering::AcqRel);
        let serve = move || {
            offer.serve(&stream, &supervisor);
            offer.talking.fetch_sub(1, Ordering::AcqRel);
        };
        if let Err(error) = std::thread::Builder::new().name("handover".to_owned()).spawn(serve) {
            self.talking.fetch_sub(1, Ordering::AcqRel);
            log::error!("nobody can be talked to at {}: {error}", self.path.display());
        }
    }

    /// Removes the socket, so that the next start does not find one behind which nobody is. A
    /// successor's own at the same path is not touched.
    pub fn withdraw(&self) {
        if inode(&self.path).is_ok_and(|now| now == *self.inode.lock()) {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    fn serve(self: &Arc<Self>, stream: &UnixStream, supervisor: &Arc<Supervisor>) {
        let greeting = stream.set_read_timeout(Some(GREETING)).and_then(|()| stream.set_write_timeout(Some(MOMENT)));
        match greeting.and_then(|()| receive(stream)) {
            Ok((Message::Upgrade, _)) => {
                // This process does not end before it has told what became of it.
                let _under_way = supervisor.drain.begin();
                let tell = |text: &str| _ = send(stream, &Message::Progress { text: text.to_owned() }, None);
                let (fine, text) = match start_successor(supervisor, &tell) {
                    Ok(text) => (true, text),
                    Err(text) => (false, text),
                };
                let _ = send(stream, &Message::Done { fine, text }, None);
            }
            Ok((Message::Take { protocol: PROTOCOL }, _)) => self.hand_over(stream, supervisor),
            Ok((Message::Take { protocol }, _)) => {
                let why = format!("the process that serves speaks version {PROTOCOL} of the hand-over, not {protocol}: start anew instead");
                let _ = send(stream, &Message::Failed { why }, None);
            }
            Ok(_) | Err(_) => log::warn!("somebody at {} said nothing that is known here", self.path.display()),
        }
    }

    fn hand_over(self: &Arc<Self>, stream: &UnixStream, supervisor: &Arc<Supervisor>) {
        // One at a time, and no reload in between: the successor has what this process has.
        let one = supervisor.reloading.try_lock();
        let (Ok(one), Phase::Serving) = (one, supervisor.phase()) else {
            let why = "a reload or another upgrade is under way".to_owned();
            let _ = send(stream, &Message::Failed { why }, None);
            return;
        };
        match lead(stream, supervisor) {
            Ok(()) => {
                stand_back(stream, supervisor);
                drop(one);
                self.stand_by(stream, supervisor);
            }
            Err(error) => {
                let why = why(&error);
                // It may have been told to end meanwhile; then nobody is to be let in again.
                if supervisor.phase() == Phase::Serving {
                    supervisor.pause(false);
                }
                supervisor.live.heritage().iter().for_each(|kind| kind.keep());
                // So that it does not take the end of this line for the end of this process, and serve.
                let _ = send(stream, &Message::Failed { why: why.clone() }, None);
                log::error!("the hand-over failed, this process goes on serving: the successor {why}");
                supervisor.progress(Progress::Failed(why));
            }
        }
    }

    /// Drains, and serves again should the successor end too soon.
    fn stand_by(self: &Arc<Self>, stream: &UnixStream, supervisor: &Arc<Supervisor>) {
        let pid = supervisor.successor.load(Ordering::Acquire);
        // What comes in here is told as long as it is heard; that it is not heard is no end of the successor.
        let mut heard = stream.set_write_timeout(Some(GREETING)).is_ok();
        loop {
            match incoming(stream, LATE).and_then(|came| if came { receive(stream).map(Some) } else { Ok(None) }) {
                Ok(Some((Message::Settled, _))) if supervisor.phase() == Phase::StandingBy => {
                    // Not before: whoever started this process would take the successor's end for the service's.
                    notify::main_pid(pid);
                    log::info!("the successor, process {pid}, has settled: this process ends with its last request");
                    supervisor
                        .progress(Progress::Settled(format!("process {pid} has settled; the old process ends with its last request")));
                    supervisor.enter(Phase::Leaving);
                }
                Err(_) => {
                    if supervisor.phase() == Phase::StandingBy {
                        self.come_back(supervisor);
                    }
                    return;
                }
                _ => {}
            }
            heard = heard && give(stream, &supervisor.live, Part::Late).is_ok();
        }
    }

    fn come_back(self: &Arc<Self>, supervisor: &Arc<Supervisor>) {
        log::error!("the successor ended before it had settled: this process goes on serving");
        supervisor.live.heritage().iter().for_each(|kind| kind.keep());
        supervisor.successor.store(0, Ordering::Release);
        supervisor.enter(Phase::Serving);
        supervisor.progress(Progress::Failed("ended soon after it had taken over".to_owned()));
        match Prepared::new(&self.path).and_then(|prepared| self.put(&prepared, supervisor)) {
            Ok(()) => log::info!("successors are awaited again at {}", self.path.display()),
            Err(error) => log::error!("the upgrade socket {} cannot be made again: {error}", self.path.display()),
        }
    }
}

/// Leaves what comes to the successor.
fn stand_back(stream: &UnixStream, supervisor: &Supervisor) {
    log::info!("a successor serves: this process drains, and stands by until it has settled");
    let pid = getsockopt(&stream, PeerCredentials).map_or(0, |peer| peer.pid());
    supervisor.successor.store(pid, Ordering::Release);
    supervisor.progress(Progress::Step("the successor serves; the old process stands by"));
    supervisor.enter(Phase::StandingBy);
}

/// From the sockets to the successor's `serving`.
fn lead(stream: &UnixStream, supervisor: &Supervisor) -> io::Result<()> {
    supervisor.progress(Progress::Step("the successor takes sockets and state"));
    for bound in supervisor.sockets()? {
        let message = Message::Socket { name: bound.name, configured: bound.configured };
        send(stream, &message, Some(bound.socket.as_raw_fd()))?;
    }
    give(stream, &supervisor.live, Part::Whole)?;
    send(stream, &Message::Complete, None)?;
    stream.set_read_timeout(Some(supervisor.serving().snapshot.process.upgrade_time))?;
    await_message(stream, |message| matches!(message, Message::Ready))?;
    supervisor.progress(Progress::Step("the successor is ready"));
    stream.set_read_timeout(Some(MOMENT))?;
    supervisor.pause(true);
    give(stream, &supervisor.live, Part::Last)?;
    send(stream, &Message::Complete, None)?;
    await_message(stream, |message| matches!(message, Message::Serving))
}

fn await_message(stream: &UnixStream, wanted: impl Fn(&Message) -> bool) -> io::Result<()> {
    match receive(stream)?.0 {
        message if wanted(&message) => Ok(()),
        Message::Failed { why } => Err(io::Error::other(format!("says: {why}"))),
        _ => Err(io::Error::other("said something else than was expected")),
    }
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "ended before it was ready; its own log says why".to_owned()
        }
        _ if is_timeout(error) => "was not ready in time (process.upgrade_time)".to_owned(),
        _ => error.to_string(),
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
