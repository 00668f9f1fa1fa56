//! The socket of the admin listener: its start, its hand-over, and its end.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::admin::AdminListener;
use crate::edge::Bound;
use crate::notation::AdminAddress;

/// The name of the admin listener in a hand-over; no listener can have it.
const NAME: &str = "(admin)";

/// The configured address of a Unix socket in a hand-over, where addresses are those of IP.
const NO_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// The socket of the admin listener.
pub enum AdminSocket {
    /// There is no admin listener.
    Absent,
    /// A TCP socket, with the configured address.
    Tcp(TcpListener, SocketAddr),
    /// A Unix socket.
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket.
#[derive(Clone, Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), inode: fs::metadata(path)?.ino() })
    }

    /// Removes the file, unless another process has put its own there.
    pub fn remove(&self) {
        if fs::metadata(&self.path).is_ok_and(|now| now.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl AdminSocket {
    /// Returns the socket, from the predecessor if it has one for that address.
    ///
    /// # Errors
    /// When it cannot be bound; the error says which key moves it.
    pub fn acquire(address: &AdminAddress, inherited: &mut Vec<Bound>) -> Result<Self, String> {
        let bound = match address {
            AdminAddress::None => return Ok(Self::Absent),
            AdminAddress::Tcp(address) => tcp(*address, inherited),
            AdminAddress::Unix(path) => std::path::absolute(path).and_then(|path| unix(&path, inherited)),
        };
        bound.map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::AddrInUse => "; another gateway may run: give this one another",
                _ => "; give it another",
            };
            format!("the admin listener cannot be bound on {address}: {error}{why} admin.address, or \"admin: none\"")
        })
    }

    /// Returns a listener on the socket.
    ///
    /// # Errors
    /// When the system has no resource left for it.
    pub fn listener(&self) -> io::Result<Option<AdminListener>> {
        Ok(match self {
            Self::Absent => None,
            Self::Tcp(socket, _) => {
                socket.set_nonblocking(true)?;
                Some(AdminListener::Tcp(tokio::net::TcpListener::from_std(socket.try_clone()?)?))
            }
            Self::Unix(socket, _) => {
                socket.set_nonblocking(true)?;
                Some(AdminListener::Unix(tokio::net::UnixListener::from_std(socket.try_clone()?)?))
            }
        })
    }

    /// Returns the actual address.
    ///
    /// # Errors
    /// When the system does not tell it.
    pub fn address(&self) -> io::Result<AdminAddress> {
        Ok(match self {
            Self::Absent => AdminAddress::None,
            Self::Tcp(socket, _) => AdminAddress::Tcp(socket.local_addr()?),
            Self::Unix(_, file) => AdminAddress::Unix(file.path.clone()),
        })
    }

    /// Returns the file of a Unix socket.
    pub fn file(&self) -> Option<SocketFile> {
        match self {
            Self::Unix(_, file) => Some(file.clone()),
            Self::Absent | Self::Tcp(..) => None,
        }
    }

    /// Returns the socket in the form for a successor.
    pub fn into_bound(self) -> Option<Bound> {
        let (socket, configured) = match self {
            Self::Absent => return None,
            Self::Tcp(socket, configured) => (socket.into(), configured),
            Self::Unix(socket, _) => (socket.into(), NO_ADDRESS),
        };
        Some(Bound { socket, name: NAME.to_owned(), configured, activated: false })
    }
}

fn tcp(address: SocketAddr, inherited: &mut Vec<Bound>) -> io::Result<AdminSocket> {
    let place = inherited.iter().position(|b| b.name == NAME && b.configured == address && b.address().is_ok());
    let bound = match place {
        Some(place) => inherited.swap_remove(place),
        None => super::sockets::bind(NAME, address)?,
    };
    Ok(AdminSocket::Tcp(bound.socket.into(), address))
}

fn unix(path: &Path, inherited: &mut Vec<Bound>) -> io::Result<AdminSocket> {
    let is_there = |bound: &Bound| {
        let address = socket2::SockRef::from(&bound.socket).local_addr();
        bound.name == NAME && address.is_ok_and(|address| address.as_pathname() == Some(path))
    };
    if let Some(place) = inherited.iter().position(is_there) {
        let socket = UnixListener::from(inherited.swap_remove(place).socket);
        match SocketFile::of(path) {
            Ok(file) => return Ok(AdminSocket::Unix(socket, file)),
            // A cleaner of old files has removed it: it is bound anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    if fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket()) {
        match UnixStream::connect(path) {
            // Nobody listens there any more.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    // Nobody can connect before it listens, and by then its mode is right.
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(1024)?;
    Ok(AdminSocket::Unix(std::os::fd::OwnedFd::from(socket).into(), SocketFile::of(path)?))
}
