//! Talks to a running node over its control socket.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::HOST;
use axum::http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::status::Status;

/// The status of 60,000 clients has about 30 MB.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);
/// The node reads, checks and derives keys meanwhile.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Octets of an answer: a peer that sends more is not a node.
const LARGEST_ANSWER: usize = 1 << 30;

/// Why a node could not be asked. Every text names the socket and the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no socket.
    #[error("there is no control socket {}: is the node running? The path comes from --control, or from node.control of --config", .0.display())]
    Missing(PathBuf),
    /// Nobody listens.
    #[error("nobody answers on the control socket {}: is the node running? The path comes from --control, or from node.control of --config", .0.display())]
    Dead(PathBuf),
    /// Not permitted.
    #[error("not permitted to use the control socket {}: ask as root, or as the user that the node runs as", .0.display())]
    Permission(PathBuf),
    /// It takes too long.
    #[error("the node on the control socket {} did not answer within {} s: it may be overloaded; see its log, and try again", path.display(), timeout.as_secs())]
    Timeout {
        /// The control socket.
        path: PathBuf,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// The node answers that it will not.
    #[error("the node on the control socket {} refused: {message}", path.display())]
    Refused {
        /// The control socket.
        path: PathBuf,
        /// What the node said.
        message: String,
    },
    /// No answer, or one that no node gives.
    #[error("the control socket {} gave no proper answer ({error}): is it that of an anytun-xdp of this version?", path.display())]
    Answer {
        /// The control socket.
        path: PathBuf,
        /// What was wrong with it.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A node to ask. Every method connects anew and blocks.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// The node whose control socket is at `path`. Nothing is connected yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The status of the node.
    ///
    /// # Errors
    ///
    /// The node cannot be reached, or does not answer as one.
    pub fn status(&self) -> Result<Status, Error> {
        let (code, body) = self.ask(Method::GET, "/status", Bytes::new(), STATUS_TIMEOUT)?;
        self.expect(code, StatusCode::OK, &body)?;
        serde_json::from_slice(&body).map_err(|error| self.improper(error))
    }

    /// Makes the node read its configuration again; returns what changed.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with the reason when the configuration does not check; the node cannot be reached, or does not
    /// answer as one.
    pub fn reload(&self) -> Result<String, Error> {
        let (code, body) = self.ask(Method::POST, "/reload", Bytes::new(), RELOAD_TIMEOUT)?;
        self.expect(code, StatusCode::OK, &body)?;
        Ok(text(&body))
    }

    /// Makes the node forget the sequence numbers of a client; returns what it says.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when it has no client of this name; the node cannot be reached, or does not answer as one.
    pub fn forget(&self, client: &str) -> Result<String, Error> {
        let body = Bytes::copy_from_slice(client.as_bytes());
        let (code, body) = self.ask(Method::POST, "/forget", body, STATUS_TIMEOUT)?;
        self.expect(code, StatusCode::OK, &body)?;
        Ok(text(&body))
    }

    /// Makes the node drain and stop. Returns when it has begun to.
    ///
    /// # Errors
    ///
    /// The node cannot be reached, or does not answer as one.
    pub fn drain(&self) -> Result<(), Error> {
        let (code, body) = self.ask(Method::POST, "/drain", Bytes::new(), STATUS_TIMEOUT)?;
        self.expect(code, StatusCode::ACCEPTED, &body)
    }

    fn expect(&self, code: StatusCode, expected: StatusCode, body: &Bytes) -> Result<(), Error> {
        if code == expected {
            Ok(())
        } else if code == StatusCode::UNPROCESSABLE_ENTITY {
            Err(Error::Refused { path: self.path.clone(), message: text(body) })
        } else {
            Err(self.improper(format!("{code}: {}", text(body))))
        }
    }

    fn ask(
        &self,
        method: Method,
        what: &'static str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), Error> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| self.improper(error))?;
        let late = || Error::Timeout { path: self.path.clone(), timeout };
        runtime.block_on(async {
            tokio::time::timeout(timeout, self.exchange(method, what, body)).await.unwrap_or_else(|_| Err(late()))
        })
    }

    async fn exchange(&self, method: Method, what: &'static str, body: Bytes) -> Result<(StatusCode, Bytes), Error> {
        let stream = UnixStream::connect(&self.path).await.map_err(|error| self.unreachable(error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.improper(error))?;
        let request = Request::builder()
            .method(method)
            .uri(what)
            .header(HOST, "localhost")
            .body(Full::new(body))
            .map_err(|error| self.improper(error))?;
        let answer = async {
            let (head, body) = sender.send_request(request).await.map_err(|error| self.improper(error))?.into_parts();
            let body = Limited::new(body, LARGEST_ANSWER).collect().await;
            Ok((head.status, body.map_err(|error| self.improper(error))?.to_bytes()))
        };
        drive(connection, answer).await
    }

    fn unreachable(&self, error: io::Error) -> Error {
        let path = self.path.clone();
        match error.kind() {
            io::ErrorKind::NotFound => Error::Missing(path),
            io::ErrorKind::ConnectionRefused => Error::Dead(path),
            io::ErrorKind::PermissionDenied => Error::Permission(path),
            _ => self.improper(error),
        }
    }

    fn improper(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Answer { path: self.path.clone(), error: error.into() }
    }
}

/// `answer`, while `connection` moves its octets.
async fn drive<C: Future, A: Future>(connection: C, answer: A) -> A::Output {
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The peer has closed; what it sent before is still to be read.
        _ = &mut connection => answer.await,
    }
}

fn text(body: &Bytes) -> String {
    String::from_utf8_lossy(body).trim_end().to_owned()
}
