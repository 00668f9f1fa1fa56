//! The old process's side.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{Shutdown, getsockopt, shutdown};
use parking_lot::Mutex;

use super::spawn::start_successor;
use super::wire::{Message, PROTOCOL, give, incoming, is_timeout, receive, send};
use crate::live::Part;
use crate::process::{Phase, Progress, Supervisor};

/// How long whoever connects may take to say what it wants.
const GREETING: Duration = Duration::from_secs(5);

/// How long a successor that has the rest may take to accept, and later may say nothing at all.
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
        if self.is_in_place() {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Whether the socket at the path is this one.
    fn is_in_place(&self) -> bool {
        inode(&self.path).is_ok_and(|now| now == *self.inode.lock())
    }

    fn put_again(self: &Arc<Self>, supervisor: &Arc<Supervisor>) {
        match Prepared::new(&self.path).and_then(|prepared| self.put(&prepared, supervisor)) {
            Ok(()) => log::info!("successors are awaited again at {}", self.path.display()),
            Err(error) => log::error!("the upgrade socket {} cannot be made again: {error}", self.path.display()),
        }
    }

    fn serve(self: &Arc<Self>, stream: &UnixStream, supervisor: &Arc<Supervisor>) {
        let greeting = stream.set_read_timeout(Some(GREETING)).and_then(|()| stream.set_write_timeout(Some(MOMENT)));
        match greeting.and_then(|()| receive(stream)) {
            Ok((Message::Upgrade, _)) => {
                // This process does not end before it has told what became of it.
                let _asked = supervisor.asked.begin();
                let tell = |text: &str| _ = send(stream, &Message::Progress { text: text.to_owned() }, None);
                let (fine, text) = match start_successor(supervisor, &tell) {
                    Ok(text) => (true, text),
                    Err(text) if supervisor.phase() == Phase::Serving => (false, format!("the running gateway goes on as before: {text}")),
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
            let why = match supervisor.phase() {
                Phase::Serving => "a reload or another upgrade is under way".to_owned(),
                _ => supervisor.not_serving(),
            };
            let _ = send(stream, &Message::Failed { why }, None);
            return;
        };
        // This process does not end before the successor knows.
        let asked = supervisor.asked.begin();
        // Only the last of three may be the one that serves.
        supervisor.settle();
        match lead(stream, supervisor) {
            Ok(()) => {
                stand_back(stream, supervisor);
                drop((one, asked));
                self.stand_by(stream, supervisor);
            }
            Err(error) => {
                let why = why(&error, "ended before it was ready; its own log says why");
                supervisor.resume();
                supervisor.live.heritage().iter().for_each(|kind| kind.keep());
                // Whoever watches logs it.
                if !supervisor.progress(Progress::Failed(why.clone())) {
                    log::error!("the hand-over failed, this process goes on serving: the successor {why}");
                }
                drop(one);
                self.see_off(stream, supervisor, why);
                drop(asked);
            }
        }
    }

    /// Gives a successor up. However late it hears that, and whatever it does before: in the end this process is the
    /// one that is found at the path.
    fn see_off(self: &Arc<Self>, stream: &UnixStream, supervisor: &Arc<Supervisor>, why: String) {
        // So that it does not take the end of this line for the end of this process, and serve.
        let failed = Message::Failed { why };
        let told = send(stream, &failed, None).is_ok();
        self.keep_in_place(supervisor);
        // From here on it has all the time that it likes.
        let patient = stream.set_read_timeout(None).and_then(|()| stream.set_write_timeout(None)).is_ok();
        if patient && (told || send(stream, &failed, None).is_ok()) {
            let _ = io::copy(&mut &*stream, &mut io::sink());
        }
        self.keep_in_place(supervisor);
    }

    /// Sees to it that the socket at the path is the one of this process, if that serves.
    fn keep_in_place(self: &Arc<Self>, supervisor: &Arc<Supervisor>) {
        // Not while another is about to be there.
        let _one = supervisor.reloading.blocking_lock();
        if supervisor.phase() == Phase::Serving && !self.is_in_place() {
            self.put_again(supervisor);
        }
    }

    /// Drains, and serves again should the successor end, or hang, too soon.
    fn stand_by(self: &Arc<Self>, stream: &UnixStream, supervisor: &Arc<Supervisor>) {
        // What comes in here is told as long as it is heard; that it is not heard is no end of the successor.
        let mut heard = stream.set_write_timeout(Some(GREETING)).is_ok();
        let mut last_word = Instant::now();
        loop {
            let word = incoming(stream, LATE).and_then(|came| if came { receive(stream).map(Some) } else { Ok(None) });
            let stands_by = supervisor.phase() == Phase::StandingBy;
            match word {
                Ok(Some((message, _))) => {
                    last_word = Instant::now();
                    if stands_by && matches!(message, Message::Settled) {
                        supervisor.leave_it_to_the_successor("has settled");
                    }
                }
                Ok(None) if stands_by && last_word.elapsed() >= MOMENT => {
                    return self.come_back(stream, supervisor, format!("said nothing for {MOMENT:?}"));
                }
                Ok(None) => {}
                Err(error) if stands_by => return self.come_back(stream, supervisor, why(&error, "ended before it had settled")),
                Err(_) => return,
            }
            heard = heard && give(stream, &supervisor.live, Part::Late).is_ok();
        }
    }

    fn come_back(self: &Arc<Self>, stream: &UnixStream, supervisor: &Arc<Supervisor>, why: String) {
        supervisor.live.heritage().iter().for_each(|kind| kind.keep());
        // Unless it has been told to end right now.
        if supervisor.enter(Phase::Serving) {
            log::error!("the successor {why}: this process goes on serving");
            supervisor.successor.store(0, Ordering::Release);
            supervisor.progress(Progress::Failed(why.clone()));
            self.see_off(stream, supervisor, why);
        }
    }
}

/// Leaves what comes to the successor.
fn stand_back(stream: &UnixStream, supervisor: &Supervisor) {
    log::info!("a successor serves: this process drains, and stands by until it has settled");
    let pid = getsockopt(&stream, PeerCredentials).map_or(0, |peer| peer.pid());
    supervisor.successor.store(pid, Ordering::Release);
    supervisor.progress(Progress::Step("the successor serves; the old process stands by"));
    if !supervisor.enter(Phase::StandingBy) {
        supervisor.leave_it_to_the_successor("serves, and the old process was told to end");
    }
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
    await_start(stream, supervisor)?;
    stream.set_read_timeout(Some(MOMENT))?;
    await_message(stream, |message| matches!(message, Message::Ready))?;
    supervisor.progress(Progress::Step("the successor is ready"));
    supervisor.pause(true);
    give(stream, &supervisor.live, Part::Last)?;
    send(stream, &Message::Complete, None)?;
    await_message(stream, |message| matches!(message, Message::Serving))
}

/// Waits for the successor's first word, for as long as it may take, and as this process is to serve.
fn await_start(stream: &UnixStream, supervisor: &Supervisor) -> io::Result<()> {
    let (begun, limit) = (Instant::now(), supervisor.serving().snapshot.process.upgrade_time);
    while !incoming(stream, LATE)? {
        if supervisor.is_ending() {
            return Err(io::Error::other("is not needed: the old process was told to end"));
        }
        if begun.elapsed() >= limit {
            return Err(io::Error::other("was not ready in time (process.upgrade_time)"));
        }
    }
    Ok(())
}

fn await_message(stream: &UnixStream, wanted: impl Fn(&Message) -> bool) -> io::Result<()> {
    match receive(stream)?.0 {
        message if wanted(&message) => Ok(()),
        Message::Failed { why } => Err(io::Error::other(format!("says: {why}"))),
        _ => Err(io::Error::other("said something else than was expected")),
    }
}

/// What an error on the line says of the successor, for which its end is `ended`.
fn why(error: &io::Error, ended: &str) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ended.to_owned(),
        _ if is_timeout(error) => format!("said nothing for {MOMENT:?}"),
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
