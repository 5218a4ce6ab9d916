//! Debian's kernels: fetched from its packages once, and kept outside of the repository.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context as _, Result, bail};

use crate::{command, packages};

/// Names of the packages begin with it; then comes the release.
const PREFIX: &str = "linux-image-";

/// The build for virtual machines: small, and with all that concerns us as in the others.
const FLAVOUR: &str = "-cloud-amd64";

/// A kernel that was fetched.
pub struct Kernel {
    /// What `uname -r` says.
    pub release: String,
    /// Its package, unpacked.
    folder: PathBuf,
}

impl Kernel {
    /// The newest of a series, or of a release, that was fetched before; fetched now where none was, or where
    /// the newest of all is asked for.
    ///
    /// # Errors
    ///
    /// When Debian has no such kernel, or it cannot be fetched.
    pub fn find(wanted: &str, newest: bool) -> Result<Self> {
        let cache = cache()?;
        let entries = fs::read_dir(&cache).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let kept = newest_of(names, wanted);
        if let Some(release) = kept.filter(|_| !newest) {
            return Ok(Self { folder: cache.join(&release), release });
        }
        let mut release = newest_of(offered()?, wanted);
        if release.is_none() {
            packages::update()?;
            release = newest_of(offered()?, wanted);
        }
        let release = release.with_context(|| {
            let series = offered().map(|releases| releases.join(", ")).unwrap_or_default();
            format!("apt knows no kernel {wanted} of Debian; it has {series}")
        })?;
        let kernel = Self { folder: cache.join(&release), release };
        if !kernel.folder.exists() {
            kernel.fetch(&cache)?;
        }
        Ok(kernel)
    }

    /// The kernel itself.
    pub fn image(&self) -> PathBuf {
        self.folder.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// Files with these modules, uncompressed: each after those it depends on.
    ///
    /// # Errors
    ///
    /// When it has no such module, not built in either.
    pub fn modules(&self, wanted: &[&str]) -> Result<Vec<Module>> {
        let (_, folder) = modules_folder(&self.folder, &self.release)?;
        let read = |name| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let dependencies = read("modules.dep")?;
        let dependencies: BTreeMap<&str, &str> =
            dependencies.lines().filter_map(|line| line.split_once(':')).collect();
        let built_in = read("modules.builtin")?;
        let mut paths = Vec::new();
        for &name in wanted {
            if let Some(path) = dependencies.keys().find(|path| module_name(path) == name) {
                visit(path, &dependencies, &mut paths);
            } else if !built_in.lines().any(|path| module_name(path) == name) {
                bail!("Linux {} has no module {name}", self.release);
            }
        }
        paths.into_iter().map(|path| Module::read(&folder.join(path))).collect()
    }

    /// Fetches it into the cache: whole, or not at all.
    fn fetch(&self, cache: &Path) -> Result<()> {
        let package = format!("{PREFIX}{}", self.release);
        eprintln!("missing: {package}: a kernel that the tests run on; it is kept in {}", cache.display());
        let new = cache.join(format!("new-{}", process::id()));
        fs::create_dir_all(&new).with_context(|| format!("cannot make {}", new.display()))?;
        let fetched = self.fetch_into(&new, &package);
        if fetched.is_ok() {
            fs::rename(&new, &self.folder).with_context(|| format!("cannot keep {package}"))?;
        } else {
            // The error that counts is the one before.
            let _ = fs::remove_dir_all(&new);
        }
        fetched
    }

    fn fetch_into(&self, new: &Path, package: &str) -> Result<()> {
        let mut download = Command::new("apt-get");
        // apt's own user could not write here.
        download.current_dir(new).args(["--quiet", "--option=APT::Sandbox::User=root", "download", package]);
        if command::run(&mut download).is_err() {
            // The lists may name what the mirror no longer has.
            packages::update()?;
            command::run(&mut download)?;
        }
        let file = fs::read_dir(new)?.next().context("apt-get download left no file")??.path();
        command::run(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(new))?;
        fs::remove_file(&file)?;
        let (base, _) = modules_folder(new, &self.release)?;
        // Debian's packages leave it to the installation to find out what depends on what.
        command::run(Command::new("busybox").args(["depmod", "-b"]).arg(base).arg(&self.release))
    }
}

/// A module of a kernel.
pub struct Module {
    /// As in `lsmod`.
    pub name: String,
    /// What the kernel loads.
    pub content: Vec<u8>,
}

impl Module {
    fn read(path: &Path) -> Result<Self> {
        let name = module_name(&path.to_string_lossy()).to_owned();
        let compressed = path.extension().is_some_and(|extension| extension == "xz");
        let content = if compressed {
            let output = Command::new("busybox").arg("xzcat").arg(path).output();
            let output = output.context("cannot start busybox")?;
            if !output.status.success() {
                bail!("busybox cannot unpack {}", path.display());
            }
            output.stdout
        } else {
            fs::read(path).with_context(|| format!("cannot read {}", path.display()))?
        };
        Ok(Self { name, content })
    }
}

/// Adds a module after those it depends on.
fn visit<'a>(path: &'a str, dependencies: &BTreeMap<&'a str, &'a str>, paths: &mut Vec<&'a str>) {
    if paths.contains(&path) {
        return;
    }
    for needed in dependencies.get(path).copied().unwrap_or_default().split_whitespace() {
        visit(needed, dependencies, paths);
    }
    paths.push(path);
}

/// The name of the module in this file.
fn module_name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file)
}

/// Where the modules are below an unpacked package, and what they are in relation to there: newer packages
/// have them below `/usr`.
fn modules_folder(unpacked: &Path, release: &str) -> Result<(PathBuf, PathBuf)> {
    let bases = [unpacked.to_owned(), unpacked.join("usr")];
    let mut places = bases.into_iter().map(|base| (base.clone(), base.join("lib/modules").join(release)));
    places
        .find(|(_, folder)| folder.is_dir())
        .with_context(|| format!("Linux {release} came without modules"))
}

/// Where kernels are kept.
fn cache() -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let base = base.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    Ok(base.context("there is no home to keep kernels in")?.join("limiter/kernels"))
}

/// The kernels that apt could fetch.
fn offered() -> Result<Vec<String>> {
    let names = command::output(Command::new("apt-cache").args(["pkgnames", PREFIX]))?;
    Ok(names
        .lines()
        .filter_map(|name| name.strip_prefix(PREFIX))
        .filter(is_release)
        .map(str::to_owned)
        .collect())
}

/// Whether this is one release of the flavour: not a package that stands for the newest of a series.
fn is_release(name: &&str) -> bool {
    name.strip_suffix(FLAVOUR).is_some_and(|version| numbers(version).len() > 2)
}

/// The newest release that is `wanted`, or begins with it.
fn newest_of(releases: impl IntoIterator<Item = String>, wanted: &str) -> Option<String> {
    let wanted = |release: &String| {
        let rest = release.strip_prefix(wanted);
        is_release(&release.as_str())
            && rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
    };
    releases.into_iter().filter(wanted).max_by_key(|release| numbers(release))
}

/// The numbers in a release, in whose order releases come.
fn numbers(release: &str) -> Vec<u64> {
    let version = release.strip_suffix(FLAVOUR).unwrap_or(release);
    version.split(|other: char| !other.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series_is_found_by_its_numbers() {
        let names = [
            "6.1.0-9-cloud-amd64",
            "6.1.0-56-cloud-amd64",
            "6.12-cloud-amd64",
            "6.12.9+bpo-cloud-amd64",
            "6.12.117+deb12-cloud-amd64",
            "6.12.117+deb12-cloud-amd64-unsigned",
            "6.12.200+deb12-amd64",
        ];
        let newest = |wanted| newest_of(names.map(str::to_owned), wanted);
        assert_eq!(newest("6.1").as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(newest("6.12").as_deref(), Some("6.12.117+deb12-cloud-amd64"));
        assert_eq!(newest("6.12.9").as_deref(), Some("6.12.9+bpo-cloud-amd64"));
        assert_eq!(newest("6.1.0-9").as_deref(), Some("6.1.0-9-cloud-amd64"));
        assert_eq!(newest("5"), None);
    }

    #[test]
    fn a_module_comes_after_those_it_depends_on() {
        let dependencies =
            BTreeMap::from([("a/x.ko.xz", " b/y.ko.xz b/z.ko.xz"), ("b/y.ko.xz", " b/z.ko.xz")]);
        let mut paths = Vec::new();
        visit("a/x.ko.xz", &dependencies, &mut paths);
        assert_eq!(paths, ["b/z.ko.xz", "b/y.ko.xz", "a/x.ko.xz"]);
        assert_eq!(module_name(paths[2]), "x");
    }
}
