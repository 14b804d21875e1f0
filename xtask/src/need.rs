//! What building, running and testing need of a machine, and how each is recognised.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::toolchain::program;

/// A tool or library that the distribution provides.
pub(crate) struct Need {
    /// Its usual name.
    pub(crate) name: &'static str,
    /// What it is needed for.
    pub(crate) purpose: &'static str,
    /// The package of Debian and its derivatives.
    pub(crate) package: &'static str,
    sign: Sign,
}

/// How a need shows that it is met.
enum Sign {
    /// A program of the need's name.
    Program,
    /// A header under `/usr/include`.
    Header(&'static str),
    /// A `clang` that compiles the BPF programs of libxdp.
    Clang,
    /// The shared library of clang.
    Libclang,
    /// A directory under `/usr/share/fonts`.
    Font(&'static str),
}

/// The first clang whose warnings stop the build of libxdp-sys 0.2.
const CLANG_TOO_NEW: u32 = 22;

const BUILD: &str = "to build libxdp and libbpf";
const LAB: &str = "for the demonstration and the end-to-end tests";
const PEER: &str = "for the benchmark to compare with";
const PROFILE: &str = "for the benchmark's profile of the node";
const CHARTS: &str = "for the benchmark's charts";

/// Everything that the distribution provides, apart from what builds the XDP program.
pub(crate) const NEEDS: [Need; 18] = [
    Need { name: "clang before 22", purpose: BUILD, package: "clang", sign: Sign::Clang },
    Need { name: "libclang", purpose: BUILD, package: "libclang-dev", sign: Sign::Libclang },
    Need { name: "libelf", purpose: BUILD, package: "libelf-dev", sign: Sign::Header("libelf.h") },
    Need { name: "zlib", purpose: BUILD, package: "zlib1g-dev", sign: Sign::Header("zlib.h") },
    Need { name: "make", purpose: BUILD, package: "make", sign: Sign::Program },
    Need { name: "m4", purpose: BUILD, package: "m4", sign: Sign::Program },
    Need { name: "objcopy", purpose: BUILD, package: "binutils", sign: Sign::Program },
    Need { name: "pkg-config", purpose: BUILD, package: "pkg-config", sign: Sign::Program },
    Need { name: "ip", purpose: LAB, package: "iproute2", sign: Sign::Program },
    Need { name: "ethtool", purpose: LAB, package: "ethtool", sign: Sign::Program },
    Need { name: "ping", purpose: LAB, package: "iputils-ping", sign: Sign::Program },
    Need { name: "tcpdump", purpose: LAB, package: "tcpdump", sign: Sign::Program },
    Need { name: "strace", purpose: LAB, package: "strace", sign: Sign::Program },
    Need { name: "sysctl", purpose: LAB, package: "procps", sign: Sign::Program },
    Need { name: "traceroute", purpose: LAB, package: "traceroute", sign: Sign::Program },
    Need { name: "anytun", purpose: LAB, package: "anytun", sign: Sign::Program },
    Need { name: "uanytun", purpose: LAB, package: "uanytun", sign: Sign::Program },
    Need {
        name: "ifconfig",
        purpose: "for the daemon anytun, which calls it",
        package: "net-tools",
        sign: Sign::Program,
    },
];

/// What the benchmark does without where it is not to be had.
pub(crate) const BENCHMARK_NEEDS: [Need; 7] = [
    Need { name: "nft", purpose: PEER, package: "nftables", sign: Sign::Program },
    Need { name: "nginx", purpose: PEER, package: "libnginx-mod-stream", sign: Sign::Program },
    Need { name: "socat", purpose: PEER, package: "socat", sign: Sign::Program },
    Need { name: "turnserver", purpose: PEER, package: "coturn", sign: Sign::Program },
    Need { name: "perf", purpose: PROFILE, package: "linux-perf", sign: Sign::Program },
    Need { name: "rsvg-convert", purpose: CHARTS, package: "librsvg2-bin", sign: Sign::Program },
    Need { name: "DejaVu fonts", purpose: CHARTS, package: "fonts-dejavu-core", sign: Sign::Font("truetype/dejavu") },
];

impl Need {
    /// Whether the machine has it.
    pub(crate) fn is_met(&self) -> bool {
        match self.sign {
            Sign::Program => program(self.name).is_some(),
            Sign::Header(header) => Path::new("/usr/include").join(header).is_file(),
            Sign::Clang => clang_version().is_some_and(|version| version < CLANG_TOO_NEW),
            Sign::Libclang => has_libclang(),
            Sign::Font(directory) => Path::new("/usr/share/fonts").join(directory).is_dir(),
        }
    }
}

/// The major version of the clang that libxdp-sys calls.
fn clang_version() -> Option<u32> {
    let clang = env::var_os("CLANG").map(PathBuf::from).or_else(|| program("clang"))?;
    let output = Command::new(clang).arg("--version").output().ok()?;
    // "Debian clang version 14.0.6"
    let text = String::from_utf8_lossy(&output.stdout);
    let (_, version) = text.split_once("clang version ")?;
    version.split('.').next()?.parse().ok()
}

/// Whether one of the places where bindgen looks holds a libclang. Of several it takes the latest, and any will do.
fn has_libclang() -> bool {
    let mut directories: Vec<PathBuf> = env::var_os("LIBCLANG_PATH").map(PathBuf::from).into_iter().collect();
    for place in ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(Path::new) {
        directories.push(place.to_path_buf());
        let entries = fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
        directories.extend(entries.flat_map(|path| [path.join("lib"), path]));
    }
    directories.iter().any(|directory| {
        fs::read_dir(directory).into_iter().flatten().flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libclang.so")
                || (name.starts_with("libclang-") && !name.starts_with("libclang-cpp") && name.contains(".so"))
        })
    })
}
