//! What a user sees of a configuration.

use std::path::Path;

use super::{Config, Error, parse};

mod bridge;
mod good;
mod group;
mod local;
mod nat;
mod open;
mod scale;
mod secrets;
mod snooping;
mod wrong;

/// The smallest configuration with two clients. Tests name its lines.
const BASE: &str = r#"[node]
name = "vie1"
sender_ids = "1-64"

[[interface]]
name = "eth0"

[[service]]
name = "anycast"
address = "192.0.2.53"
port = 4444

[[network]]
name = "office"

[[client]]
name = "alice"
mux = 1
prefixes = ["10.9.0.11/32"]
passphrase = "correct horse battery"

[[client]]
name = "bob"
mux = 2
prefixes = ["10.9.0.12/32"]
passphrase = "staple correct horse"
"#;

/// [`BASE`] with the first occurrence of one text replaced.
fn base_with(from: &str, to: &str) -> String {
    assert!(BASE.contains(from), "{from:?} is not in the base");
    BASE.replacen(from, to, 1)
}

/// The outcome, which must be the same whether the text is parsed in pieces or, for its last line, as a whole.
fn parsed(text: &str) -> Result<Config, Error> {
    let file = Path::new("node.toml");
    let outcome = parse(text, file);
    let whole = parse(&format!("{text}\n# ''' keeps it in one piece"), file);
    match (&outcome, &whole) {
        (Ok(config), Ok(whole)) => assert_eq!((&config.clients, &config.warnings), (&whole.clients, &whole.warnings)),
        (outcome, whole) => assert_eq!(outcome.as_ref().err(), whole.as_ref().err()),
    }
    outcome
}

/// The printed problems of a text that must not be taken.
fn refused(text: &str) -> String {
    match parsed(text) {
        Ok(_) => panic!("taken:\n{text}"),
        Err(error) => error.to_string(),
    }
}
