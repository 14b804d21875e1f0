//! Asking a node's metrics address, as a monitoring system does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::namespace::Namespace;

/// Gets a path from inside a namespace: the status code, and the body with its headers. Asks in HTTP/1.0 (RFC 1945), so
/// that the body comes in one piece and not in chunks.
pub fn get(namespace: &Namespace, address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = namespace
        .enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(2)))?
        .with_context(|| format!("no HTTP at {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("cannot read {path} from {address}"))?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.with_context(|| format!("no HTTP answer: {:?}", answer.lines().next()))?;
    Ok((code, answer))
}
