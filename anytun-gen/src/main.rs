//! The binary: command line to one function each.

use std::process::ExitCode;

mod args;
mod cli;
mod progress;

fn main() -> ExitCode {
    cli::main()
}
