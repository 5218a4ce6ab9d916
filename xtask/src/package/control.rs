// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a Debian package says about itself.

/// What is the same in all of its texts.
#[derive(Debug)]
pub struct Release {
    /// The workspace's version.
    pub version: String,
    /// When the commit was made, in seconds since 1970: the time of all files.
    pub epoch: u64,
    /// The same for the version, so that later commits are newer: `20261128051000`.
    pub stamp: String,
    /// The same as mail has it: `Sat, 28 Nov 2026 05:10:00 +0000`.
    pub date: String,
    /// Who made the commit or, if the environment says so, the package: `Name <address>`.
    pub maintainer: String,
}

impl Release {
    /// As dpkg compares it: before the release that the version names, and later commits after earlier ones.
    pub fn debian_version(&self) -> String {
        format!("{}~{}-1~upstream", self.version, self.stamp)
    }

    /// The changelog of the package. What changed in the limiter is in a changelog of its own.
    pub fn changelog(&self) -> String {
        format!(
            "limiter ({}) unstable; urgency=medium\n\n  * Package of the project itself. What is new in the limiter: \
             changelog.gz.\n\n -- {}  {}\n",
            self.debian_version(),
            self.maintainer,
            self.date,
        )
    }

    /// The control file.
    pub fn control(&self, architecture: &str, depends: &str, kibibytes: u64) -> String {
        format!(
            "Package: limiter\n\
             Version: {version}\n\
             Architecture: {architecture}\n\
             Maintainer: {maintainer}\n\
             Installed-Size: {kibibytes}\n\
             Depends: {depends}, init-system-helpers (>= 1.62~), \
             systemd | systemd-standalone-sysusers | systemd-sysusers\n\
             Recommends: systemd-sysv\n\
             Enhances: dovecot-core, exim4, opensmtpd, postfix\n\
             Section: mail\n\
             Priority: optional\n\
             Description: exact connection limits for mail services, in the kernel\n \
             Counts the connections that each source holds to each mail service (SMTP,\n \
             submission, IMAP, POP3, ManageSieve), refuses connections over the limit\n \
             before the mail daemon sees them, and tells the client the reason in its\n \
             own protocol, also inside TLS.\n \
             .\n \
             Limits are held by BPF programs, exactly, also while the daemon restarts.\n \
             After the first installation it observes: it counts what it would refuse,\n \
             and refuses nobody.\n",
            version = self.debian_version(),
            maintainer = self.maintainer,
        )
    }
}

/// The libraries that a program is linked with, out of what `dpkg-shlibdeps -O` prints.
pub fn depends(printed: &str) -> Option<&str> {
    printed.lines().find_map(|line| line.strip_prefix("shlibs:Depends="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release() -> Release {
        Release {
            version: "0.1.0".into(),
            epoch: 1_795_842_600,
            stamp: "20261128051000".into(),
            date: "Sat, 28 Nov 2026 05:10:00 +0000".into(),
            maintainer: "A Committer <a@example.org>".into(),
        }
    }

    #[test]
    fn no_line_of_the_control_file_is_empty_or_longer_than_a_terminal_but_for_the_relations() {
        let control = release().control("amd64", "libc6 (>= 2.36)", 12_000);
        for line in control.lines().filter(|line| !line.starts_with("Depends:")) {
            assert!((1..=80).contains(&line.len()), "{line}");
        }
        assert!(control.ends_with("nobody.\n"), "{control}");
    }

    #[test]
    fn the_changelog_and_the_control_file_have_one_version() {
        let release = release();
        let version = "0.1.0~20261128051000-1~upstream";
        assert!(release.changelog().starts_with(&format!("limiter ({version}) ")));
        assert!(release.control("amd64", "libc6", 1).contains(&format!("\nVersion: {version}\n")));
    }

    #[test]
    fn what_the_program_is_linked_with_is_found_in_what_dpkg_prints() {
        assert_eq!(
            depends("shlibs:Depends=libc6 (>= 2.36), libgcc-s1\n"),
            Some("libc6 (>= 2.36), libgcc-s1")
        );
        assert_eq!(depends("shlibs:Recommends=x\n"), None);
    }
}
