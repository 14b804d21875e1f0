//! The lab: network namespaces, links, the node, the real `anytun` and `uanytun`, traffic, forged packets and captures.
//! The demonstration, the benchmark and the end-to-end tests are made of it. All of it needs root.

pub mod capture;
pub mod config;
pub mod counters;
pub mod crypto;
pub mod daemon;
pub mod evidence;
pub mod forge;
pub mod http;
pub mod lab;
pub mod namespace;
pub mod node;
pub mod process;
pub mod server;
pub mod status;
pub mod stop;
pub mod traffic;
pub mod wait;
