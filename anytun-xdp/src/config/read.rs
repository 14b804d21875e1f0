//! From TOML to the typed configuration.
