//! Waits for carriers: NICs lose theirs when they get an XDP program or a socket, and what is sent until it is back is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anytun_xdp::kernel::Link;

use crate::error::Error;
use crate::look::LOOK;

/// Waits until all of these have a carrier.
///
/// # Errors
/// [`Error::Unavailable`] when one has none for so long; [`Error::Running`] when `stop` is set.
pub(crate) fn wait(links: &[&Link], limit: Duration, stop: &AtomicBool) -> Result<(), Error> {
    let end = Instant::now() + limit;
    // All at once: two that are wired to each other lose it together, and not at the same moment.
    while let Some(link) = links.iter().find(|link| !link.has_carrier()) {
        let name = &link.name;
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Running(format!("stopped before {name} had a carrier")));
        }
        if Instant::now() >= end {
            return Err(Error::Unavailable(format!(
                "{name} has no carrier for {} s; look at the cable, at the port of the switch, or whether the other end is \
                 up",
                limit.as_secs()
            )));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No interface has this name, so it never gets a carrier.
    fn nowhere() -> Link {
        Link {
            name: "nowhere0".into(),
            ifindex: u32::MAX,
            mac: [0; 6],
            mtu: 1500,
            driver: String::new(),
            queues: 1,
            up: true,
            carrier: true,
        }
    }

    #[test]
    fn who_waits_in_vain_is_told_where_to_look() {
        let error = wait(&[&nowhere()], Duration::ZERO, &AtomicBool::new(false)).expect_err("no such interface");
        assert_eq!(error.code(), 3);
        assert!(error.to_string().starts_with("nowhere0 has no carrier for 0 s; look at the cable"), "{error}");
        let error = wait(&[&nowhere()], Duration::from_secs(3600), &AtomicBool::new(true)).expect_err("stopped");
        assert_eq!((error.code(), &*error.to_string()), (1, "stopped before nowhere0 had a carrier"));
    }
}
