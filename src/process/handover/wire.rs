//! The protocol of a hand-over: a length and JSON, with a socket attached or a state behind it.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, getsockopt, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

use crate::edge::StreamBatch;
use crate::live::{HandoverPart, Live};

/// The version of the protocol. Both sides must use the same.
pub const PROTOCOL: u32 = 4;

/// The maximum length of a message; states follow a message in pieces.
const MAX_MESSAGE: usize = 1 << 20;

/// A message of the hand-over.
#[expect(missing_docs, reason = "the names of the fields are clear")]
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "says", rename_all = "snake_case")]
pub enum Message {
    /// A successor requests everything; `streams` says whether it goes on with open streams too.
    Take {
        protocol: u32,
        #[serde(default)]
        streams: bool,
    },
    /// A listener's socket, which is attached.
    Socket { name: String, configured: SocketAddr },
    /// A state, which follows with that many bytes.
    State { kind: String, version: u32, bytes: usize },
    /// Open streams, whose descriptors are attached, and whose form follows with that many bytes.
    Streams { kind: String, version: u32, bytes: usize },
    /// The successor goes on with the streams of the last message, without those at these places.
    Taken { without: Vec<usize> },
    /// Everything was sent for now.
    Complete,
    /// The successor has started and accepts as soon as it has the rest: on the sockets of these addresses too, of TCP
    /// and of UDP.
    Ready {
        takes: Vec<SocketAddr>,
        #[serde(default)]
        datagrams: Vec<SocketAddr>,
    },
    /// The successor accepts; repeated until it has settled.
    Serving,
    /// The old process may end: the successor has served for a while, or was told to end and the service with it.
    Settled { ends: bool },
    /// The old process ends, and has no listening socket any more.
    Left,
    /// The sender does not continue.
    Failed { why: String },
    /// An operator requests the start of a successor.
    Upgrade,
    /// The progress of the upgrade.
    Progress { text: String },
    /// The result of the upgrade.
    Done { fine: bool, text: String },
}

/// Sends a message, and a socket with it.
pub fn send(stream: &UnixStream, message: &Message, socket: Option<RawFd>) -> io::Result<()> {
    let fds: Vec<RawFd> = socket.into_iter().collect();
    send_with(stream, message, &fds)
}

/// Sends a message, and descriptors with it.
fn send_with(stream: &UnixStream, message: &Message, fds: &[RawFd]) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    // In one piece, so that two threads may send on one connection, and no partial message is left behind.
    let text = [&(text.len() as u32).to_be_bytes()[..], &text].concat();
    let beside = if fds.is_empty() { vec![] } else { vec![ControlMessage::ScmRights(fds)] };
    // They are attached to the first bytes of its message.
    let parts = [IoSlice::new(&text)];
    let sent =
        retry_interrupted(|| sendmsg::<UnixAddr>(stream.as_raw_fd(), &parts, &beside, MsgFlags::MSG_NOSIGNAL, None))?;
    (&mut &*stream).write_all(&text[sent..])
}

/// Repeats a call that was interrupted by a signal.
fn retry_interrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// The maximum number of descriptors of one message (`SCM_MAX_FD` of the kernel).
const MAX_DESCRIPTORS: usize = 253;

/// Receives a message and the socket that is attached, within the stream's read time-out.
pub fn receive(stream: &UnixStream) -> io::Result<(Message, Option<OwnedFd>)> {
    let (message, fds) = receive_with(stream)?;
    Ok((message, fds.into_iter().next()))
}

/// Receives a message and the descriptors that are attached, within the stream's read time-out.
pub fn receive_with(stream: &UnixStream) -> io::Result<(Message, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    // Enough for the maximum, so that none is cut off: every received descriptor has to be closed here.
    let mut space = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let (fds, count) = retry_interrupted(|| {
        let mut parts = [IoSliceMut::new(&mut length)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_WAITALL;
        let message = recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        let rights =
            message.cmsgs()?.filter_map(|c| if let ControlMessageOwned::ScmRights(fds) = c { Some(fds) } else { None });
        // SAFETY: the kernel has just created these descriptors for this process, and nothing else uses them.
        let fds: Vec<OwnedFd> = rights.flatten().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
        Ok((fds, message.bytes))
    })?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    (&mut &*stream).read_exact(&mut length[count..])?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_MESSAGE {
        return Err(io::Error::other("a message of another program"));
    }
    let mut text = vec![0; length];
    (&mut &*stream).read_exact(&mut text)?;
    Ok((serde_json::from_slice(&text)?, fds))
}

/// Sends that part of all states.
pub fn send_states(stream: &UnixStream, live: &Live, part: HandoverPart) -> io::Result<()> {
    for kind in live.heritage() {
        let Some(form) = kind.save(part)? else { continue };
        send(
            stream,
            &Message::State { kind: kind.kind().to_owned(), version: kind.version(), bytes: form.len() },
            None,
        )?;
        (&mut &*stream).write_all(&form)?;
    }
    Ok(())
}

/// Sends a batch of streams.
pub fn send_streams(stream: &UnixStream, batch: &StreamBatch) -> io::Result<()> {
    let fds: Vec<RawFd> = batch.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let message = Message::Streams { kind: batch.kind.clone(), version: batch.version, bytes: batch.form.len() };
    send_with(stream, &message, &fds)?;
    (&mut &*stream).write_all(&batch.form)
}

/// Receives the streams that follow their message.
pub fn receive_streams(
    stream: &UnixStream,
    (kind, version, bytes): (String, u32, usize),
    descriptors: Vec<OwnedFd>,
) -> io::Result<StreamBatch> {
    Ok(StreamBatch { kind, version, form: receive_form(stream, bytes)?, descriptors })
}

fn receive_form(stream: &UnixStream, bytes: usize) -> io::Result<Vec<u8>> {
    // In pieces, so that a wrong length allocates no memory.
    let mut form = Vec::new();
    (&mut &*stream).take(bytes as u64).read_to_end(&mut form)?;
    if form.len() < bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(form)
}

/// Receives the state that follows its message, and restores it.
pub fn receive_state(stream: &UnixStream, live: &Live, (kind, version, bytes): (&str, u32, usize)) -> io::Result<()> {
    let form = receive_form(stream, bytes)?;
    let ours = live.heritage().into_iter().find(|ours| ours.kind() == kind);
    let fresh = |why: String| log::warn!("{kind}: this process starts afresh: {why}");
    match ours {
        None => fresh("it does not know what the predecessor kept".to_owned()),
        Some(ours) if ours.version() != version => {
            fresh(format!("it knows version {}, the predecessor has {version}", ours.version()));
        }
        Some(ours) => match ours.restore(&form) {
            Ok(count) => log::debug!("{kind}: {count} taken over"),
            // The position in the state, and not its content, which may have secrets.
            Err(error) => fresh(format!("the state cannot be parsed, at byte {}", error.column())),
        },
    }
    Ok(())
}

/// Returns whether data arrives (or the other side closes) within that time.
pub fn is_readable(stream: &UnixStream, time: Duration) -> io::Result<bool> {
    let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLIN)], time) {
        Ok(count) => Ok(count > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Returns the process id of the other side, or 0 if it is unknown.
pub fn pid_of(stream: &UnixStream) -> i32 {
    getsockopt(stream, PeerCredentials).map_or(0, |peer| peer.pid())
}

/// Returns whether an error is a time-out.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_that_nobody_asked_for_are_closed() {
        use nix::sys::socket::{ControlMessage, sendmsg};
        let (here, there) = UnixStream::pair().expect("a pair");
        for count in 1..=4 {
            let (mut kept, given): (Vec<_>, Vec<_>) = (0..count).map(|_| UnixStream::pair().expect("a pair")).unzip();
            let fds: Vec<RawFd> = given.iter().map(AsRawFd::as_raw_fd).collect();
            let text = b"{\"ready\":null}";
            let text = [&(text.len() as u32).to_be_bytes()[..], text].concat();
            let parts = [std::io::IoSlice::new(&text)];
            sendmsg::<UnixAddr>(here.as_raw_fd(), &parts, &[ControlMessage::ScmRights(&fds)], MsgFlags::empty(), None)
                .expect("sent");
            drop(given);
            drop(receive(&there));
            for stream in &mut kept {
                stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time");
                assert_eq!(stream.read(&mut [0]).expect("the end"), 0, "the other end of {count} is closed");
            }
        }
    }

    #[test]
    fn messages_and_sockets_arrive() {
        let (one, two) = UnixStream::pair().expect("a pair");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
        let address = listener.local_addr().expect("an address");
        send(&one, &Message::Socket { name: "main".to_owned(), configured: address }, Some(listener.as_raw_fd()))
            .expect("sent");
        send(&one, &Message::Serving, None).expect("sent");
        let (message, fd) = receive(&two).expect("received");
        assert!(matches!(message, Message::Socket { name, .. } if name == "main"));
        let arrived: std::net::TcpListener = fd.expect("a socket").into();
        assert_eq!(arrived.local_addr().expect("an address"), address);
        assert!(matches!(receive(&two).expect("received"), (Message::Serving, None)));
        drop(one);
        assert_eq!(receive(&two).expect_err("the end").kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn states_arrive_or_start_afresh() {
        let (old, new) = (Live::default(), Live::default());
        let (one, two) = UnixStream::pair().expect("a pair");
        send_states(&one, &old, HandoverPart::Whole).expect("given");
        send(&one, &Message::Complete, None).expect("sent");
        let mut kinds = 0;
        loop {
            match receive(&two).expect("received").0 {
                Message::State { kind, version, bytes } => {
                    receive_state(&two, &new, (&kind, version, bytes)).expect("taken");
                }
                Message::Complete => break,
                other => panic!("{other:?}"),
            }
            kinds += 1;
        }
        // A new process has neither limits nor sessions nor caches.
        assert_eq!(kinds, old.heritage().len() - 3);
        assert_eq!(old.sticky_key(), new.sticky_key());
        // Another version, an invalid state and an unknown kind change nothing, and are no error.
        let before = new.sticky_key();
        for (kind, version) in [("secrets", 99), ("secrets", 1), ("tomorrows", 1)] {
            (&mut &one).write_all(b"[1]").expect("sent");
            receive_state(&two, &new, (kind, version, 3)).expect("passed over");
        }
        assert_eq!(new.sticky_key(), before);
    }
}
