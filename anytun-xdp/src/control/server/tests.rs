use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::super::client::{self, Client};
use super::super::sample;
use super::super::status::Status;
use super::*;

/// A node that does as it is told.
#[derive(Default)]
struct Node {
    status: Mutex<Option<Status>>,
    draining: AtomicBool,
    stalled: AtomicBool,
    bad_configuration: AtomicBool,
}

impl Source for Node {
    fn status(&self) -> Status {
        self.status.lock().unwrap().clone().unwrap_or_else(sample::status)
    }

    fn readiness(&self) -> Readiness {
        let draining = self.draining.load(Ordering::SeqCst);
        Readiness { ready: !draining, reason: if draining { "draining" } else { "running" }.into() }
    }

    fn health(&self) -> Result<(), String> {
        if self.stalled.load(Ordering::SeqCst) { Err("worker 1 has made no progress for 7 s".into()) } else { Ok(()) }
    }

    fn reload(&self) -> Result<String, String> {
        if self.bad_configuration.load(Ordering::SeqCst) {
            Err("node.toml:7: unknown key `muks`, did you mean `mux`?".into())
        } else {
            Ok("1 client added".into())
        }
    }

    fn forget(&self, client: &str) -> Result<String, String> {
        if client == "alice" { Ok("alice is forgotten".into()) } else { Err(format!("no client is called {client:?}")) }
    }

    fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }
}

struct Lab {
    directory: TempDir,
    node: Arc<Node>,
    metrics: SocketAddr,
    server: Server,
}

impl Lab {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = Arc::new(Node::default());
        let any = Some(([127, 0, 0, 1], 0).into());
        let listeners = Listeners::bind(&directory.path().join("control.sock"), any).unwrap();
        let metrics = listeners.metrics.as_ref().unwrap().local_addr().unwrap();
        let server = listeners.serve(node.clone()).unwrap();
        Self { directory, node, metrics, server }
    }

    fn control(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    fn client(&self) -> Client {
        Client::new(self.control())
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.metrics).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    fn tcp(&self, request: &str) -> (u16, String) {
        exchange(self.connect(), request)
    }

    fn unix(&self, request: &str) -> (u16, String) {
        exchange(UnixStream::connect(self.control()).unwrap(), request)
    }
}

/// The code of the answer to `request` (method and path), and all of the answer.
fn exchange(mut stream: impl Read + Write, request: &str) -> (u16, String) {
    write!(stream, "{request} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (code, answer)
}

#[test]
fn status_arrives_whole() {
    assert_eq!(Lab::new().client().status().unwrap(), sample::status());
}

#[test]
fn draining_turns_readiness_on_both_sockets() {
    let lab = Lab::new();
    assert_eq!((lab.tcp("GET /readyz").0, lab.unix("GET /readyz").0), (200, 200));
    lab.client().drain().unwrap();
    assert!(lab.node.draining.load(Ordering::SeqCst));
    for (code, answer) in [lab.tcp("GET /readyz"), lab.unix("GET /readyz")] {
        assert_eq!(code, 503);
        assert!(answer.ends_with("\r\n\r\ndraining\n"), "{answer}");
    }
    assert_eq!(lab.tcp("GET /healthz").0, 200, "a draining node is alive");
}

#[test]
fn a_stalled_worker_is_no_health() {
    let lab = Lab::new();
    assert_eq!(lab.tcp("GET /healthz").0, 200);
    lab.node.stalled.store(true, Ordering::SeqCst);
    let (code, answer) = lab.tcp("GET /healthz");
    assert_eq!(code, 503);
    assert!(answer.ends_with("worker 1 has made no progress for 7 s\n"), "{answer}");
}

#[test]
fn a_reload_says_what_changed_or_why_not() {
    let lab = Lab::new();
    assert_eq!(lab.client().reload().unwrap(), "1 client added");
    lab.node.bad_configuration.store(true, Ordering::SeqCst);
    let error = lab.client().reload().unwrap_err();
    assert!(matches!(&error, client::Error::Refused { message, .. } if message.starts_with("node.toml:7:")), "{error}");
}

#[test]
fn a_client_is_forgotten_by_its_name() {
    let lab = Lab::new();
    assert_eq!(lab.client().forget("alice").unwrap(), "alice is forgotten");
    let error = lab.client().forget("bob & more").unwrap_err();
    assert!(matches!(&error, client::Error::Refused { message, .. } if message.contains("\"bob & more\"")), "{error}");
}

#[test]
fn what_changes_the_node_is_not_on_the_metrics_address_and_not_a_get() {
    let lab = Lab::new();
    assert_eq!(lab.tcp("POST /drain").0, 404);
    assert_eq!(lab.tcp("POST /reload").0, 404);
    assert_eq!(lab.tcp("POST /forget").0, 404);
    assert_eq!(lab.tcp("GET /status").0, 404);
    assert_eq!(lab.unix("GET /drain").0, 405);
    assert!(!lab.node.draining.load(Ordering::SeqCst));
}

#[test]
fn metrics_are_served_as_prometheus_text() {
    let (code, answer) = Lab::new().tcp("GET /metrics");
    assert_eq!(code, 200);
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("\nanytun_xdp_queue_mode{interface=\"eth0\",queue=\"0\",asked=\"auto\",got=\"copy\"} 1\n"));
}

#[test]
fn a_second_node_is_refused_and_the_first_goes_on() {
    let lab = Lab::new();
    let error = Listeners::bind(&lab.control(), None).unwrap_err().to_string();
    assert!(error.starts_with("another node is running (control socket "), "{error}");
    assert!(lab.client().status().is_ok());
}

#[test]
fn a_stop_takes_the_socket_away() {
    let lab = Lab::new();
    let client = lab.client();
    lab.server.stop();
    let error = client.status().unwrap_err();
    assert!(matches!(error, client::Error::Missing(_)), "{error}");
    assert!(error.to_string().contains("is the node running?"));
}

#[test]
fn a_dead_node_is_told_from_a_missing_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    drop(UnixListener::bind(&path).unwrap());
    let error = Client::new(&path).status().unwrap_err();
    assert!(matches!(error, client::Error::Dead(_)), "{error}");
    assert!(error.to_string().contains("node.control of --config"));
}

#[test]
fn a_taken_metrics_address_is_an_error_of_the_start() {
    let lab = Lab::new();
    let control = lab.directory.path().join("other.sock");
    let error = Listeners::bind(&control, Some(lab.metrics)).unwrap_err().to_string();
    assert!(error.contains("set node.metrics to a free address"), "{error}");
    assert!(!control.exists());
}

#[test]
fn silent_connections_do_not_keep_others_waiting() {
    let lab = Lab::new();
    let silent: Vec<_> = (0..METRICS_CONNECTIONS - 1).map(|_| lab.connect()).collect();
    assert_eq!(lab.tcp("GET /readyz").0, 200);
    drop(silent);
}

#[test]
fn endless_headers_are_refused() {
    let lab = Lab::new();
    let mut stream = lab.connect();
    // The server may close before all of it is written.
    let _ = write!(stream, "GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(8 * HEADER_OCTETS));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
    assert_eq!(lab.tcp("GET /readyz").0, 200);
}

#[test]
fn readers_that_go_away_leave_nothing_behind() {
    let lab = Lab::new();
    let mut large = sample::status();
    large.clients = vec![large.clients[0].clone(); 20_000];
    *lab.node.status.lock().unwrap() = Some(large.clone());
    for _ in 0..2 * STATUSES_AT_ONCE {
        let mut tcp = lab.connect();
        tcp.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        tcp.read_exact(&mut [0; 1000]).unwrap();
        let mut unix = UnixStream::connect(lab.control()).unwrap();
        unix.write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        unix.read_exact(&mut [0; 1000]).unwrap();
    }
    let (code, answer) = lab.tcp("GET /metrics");
    assert_eq!(code, 200);
    assert!(answer.ends_with("\r\n0\r\n\r\n"), "the last chunk marks the answer as whole");
    assert_eq!(lab.client().status().unwrap(), large);
}

#[test]
fn a_panic_of_the_node_costs_one_answer() {
    let lab = Lab::new();
    let node = lab.node.clone();
    let _ = std::thread::spawn(move || {
        let _status = node.status.lock().unwrap();
        panic!("the lock is poisoned on purpose");
    })
    .join();
    assert_eq!(lab.unix("GET /status").0, 500);
    assert_eq!(lab.unix("GET /readyz").0, 200);
}
