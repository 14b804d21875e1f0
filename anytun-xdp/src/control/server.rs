//! The HTTP servers: the control interface on a Unix socket, metrics and health on a TCP address.
//!
//! | where | what |
//! | --- | --- |
//! | control socket | `GET /status`, `GET /readyz`, `POST /reload`, `POST /forget`, `POST /drain` |
//! | metrics address | `GET /metrics`, `GET /healthz`, `GET /readyz` |
//!
//! One connection carries one request, within a deadline, and there are only so many at once; answers that grow with the
//! number of clients are streamed. So what a slow or hostile peer can occupy is bounded and given back.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::event::Limiter;
use super::metrics;
use super::socket::{self, ControlSocket};
use super::source::{Readiness, Source};
use super::stream::stream;

/// Connections at once. One that is not accepted waits in the backlog.
const CONTROL_CONNECTIONS: u32 = 16;
const METRICS_CONNECTIONS: u32 = 32;
/// From the accept to the end of the answer. A reload may take a while; a scrape that takes longer than Prometheus's
/// own default timeout (10 s) is of no use to anybody.
const CONTROL_DEADLINE: Duration = Duration::from_secs(60);
const METRICS_DEADLINE: Duration = Duration::from_secs(15);
/// For the request line and all headers.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// Octets of the request line and all headers; hyper's least is 8 KiB.
const HEADER_OCTETS: usize = 16 * 1024;
/// On each of the two sockets; others wait. A status of 60,000 clients has up to 40 MB.
const STATUSES_AT_ONCE: usize = 1;
/// How long a stop waits for answers under way.
const GRACE: Duration = Duration::from_secs(2);
/// After an accept that failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the servers do not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No control socket.
    #[error(transparent)]
    Control(#[from] socket::Error),
    /// No metrics address.
    #[error("cannot listen on {address} for metrics: {error}; set node.metrics to a free address of this host")]
    Metrics {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// No thread or no runtime for them.
    #[error("cannot start the control thread: {0}")]
    Thread(#[from] io::Error),
}

/// The addresses of the servers, bound: what connects waits to be served.
#[derive(Debug)]
pub struct Listeners {
    control: UnixListener,
    metrics: Option<TcpListener>,
    socket: ControlSocket,
}

/// The running servers. Dropping it stops them, too.
#[derive(Debug)]
pub struct Server {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    // Dropped last: the socket file goes when nobody answers on it any more.
    _socket: ControlSocket,
}

impl Listeners {
    /// Binds the control socket at `control` and the TCP address `metrics`.
    ///
    /// # Errors
    ///
    /// Another node answers on the control socket, or an address cannot be bound.
    pub fn bind(control: &Path, metrics: Option<SocketAddr>) -> Result<Self, Error> {
        let (socket, control) = socket::open(control)?;
        let metrics = metrics.map(|address| bind_metrics(address).map_err(|error| Error::Metrics { address, error }));
        Ok(Self { control, metrics: metrics.transpose()?, socket })
    }

    /// Serves `source` on both in a thread of its own.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn serve(self, source: Arc<dyn Source>) -> Result<Server, Error> {
        let Self { control, metrics, socket } = self;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("control-blocking")
            // Every connection occupies at most one, so nobody waits for somebody else's.
            .max_blocking_threads((CONTROL_CONNECTIONS + METRICS_CONNECTIONS) as usize)
            .build()?;
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::Builder::new().name("control".into()).spawn(move || {
            if let Err(error) = runtime.block_on(serve(control, metrics, source, stopped)) {
                tracing::error!("the control interface does not run: {error}");
            }
            runtime.shutdown_timeout(GRACE);
        })?;
        Ok(Server { stop, thread: Some(thread), _socket: socket })
    }
}

impl Server {
    /// Whether somebody still serves; nobody does after a failure or panic.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Stops accepting, lets answers under way finish for at most two seconds, and removes the control socket.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the control thread panicked");
        }
    }
}

fn bind_metrics(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves both listeners until stopped.
async fn serve(
    control: UnixListener,
    metrics: Option<TcpListener>,
    source: Arc<dyn Source>,
    stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let control = tokio::net::UnixListener::from_std(control)?;
    let metrics = metrics.map(tokio::net::TcpListener::from_std).transpose()?;
    let events = Limiter::new(1);
    let control = accept_all(
        async || Ok(control.accept().await?.0),
        Limits { connections: CONTROL_CONNECTIONS, deadline: CONTROL_DEADLINE },
        control_routes(Service::new(source.clone())),
        stopped.clone(),
        &events,
    );
    let metrics = async {
        if let Some(listener) = metrics {
            accept_all(
                async || Ok(listener.accept().await?.0),
                Limits { connections: METRICS_CONNECTIONS, deadline: METRICS_DEADLINE },
                metrics_routes(Service::new(source)),
                stopped,
                &events,
            )
            .await;
        }
    };
    tokio::join!(control, metrics);
    Ok(())
}

struct Limits {
    connections: u32,
    deadline: Duration,
}

/// Accepts until stopped, then waits for the connections that are open.
async fn accept_all<A, C>(
    accept: A,
    limits: Limits,
    routes: Router,
    mut stopped: watch::Receiver<bool>,
    events: &Limiter,
) where
    A: AsyncFn() -> io::Result<C>,
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let places = Arc::new(Semaphore::new(limits.connections as usize));
    let next = async || {
        let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
        Ok::<_, io::Error>((accept().await?, place))
    };
    loop {
        let accepted = tokio::select! {
            // A sender that is gone means stop as well.
            _ = stopped.wait_for(|stop| *stop) => break,
            accepted = next() => accepted,
        };
        match accepted {
            Ok((connection, place)) => {
                let routes = routes.clone();
                tokio::spawn(async move {
                    // A connection that fails or runs out of time concerns only its peer.
                    let _ = timeout(limits.deadline, answer(connection, routes)).await;
                    drop(place);
                });
            }
            Err(error) => {
                events.warn("control-accept", format_args!("the control interface cannot accept: {error}"));
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let _ = timeout(GRACE, places.acquire_many(limits.connections)).await;
}

/// One request, one answer.
async fn answer<C>(connection: C, routes: Router) -> Result<(), hyper::Error>
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(HEADER_OCTETS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(connection), TowerToHyperService::new(routes))
        .await
}

#[derive(Clone)]
struct Service {
    source: Arc<dyn Source>,
    statuses: Arc<Semaphore>,
}

impl Service {
    fn new(source: Arc<dyn Source>) -> Self {
        Self { source, statuses: Arc::new(Semaphore::new(STATUSES_AT_ONCE)) }
    }
}

type Answer = Result<Response, Failure>;

/// The source panicked, or the runtime is going down.
struct Failure;

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, "the node could not answer; see its log\n").into_response()
    }
}

fn control_routes(service: Service) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/readyz", get(readiness))
        .route("/reload", post(reload))
        .route("/forget", post(forget))
        .route("/drain", post(drain))
        .with_state(service)
}

fn metrics_routes(service: Service) -> Router {
    Router::new()
        .route("/metrics", get(prometheus))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .with_state(service)
}

/// Runs `ask` where it may block.
async fn ask<T, F>(source: &Arc<dyn Source>, ask: F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: FnOnce(&dyn Source) -> T + Send + 'static,
{
    let source = Arc::clone(source);
    tokio::task::spawn_blocking(move || ask(source.as_ref())).await.map_err(|_| Failure)
}

async fn status(State(service): State<Service>) -> Answer {
    stream_status(service, "application/json", |status, out| {
        serde_json::to_writer(&mut *out, status)?;
        out.write_all(b"\n")
    })
    .await
}

async fn prometheus(State(service): State<Service>) -> Answer {
    stream_status(service, metrics::CONTENT_TYPE, metrics::render).await
}

async fn stream_status<R>(service: Service, content_type: &'static str, render: R) -> Answer
where
    R: FnOnce(&super::status::Status, &mut dyn io::Write) -> io::Result<()> + Send + 'static,
{
    let place = service.statuses.clone().acquire_owned().await.map_err(|_| Failure)?;
    let body = stream(place, move || service.source.status(), render).await.map_err(|_| Failure)?;
    Ok(([(CONTENT_TYPE, content_type)], Body::new(body)).into_response())
}

async fn readiness(State(service): State<Service>) -> Answer {
    let Readiness { ready, reason } = ask(&service.source, |source| source.readiness()).await?;
    Ok(verdict(ready, reason))
}

async fn health(State(service): State<Service>) -> Answer {
    Ok(match ask(&service.source, |source| source.health()).await? {
        Ok(()) => verdict(true, "every worker makes progress, and leases can be written".into()),
        Err(reason) => verdict(false, reason),
    })
}

fn verdict(good: bool, reason: String) -> Response {
    let code = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, reason + "\n").into_response()
}

async fn reload(State(service): State<Service>) -> Answer {
    Ok(done(ask(&service.source, |source| source.reload()).await?))
}

/// The body is the name of the client.
async fn forget(State(service): State<Service>, client: String) -> Answer {
    Ok(done(ask(&service.source, move |source| source.forget(&client)).await?))
}

fn done(outcome: Result<String, String>) -> Response {
    match outcome {
        Ok(done) => (StatusCode::OK, done + "\n").into_response(),
        Err(refused) => (StatusCode::UNPROCESSABLE_ENTITY, refused + "\n").into_response(),
    }
}

async fn drain(State(service): State<Service>) -> Answer {
    ask(&service.source, |source| source.drain()).await?;
    Ok((StatusCode::ACCEPTED, "draining\n").into_response())
}

#[cfg(test)]
mod tests;
