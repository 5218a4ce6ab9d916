// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Modules of a kernel that was fetched: which files, in which order, and what is in them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// A module of a kernel.
pub struct Module {
    /// As in `lsmod`.
    pub name: String,
    /// What the kernel loads.
    pub content: Vec<u8>,
}

/// Files with these modules, uncompressed: each after those it depends on. `unpacked` is where the kernel's
/// packages were unpacked.
///
/// # Errors
///
/// When it has no such module, not built in either.
pub fn read(unpacked: &Path, release: &str, wanted: &[&str]) -> Result<Vec<Module>> {
    let (_, folder) = folder(unpacked, release)?;
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
            bail!("Linux {release} has no module {name}");
        }
    }
    paths.into_iter().map(|path| Module::read(&folder.join(path))).collect()
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
///
/// # Errors
///
/// When they are in neither place.
pub fn folder(unpacked: &Path, release: &str) -> Result<(PathBuf, PathBuf)> {
    let bases = [unpacked.to_owned(), unpacked.join("usr")];
    let mut paths = bases.into_iter().map(|base| (base.clone(), base.join("lib/modules").join(release)));
    paths.find(|(_, folder)| folder.is_dir()).with_context(|| format!("Linux {release} came without modules"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
