//! An answer that is written by a blocking thread while it is being sent: however large it is, only a few chunks of it
//! are in memory, and a reader that is slow slows the writer down.

use std::io::{self, BufWriter, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

/// Octets that are handed to the connection at once.
const CHUNK: usize = 64 * 1024;
/// Chunks that wait for the connection.
const WAITING: usize = 2;

/// The reading end: a response body.
///
/// It ends in an error, which cuts the connection, when the writer went away without having finished. So a reader never
/// takes half an answer for a whole one.
pub(super) struct Stream {
    receiver: Receiver<Option<Bytes>>,
    finished: bool,
}

/// Runs `prepare` and then `write` on a blocking thread of the current runtime; the body is what `write` writes.
///
/// Both on the same thread, so that what `prepare` allocates comes from one arena of the allocator. `keep` is dropped
/// when the thread has finished.
///
/// # Errors
///
/// [`Panicked`] when `prepare` did.
pub(super) async fn stream<T, P, W, K>(keep: K, prepare: P, write: W) -> Result<Stream, Panicked>
where
    P: FnOnce() -> T + Send + 'static,
    W: FnOnce(&T, &mut dyn Write) -> io::Result<()> + Send + 'static,
    K: Send + 'static,
{
    let (sender, receiver) = channel(WAITING);
    let (prepared, is_prepared) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let _keep = keep;
        let content = prepare();
        // An error here and below means that the reader is gone: there is nobody to tell.
        if prepared.send(()).is_err() {
            return;
        }
        let mut out = BufWriter::with_capacity(CHUNK, Chunks { sender });
        let written = write(&content, &mut out);
        // Before the end of the answer, at which the next request may be waiting.
        drop(content);
        if written.is_ok()
            && let Ok(chunks) = out.into_inner()
        {
            let _ = chunks.sender.blocking_send(None);
        }
    });
    is_prepared.await.map_err(|_| Panicked)?;
    Ok(Stream { receiver, finished: false })
}

/// There is nothing to write.
#[derive(Debug)]
pub(super) struct Panicked;

impl Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.finished {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.receiver.poll_recv(context)) {
            Some(Some(chunk)) => Some(Ok(Frame::data(chunk))),
            Some(None) => {
                self.finished = true;
                None
            }
            None => {
                self.finished = true;
                Some(Err(io::Error::other("the answer was not finished")))
            }
        })
    }
}

/// The writing end. `None` marks the end of the answer.
struct Chunks {
    sender: Sender<Option<Bytes>>,
}

impl Write for Chunks {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.sender
            .blocking_send(Some(Bytes::copy_from_slice(octets)))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn collect<W>(write: W) -> io::Result<Bytes>
    where
        W: FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let stream = stream((), || (), |(), out| write(out)).await.unwrap();
            Ok(stream.collect().await?.to_bytes())
        })
    }

    #[test]
    fn what_is_written_arrives_in_order() {
        let written: Vec<u8> = (0..10 * CHUNK + 1).map(|n| (n % 251) as u8).collect();
        let copy = written.clone();
        let read = collect(move |out| copy.chunks(1000).try_for_each(|part| out.write_all(part))).unwrap();
        assert!(read == written, "{} of {} octets arrived", read.len(), written.len());
    }

    #[test]
    fn a_writer_that_gives_up_is_not_taken_for_one_that_finished() {
        assert!(collect(|out| out.write_all(&[0; 2 * CHUNK]).and(Err(io::Error::other("given up")))).is_err());
        assert!(collect(|_| panic!("on purpose")).is_err());
    }
}
