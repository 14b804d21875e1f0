//! AES for a batch: the session values of its packets, their key schedules, and their keystreams.
//!
//! The blocks that one packet derives are independent, so they go through the unit together; the packets are independent
//! as well, so the CPU overlaps one with the next. A key schedule waits for itself ten times or more, so those of several
//! packets are computed side by side, one packet in each 32-bit lane.

#[cfg(target_arch = "x86_64")]
mod expand;
#[cfg(target_arch = "x86_64")]
mod ni;
#[cfg(target_arch = "x86_64")]
mod vaes;

use zeroize::Zeroize;

use super::PACKETS;
#[cfg(target_arch = "x86_64")]
use super::{AesNi, Vaes};
use crate::satp::{AesCtr, Header, MASTER_SALT, Role};

/// Octets of a block.
const BLOCK: usize = 16;
/// Round keys of the longest key.
const ROUND_KEYS: usize = 15;
/// Packets whose key schedules are made together at most.
const GROUP: usize = 16;

/// What computes AES.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::satp) enum Aes {
    /// The `aes` crate, packet by packet.
    Portable,
    /// The AES instructions.
    #[cfg(target_arch = "x86_64")]
    AesNi(AesNi),
    /// The AES instructions on four blocks at a time.
    #[cfg(target_arch = "x86_64")]
    Vaes(Vaes),
}

impl Aes {
    /// What this CPU has, the fastest first.
    pub(in crate::satp) fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let vector = [Vaes::detect().map(Aes::Vaes), AesNi::detect().map(Aes::AesNi)];
        #[cfg(not(target_arch = "x86_64"))]
        let vector = [];
        vector.into_iter().flatten().chain([Aes::Portable])
    }

    /// A name for people.
    pub(in crate::satp) fn name(self) -> &'static str {
        match self {
            Aes::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Aes::AesNi(_) => "aes-ni",
            #[cfg(target_arch = "x86_64")]
            Aes::Vaes(_) => "vaes",
        }
    }
}

/// What session values are derived with: the master salt and the expanded master key. Wiped when dropped. For a key of 128
/// bits that is three cache lines.
#[repr(C, align(64))]
pub(in crate::satp) struct Master {
    /// The salt and the block counter, which starts at 0.
    salt: [u8; BLOCK],
    round_keys: [[u8; BLOCK]; ROUND_KEYS],
}

impl Master {
    /// Expands a master key, which has the length for `kd_prf`. Without AES instructions there is nobody to use it, and
    /// nothing is expanded.
    pub(in crate::satp) fn new(kd_prf: AesCtr, key: &[u8], salt: &[u8; MASTER_SALT]) -> Self {
        let mut master = Self { round_keys: [[0; BLOCK]; ROUND_KEYS], salt: [0; BLOCK] };
        master.salt[..MASTER_SALT].copy_from_slice(salt);
        #[cfg(target_arch = "x86_64")]
        if let Some(aes) = AesNi::detect() {
            let mut blocks = [[0; BLOCK]; 2];
            blocks.as_flattened_mut()[..key.len()].copy_from_slice(key);
            master.round_keys = aes.expand(kd_prf, &blocks);
            blocks.zeroize();
        }
        master
    }

    /// The master salt.
    pub(in crate::satp) fn salt(&self) -> &[u8] {
        &self.salt[..MASTER_SALT]
    }

    /// Cache lines, from the first, that deriving with `kd_prf` reads.
    #[inline]
    pub(in crate::satp) const fn lines(kd_prf: AesCtr) -> usize {
        let round_keys = match kd_prf {
            AesCtr::Null => return 0,
            AesCtr::Aes128 => 11,
            AesCtr::Aes192 => 13,
            AesCtr::Aes256 => 15,
        };
        ((1 + round_keys) * BLOCK).div_ceil(super::LINE)
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.round_keys.zeroize();
        self.salt.zeroize();
    }
}

/// The session values of a batch. Wiped when dropped.
#[repr(align(64))]
pub(in crate::satp) struct Sessions {
    /// For each packet the first block of the encryption key, the initial counter block, and the authentication key.
    pub(in crate::satp) blocks: [[u8; 4 * BLOCK]; PACKETS],
    /// For each packet the rest of an encryption key that is longer than a block.
    pub(in crate::satp) longer: [[u8; BLOCK]; PACKETS],
}

impl Default for Sessions {
    fn default() -> Self {
        Self { blocks: [[0; 4 * BLOCK]; PACKETS], longer: [[0; BLOCK]; PACKETS] }
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.blocks.zeroize();
        self.longer.zeroize();
    }
}

/// Key schedules of a group of packets: by round, and within that by place. Wiped when dropped.
#[repr(align(64))]
pub(in crate::satp) struct Schedules([[u8; GROUP * BLOCK]; ROUND_KEYS]);

impl Default for Schedules {
    fn default() -> Self {
        Self([[0; GROUP * BLOCK]; ROUND_KEYS])
    }
}

impl Drop for Schedules {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What one packet's session values are derived from.
pub(in crate::satp) struct Origin<'a> {
    pub(in crate::satp) master: &'a Master,
    /// What the master key is for.
    pub(in crate::satp) kd_prf: AesCtr,
    pub(in crate::satp) sender: Role,
    pub(in crate::satp) header: &'a Header,
    /// Whether the cipher has a key longer than a block.
    pub(in crate::satp) longer: bool,
}

/// The session values of a packet before encryption under the master key, apart from what differs between packets: two
/// labels and block counters with the encryption key's second block behind the four that everybody needs.
struct Labels {
    blocks: [u8; 4 * BLOCK],
    longer: [u8; BLOCK],
}

impl Labels {
    const LEFT: Self = Self::of(Role::Left);
    const RIGHT: Self = Self::of(Role::Right);

    const fn of(sender: Role) -> Self {
        use crate::satp::keys::Purpose::{Authentication, Encryption, Salt};
        let purposes = [Encryption.label(sender), Salt.label(sender), Authentication.label(sender)];
        let mut labels = Self { blocks: [0; 4 * BLOCK], longer: [0; BLOCK] };
        let mut octet = 0;
        while octet < 4 {
            labels.blocks[6 + octet] = purposes[0][octet];
            labels.blocks[BLOCK + 6 + octet] = purposes[1][octet];
            labels.blocks[2 * BLOCK + 6 + octet] = purposes[2][octet];
            labels.blocks[3 * BLOCK + 6 + octet] = purposes[2][octet];
            labels.longer[6 + octet] = purposes[0][octet];
            octet += 1;
        }
        labels.blocks[4 * BLOCK - 1] = 1;
        labels.longer[BLOCK - 1] = 1;
        labels
    }

    fn by(sender: Role) -> &'static Self {
        match sender {
            Role::Left => &Self::LEFT,
            Role::Right => &Self::RIGHT,
        }
    }
}

/// AES on several blocks side by side.
pub(in crate::satp) trait Blocks: Copy {
    /// Derives the session values of packet `slot`. What a suite does not need is derived all the same when it costs
    /// nothing.
    fn derive(self, origin: &Origin<'_>, sessions: &mut Sessions, slot: usize);

    /// Encrypts or decrypts the bodies of the packets `slots`, whose cipher is the same.
    fn crypt(
        self,
        cipher: AesCtr,
        slots: &[u8],
        sessions: &Sessions,
        schedules: &mut Schedules,
        bodies: &mut [&mut [u8]; PACKETS],
    );
}

/// The two words of an octet string as they stand in a register.
#[cfg(target_arch = "x86_64")]
fn words(octets: &[u8; BLOCK]) -> (u64, u64) {
    let both = u128::from_le_bytes(*octets);
    (both as u64, (both >> 64) as u64)
}

/// What a header adds to a counter block: MUX, sender ID and sequence number, in words as [`words`] gives them.
#[cfg(target_arch = "x86_64")]
fn place(header: &Header) -> (u64, u64) {
    let ids = u64::from(header.mux.to_be()) << 32 | u64::from(header.sender.to_be()) << 48;
    (ids, u64::from(header.sequence.to_be()) << 16)
}
