//! What the virtual machine boots into: the guest as its first process, the node, the generator, what they need, and kernel modules.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use super::fetch::Kernel;
use crate::toolchain::program;

/// Programs of the host that the guest runs.
const TOOLS: [&str; 4] = ["ethtool", "ip", "setpriv", "ss"];
/// The drivers of the network interfaces, and what tells of AF_XDP sockets.
const MODULES: [&str; 3] = ["virtio_net", "igb", "xsk_diag"];
/// Where the guest looks for modules; it loads them in the order of their names.
const MODULE_DIR: &str = "/modules";

/// Packs it all: `own` programs, each with the place where it is to be, and what is needed besides.
///
/// # Errors
/// When a program or a module is missing or cannot be read.
pub(crate) fn pack(own: &[(&str, &Path)], kernel: &Kernel, work: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["/dev", "/proc", "/run", "/sys", "/tmp"] {
        archive.directory(Path::new(directory))?;
    }
    let mut libraries = BTreeSet::new();
    let own = own.iter().map(|(at, path)| (PathBuf::from(at), path.to_path_buf()));
    let tools = TOOLS.into_iter().map(|tool| {
        let path = program(tool).with_context(|| format!("this host has no {tool}"))?;
        Ok((Path::new("/bin").join(tool), path))
    });
    for (at, path) in own.chain(tools.collect::<Result<Vec<_>>>()?) {
        libraries.extend(libraries_of(&path)?);
        archive.file(&at, &without_symbols(&path, work)?)?;
    }
    for library in libraries {
        archive.file(&library, &fs::read(&library).with_context(|| library.display().to_string())?)?;
    }
    for (number, (name, octets)) in modules(kernel)?.into_iter().enumerate() {
        archive.file(&Path::new(MODULE_DIR).join(format!("{number:02}-{name}.ko")), &octets)?;
    }
    archive.finish()
}

/// A program without what only debuggers read, which would fill the memory of the virtual machine.
fn without_symbols(path: &Path, work: &Path) -> Result<Vec<u8>> {
    let stripped = work.join("stripped");
    output(Command::new("objcopy").arg("--strip-debug").arg(path).arg(&stripped))?;
    let octets = fs::read(&stripped).with_context(|| stripped.display().to_string())?;
    fs::remove_file(&stripped).with_context(|| stripped.display().to_string())?;
    Ok(octets)
}

/// The shared libraries of a program, and the loader, by absolute path.
fn libraries_of(path: &Path) -> Result<Vec<PathBuf>> {
    let text = output(Command::new("ldd").arg(path))?;
    parse_ldd(&String::from_utf8_lossy(&text)).with_context(|| format!("{} lacks a library", path.display()))
}

/// What `ldd` lists: `libelf.so.1 => /lib/libelf.so.1 (0x0)`, `/lib64/ld-linux-x86-64.so.2 (0x0)`, and what the kernel
/// provides itself, which has no path.
fn parse_ldd(text: &str) -> Result<Vec<PathBuf>> {
    if let Some(line) = text.lines().find(|line| line.contains("not found")) {
        bail!("{}", line.trim());
    }
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(PathBuf::from).collect())
}

/// The modules and those they depend on, which come first.
fn modules(kernel: &Kernel) -> Result<Vec<(String, Vec<u8>)>> {
    let mut index = HashMap::new();
    index_modules(&kernel.modules, &mut index)?;
    let mut ordered = Vec::new();
    for name in MODULES {
        if !index.contains_key(name) {
            bail!("the kernel {} has no module {name}", kernel.release);
        }
        add_module(name, &index, &mut ordered)?;
    }
    Ok(ordered)
}

/// Finds all modules below a directory, by name.
fn index_modules(directory: &Path, index: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            index_modules(&path, index)?;
        } else if let Some((stem, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            index.insert(module_name(stem), path);
        }
    }
    Ok(())
}

/// The name under which others depend on a module: files may have dashes.
fn module_name(stem: &str) -> String {
    stem.replace('-', "_")
}

/// Adds a module behind those it depends on, unless it is there. What no file is found for is part of the kernel.
fn add_module(name: &str, index: &HashMap<String, PathBuf>, ordered: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let Some(path) = index.get(name) else { return Ok(()) };
    if ordered.iter().any(|(other, _)| other == name) {
        return Ok(());
    }
    let octets = decompressed(path)?;
    for needed in dependencies(&octets) {
        add_module(&needed, index, ordered)?;
    }
    ordered.push((name.to_owned(), octets));
    Ok(())
}

fn decompressed(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(OsStr::to_str) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| path.display().to_string()),
    };
    output(Command::new(tool).args(["--decompress", "--stdout"]).arg(path))
}

/// The names of what a module depends on, from the information that its file carries.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module[start + KEY.len()..].split(|&octet| octet == 0).next().unwrap_or_default();
    let names = value.split(|&octet| octet == b',').filter(|name| !name.is_empty());
    names.map(|name| module_name(&String::from_utf8_lossy(name))).collect()
}

/// What a command prints.
fn output(command: &mut Command) -> Result<Vec<u8>> {
    let shown = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_path() {
        let text = "\tlinux-vdso.so.1 (0x00007f15)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f15)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f15)\n";
        let expected = ["/lib/x86_64-linux-gnu/libz.so.1", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse_ldd(text).unwrap(), expected);
        assert!(parse_ldd("\tlibz.so.1 => not found\n").is_err());
    }

    #[test]
    fn a_module_says_what_it_depends_on() {
        assert_eq!(dependencies(b"ELF\0license=GPL\0depends=dca,i2c-algo-bit\0name=igb\0"), ["dca", "i2c_algo_bit"]);
        assert_eq!(dependencies(b"ELF\0license=GPL\0depends=\0name=dca\0"), [""; 0]);
        assert_eq!(dependencies(b"ELF"), [""; 0]);
    }
}
