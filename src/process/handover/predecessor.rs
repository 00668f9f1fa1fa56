//! The successor's side of a hand-over.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::wire::{
    Message, PROTOCOL, is_readable, pid_of, receive, receive_state, receive_streams, receive_with, send,
};
use crate::edge::{Bound, SocketPlace, StreamGateway};
use crate::live::Live;
use crate::process::Supervisor;
use crate::process::signals::told_to_end;
use crate::snapshot::Transport;

/// The time-out for a message of the old process.
const OLD_PROCESS_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// The time-out for sending a message, which is short: an old process that hangs must not block this one.
const OLD_PROCESS_SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The interval at which messages and signals are checked for.
const MESSAGE_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// The interval at which the old process is told that this one is alive, as long as it stands by.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// The connection to the old process. If it is dropped before this process is announced, the old process goes on as
/// before.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    /// Whether the old process has been released.
    released: AtomicBool,
    /// The addresses on which both processes listen.
    taken: OnceLock<Vec<SocketPlace>>,
}

/// Ignores an error that means that the old process is gone: this one has to serve then.
fn ignore_if_gone(result: io::Result<()>) -> io::Result<()> {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    match result {
        Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof) => {
            log::warn!("the predecessor is gone ({error}); this process serves");
            Ok(())
        }
        result => result,
    }
}

/// The channel to a thread that waits for its supervisor; the thread ends when it is dropped.
pub type Follower = Sender<Arc<Supervisor>>;

/// Takes sockets and state over from the process at `path`.
///
/// # Errors
/// When no process is there, or it does not hand them over.
pub fn take(path: &Path, live: &Live) -> io::Result<(Vec<Bound>, Predecessor)> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(OLD_PROCESS_MESSAGE_TIMEOUT))?;
    stream.set_write_timeout(Some(OLD_PROCESS_SEND_TIMEOUT))?;
    send(&stream, &Message::Take { protocol: PROTOCOL, streams: true }, None)?;
    let mut bound = Vec::new();
    let predecessor = Predecessor { stream, released: AtomicBool::new(false), taken: OnceLock::new() };
    predecessor.receive_all(live, None, &mut bound)?;
    Ok((bound, predecessor))
}

impl Predecessor {
    fn receive_all(&self, live: &Live, streams: Option<&StreamGateway>, bound: &mut Vec<Bound>) -> io::Result<()> {
        loop {
            self.await_message()?;
            let (message, descriptors) = receive_with(&self.stream)?;
            match (message, descriptors.into_iter()) {
                (Message::Socket { name, configured }, mut sockets) if sockets.len() > 0 => {
                    let sockets = sockets.by_ref().take(1);
                    bound.extend(sockets.map(|socket| Bound {
                        name: name.clone(),
                        configured,
                        activated: false,
                        socket,
                    }));
                }
                (Message::Streams { kind, version, bytes }, descriptors) => {
                    let batch = receive_streams(&self.stream, (kind, version, bytes), descriptors.collect())?;
                    if let Some(streams) = streams {
                        streams.flows.take_over(batch);
                    }
                }
                (Message::State { kind, version, bytes }, _) => {
                    receive_state(&self.stream, live, (&kind, version, bytes))?;
                }
                (Message::Complete, _) => return Ok(()),
                (Message::Failed { why }, _) => return Err(io::Error::other(why)),
                _ => return Err(io::Error::other("the old process says something else")),
            }
        }
    }

    /// Waits until the old process sends a message, or a signal arrives.
    fn await_message(&self) -> io::Result<()> {
        let since = Instant::now();
        while !is_readable(&self.stream, MESSAGE_CHECK_INTERVAL)? {
            if told_to_end() {
                return Err(io::Error::other("told to end meanwhile"));
            }
            if since.elapsed() >= OLD_PROCESS_MESSAGE_TIMEOUT {
                return Err(io::Error::other(format!(
                    "the old process sent nothing for {OLD_PROCESS_MESSAGE_TIMEOUT:?}"
                )));
            }
        }
        Ok(())
    }

    /// Returns the process id of the old process.
    pub fn predecessor(&self) -> i32 {
        pid_of(&self.stream)
    }

    /// Reports that this process has started and accepts on those of the bound sockets that it had from the old one,
    /// and takes the rest of the state and the flows of datagrams.
    ///
    /// # Errors
    /// When the old process has given this one up. If it is gone, that is no error.
    pub fn ready(&self, live: &Live, streams: &StreamGateway, bound: &[Bound], had: &[SocketPlace]) -> io::Result<()> {
        let taken: Vec<SocketPlace> =
            bound.iter().filter_map(Bound::place).filter(|place| had.contains(place)).collect();
        let of = |transport: Transport| {
            taken.iter().filter(|(own, _)| *own == transport).map(|(_, address)| *address).collect::<Vec<_>>()
        };
        let (takes, datagrams) = (of(Transport::Tcp), of(Transport::Udp));
        let _ = self.taken.set(taken);
        // If it is gone, its last messages can still be read.
        let _ = send(&self.stream, &Message::Ready { takes, datagrams }, None);
        ignore_if_gone(self.receive_all(live, Some(streams), &mut Vec::new()))
    }

    /// Reports why this process does not continue.
    pub fn failed(&self, why: &str) {
        // The old process notices either way.
        let _ = send(&self.stream, &Message::Failed { why: why.chars().take(4_000).collect() }, None);
    }

    /// Reports that this process accepts. It has to be called right before it does: no other process accepts now.
    ///
    /// # Errors
    /// When the old process has given this one up, and serves itself. If it is gone, that is no error: this process
    /// has to serve.
    pub fn announce(&self) -> io::Result<()> {
        if send(&self.stream, &Message::Serving, None).is_ok() && !is_readable(&self.stream, Duration::ZERO)? {
            return Ok(());
        }
        ignore_if_gone(receive(&self.stream).and_then(|(message, _)| match message {
            Message::Failed { why } => Err(io::Error::other(format!("it has given this process up, which {why}"))),
            _ => Ok(()),
        }))
    }

    /// Releases the old process; `ends` says whether the reason is that this one was told to end.
    pub fn release(&self, ends: bool) {
        if !self.released.swap(true, Ordering::AcqRel) {
            // If it is gone, it need not be told.
            let _ = send(&self.stream, &Message::Settled { ends }, None);
        }
    }

    /// Reports that this process is alive, as long as the old one stands by.
    fn report_alive(&self) {
        if !self.released.load(Ordering::Acquire) {
            let _ = send(&self.stream, &Message::Serving, None);
        }
    }

    /// Starts a thread that follows the old process as soon as it is told that this one serves.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn follower(self: &Arc<Self>, standby: Duration) -> io::Result<Follower> {
        let (sender, serving) = channel::<Arc<Supervisor>>();
        let predecessor = Arc::clone(self);
        let follow = move || {
            if let Ok(supervisor) = serving.recv() {
                predecessor.follow(&supervisor, standby);
                *supervisor.predecessor.lock() = None;
            }
        };
        std::thread::Builder::new().name("heritage".to_owned()).spawn(follow)?;
        Ok(sender)
    }

    /// Takes the state that changes in the old process until that ends, and releases it when `standby` is over.
    fn follow(&self, supervisor: &Supervisor, standby: Duration) {
        let since = Instant::now();
        let (mut log_warnings, mut understood) = (since, true);
        loop {
            if since.elapsed() >= standby {
                self.release(false);
            } else if log_warnings.elapsed() >= ALIVE_INTERVAL {
                self.report_alive();
                log_warnings = Instant::now();
            }
            match self.process_message(supervisor, understood) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error)
                    if error.kind() == io::ErrorKind::UnexpectedEof
                        || error.kind() == io::ErrorKind::ConnectionReset =>
                {
                    return log::info!("the predecessor has ended");
                }
                // Messages that can no longer be parsed are skipped: the connection still shows whether the process
                // is alive.
                Err(_) => understood = false,
            }
        }
    }

    /// Processes a message, if one comes soon. Returns whether more may come.
    fn process_message(&self, supervisor: &Supervisor, understood: bool) -> io::Result<bool> {
        if !is_readable(&self.stream, MESSAGE_CHECK_INTERVAL)? {
            return Ok(true);
        }
        if !understood {
            let mut past = [0; 64 * 1024];
            let count = io::Read::read(&mut &self.stream, &mut past)?;
            return if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(true) };
        }
        let (message, descriptors) = receive_with(&self.stream)?;
        match message {
            Message::State { kind, version, bytes } => {
                receive_state(&self.stream, &supervisor.live, (&kind, version, bytes)).map(|()| true)
            }
            Message::Streams { kind, version, bytes } => {
                let batch = receive_streams(&self.stream, (kind, version, bytes), descriptors)?;
                let without = supervisor.take_over_sessions(batch);
                send(&self.stream, &Message::Taken { without }, None).map(|()| true)
            }
            Message::Left => {
                *supervisor.predecessor.lock() = None;
                Ok(true)
            }
            // The old process' time-out and this process' first message have crossed: one of the two has to end.
            Message::Failed { why } => {
                log::error!("the predecessor serves again, and this process ends: it {why}");
                supervisor.end_for_predecessor(self.predecessor(), self.taken.get().map_or(&[], Vec::as_slice));
                Ok(false)
            }
            _ => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_process_that_hangs_holds_nothing_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("upgrade.sock");
        let awaited = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        let hangs = std::thread::spawn(move || {
            let (stream, _) = awaited.accept().expect("a successor");
            send(&stream, &Message::Complete, None).expect("sent");
            stream
        });
        let (_, predecessor) = take(&path, &Live::default()).expect("taken");
        let stream = hangs.join().expect("no panic");
        // Until there is room for nothing more.
        while send(&predecessor.stream, &Message::Serving, None).is_ok() {}
        let begun = Instant::now();
        predecessor.release(true);
        assert!(begun.elapsed() < OLD_PROCESS_MESSAGE_TIMEOUT, "{:?}", begun.elapsed());
        // No partial message was left behind.
        let mut heard = 0;
        while is_readable(&stream, Duration::ZERO).expect("asked") {
            receive(&stream).expect("a message");
            heard += 1;
        }
        assert!(heard > 1);
    }
}
