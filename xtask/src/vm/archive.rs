//! Packages of any suite of the archive that this host installs from, fetched and unpacked beside the host: its lists,
//! suites and packages stay as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step::Step;

/// Where Debian keeps the keys that its releases are signed with. Without either, apt takes those it trusts anyway.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// The Debian archive as this host is set up to use it.
pub(crate) struct Mirror {
    uri: String,
    /// The codename of the host's release.
    pub(crate) release: String,
}

impl Mirror {
    /// What apt says about the release that it installs from; nothing without Debian, or before `apt-get update`.
    pub(crate) fn of_host() -> Option<Self> {
        let mut command = Command::new("apt-get");
        command.args(["indextargets", "--format", "$(REPO_URI) $(CODENAME)"]);
        command.args(["Created-By: Packages", "Origin: Debian", "Label: Debian", "Component: main"]);
        let output = command.output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let targets = text.lines().filter_map(|line| line.split_once(' '));
        // Not updates or backports, whose codenames have a dash.
        let (uri, release) = targets.into_iter().find(|(_, codename)| !codename.contains('-'))?;
        Some(Self { uri: uri.to_owned(), release: release.to_owned() })
    }
}

/// Some suites of a mirror, with package lists and a cache in a directory of their own.
pub(crate) struct Suites {
    directory: PathBuf,
    /// The suite that packages are taken from; the others provide what these depend on.
    preferred: String,
    name: &'static str,
}

impl Suites {
    /// Fetches the lists of `suites`, the last of which is preferred. `directory` is for this set alone; `name` is that
    /// of its logs.
    ///
    /// # Errors
    /// When the lists cannot be fetched, such as without a network or for a suite that the mirror does not have.
    pub(crate) fn fetch(mirror: &Mirror, suites: &[&str], directory: &Path, name: &'static str) -> Result<Self> {
        // Lists of an earlier try may name versions that are gone.
        remove(directory)?;
        for part in ["empty", "lists/partial", "cache/archives/partial"] {
            let part = directory.join(part);
            fs::create_dir_all(&part).with_context(|| part.display().to_string())?;
        }
        let keyring = KEYRINGS.into_iter().find(|keyring| Path::new(keyring).is_file());
        let signed = keyring.map(|keyring| format!("Signed-By: {keyring}\n")).unwrap_or_default();
        let sources =
            format!("Types: deb\nURIs: {}\nSuites: {}\nComponents: main\n{signed}", mirror.uri, suites.join(" "));
        fs::write(directory.join("host.sources"), sources).with_context(|| directory.display().to_string())?;
        let preferred = suites.last().context("no suite was named")?;
        let suites = Self { directory: directory.to_owned(), preferred: (*preferred).to_owned(), name };
        let what = format!("fetching the package lists of {} for {name}", suites.preferred);
        suites.step(&what, "4 s", "lists", suites.apt("apt-get").arg("update"))?;
        Ok(suites)
    }

    /// Fetches these packages and unpacks them into `root`, which is whole or absent.
    ///
    /// # Errors
    /// When one cannot be had.
    pub(crate) fn unpack(&self, packages: &[String], root: &Path) -> Result<()> {
        let archives = self.directory.join("cache/archives");
        let mut command = self.apt("apt-get");
        command.arg("download").args(packages).current_dir(&archives);
        self.step(&format!("fetching {}", packages.join(" ")), "5 to 60 s", "packages", &mut command)?;
        self.unpack_all(&archives, root)
    }

    /// Fetches a package with all that it needs and this host does not have, and unpacks them into `root`, which is
    /// whole or absent.
    ///
    /// # Errors
    /// When one cannot be had.
    pub(crate) fn unpack_with_dependencies(&self, package: &str, root: &Path) -> Result<()> {
        let mut command = self.apt("apt-get");
        command.args(["install", "--download-only", "--yes", "--no-install-recommends", "--no-remove", package]);
        self.step(&format!("fetching {package} and what it depends on"), "5 to 30 s", "packages", &mut command)?;
        self.unpack_all(&self.directory.join("cache/archives"), root)
    }

    /// The packages that `package` depends on and whose names begin with `prefix`.
    ///
    /// # Errors
    /// When apt cannot be asked.
    pub(crate) fn dependencies(&self, package: &str, prefix: &str) -> Result<Vec<String>> {
        let output = self.apt("apt-cache").args(["depends", package]).output().context("cannot run apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect())
    }

    /// Unpacks every package in `archives`, and removes the lists and the packages.
    fn unpack_all(&self, archives: &Path, root: &Path) -> Result<()> {
        let partial = root.with_extension("partial");
        remove(&partial)?;
        fs::create_dir_all(&partial).with_context(|| partial.display().to_string())?;
        let mut count = 0;
        for entry in fs::read_dir(archives).with_context(|| archives.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                let mut command = Command::new("dpkg-deb");
                command.arg("--extract").arg(&path).arg(&partial);
                let status = command.status().context("cannot run dpkg-deb")?;
                if !status.success() {
                    bail!("dpkg-deb could not unpack {}: {status}", path.display());
                }
                count += 1;
            }
        }
        if count == 0 {
            bail!("apt fetched no package");
        }
        remove(root)?;
        fs::rename(&partial, root).with_context(|| root.display().to_string())?;
        remove(&self.directory)
    }

    /// A command of apt that works on this directory alone.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let at = |part: &str| self.directory.join(part).display().to_string();
        for (setting, value) in [
            ("Dir::Etc::SourceList", at("host.sources")),
            ("Dir::Etc::SourceParts", at("empty")),
            ("Dir::Etc::Preferences", at("empty/none")),
            ("Dir::Etc::PreferencesParts", at("empty")),
            ("Dir::State::Lists", at("lists")),
            ("Dir::Cache", at("cache")),
            ("APT::Default-Release", self.preferred.clone()),
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled", "false".to_owned()),
            ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".to_owned()),
            ("Acquire::Retries", "2".to_owned()),
            // Otherwise lists that could not be fetched are a warning.
            ("APT::Update::Error-Mode", "any".to_owned()),
            // Nothing is installed, so nobody's database needs to be locked.
            ("Debug::NoLocking", "true".to_owned()),
            // The usual one may not write below this workspace.
            ("APT::Sandbox::User", "root".to_owned()),
        ] {
            command.arg("-o").arg(format!("{setting}={value}"));
        }
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    fn step(&self, what: &str, usual_time: &'static str, log: &str, command: &mut Command) -> Result<()> {
        let log = format!("vm-{}-{log}.log", self.name);
        Step { command_line: what.to_owned(), usual_time, log: &log }.run(command)
    }
}

/// Removes a directory if it is there.
fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(directory.display().to_string())
        }
        _ => Ok(()),
    }
}
