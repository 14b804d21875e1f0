//! Nothing that a node prints, logs or serves contains a passphrase or a key.

use anyhow::{Result, ensure};
use anytun_tests::config::{Client, Config};
use anytun_tests::crypto::{Crypto, combinations};
use anytun_tests::daemon::Kind;
use anytun_tests::http;
use anytun_tests::lab::{Lab, Layout, Running, Who};
use anytun_tests::node;

use crate::{Case, case};

/// Carol's key and salt are written out; these are their first octets. Nothing else looks like it.
const KEY: &str = "6361726f6c2773206f776e206b657921";
/// What carol's key is made of.
const CAROL: &str = "carol's own key!";

pub(crate) fn cases() -> Vec<Case> {
    vec![case("secrets/are-nowhere", nowhere)]
}

fn nowhere() -> Result<()> {
    let lab = Lab::new(Layout::default())?;
    let written = combinations(CAROL).into_iter().find(|(name, _)| *name == "aes-256").map(|(_, crypto)| crypto);
    let Some(written) = written else { unreachable!("there is a combination of that name") };
    ensure!(written.toml().contains(KEY), "the key of the test is another one: {}", written.toml());
    let carol = Client {
        endpoint: None,
        name: "carol".to_owned(),
        service: "anycast".to_owned(),
        mux: 3,
        addresses: vec![[10, 9, 0, 13].into()],
        crypto: written,
    };
    let config = Config { clients: vec![carol], ..lab.config() };
    let running =
        Running::start(lab, &node::program()?, config, [Kind::Anytun, Kind::Uanytun], ["anycast"; 2], |who| {
            Crypto::passphrase(who.passphrase())
        })?;
    let (lab, node) = (&running.lab, &running.node);
    let toml = running.config.toml(lab.directory());
    let file = lab.directory().join("node.toml").to_string_lossy().into_owned();
    let mut shown = Vec::new();
    for words in [&["check", "--config", &file][..], &["doctor", "--config", &file]] {
        shown.push((words[0], node::command(&lab.node, lab.directory(), words)?.text));
    }
    // Mistakes right beside the secrets, which a careless parser would quote.
    for (find, put) in
        [("key = \"", "key = \"zz"), ("passphrase = \"", "passphrase = 7 \""), ("passphrase", "passphrse")]
    {
        node.reload(&toml.replacen(find, put, 1))?;
        node.await_status("the bad configuration is refused", |status| {
            status.last_reload.as_ref().is_some_and(|reload| !reload.ok)
        })?;
        shown.push(("check", node::command(&lab.node, lab.directory(), &["check", "--config", &file])?.text));
        shown.push(("status --json after a refused reload", node.status_json()?));
        node.reload(&toml)?;
        node.await_status("the good one is accepted", |status| {
            status.last_reload.as_ref().is_some_and(|reload| reload.ok)
        })?;
    }
    shown.push(("status", node.ask(&["status"])?));
    shown.push(("status --json", node.status_json()?));
    if let Some(address) = running.config.metrics {
        shown.push(("metrics", http::get(&lab.node, address, "/metrics")?.1));
    }
    shown.push(("the log", node.log()));
    for (what, text) in &shown {
        ensure!(!text.is_empty(), "{what} shows nothing at all");
        let text = text.to_lowercase();
        for secret in [Who::Alice.passphrase(), Who::Bob.passphrase(), KEY] {
            // Half of a secret is too much.
            ensure!(!text.contains(&secret[..secret.len() / 2]), "{what} shows a secret:\n{text}");
        }
    }
    Ok(())
}
