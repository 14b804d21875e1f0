//! The control socket as a file: made, told from one that a dead node left behind, and removed.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use nix::sys::stat::{Mode, fchmod};

/// Longest path of a Unix socket in octets: `sun_path` of unix(7) less the final NUL.
pub const LONGEST_PATH: usize = 107;

/// Connections that wait for the node to accept them.
const BACKLOG: i32 = 64;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A live process answers on it.
    #[error("another node is running (control socket {} answers); stop it, or give this one another node.control", .0.display())]
    Running(PathBuf),
    /// Something else has that name.
    #[error("{} exists and is not a socket; remove it, or set node.control to another path", .0.display())]
    NotASocket(PathBuf),
    /// The path does not fit into a socket address.
    #[error("node.control {} has {} octets; the path of a Unix socket has at most {LONGEST_PATH}", .0.display(), .0.as_os_str().len())]
    TooLong(PathBuf),
    /// The system refused.
    #[error("cannot {doing} {}: {error}", path.display())]
    System {
        /// What was tried.
        doing: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// A listening control socket; dropping it removes the file, if it is still this one.
#[derive(Debug)]
pub(super) struct ControlSocket {
    path: PathBuf,
    identity: (u64, u64),
}

/// Makes the socket with mode 0600, its directory with mode 0755 when there is none, and listens.
///
/// A socket that nobody listens on any more is replaced.
pub(super) fn open(path: &Path) -> Result<(ControlSocket, UnixListener), Error> {
    if path.as_os_str().len() > LONGEST_PATH {
        return Err(Error::TooLong(path.into()));
    }
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed("create", directory))?;
    }
    remove_stale(path)?;
    let listener = listen_on(path).map_err(|errno| match errno {
        // Between the look and the bind another node was faster.
        Errno::EADDRINUSE => Error::Running(path.into()),
        errno => failed("listen on the control socket", path)(errno.into()),
    })?;
    let metadata = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    Ok((ControlSocket { path: path.into(), identity: (metadata.dev(), metadata.ino()) }, listener))
}

/// A bound and listening socket whose file never had another mode than 0600.
fn listen_on(path: &Path) -> nix::Result<UnixListener> {
    let socket = stream_socket()?;
    // bind(2) gives the file the mode of the socket's own inode, so it is set before there is a file.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(UnixListener::from(socket))
}

/// Removes the socket file of a node that is gone.
fn remove_stale(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", path)(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(Error::NotASocket(path.into())),
        Ok(_) => {}
    }
    match probe(path) {
        Err(Errno::ECONNREFUSED) => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove the socket of a dead node,", path)(error))
            }
            _ => Ok(()),
        },
        Err(Errno::ENOENT) => Ok(()),
        // EAGAIN is a full backlog: somebody listens, but does not get round to accepting.
        Ok(()) | Err(Errno::EAGAIN) => Err(Error::Running(path.into())),
        Err(errno) => Err(failed("connect to", path)(errno.into())),
    }
}

/// Whether somebody listens; does not wait.
fn probe(path: &Path) -> nix::Result<()> {
    let socket = stream_socket()?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}

fn stream_socket() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::System { doing, path: path.into(), error }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove the control socket {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_socket_is_private_its_directory_is_made_and_it_goes_with_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/anytun/control.sock");
        let (socket, _listener) = open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(fs::metadata(path.parent().unwrap()).unwrap().is_dir());
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a listener leaves its file behind");
        let (_socket, _listener) = open(&path).unwrap();
        let error = open(&path).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "another node is running (control socket {} answers); stop it, or give this one another node.control",
                path.display()
            )
        );
        assert!(path.exists());
    }

    #[test]
    fn a_socket_that_took_the_place_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let (socket, _listener) = open(&path).unwrap();
        // Renamed, not removed: a new file must not get the old inode's number.
        fs::rename(&path, directory.path().join("old.sock")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
    }

    #[test]
    fn a_file_in_the_way_and_a_path_too_long_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        assert!(open(&path).unwrap_err().to_string().contains("exists and is not a socket"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let long = directory.path().join("x".repeat(LONGEST_PATH));
        assert!(open(&long).unwrap_err().to_string().ends_with("at most 107"));
    }
}
