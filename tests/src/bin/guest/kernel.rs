//! What the kernel says about AF_XDP sockets, asked past the node: `ss`, which asks through sock_diag(7).

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use anytun_tests::namespace::Namespace;

/// Whether a socket is in zero-copy mode, by interface and queue.
pub(crate) type Sockets = BTreeMap<(String, u32), bool>;

/// The AF_XDP sockets of a namespace that are bound.
pub(crate) fn sockets(namespace: &Namespace) -> Result<Sockets> {
    let text = namespace.run("ss --no-header --oneline --xdp --extended")?;
    let bound = text.lines().filter(|line| line.split_whitespace().nth(2) != Some("*"));
    let sockets = bound.map(|line| parse(line).with_context(|| format!("ss printed: {line}")));
    let sockets = sockets.collect::<Result<Vec<_>>>()?;
    let count = sockets.len();
    let by_place: Sockets = sockets.into_iter().collect();
    ensure!(count == by_place.len(), "two sockets on one queue: {text}");
    Ok(by_place)
}

/// A line of `ss`: `0 0 eth0:q1 * ino:1 ... umem(id:0,...,zc:1,refs:2) ...`.
fn parse(line: &str) -> Option<((String, u32), bool)> {
    let (interface, queue) = line.split_whitespace().nth(2)?.rsplit_once(":q")?;
    let zero_copy = match line.split_once(",zc:")?.1.split(',').next()? {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    Some(((interface.to_owned(), queue.parse().ok()?), zero_copy))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_socket_is_told_by_place_and_mode() {
        let line = "0      0      link1:q3 * ino:603 sk:1001 rx(entries:4096) tx(entries:2048) \
                    tumem(id:0,size:25165824,ifindex:4,qid:0,zc:1,refs:2) fr(entries:4096) cr(entries:2048)";
        assert_eq!(parse(line), Some((("link1".to_owned(), 3), true)));
        assert_eq!(parse(&line.replace("zc:1", "zc:0")), Some((("link1".to_owned(), 3), false)));
        assert_eq!(parse(&line.replace("zc:1", "zc:?")), None);
    }
}
