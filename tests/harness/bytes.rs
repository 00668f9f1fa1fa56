//! Targets of layer 4, which speak whatever a test wants, and the hello of a client.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A target that does that with each connection, in a thread of its own; it stops with its handle.
pub struct ByteTarget {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Drop for ByteTarget {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
    }
}

impl ByteTarget {
    pub fn new(behaviour: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (stop, connections) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted, behaviour) = (Arc::clone(&stop), Arc::clone(&connections), Arc::new(behaviour));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                counted.fetch_add(1, Ordering::AcqRel);
                let behaviour = Arc::clone(&behaviour);
                std::thread::spawn(move || drop(behaviour(stream)));
            }
        });
        Self { address, connections, stop }
    }

    /// A target that sends its name and then whatever it gets.
    pub fn echo(name: &'static str) -> Self {
        Self::new(move |mut stream| {
            stream.write_all(name.as_bytes())?;
            let mut reader = stream.try_clone()?;
            std::io::copy(&mut reader, &mut stream)?;
            stream.shutdown(std::net::Shutdown::Write)
        })
    }

    pub fn count(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }
}

/// A hello with that server name and those protocols, in records of at most that size; `padding` makes it larger, as
/// the keys of post-quantum cryptography do.
pub fn hello(name: Option<&str>, alpn: &[&str], padding: usize, record: usize) -> Vec<u8> {
    let with_length = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let mut extensions = [&[0, 51][..], &with_length(&with_length(&vec![7; padding]))].concat();
    if let Some(name) = name {
        let name = [&[0][..], &with_length(name.as_bytes())].concat();
        extensions.extend([&[0, 0][..], &with_length(&with_length(&name))].concat());
    }
    if !alpn.is_empty() {
        let list: Vec<u8> = alpn.iter().flat_map(|p| [&[p.len() as u8], p.as_bytes()].concat()).collect();
        extensions.extend([&[0, 16][..], &with_length(&with_length(&list))].concat());
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend(with_length(&extensions));
    let message = [&[1][..], &(body.len() as u32).to_be_bytes()[1..], &body].concat();
    message.chunks(record).flat_map(|part| [&[22, 3, 1][..], &with_length(part)].concat()).collect()
}
