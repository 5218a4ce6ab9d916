// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which file of the package comes from which file of the workspace, and how it is changed on the way.

/// A file of the workspace in the package.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// In the workspace.
    pub from: &'static str,
    /// In the package, without the slash in front.
    pub to: &'static str,
    /// What happens to it.
    pub how: How,
}

/// What happens to a file on its way into the package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Nothing.
    Same,
    /// It is compressed; `.gz` is put behind its name.
    Compressed,
    /// It is the configuration, which refuses nobody until somebody says so.
    Observing,
}

/// The files that are not made while the package is built, but for those of [`DOCUMENTS`].
pub const ITEMS: &[Item] = &[
    Item { from: "dist/limiter.toml", to: CONFIGURATION, how: How::Observing },
    same("dist/systemd/limiter.service", "usr/lib/systemd/system/limiter.service"),
    same("dist/systemd/limiter@.service", "usr/lib/systemd/system/limiter@.service"),
    same("dist/systemd/netns.conf", "usr/share/doc/limiter/examples/netns.conf"),
    same("dist/sysusers.d/limiter.conf", "usr/lib/sysusers.d/limiter.conf"),
    same("dist/debian/copyright", "usr/share/doc/limiter/copyright"),
    same("README.md", "usr/share/doc/limiter/README.md"),
    same("SECURITY.md", "usr/share/doc/limiter/SECURITY.md"),
    Item { from: "CHANGELOG.md", to: "usr/share/doc/limiter/changelog", how: How::Compressed },
];

/// Where the documents are, and where they go, with the folders in it.
pub const DOCUMENTS: (&str, &str) = ("docs", "usr/share/doc/limiter/docs");

/// The folders of [`DOCUMENTS`] that stay out: they are for who changes the limiter.
pub const NOT_FOR_USERS: &[&str] = &["decisions", "experiments.md", "evidence.md", "testing.md"];

/// The only file of the package that is the administrator's.
pub const CONFIGURATION: &str = "etc/limiter/limiter.toml";

/// What runs when the package comes and goes; in `dist/debian`.
pub const SCRIPTS: [&str; 3] = ["postinst", "postrm", "prerm"];

/// A file that stays as it is.
const fn same(from: &'static str, to: &'static str) -> Item {
    Item { from, to, how: How::Same }
}

/// The configuration that a first installation has: the sample, but it observes.
///
/// None if the sample does not say exactly once, for all services, that it enforces.
pub fn observing(sample: &str) -> Option<String> {
    const ENFORCES: &str = "\nmode = \"enforce\"\n";
    (sample.matches(ENFORCES).count() == 1).then(|| sample.replace(ENFORCES, "\nmode = \"observe\"\n"))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, process::Command};

    use super::*;
    use crate::paths;

    #[test]
    fn each_file_of_the_package_is_there_and_goes_where_no_other_goes() {
        let mut seen = BTreeSet::new();
        for item in ITEMS {
            assert!(paths::root().join(item.from).is_file(), "{} is missing", item.from);
            assert!(seen.insert(item.to), "{} is twice in the package", item.to);
            assert!(!item.to.starts_with('/') && !item.to.starts_with("usr/local"), "{}", item.to);
        }
    }

    #[test]
    fn the_packaged_configuration_is_the_sample_that_observes() {
        let sample = fs::read_to_string(paths::root().join("dist/limiter.toml")).unwrap();
        let packaged = observing(&sample).unwrap();
        let changed: Vec<_> = sample.lines().zip(packaged.lines()).filter(|(old, new)| old != new).collect();
        assert_eq!(changed, [("mode = \"enforce\"", "mode = \"observe\"")]);
        assert_eq!(observing("mode = \"enforced\"\n"), None);
    }

    #[test]
    fn the_scripts_of_the_package_are_shell() {
        for script in SCRIPTS {
            let path = paths::root().join("dist/debian").join(script);
            assert!(Command::new("sh").arg("-n").arg(&path).status().unwrap().success(), "{script}");
        }
    }

    /// The words of a script without its comments.
    fn words(script: &str) -> String {
        let text = fs::read_to_string(paths::root().join("dist/debian").join(script)).unwrap();
        text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn only_a_removal_lifts_limits() {
        let prerm = words("prerm");
        let (before, after) = prerm.split_once("if [ \"$1\" = remove ]; then").unwrap();
        assert!(!before.contains("unload") && after.contains("unload"), "{prerm}");
        for script in ["postinst", "postrm"] {
            assert!(!words(script).contains("unload"), "{script}");
        }
    }
}
