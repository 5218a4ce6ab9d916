// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which mail daemon serves: by the names of its processes, and how it was started, by /proc.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::process::{self, Process};
use crate::trust;

/// A mail daemon that is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Dovecot 2.
    Dovecot,
    /// Exim 4.
    Exim,
    /// Postfix.
    Postfix,
}

/// Names of processes that serve clients, as the kernel has them: 15 characters at most.
const NAMES: [(&str, Kind); 16] = [
    ("dovecot", Kind::Dovecot),
    ("imap-login", Kind::Dovecot),
    ("pop3-login", Kind::Dovecot),
    ("managesieve-log", Kind::Dovecot),
    ("submission-logi", Kind::Dovecot),
    ("imap", Kind::Dovecot),
    ("imap-hibernate", Kind::Dovecot),
    ("pop3", Kind::Dovecot),
    ("managesieve", Kind::Dovecot),
    ("submission", Kind::Dovecot),
    ("lmtp", Kind::Dovecot),
    ("exim", Kind::Exim),
    ("exim4", Kind::Exim),
    ("smtpd", Kind::Postfix),
    ("postscreen", Kind::Postfix),
    ("master", Kind::Postfix),
];

impl Kind {
    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dovecot => "Dovecot",
            Self::Exim => "Exim",
            Self::Postfix => "Postfix",
        }
    }

    /// Whose process this is.
    pub fn of(process: &Process) -> Option<Self> {
        let kind = Self::of_name(&process.name)?;
        // Others have a master as well.
        let is_sure = process.name != "master" || {
            let program = fs::read_link(format!("/proc/{}/exe", process.pid));
            program.is_ok_and(|program| program.components().any(|part| part.as_os_str() == "postfix"))
        };
        is_sure.then_some(kind)
    }

    fn of_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    /// The name of the process that starts all others, and stays root.
    const fn master(self) -> Option<&'static str> {
        match self {
            Self::Dovecot => Some("dovecot"),
            Self::Postfix => Some("master"),
            // It gives up root, and has one configuration.
            Self::Exim => None,
        }
    }
}

/// A mail daemon that serves here.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct MailDaemon {
    /// Which.
    pub kind: Kind,
    /// The file or directory of its configuration, where it was started with one.
    pub configuration: Option<PathBuf>,
    /// Of Dovecot: the socket of the process that knows who is logged in.
    pub anvil: Option<PathBuf>,
}

impl MailDaemon {
    /// The one whose process this is; none if none is known. What cannot be asked here is an error: the reason, as a part
    /// of a sentence.
    pub fn of(process: &Process) -> Option<Result<Self, String>> {
        let kind = Kind::of(process)?;
        Some(Self::started(kind, process.pid))
    }

    fn started(kind: Kind, pid: u32) -> Result<Self, String> {
        let name = kind.name();
        let namespace = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/mnt")).map(|it| it.ino()).ok();
        if namespace(&pid.to_string()) != namespace("self") {
            return Err(format!("{name} runs in another mount namespace, such as that of a container"));
        }
        let Some(of_master) = kind.master() else { return Ok(Self::of_kind(kind)) };
        let master = [Some(pid), parent(pid)].into_iter().flatten().find(|&pid| comm(pid) == of_master);
        let Some(master) = master else {
            return Err(format!("the process {of_master} of {name} is not to be found"));
        };
        // Whoever is not root may call a process what he likes.
        if !is_roots(master) {
            return Err(format!("the process {of_master} of {name} does not run as root"));
        }
        let configuration = configuration(kind, master);
        match configuration.as_deref().map(trust::look) {
            Some(Ok((_, Some(_)))) => {
                Err(format!("others than root may write to the configuration of {name}"))
            }
            Some(Err(_)) => Err(format!("the configuration of {name} is not to be found")),
            Some(Ok((_, None))) | None => {
                let anvil = (kind == Kind::Dovecot).then(|| listens_at(master, "anvil")).flatten();
                Ok(Self { kind, configuration, anvil })
            }
        }
    }

    /// One of which no more is known.
    pub const fn of_kind(kind: Kind) -> Self {
        Self { kind, configuration: None, anvil: None }
    }

    /// The arguments by which its own programs find its configuration.
    pub fn arguments(&self) -> Vec<&str> {
        let path = self.configuration.as_deref().and_then(Path::to_str);
        path.map(|path| vec!["-c", path]).unwrap_or_default()
    }
}

/// The configuration that it was started with: Dovecot by an argument, Postfix by its environment.
fn configuration(kind: Kind, master: u32) -> Option<PathBuf> {
    let words = |file: &str| -> Vec<String> {
        let text = fs::read(format!("/proc/{master}/{file}")).unwrap_or_default();
        text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    };
    let path = match kind {
        Kind::Dovecot => given(&words("cmdline"), "-c"),
        Kind::Postfix => {
            words("environ").iter().find_map(|word| word.strip_prefix("MAIL_CONFIG=").map(str::to_owned))
        }
        Kind::Exim => None,
    };
    path.map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The value of an option, behind it or in the next word.
fn given(words: &[String], option: &str) -> Option<String> {
    let mut words = words.iter();
    let rest = words.by_ref().find_map(|word| word.strip_prefix(option))?;
    if rest.is_empty() { words.next().cloned() } else { Some(rest.to_owned()) }
}

/// The socket with this name that a process has, in whatever directory.
fn listens_at(pid: u32, name: &str) -> Option<PathBuf> {
    let inodes: HashSet<u32> = process::sockets(Path::new(&format!("/proc/{pid}"))).collect();
    let sockets = fs::read_to_string(format!("/proc/{pid}/net/unix")).ok()?;
    sockets.lines().skip(1).find_map(|line| {
        // Its inode, and its path: unix(7).
        let (inode, path) = bound(line)?;
        (inodes.contains(&inode) && path.file_name().is_some_and(|of| of == name)).then_some(path)
    })
}

/// Inode and path in a line of `/proc/net/unix`, of a socket that has a path: the seventh field, and all behind it.
fn bound(line: &str) -> Option<(u32, PathBuf)> {
    let mut rest = line;
    for _ in 0..6 {
        rest = rest.trim_start().split_once(' ')?.1;
    }
    let (inode, path) = rest.trim_start().split_once(' ')?;
    Some((inode.parse().ok()?, PathBuf::from(path))).filter(|(_, path)| path.is_absolute())
}

fn comm(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

fn parent(pid: u32) -> Option<u32> {
    field(pid, "PPid:")
}

fn is_roots(pid: u32) -> bool {
    field(pid, "Uid:") == Some(0)
}

/// The first number of a line of `/proc/PID/status`.
fn field(pid: u32, name: &str) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_daemon_is_known_by_its_processes() {
        assert_eq!(Kind::of_name("imap-login"), Some(Kind::Dovecot));
        assert_eq!(Kind::of_name("smtpd"), Some(Kind::Postfix));
        assert_eq!(Kind::of_name("exim4"), Some(Kind::Exim));
        assert_eq!(Kind::of_name("nginx"), None);
        assert!(NAMES.iter().all(|(name, _)| name.len() < 16), "the kernel cuts longer ones");
    }

    #[test]
    fn an_option_has_its_value_behind_it_or_in_the_next_word() {
        let of = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            given(&words, "-c")
        };
        assert_eq!(of("dovecot -F -c /etc/other.conf"), Some("/etc/other.conf".to_owned()));
        assert_eq!(of("dovecot -F -c/etc/other.conf"), Some("/etc/other.conf".to_owned()));
        assert_eq!(of("dovecot -F"), None);
        assert_eq!(of("dovecot -c"), None);
    }

    #[test]
    fn sockets_with_a_path_are_read() {
        let of = |line: &str| bound(line).map(|(inode, path)| (inode, path.display().to_string()));
        let line = "0000000059432df9: 00000002 00000000 00010000 0001 01    66 /run/dovecot/anvil";
        assert_eq!(of(line), Some((66, "/run/dovecot/anvil".to_owned())));
        let line = "0000000059432df9: 00000002 00000000 00010000 0001 01 2066824 /run/a b/anvil";
        assert_eq!(of(line), Some((2_066_824, "/run/a b/anvil".to_owned())));
        for line in [
            "0000000059432df9: 00000003 00000000 00000000 0001 03 2066824",
            "0000000059432df9: 00000003 00000000 00000000 0001 03 2066824 @abstract",
            "",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }

    #[test]
    fn whoever_borrows_the_name_of_a_mail_daemon_is_not_asked() {
        let pid = std::process::id();
        let of = |name: &str| MailDaemon::of(&Process { pid, name: name.to_owned(), unit: None });
        assert_eq!(of("nginx"), None);
        let said = of("dovecot").and_then(Result::err).unwrap_or_default();
        assert_eq!(said, "the process dovecot of Dovecot is not to be found", "it is this test");
    }
}
