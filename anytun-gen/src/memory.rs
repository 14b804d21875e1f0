//! How much memory there is.

use std::fs;

/// The share of the available memory that prepared packets may take: the host needs some itself.
const SHARE: u64 = 4;

/// Octets that prepared packets may take: four fifths of what the kernel says is available. Where it does not say, all.
pub fn available() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kilobytes(&text).map_or(u64::MAX, |kilobytes| kilobytes * 1024 / (SHARE + 1) * SHARE)
}

fn kilobytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_available_memory_is_read() {
        let text = "MemTotal:       24000000 kB\nMemFree:          100 kB\nMemAvailable:   22999000 kB\n";
        assert_eq!(kilobytes(text), Some(22_999_000));
        assert_eq!(kilobytes(""), None);
    }
}
