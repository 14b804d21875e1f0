//! What the driver of an interface says about itself: `SIOCETHTOOL` and its neighbours (netdevice(7), linux/ethtool.h).
//! Requests go through a socket, so they reach the interfaces of the caller's own network namespace even where `/sys`
//! shows another one.

use std::ffi::{c_char, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETH_SS_FEATURES: u32 = 4;
/// Octets of one name of a string set (`ETH_GSTRING_LEN`).
const NAME: usize = 32;
/// More features than any kernel has; bounds the buffers below.
const MAX_FEATURES: usize = 1024;

/// Receive and transmit channels (`struct ethtool_channels`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Channels {
    pub(super) rx: u32,
    pub(super) combined: u32,
}

/// A socket to ask through, and the interface to ask about.
pub(super) struct Ethtool {
    socket: OwnedFd,
    name: [c_char; libc::IFNAMSIZ],
}

impl Ethtool {
    /// For the interface `name` in the network namespace of the calling thread.
    pub(super) fn new(name: &str) -> io::Result<Self> {
        if name.len() >= libc::IFNAMSIZ || name.contains('\0') {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        let mut field = [0; libc::IFNAMSIZ];
        for (to, from) in field.iter_mut().zip(name.bytes()) {
            *to = from as c_char;
        }
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        Ok(Self { socket, name: field })
    }

    /// `IFF_*` flags: whether it is up, and whether it has a carrier.
    pub(super) fn flags(&self) -> io::Result<i32> {
        let answer = self.request(libc::SIOCGIFFLAGS)?;
        // SAFETY: SIOCGIFFLAGS succeeded, so the kernel wrote this member of the union.
        Ok(i32::from(unsafe { answer.ifr_ifru.ifru_flags }))
    }

    /// MTU in octets.
    pub(super) fn mtu(&self) -> io::Result<u32> {
        let answer = self.request(libc::SIOCGIFMTU)?;
        // SAFETY: SIOCGIFMTU succeeded, so the kernel wrote this member of the union.
        Ok(u32::try_from(unsafe { answer.ifr_ifru.ifru_mtu }).unwrap_or(0))
    }

    /// Ethernet address; nothing when the interface is not an Ethernet one.
    pub(super) fn mac(&self) -> io::Result<Option<[u8; 6]>> {
        let answer = self.request(libc::SIOCGIFHWADDR)?;
        // SAFETY: SIOCGIFHWADDR succeeded, so the kernel wrote this member of the union.
        let address = unsafe { answer.ifr_ifru.ifru_hwaddr };
        if address.sa_family != libc::ARPHRD_ETHER {
            return Ok(None);
        }
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(address.sa_data) {
            *to = from as u8;
        }
        Ok(Some(mac))
    }

    /// The driver's name.
    pub(super) fn driver(&self) -> io::Result<String> {
        // struct ethtool_drvinfo: cmd, driver[32], version[32], fw_version[32], bus_info[32], erom_version[32],
        // reserved2[12], five counts.
        let mut words = [0u32; 1 + 5 * 8 + 3 + 5];
        words[0] = ETHTOOL_GDRVINFO;
        // SAFETY: the buffer has the size of struct ethtool_drvinfo, which is all the kernel writes for this command.
        unsafe { self.ethtool(&mut words) }?;
        Ok(text(&words[1..1 + NAME / 4]))
    }

    /// The channels in use.
    pub(super) fn channels(&self) -> io::Result<Channels> {
        // struct ethtool_channels: cmd, four maxima, then rx, tx, other, combined.
        let mut words = [0u32; 9];
        words[0] = ETHTOOL_GCHANNELS;
        // SAFETY: the buffer has the size of struct ethtool_channels, which is all the kernel writes for this command.
        unsafe { self.ethtool(&mut words) }?;
        Ok(Channels { rx: words[5], combined: words[8] })
    }

    /// The offloads that are on, by the names of `ethtool -k` (the kernel's, such as `rx-gro`).
    pub(super) fn active_features(&self) -> io::Result<Vec<String>> {
        // struct ethtool_sset_info: cmd, reserved, a 64-bit mask, then one count for each bit of the mask.
        let mut info = [ETHTOOL_GSSET_INFO, 0, 0, 0, 0];
        let mask = (1u64 << ETH_SS_FEATURES).to_ne_bytes();
        info[2] = u32::from_ne_bytes([mask[0], mask[1], mask[2], mask[3]]);
        info[3] = u32::from_ne_bytes([mask[4], mask[5], mask[6], mask[7]]);
        // SAFETY: the mask has one bit, so the kernel writes the 16 octets of the struct and one count.
        unsafe { self.ethtool(&mut info) }?;
        let count = (info[4] as usize).min(MAX_FEATURES);

        // struct ethtool_gstrings: cmd, string_set, len, then 32 octets for each string.
        let mut names = vec![0u32; 3 + MAX_FEATURES * NAME / 4];
        names[0] = ETHTOOL_GSTRINGS;
        names[1] = ETH_SS_FEATURES;
        // SAFETY: the kernel writes the 12 octets of the struct and a name for each feature it has: the count above,
        // which does not change while the kernel runs, and for which the buffer has room.
        unsafe { self.ethtool(&mut names) }?;

        // struct ethtool_gfeatures: cmd, size, then for each block of 32: available, requested, active, never_changed.
        let blocks = count.div_ceil(32);
        let mut features = vec![0u32; 2 + blocks * 4];
        features[0] = ETHTOOL_GFEATURES;
        features[1] = blocks as u32;
        // SAFETY: `size` says how many blocks the buffer has room for, and the kernel writes no more than that.
        unsafe { self.ethtool(&mut features) }?;
        let active = |index: usize| features[2 + index / 32 * 4 + 2] >> (index % 32) & 1 == 1;
        let name = |index: usize| text(&names[3 + index * NAME / 4..][..NAME / 4]);
        Ok((0..count).filter(|index| active(*index)).map(name).collect())
    }

    /// An empty request about the interface.
    fn ifreq(&self) -> libc::ifreq {
        libc::ifreq { ifr_name: self.name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_ifindex: 0 } }
    }

    /// One of the requests whose answer lies in the `ifreq` itself.
    fn request(&self, request: c_ulong) -> io::Result<libc::ifreq> {
        let mut ifreq = self.ifreq();
        // SAFETY: the SIOCGIF* requests read and write one struct ifreq, which `ifreq` is; the socket is open.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), request, &raw mut ifreq) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(ifreq) }
    }

    /// One ethtool command: the struct of the command, laid out in `words`.
    ///
    /// # Safety
    ///
    /// `words` must be at least as long as what the kernel writes for the command in its first word.
    unsafe fn ethtool(&self, words: &mut [u32]) -> io::Result<()> {
        let mut ifreq = self.ifreq();
        ifreq.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
        // SAFETY: SIOCETHTOOL reads a struct ifreq whose data points to the command; `words` is exclusively borrowed,
        // aligned for every struct used here, and long enough by this function's contract.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut ifreq) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// A zero-padded string of a struct.
fn text(words: &[u32]) -> String {
    let octets: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).take_while(|octet| *octet != 0).collect();
    String::from_utf8_lossy(&octets).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_says_what_it_is() {
        let lo = Ethtool::new("lo").unwrap();
        assert_eq!(lo.mac().unwrap(), None, "loopback is no Ethernet interface");
        assert_eq!(lo.mtu().unwrap(), 65536);
        let features = lo.active_features().unwrap();
        assert!(features.iter().any(|name| name == "loopback"), "{features:?}");
    }

    #[test]
    fn an_unknown_interface_is_an_error() {
        let error = Ethtool::new("axk-none").unwrap().flags().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(Ethtool::new("a-name-that-is-much-too-long").is_err());
    }
}
