//! The old process's side of a hand-over.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::socket::{Shutdown, shutdown};
use parking_lot::Mutex;

use super::predecessor::Predecessor;
use super::spawn::start_successor;
use super::streams::{send_flows, send_sessions};
use super::wire::{Message, PROTOCOL, is_readable, is_timeout, pid_of, receive, send, send_states};
use crate::live::HandoverPart;
use crate::process::drain::HANDOVER_END_TIMEOUT;
use crate::process::{ProcessPhase, Supervisor, UpgradeProgress};
use crate::snapshot::Transport;

/// The time-out for the first message of a connection.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// The time-out for a successor that has the rest of the state to accept, and later for any message from it:
/// meanwhile no process accepts, if it hangs.
const SUCCESSOR_MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// The time-out for sending a message.
const SUCCESSOR_SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The interval at which the successor is sent changes of the state.
const STATE_CHANGE_INTERVAL: Duration = Duration::from_millis(50);

/// The maximum number of concurrent connections; more are closed.
const MAX_CONVERSATIONS: usize = 16;

/// The socket at which successors and operators connect.
#[derive(Debug)]
pub struct UpgradeListener {
    path: PathBuf,
    inode: Mutex<u64>,
    /// The listening socket; it is replaced when the file is created anew.
    listener: Mutex<Option<UnixListener>>,
    talking: AtomicUsize,
}

/// A socket next to its final path, so that a socket is at the path at every moment, and so that errors occur before
/// any process relies on it. It is removed if it is not moved to its path.
#[derive(Debug)]
pub struct PreparedSocket {
    path: PathBuf,
    beside: PathBuf,
    listener: UnixListener,
}

impl PreparedSocket {
    /// Binds the socket.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn new(path: &Path) -> io::Result<Self> {
        let beside = path.with_extension(format!("{}.new", std::process::id()));
        let _ = std::fs::remove_file(&beside);
        let prepared = Self { path: path.to_owned(), listener: UnixListener::bind(&beside)?, beside };
        restrict_to_user(&prepared.beside)?;
        Ok(prepared)
    }

    /// Moves it to its path and accepts connections there, on a thread of its own.
    ///
    /// # Errors
    /// When it cannot be moved, or no thread can be started.
    pub fn open(&self, supervisor: &Arc<Supervisor>) -> io::Result<Arc<UpgradeListener>> {
        let upgrade_listener = UpgradeListener {
            path: self.path.clone(),
            inode: Mutex::new(0),
            listener: Mutex::default(),
            talking: AtomicUsize::new(0),
        };
        let upgrade_listener = Arc::new(upgrade_listener);
        upgrade_listener.install(self, supervisor)?;
        Ok(upgrade_listener)
    }
}

/// Checks that no other gateway listens at a path, unless it is the one that is succeeded.
///
/// # Errors
/// When one does: it would no longer be reachable.
pub fn check_not_taken(path: &Path, predecessor: Option<&Predecessor>) -> io::Result<()> {
    let Ok(there) = UnixStream::connect(path) else { return Ok(()) };
    let pid = pid_of(&there);
    if predecessor.is_some_and(|predecessor| predecessor.predecessor() == pid) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "process {pid} awaits its successor there: follow it with --upgrade, or give this one another path"
    )))
}

impl Drop for PreparedSocket {
    fn drop(&mut self) {
        // The file is not there any more if it was moved.
        let _ = std::fs::remove_file(&self.beside);
    }
}

impl UpgradeListener {
    /// Moves a socket to the path (again, where a successor that has ended has put its own there).
    fn install(self: &Arc<Self>, prepared: &PreparedSocket, supervisor: &Arc<Supervisor>) -> io::Result<()> {
        let listener = prepared.listener.try_clone()?;
        std::fs::rename(&prepared.beside, &self.path)?;
        *self.inode.lock() = inode(&self.path)?;
        if let Some(before) = self.listener.lock().replace(listener.try_clone()?) {
            // A thread that waits there wakes up, and ends.
            let _ = shutdown(before.as_raw_fd(), Shutdown::Both);
        }
        let (upgrade_listener, supervisor) = (Arc::clone(self), Arc::clone(supervisor));
        std::thread::Builder::new()
            .name("offer".to_owned())
            .spawn(move || upgrade_listener.wait(&listener, &supervisor))?;
        Ok(())
    }

    fn wait(self: &Arc<Self>, listener: &UnixListener, supervisor: &Arc<Supervisor>) {
        loop {
            match listener.accept() {
                Ok((stream, _)) if self.talking.load(Ordering::Acquire) < MAX_CONVERSATIONS => {
                    self.serve_connection(stream, supervisor);
                }
                Ok(_) => {}
                // The socket was shut down.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
                #[expect(clippy::disallowed_methods, reason = "a thread of its own")]
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn serve_connection(self: &Arc<Self>, stream: UnixStream, supervisor: &Arc<Supervisor>) {
        let (upgrade_listener, supervisor) = (Arc::clone(self), Arc::clone(supervisor));
        self.talking.fetch_add(1, Ordering::AcqRel);
        let serve = move || {
            upgrade_listener.serve(&stream, &supervisor);
            upgrade_listener.talking.fetch_sub(1, Ordering::AcqRel);
        };
        if let Err(error) = std::thread::Builder::new().name("handover".to_owned()).spawn(serve) {
            self.talking.fetch_sub(1, Ordering::AcqRel);
            log::error!("no connection can be served at {}: {error}", self.path.display());
        }
    }

    /// Removes the socket, so that the next start does not find a dead one. A successor's own socket at the same path
    /// is kept.
    pub fn withdraw(&self) {
        if self.is_in_place() {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Returns whether the socket at the path is this one.
    fn is_in_place(&self) -> bool {
        inode(&self.path).is_ok_and(|now| now == *self.inode.lock())
    }

    /// Ensures that there is a socket at the path: a cleaner of old files may have removed it.
    pub fn ensure_socket(self: &Arc<Self>, supervisor: &Arc<Supervisor>) {
        if inode(&self.path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            self.ensure_in_place(supervisor);
        }
    }

    fn reinstall(self: &Arc<Self>, supervisor: &Arc<Supervisor>) {
        match PreparedSocket::new(&self.path).and_then(|prepared| self.install(&prepared, supervisor)) {
            Ok(()) => log::info!("the upgrade socket is created anew at {}", self.path.display()),
            Err(error) => log::error!("the upgrade socket {} cannot be created anew: {error}", self.path.display()),
        }
    }

    fn serve(self: &Arc<Self>, stream: &UnixStream, supervisor: &Arc<Supervisor>) {
        let greeting = stream
            .set_read_timeout(Some(GREETING_TIMEOUT))
            .and_then(|()| stream.set_write_timeout(Some(SUCCESSOR_SEND_TIMEOUT)));
        match greeting.and_then(|()| receive(stream)) {
            Ok((Message::Upgrade, _)) => {
                // This process does not end before it has reported the result.
                let _asked = supervisor.asked.begin();
                let report = |text: &str| _ = send(stream, &Message::Progress { text: text.to_owned() }, None);
                let (fine, text) = match start_successor(supervisor, &report) {
                    Ok(text) => (true, text),
                    Err(text) if supervisor.phase() == ProcessPhase::Serving => {
                        (false, format!("the running gateway goes on as before: {text}"))
                    }
                    Err(text) => (false, text),
                };
                let _ = send(stream, &Message::Done { fine, text }, None);
            }
            Ok((Message::Take { protocol: PROTOCOL, streams }, _)) => self.hand_over(stream, supervisor, streams),
            Ok((Message::Take { protocol, .. }, _)) => {
                let why = format!(
                    "the process that serves speaks version {PROTOCOL} of the hand-over, not {protocol}: start \
                    anew instead"
                );
                let _ = send(stream, &Message::Failed { why }, None);
            }
            // Another process checks whether this one is there.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Ok(_) | Err(_) => log::warn!("a client at {} sent no known message", self.path.display()),
        }
    }

    fn hand_over(self: &Arc<Self>, stream: &UnixStream, supervisor: &Arc<Supervisor>, streams: bool) {
        // One at a time, and no reload in between: the successor has what this process has.
        let one = supervisor.reloading.try_lock();
        let (Ok(one), ProcessPhase::Serving) = (one, supervisor.phase()) else {
            let why = match supervisor.phase() {
                ProcessPhase::Serving => "a reload or another upgrade is under way".to_owned(),
                _ => supervisor.not_serving(),
            };
            let _ = send(stream, &Message::Failed { why }, None);
            return;
        };
        // This process does not end before the successor knows.
        let (asked, leading) = (supervisor.asked.begin(), supervisor.leading.begin());
        match hand_over_state(stream, supervisor, streams) {
            Ok(()) => {
                start_standby(stream, supervisor);
                drop((one, asked, leading));
                self.stand_by(stream, supervisor, streams);
            }
            Err(error) => {
                let why = describe_error(&error, "ended before it was ready; its own log says why");
                supervisor.share(&[]);
                let serves = supervisor.resume();
                drop(leading);
                supervisor.live.heritage().iter().for_each(|kind| kind.cancel());
                // So that it does not take the end of this connection for the end of this process, and serve.
                let _ = send(stream, &Message::Failed { why: why.clone() }, None);
                // If an operator watches the upgrade, it is logged there.
                if !supervisor.progress(UpgradeProgress::Failed(why.clone())) {
                    let goes_on = if serves { ", this process goes on serving" } else { "" };
                    log::error!("the hand-over failed{goes_on}: the successor {why}");
                }
                drop((one, asked));
                self.await_exit(stream, supervisor);
            }
        }
    }

    /// Drains, and serves again should the successor end, or hang, too soon.
    fn stand_by(self: &Arc<Self>, stream: &UnixStream, supervisor: &Arc<Supervisor>, streams: bool) {
        let ((give_up, given_up), (confirm, confirmed)) = (channel(), channel());
        // A successor that hangs blocks the thread that sends to it, and nothing else.
        let patient = stream.set_write_timeout(None);
        std::thread::scope(|scope| {
            let confirmed = streams.then_some(confirmed);
            let sending =
                move || patient.and_then(|()| send_changes(stream, supervisor, &given_up, confirmed.as_ref()));
            let sending = move || {
                let sent = sending();
                let _workers = supervisor.workers.enter();
                // No session waits for a successor that takes none any more.
                supervisor.streams.sessions.stop();
                sent
            };
            let started = std::thread::Builder::new().name("late".to_owned()).spawn_scoped(scope, sending);
            let _ = started.inspect_err(|error| log::error!("the successor gets no changes of the state: {error}"));
            if let Some(why) = await_end(stream, supervisor, &confirm).filter(|why| return_to_serving(supervisor, why))
            {
                // It may be alive, and has to be told that it is not the service any more.
                let _ = give_up.send(why);
                self.await_exit(stream, supervisor);
            }
            drop((give_up, confirm));
        });
    }

    /// Waits for the end of a successor that was given up. Whenever it learns that, and whatever it does before, this
    /// process is the one at the path.
    fn await_exit(self: &Arc<Self>, stream: &UnixStream, supervisor: &Arc<Supervisor>) {
        self.ensure_in_place(supervisor);
        if stream.set_read_timeout(None).is_ok() {
            let _ = io::copy(&mut &*stream, &mut io::sink());
        }
        self.ensure_in_place(supervisor);
    }

    /// Ensures that the socket at the path is that of this process, if it serves.
    fn ensure_in_place(self: &Arc<Self>, supervisor: &Arc<Supervisor>) {
        // Not while another process is about to put its own there.
        let _one = supervisor.reloading.blocking_lock();
        if supervisor.phase() == ProcessPhase::Serving && !self.is_in_place() {
            self.reinstall(supervisor);
        }
    }
}

/// Waits until the successor has ended. Returns the reason for giving it up, if it ends or hangs too soon.
fn await_end(stream: &UnixStream, supervisor: &Supervisor, confirm: &Sender<Vec<usize>>) -> Option<String> {
    let mut last_word = Instant::now();
    loop {
        let word = is_readable(stream, STATE_CHANGE_INTERVAL)
            .and_then(|came| if came { receive(stream).map(Some) } else { Ok(None) });
        let stands_by = supervisor.phase() == ProcessPhase::StandingBy;
        match word {
            Ok(Some((message, _))) => {
                last_word = Instant::now();
                match (stands_by, message) {
                    (true, Message::Settled { ends }) => {
                        let why = if ends { "was told to end, and the service with it" } else { "has settled" };
                        supervisor.leave_service_to_successor(why);
                    }
                    // Where nobody waits for it any more, the sessions go on here.
                    (_, Message::Taken { without }) => _ = confirm.send(without),
                    _ => {}
                }
            }
            Ok(None) if stands_by && last_word.elapsed() >= SUCCESSOR_MESSAGE_TIMEOUT => {
                return Some(format!("sent nothing for {SUCCESSOR_MESSAGE_TIMEOUT:?}"));
            }
            Ok(None) => {}
            Err(error) if stands_by => return Some(describe_error(&error, "ended before it had settled")),
            Err(_) => {
                // Whether another process serves now is not known here.
                supervisor.successor.store(0, Ordering::Release);
                return None;
            }
        }
    }
}

/// Sends the successor the changes of the state, once it has settled also the sessions, if it takes any and confirms
/// them, and at the end that it was given up.
fn send_changes(
    stream: &UnixStream,
    supervisor: &Supervisor,
    given_up: &Receiver<String>,
    confirmed: Option<&Receiver<Vec<usize>>>,
) -> io::Result<()> {
    let mut has_left = false;
    loop {
        match given_up.recv_timeout(STATE_CHANGE_INTERVAL) {
            Ok(why) => return send(stream, &Message::Failed { why }, None),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => send_states(stream, &supervisor.live, HandoverPart::Late)?,
        }
        if let Some(confirmed) = confirmed.filter(|_| supervisor.is_ending()) {
            send_sessions(stream, supervisor, confirmed)?;
        }
        if !has_left && supervisor.left.load(Ordering::Acquire) {
            has_left = true;
            send(stream, &Message::Left, None)?;
        }
    }
}

/// Returns to serving. Returns whether the process serves.
fn return_to_serving(supervisor: &Supervisor, why: &str) -> bool {
    supervisor.live.heritage().iter().for_each(|kind| kind.cancel());
    supervisor.share(&[]);
    // Unless it has been told to end right now.
    let serves = supervisor.enter(ProcessPhase::Serving);
    if serves {
        log::error!("the successor {why}: this process goes on serving, with the configuration that it had");
        supervisor.successor.store(0, Ordering::Release);
        supervisor.progress(UpgradeProgress::Failed(why.to_owned()));
    }
    serves
}

/// Leaves new connections to the successor.
fn start_standby(stream: &UnixStream, supervisor: &Supervisor) {
    let pid = pid_of(stream);
    supervisor.successor.store(pid, Ordering::Release);
    if supervisor.enter(ProcessPhase::StandingBy) {
        log::info!("a successor serves: this process drains, and stands by until it has settled");
        supervisor.progress(UpgradeProgress::Step("the successor serves; the old process stands by"));
    } else {
        supervisor.leave_service_to_successor("serves, and the old process was told to end");
    }
}

/// Runs the hand-over from the sockets to the successor's `serving`.
fn hand_over_state(stream: &UnixStream, supervisor: &Supervisor, streams: bool) -> io::Result<()> {
    supervisor.progress(UpgradeProgress::Step("the successor takes sockets and state"));
    // Of three processes only the last may be the one that serves, and has what the others had.
    supervisor.release_predecessor(false);
    supervisor.workers.block_on(supervisor.predecessor_leaves(Instant::now() + HANDOVER_END_TIMEOUT));
    check_needed(supervisor)?;
    let sockets =
        supervisor.sockets().map_err(|error| io::Error::other(format!("cannot be given the sockets: {error}")))?;
    for bound in sockets {
        let message = Message::Socket { name: bound.name, configured: bound.configured };
        send(stream, &message, Some(bound.socket.as_raw_fd()))?;
    }
    send_states(stream, &supervisor.live, HandoverPart::Whole)?;
    send(stream, &Message::Complete, None)?;
    await_start(stream, supervisor)?;
    stream.set_read_timeout(Some(SUCCESSOR_MESSAGE_TIMEOUT))?;
    let takes = match receive(stream)?.0 {
        Message::Ready { takes, datagrams } => {
            let takes = takes.into_iter().map(|address| (Transport::Tcp, address));
            takes.chain(datagrams.into_iter().map(|address| (Transport::Udp, address))).collect::<Vec<_>>()
        }
        other => return Err(unexpected_message(other)),
    };
    supervisor.share(&takes);
    supervisor.progress(UpgradeProgress::Step("the successor is ready"));
    supervisor.pause(true);
    send_states(stream, &supervisor.live, HandoverPart::Last)?;
    if streams {
        send_flows(stream, supervisor)?;
    }
    send(stream, &Message::Complete, None)?;
    match receive(stream)?.0 {
        Message::Serving => Ok(()),
        other => Err(unexpected_message(other)),
    }
}

/// Waits for the successor's first message until its time-out, and as long as this process serves.
fn await_start(stream: &UnixStream, supervisor: &Supervisor) -> io::Result<()> {
    let (begun, limit) = (Instant::now(), supervisor.serving().snapshot.process.upgrade_time);
    while !is_readable(stream, STATE_CHANGE_INTERVAL)? {
        check_needed(supervisor)?;
        if begun.elapsed() >= limit {
            return Err(io::Error::other(format!("was not ready within {limit:?} (process.upgrade_time)")));
        }
    }
    check_needed(supervisor)
}

/// Fails if this process was told to end: it needs no successor then.
fn check_needed(supervisor: &Supervisor) -> io::Result<()> {
    if supervisor.is_ending() {
        Err(io::Error::other("is not needed: the old process was told to end"))
    } else {
        Ok(())
    }
}

fn unexpected_message(message: Message) -> io::Error {
    match message {
        Message::Failed { why } => io::Error::other(format!("reports: {why}")),
        _ => io::Error::other("sent an unexpected message"),
    }
}

/// Describes the successor after an error on the connection; `ended` describes its end.
fn describe_error(error: &io::Error, ended: &str) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ended.to_owned(),
        _ if is_timeout(error) => format!("sent nothing for {SUCCESSOR_MESSAGE_TIMEOUT:?}"),
        _ => error.to_string(),
    }
}

fn inode(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::symlink_metadata(path)?.ino())
}

/// Restricts the socket to this user.
fn restrict_to_user(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}
