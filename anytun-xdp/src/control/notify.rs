//! Messages to the service manager: sd_notify(3), sd_watchdog_enabled(3).
//!
//! Without `NOTIFY_SOCKET` in the environment every function does nothing. A message that cannot be delivered is logged
//! and otherwise ignored: the node does not depend on who started it.

use std::time::Duration;

use sd_notify::NotifyState;

/// The node is ready: after the start, and after each reload.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// The configuration is being read again; [`ready`] has to follow, also when it is refused.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        // One message: systemd takes the time as that of the reload it belongs to (Type=notify-reload).
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!("no monotonic clock for the service manager: {error}"),
    }
}

/// The node drains and will have stopped within `time`; the service manager is to wait that long.
pub fn stopping(status: &str, time: Duration) {
    let microseconds = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    send(&[
        NotifyState::Stopping,
        NotifyState::Status(&one_line(status)),
        NotifyState::ExtendTimeoutUsec(microseconds),
    ]);
}

/// The node is alive; to be sent only while every worker makes progress.
pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

/// How often to call [`watchdog`]: half of `WATCHDOG_USEC`, as sd_watchdog_enabled(3) recommends. None when the service
/// manager does not watch this process.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|timeout| timeout / 2)
}

/// Octets of a status. A datagram that is too large for the socket would be refused whole, READY=1 included.
const LONGEST: usize = 1024;

/// A status: a line break would start a new assignment in the message.
fn one_line(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST)].replace(['\n', '\r'], " ")
}

fn send(message: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(message) {
        tracing::warn!("the service manager was not told: cannot write to NOTIFY_SOCKET: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;
    use std::time::Duration;

    /// The environment is the process's, so the messages are sent by this same test in a process of its own.
    #[test]
    fn messages_arrive_as_the_service_manager_expects_them() {
        if std::env::var_os("NOTIFY_SOCKET").is_some() {
            super::ready("2 clients\nREADY=0");
            super::reloading();
            super::watchdog();
            super::stopping(&"ü".repeat(1000), Duration::from_secs(7));
            assert_eq!(super::watchdog_interval(), Some(Duration::from_secs(3)));
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "control::notify::tests::messages_arrive_as_the_service_manager_expects_them"])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "6000000")
            .env_remove("WATCHDOG_PID")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let receive = || {
            let mut buffer = [0; 2048];
            let length = manager.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        assert_eq!(receive(), "READY=1\nSTATUS=2 clients READY=0\n");
        let reloading = receive();
        let microseconds = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().trim_end();
        assert!(microseconds.parse::<u64>().unwrap() > 0);
        assert_eq!(receive(), "WATCHDOG=1\n");
        let status = "ü".repeat(512);
        assert_eq!(receive(), format!("STOPPING=1\nSTATUS={status}\nEXTEND_TIMEOUT_USEC=7000000\n"));
    }
}
