//! The binary: command line to one function each.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::main()
}
