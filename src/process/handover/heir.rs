//! The successor's side.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::wire::{Message, PROTOCOL, incoming, pid_of, receive, send, take_state};
use crate::edge::Bound;
use crate::live::Live;
use crate::process::Supervisor;
use crate::process::signals::told_to_end;

/// How long the old process may take for one message.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a message, which is short, may wait for room: an old process that hangs is to hold nothing up.
const MOMENT: Duration = Duration::from_secs(1);

/// How often it is looked whether there is a word, or a signal.
const LOOK: Duration = Duration::from_millis(50);

/// How often the old process hears that this one is alive, as long as it stands by.
const ALIVE: Duration = Duration::from_secs(1);

/// The line to the old process. Dropped before it has announced this one, the old process goes on as before.
#[derive(Debug)]
pub struct Heir {
    stream: UnixStream,
    /// Whether the old process has been let go.
    settled: AtomicBool,
    /// Where both processes listen.
    taken: OnceLock<Vec<SocketAddr>>,
}

/// That the old process is gone is no error: somebody has to serve.
fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    match result {
        Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof) => {
            log::warn!("the predecessor is gone ({error}); this process serves");
            Ok(())
        }
        result => result,
    }
}

/// A thread that waits for what there is to be followed with; dropped, it ends.
pub type Follower = Sender<Arc<Supervisor>>;

/// Takes sockets and state from the process behind `path`.
///
/// # Errors
/// When nobody is there, or it does not give them.
pub fn take(path: &Path, live: &Live) -> io::Result<(Vec<Bound>, Heir)> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(MOMENT))?;
    send(&stream, &Message::Take { protocol: PROTOCOL }, None)?;
    let mut bound = Vec::new();
    let heir = Heir { stream, settled: AtomicBool::new(false), taken: OnceLock::new() };
    heir.take_all(live, &mut bound)?;
    Ok((bound, heir))
}

impl Heir {
    fn take_all(&self, live: &Live, bound: &mut Vec<Bound>) -> io::Result<()> {
        loop {
            self.await_word()?;
            match receive(&self.stream)? {
                (Message::Socket { name, configured }, Some(socket)) => {
                    bound.push(Bound { name, configured, activated: false, socket });
                }
                (Message::State { kind, version, bytes }, _) => take_state(&self.stream, live, (&kind, version, bytes))?,
                (Message::Complete, _) => return Ok(()),
                (Message::Failed { why }, _) => return Err(io::Error::other(why)),
                _ => return Err(io::Error::other("the old process says something else")),
            }
        }
    }

    /// Waits until the old process says something, which a signal ends.
    fn await_word(&self) -> io::Result<()> {
        let since = Instant::now();
        while !incoming(&self.stream, LOOK)? {
            if told_to_end() {
                return Err(io::Error::other("told to end meanwhile"));
            }
            if since.elapsed() >= PATIENCE {
                return Err(io::Error::other(format!("the old process said nothing for {PATIENCE:?}")));
            }
        }
        Ok(())
    }

    /// The old process.
    pub fn predecessor(&self) -> i32 {
        pid_of(&self.stream)
    }

    /// Says that it has started and accepts on these addresses too, and takes the last of the state.
    ///
    /// # Errors
    /// When the old process has given it up. That it is gone is no error.
    pub fn ready(&self, live: &Live, takes: Vec<SocketAddr>) -> io::Result<()> {
        let _ = self.taken.set(takes.clone());
        // Where it is gone, what it has said last is still to be read.
        let _ = send(&self.stream, &Message::Ready { takes }, None);
        unless_gone(self.take_all(live, &mut Vec::new()))
    }

    /// Says why it goes no further.
    pub fn failed(&self, why: &str) {
        // The old process finds out either way.
        let _ = send(&self.stream, &Message::Failed { why: why.chars().take(4_000).collect() }, None);
    }

    /// Says that it accepts. To be called right before it does: nobody else accepts now.
    ///
    /// # Errors
    /// When the old process has given this one up, and serves itself. That it is gone is no error: somebody has
    /// to serve.
    pub fn announce(&self) -> io::Result<()> {
        if send(&self.stream, &Message::Serving, None).is_ok() && !incoming(&self.stream, Duration::ZERO)? {
            return Ok(());
        }
        unless_gone(receive(&self.stream).and_then(|(message, _)| match message {
            Message::Failed { why } => Err(io::Error::other(format!("it has given this process up, which {why}"))),
            _ => Ok(()),
        }))
    }

    /// Lets the old process go; whether because this one was told to end.
    pub fn settle(&self, ends: bool) {
        if !self.settled.swap(true, Ordering::AcqRel) {
            // Where it is gone, it need not hear it.
            let _ = send(&self.stream, &Message::Settled { ends }, None);
        }
    }

    /// Says that this process is alive, as long as the old one stands by.
    fn lives(&self) {
        if !self.settled.load(Ordering::Acquire) {
            let _ = send(&self.stream, &Message::Serving, None);
        }
    }

    /// A thread that follows the old process as soon as it is told that this one serves.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn follower(self: &Arc<Self>, standby: Duration) -> io::Result<Follower> {
        let (sender, serving) = channel::<Arc<Supervisor>>();
        let heir = Arc::clone(self);
        let follow = move || {
            if let Ok(supervisor) = serving.recv() {
                heir.follow(&supervisor, standby);
                *supervisor.predecessor.lock() = None;
            }
        };
        std::thread::Builder::new().name("heritage".to_owned()).spawn(follow)?;
        Ok(sender)
    }

    /// Takes what comes in at the old process until that ends, and lets it go when `standby` is over.
    fn follow(&self, supervisor: &Supervisor, standby: Duration) {
        let since = Instant::now();
        let (mut told, mut understood) = (since, true);
        loop {
            if since.elapsed() >= standby {
                self.settle(false);
            } else if told.elapsed() >= ALIVE {
                self.lives();
                told = Instant::now();
            }
            match self.take_late(supervisor, understood) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof || error.kind() == io::ErrorKind::ConnectionReset => {
                    return log::info!("the predecessor has ended");
                }
                // What cannot be read any more is read past: the line still says who is alive.
                Err(_) => understood = false,
            }
        }
    }

    /// Takes what has come, if anything comes soon; whether there is more to come.
    fn take_late(&self, supervisor: &Supervisor, understood: bool) -> io::Result<bool> {
        if !incoming(&self.stream, LOOK)? {
            return Ok(true);
        }
        if !understood {
            let mut past = [0; 64 * 1024];
            let count = io::Read::read(&mut &self.stream, &mut past)?;
            return if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(true) };
        }
        match receive(&self.stream)?.0 {
            Message::State { kind, version, bytes } => take_state(&self.stream, &supervisor.live, (&kind, version, bytes)).map(|()| true),
            Message::Left => {
                *supervisor.predecessor.lock() = None;
                Ok(true)
            }
            // Its patience and this process's first word have crossed: one of the two has to go.
            Message::Failed { why } => {
                log::error!("the predecessor serves again, and this process ends: it {why}");
                supervisor.make_way(self.predecessor(), self.taken.get().map_or(&[], Vec::as_slice));
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
        let (_, heir) = take(&path, &Live::default()).expect("taken");
        let stream = hangs.join().expect("no panic");
        // Until there is room for nothing more.
        while send(&heir.stream, &Message::Serving, None).is_ok() {}
        let begun = Instant::now();
        heir.settle(true);
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
        // What there was no room for has left nothing behind.
        let mut heard = 0;
        while incoming(&stream, Duration::ZERO).expect("asked") {
            receive(&stream).expect("a message");
            heard += 1;
        }
        assert!(heard > 1);
    }
}
