//! When a node must not start, it says why, where and what to do, and leaves nothing behind.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use anytun_tests::config::Config;
use anytun_tests::crypto::Crypto;
use anytun_tests::lab::{Lab, Layout, Running, Who, client};
use anytun_tests::node::{self, Outcome};
use anytun_xdp::config::XdpMode;
use anytun_xdp::kernel::{Link, Program};

use crate::{Case, case};

/// Exit codes.
const CONFIGURATION: i32 = 2;
const HOST: i32 = 3;
/// The user with no rights.
const NOBODY: u32 = 65_534;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("refusal/another-xdp-program", foreign_program),
        case("refusal/second-node", second_node),
        case("refusal/missing-interface", missing_interface),
        case("refusal/missing-privileges", missing_privileges),
        case("refusal/wrong-configurations", wrong_configurations),
        case("refusal/bad-usage", bad_usage),
    ]
}

/// An interface that has an XDP program already is refused, whichever mode is asked for, and keeps its program.
fn foreign_program() -> Result<()> {
    let lab = Lab::new(Layout::default())?;
    let program = lab.node.enter(|| -> Result<Program> {
        let mut program = Program::load()?;
        program.attach(&Link::find("link0")?, XdpMode::Native)?;
        Ok(program)
    })??;
    let id = program.id()?.to_string();
    for xdp in ["native", "generic", "auto"] {
        let outcome = run(&lab, lab.directory(), &Config { xdp, ..config(&lab) }.toml(lab.directory()))?;
        refused(&outcome, HOST, &["link0", "XDP", &id])?;
        let shown = lab.node.ip("-d link show link0")?;
        ensure!(shown.contains(&format!("id {id} ")), "link0 has lost its program {id}:\n{shown}");
        let other = lab.node.ip("-d link show link1")?;
        ensure!(!other.contains("xdp"), "an XDP program is left:\n{other}");
    }
    Ok(())
}

/// A second node on the interfaces of a first is refused, and the first one does not notice.
fn second_node() -> Result<()> {
    let running = Running::usual(Layout::default())?;
    let flow = running.lab.echo(Who::Alice, Who::Bob.inner()[0], 500, 0)?;
    let second = running.lab.directory().join("second");
    let config = Config { metrics: None, ..running.config.clone() };
    let outcome = run(&running.lab, &second, &config.toml(&second))?;
    refused(&outcome, HOST, &["link0"])?;
    flow.stop()?.ensure_none_lost("alice to bob, while a second node tried to start")
}

fn missing_interface() -> Result<()> {
    let lab = Lab::new(Layout::default())?;
    let config = Config { interfaces: vec!["link0".into(), "link7".into()], ..config(&lab) };
    let outcome = run(&lab, lab.directory(), &config.toml(lab.directory()))?;
    refused(&outcome, HOST, &["link7"])?;
    nothing_started(&lab)
}

fn missing_privileges() -> Result<()> {
    let lab = Lab::new(Layout::default())?;
    // Nobody may use everything that is needed, but for the kernel.
    let file = node::write_config(lab.directory(), &config(&lab).toml(lab.directory()))?;
    fs::set_permissions(lab.directory(), Permissions::from_mode(0o755))?;
    for path in [lab.directory(), &file, &lab.directory().join("state")] {
        chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    let program = lab.directory().join("anytun-xdp");
    fs::copy(node::program()?, &program)?;
    let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
    let words = ["setpriv", &ids[0], &ids[1], "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"];
    let (program, file) = (program.to_string_lossy(), file.to_string_lossy());
    let line = [&words[..], &[&program, "run", "--config", &file]].concat();
    let outcome = node::run_to_end(&lab.node, lab.directory(), &line)?;
    refused(&outcome, HOST, &["CAP_"])?;
    nothing_started(&lab)
}

/// A change to a good configuration that makes it bad.
struct Mistake {
    what: &'static str,
    find: &'static str,
    put: String,
    /// The line that must be blamed is the last one with this text.
    blamed: &'static str,
    /// What the message must contain.
    says: &'static str,
}

fn mistakes(directory: &Path) -> Result<Vec<Mistake>> {
    let readable = directory.join("readable.key");
    fs::write(&readable, "bob's passphrase in a file for everyone\n")?;
    fs::set_permissions(&readable, Permissions::from_mode(0o644))?;
    let bob = "passphrase = \"bob tells nobody about this 93ae\"";
    let file = |path: &Path| format!("passphrase_file = \"{}\"", path.display());
    let mistake = |what, find, put: String, blamed, says| Mistake { what, find, put, blamed, says };
    Ok(vec![
        mistake("an unknown key", bob, format!("{bob}\nwindw = 64"), "windw", "window"),
        mistake("a key that is there twice", bob, format!("{bob}\nmux = 2"), "mux", "duplicate key"),
        mistake("a duplicate MUX", "mux = 2", "mux = 1".into(), "mux = 1", "alice"),
        mistake("overlapping prefixes", "10.9.0.12/32", "10.9.0.0/24".into(), "10.9.0.0/24", "10.9.0.11/32"),
        mistake("an address that is none", "10.9.0.12/32", "10.9.0.312/32".into(), "10.9.0.312", "10.9.0.312"),
        mistake(
            "bad hex",
            bob,
            "key = \"00112233445566778899aabbccddeefg\"\nsalt = \"00112233445566778899aabbccdd\"".into(),
            "key = ",
            "key",
        ),
        mistake(
            "a short salt",
            bob,
            "key = \"00112233445566778899aabbccddeeff\"\nsalt = \"0011\"".into(),
            "salt = ",
            "28",
        ),
        mistake("a missing key file", bob, file(&directory.join("missing.key")), "passphrase_file", "missing.key"),
        mistake("a world-readable key file", bob, file(&readable), "passphrase_file", "chmod"),
        mistake("port 0", "port = 4444", "port = 0".into(), "port = 0", "port"),
        mistake(
            "no such network",
            "network = \"office\"\nservice = \"anycast\"\nmux = 2",
            "network = \"offce\"\nservice = \"anycast\"\nmux = 2".into(),
            "offce",
            "office",
        ),
        mistake("no TOML", "mux = 2", "mux = = 2".into(), "mux = =", ""),
    ])
}

fn wrong_configurations() -> Result<()> {
    let lab = Lab::new(Layout::default())?;
    let good = config(&lab).toml(lab.directory());
    let file = node::write_config(lab.directory(), &good)?.to_string_lossy().into_owned();
    let outcome = node::command(&lab.node, lab.directory(), &["check", "--config", &file])?;
    ensure!(outcome.code == Some(0), "check of the good configuration: {outcome:?}");
    for Mistake { what, find, put, blamed, says } in mistakes(lab.directory())? {
        ensure!(good.contains(find), "{find} is not in the configuration:\n{good}");
        let bad = good.replacen(find, &put, 1);
        let line =
            bad.lines().collect::<Vec<_>>().iter().rposition(|line| line.contains(blamed)).context("no such line")?;
        let place = format!("{file}:{}", line + 1);
        node::write_config(lab.directory(), &bad)?;
        for word in ["check", "run"] {
            let outcome = node::command(&lab.node, lab.directory(), &[word, "--config", &file])?;
            refused(&outcome, CONFIGURATION, &[&place, says]).with_context(|| format!("{word} with {what}"))?;
            let secrets = [Who::Alice.passphrase(), Who::Bob.passphrase(), "aabbccddee", "a file for everyone"];
            ensure!(!secrets.iter().any(|secret| outcome.text.contains(secret)), "a secret is shown: {}", outcome.text);
            nothing_started(&lab).with_context(|| format!("{word} with {what}"))?;
        }
    }
    Ok(())
}

fn bad_usage() -> Result<()> {
    let lab = Lab::new(Layout::default())?;
    let missing = lab.directory().join("missing.toml");
    let missing = missing.to_string_lossy();
    for (words, says) in [
        (&["rnu"][..], "rnu"),
        (&["run", "--config", &missing], &*missing),
        (&["check", "--config", &missing], &*missing),
    ] {
        let outcome = node::command(&lab.node, lab.directory(), words)?;
        refused(&outcome, CONFIGURATION, &[says]).with_context(|| words.join(" "))?;
    }
    Ok(())
}

fn config(lab: &Lab) -> Config {
    let clients = Who::BOTH.map(|who| client(who, "anycast", Crypto::passphrase(who.passphrase())));
    Config { clients: clients.into(), ..lab.config() }
}

/// Runs the node with a configuration that it must refuse.
fn run(lab: &Lab, directory: &Path, toml: &str) -> Result<Outcome> {
    let file = node::write_config(directory, toml)?;
    node::command(&lab.node, directory, &["run", "--config", &file.to_string_lossy()])
}

fn refused(outcome: &Outcome, code: i32, says: &[&str]) -> Result<()> {
    ensure!(outcome.code == Some(code), "exit code {:?} instead of {code}:\n{}", outcome.code, outcome.text);
    for text in says {
        ensure!(outcome.text.contains(text), "the message does not mention {text:?}:\n{}", outcome.text);
    }
    Ok(())
}

/// No XDP program, no control socket.
fn nothing_started(lab: &Lab) -> Result<()> {
    let links = lab.node.ip("-d link show")?;
    ensure!(!links.contains("xdp"), "an XDP program is left:\n{links}");
    ensure!(!lab.directory().join("control.sock").exists(), "a control socket is left");
    Ok(())
}
