//! The configurations under `examples/`, with the commands that their own comments give.

use std::fs;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use anytun_tests::lab::{Lab, Layout, Who};
use anytun_tests::namespace::{Namespace, output};
use anytun_tests::node::{self, Node};
use anytun_tests::process::Process;
use anytun_tests::traffic::ping;
use anytun_tests::wait::{PATIENCE, until};

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("examples/anycast-relay", anycast_relay),
        case("examples/exit-node", exit_node),
        case("examples/many-sites", many_sites),
    ]
}

/// A file under `examples/` as it was when this was compiled.
macro_rules! example {
    ($name:literal) => {
        (concat!("examples/", $name), include_str!(concat!("../../../examples/", $name)))
    };
}

/// Files with secrets that an example refers to.
const KEYS: [(&str, &str); 4] = [
    example!("keys/vienna.key"),
    example!("keys/berlin.key"),
    example!("keys/depot.pass"),
    example!("keys/scanner.pass"),
];
/// Where the comments put the configuration.
const ETC: &str = "/etc/anytun-xdp";
/// A host outside, in bob's place.
const OUTSIDE: [&str; 2] = ["203.0.113.1", "2001:db8:2::1"];

/// Clients reach each other over both families.
fn anycast_relay() -> Result<()> {
    let example = Example::start(example!("anycast-relay.toml"), &[("alice", Who::Alice), ("bob", Who::Bob)])?;
    for (from, to) in [("alice", "10.9.0.12"), ("alice", "fd00:9::12"), ("bob", "10.9.0.11"), ("bob", "fd00:9::11")] {
        example.reaches(from, to)?;
    }
    example.finish()
}

/// Clients reach a host outside, which sees them under their own addresses and reaches them, over both families.
fn exit_node() -> Result<()> {
    let example = Example::start(example!("exit-node.toml"), &[("alice", Who::Alice), ("carol", Who::Alice)])?;
    let outside = example.lab.client(Who::Bob);
    for (from, inner) in [("alice", ["192.0.2.129", "2001:db8:9::11"]), ("carol", ["192.0.2.130", "2001:db8:9::12"])] {
        for (to, own) in OUTSIDE.into_iter().zip(inner) {
            example.reaches(from, to)?;
            let own: IpAddr = own.parse()?;
            until(&format!("the world reaches {own}"), PATIENCE, || Ok(ping(outside, own, 1, 56).ok()))?;
            let listener =
                outside.enter(|| TcpListener::bind((to.parse::<IpAddr>()?, 0)).context("cannot listen"))??;
            let at = listener.local_addr()?;
            let _stream = example.host(from)?.enter(|| TcpStream::connect_timeout(&at, PATIENCE))??;
            let (_, seen) = listener.accept()?;
            ensure!(seen.ip() == own, "{to} sees {from} as {seen}, not as {own}");
        }
    }
    example.finish()
}

/// Clients reach those of their own network and no others.
fn many_sites() -> Result<()> {
    let sites = [("vienna", Who::Alice), ("berlin", Who::Alice), ("depot", Who::Bob), ("scanner", Who::Bob)];
    let mut example = Example::start(example!("many-sites.toml"), &sites)?;
    for (from, to) in
        [("vienna", "10.20.2.1"), ("berlin", "10.20.1.1"), ("depot", "10.20.0.2"), ("scanner", "10.20.0.1")]
    {
        example.reaches(from, to)?;
    }
    // The route of vienna holds the depot's address, too, but in its network nobody has it.
    ensure!(ping(example.host("vienna")?, "10.20.0.1".parse()?, 1, 56).is_err(), "a site reaches another network");
    // An old client that restarts, and counts from 0 again, is heard at once.
    example.daemons.retain(|(name, _)| *name != "depot");
    example.start_client("depot")?;
    example.reaches("depot", "10.20.0.2")?;
    example.finish()
}

/// An example at work.
struct Example {
    node: Node,
    daemons: Vec<(&'static str, Process)>,
    commands: Vec<Command>,
    hosts: Vec<(&'static str, Namespace)>,
    lab: Lab,
}

/// A command that a comment gives: on which host, and the words as a shell reads them.
struct Command {
    host: String,
    line: String,
}

impl Example {
    /// Does what the comment of an example says, on the node and on each host. These are on the links of alice or bob.
    fn start((file, text): (&str, &str), hosts: &[(&'static str, Who)]) -> Result<Self> {
        let lab = Lab::new(Layout::default())?;
        let hosts = (20..)
            .zip(hosts)
            .map(|(number, (name, at))| Ok((*name, lab.neighbour(*at, name, number)?)))
            .collect::<Result<Vec<_>>>()?;
        let commands = commands(text);
        for Command { host, line } in &commands {
            let known = host == "node" || hosts.iter().any(|(name, _)| name == host);
            ensure!(known, "{file} has a command for {host}, which the trial does not know: {line}");
        }
        install(&lab, file, text, &commands)?;
        let node = Node::launch(&node::program()?, &lab.node, lab.directory(), &for_the_lab(text, lab.directory())?)?;
        node.await_ready(PATIENCE)?;
        let mut example = Self { node, daemons: Vec::new(), commands, hosts, lab };
        for index in 0..example.hosts.len() {
            example.start_client(example.hosts[index].0)?;
        }
        example.pings()?;
        Ok(example)
    }

    fn host(&self, name: &str) -> Result<&Namespace> {
        let found = self.hosts.iter().find(|(known, _)| *known == name);
        Ok(&found.with_context(|| format!("no host {name}"))?.1)
    }

    /// Starts the daemon of a client, then runs its other commands but those that need the other clients.
    fn start_client(&mut self, name: &'static str) -> Result<()> {
        let host = self.host(name)?;
        let mut lines = self.commands.iter().filter(|command| command.host == name).map(|command| &command.line);
        let daemon = lines.next().with_context(|| format!("no commands for {name}"))?;
        ensure!(daemon.contains("anytun -D "), "the first command of {name} does not start its daemon: {daemon}");
        let log = self.lab.directory().join(format!("{name}.log"));
        let words = ["-c".to_owned(), format!("exec {daemon} -L stderr:3")];
        let mut process = Process::start(&format!("the daemon of {name}"), host, Path::new("sh"), words, &log)?;
        until(&format!("the device of {name} is up"), PATIENCE, || {
            ensure!(process.ended()?.is_none(), "the daemon of {name} ended:\n{}", process.log_tail());
            let shown = host.ip("-o -4 addr show up dev tun0").unwrap_or_default();
            Ok(shown.contains("inet ").then_some(()))
        })?;
        for line in lines.filter(|line| !is_ping(line)) {
            shell(host, self.lab.directory(), line)?;
        }
        self.daemons.push((name, process));
        Ok(())
    }

    /// Runs the pings of the comment until all are answered: the node knows where a client is once it has spoken, so the
    /// first round may fail.
    fn pings(&self) -> Result<()> {
        let pings = self.commands.iter().filter(|command| is_ping(&command.line));
        let mut left: Vec<_> = pings.map(|Command { host, line }| (host, format!("{line} -W 1"))).collect();
        until("all pings of the comment are answered", PATIENCE, || {
            let mut unanswered = Vec::new();
            for (host, line) in left.drain(..) {
                if shell(self.host(host)?, self.lab.directory(), &line).is_err() {
                    unanswered.push((host, line));
                }
            }
            left = unanswered;
            Ok(left.is_empty().then_some(()))
        })
    }

    fn reaches(&self, from: &str, to: &str) -> Result<()> {
        let (host, address) = (self.host(from)?, to.parse()?);
        until(&format!("{from} reaches {to}"), PATIENCE, || Ok(ping(host, address, 3, 56).ok()))
    }

    /// Every client was heard, and nothing was lost of the node's frames.
    fn finish(self) -> Result<()> {
        let status = self.node.status()?;
        for (name, _) in &self.hosts {
            ensure!(status.client(name)?.endpoint.is_some(), "{name} was not heard");
        }
        status.ensure_ledgers_hold()
    }
}

/// Runs the commands of the comment on the node, with the programs and directories of the lab. `check` and what copies files
/// see the example as it is; a node that runs is started by the caller.
fn install(lab: &Lab, file: &str, text: &str, commands: &[Command]) -> Result<()> {
    let source = lab.directory();
    for (name, content) in KEYS.into_iter().chain([(file, text)]) {
        let path = source.join(name);
        fs::create_dir_all(path.parent().context("a file is in a directory")?)?;
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let (installed, program) = (source.join("etc"), node::program()?);
    let mut seen = Vec::new();
    for Command { line, .. } in commands.iter().filter(|command| command.host == "node") {
        if let Some(words) = line.strip_prefix("anytun-xdp ") {
            let (verb, rest) = words.split_once(' ').unwrap_or((words, ""));
            ensure!(rest == format!("--config {ETC}/node.toml"), "another configuration than was installed: {line}");
            seen.push(verb);
            if verb != "check" {
                continue;
            }
        }
        let line = line.replace(ETC, &installed.to_string_lossy());
        let line = line.replacen(
            "anytun-xdp ",
            &format!("{} ", program.display()),
            usize::from(line.starts_with("anytun-xdp ")),
        );
        let shown = shell(&lab.node, source, &line)?;
        ensure!(!line.contains(" check ") || shown.contains("node "), "check explains nothing: {shown}");
    }
    ensure!(seen == ["check", "run", "status"], "the comment of {file} says {seen:?} of the node");
    // The node of the lab finds them where its own configuration is.
    let keys = installed.join("keys");
    if keys.exists() {
        fs::rename(keys, source.join("keys"))?;
    }
    Ok(())
}

/// The example with what must differ in the lab: where files of a running node are, and the names of the interfaces.
fn for_the_lab(text: &str, directory: &Path) -> Result<String> {
    let place = |name: &str| format!("\"{}\"", directory.join(name).display());
    let differences = [
        ("\"/var/lib/anytun-xdp\"", place("state")),
        ("\"/run/anytun-xdp/control.sock\"", place("control.sock")),
        ("\"eth0\"", "\"link0\"".to_owned()),
        ("\"eth1\"", "\"link1\"".to_owned()),
    ];
    differences.into_iter().try_fold(text.to_owned(), |text, (there, here)| {
        ensure!(text.matches(there).count() == 1, "{there} must be there once");
        Ok(text.replace(there, &here))
    })
}

/// The commands of a comment: lines such as `#     alice# ip route`, which go on after a backslash at their end.
fn commands(text: &str) -> Vec<Command> {
    let comment: Vec<_> = text.lines().map_while(|line| line.strip_prefix('#')).collect();
    let joined = comment.join("\n").replace("\\\n", " ");
    let command = |line: &str| {
        let (host, line) = line.trim().split_once("# ")?;
        let is_name = !host.is_empty() && host.chars().all(|letter| letter.is_ascii_lowercase());
        is_name.then(|| Command { host: host.to_owned(), line: line.to_owned() })
    };
    joined.lines().filter_map(command).collect()
}

fn is_ping(line: &str) -> bool {
    line.starts_with("ping ")
}

/// Runs a line as a shell does that is in a directory.
fn shell(namespace: &Namespace, directory: &Path, line: &str) -> Result<String> {
    output(namespace.command("sh").args(["-c", line]).current_dir(directory))
}
