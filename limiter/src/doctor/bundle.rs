// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A redacted archive for a bug report: what the doctor and other commands say, the kernel and how it was built, and the
//! last lines of the log. What says who somebody is does not leave this process ([`super::redact`]).

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use nix::sys::utsname::uname;

use super::{outside, redact::Redactor};
use crate::{import::gather, instance::Instance};

/// A file of the archive, before it is redacted.
pub struct Document {
    /// Its name in the archive.
    pub name: &'static str,
    /// What it says.
    pub text: String,
}

/// How long the journal may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many lines of the log.
const LINES: &str = "500";
/// The most of a kernel's configuration that is read, in bytes.
const MAX_CONFIG: u64 = 4 << 20;

/// Writes the archive, with these documents and what is of the host; the names of the files in it.
///
/// # Errors
/// When there is a file of this name, or it cannot be written. Then nothing is left of it.
pub fn write(path: &Path, instance: &Instance, documents: Vec<Document>) -> Result<Vec<&'static str>> {
    let mut redactor = Redactor::new(names());
    let of_host = [
        Document { name: "versions.txt", text: versions() },
        Document { name: "kernel.txt", text: kernel() },
        Document { name: "log.txt", text: log(instance) },
    ];
    let documents: Vec<(&'static str, String)> = documents
        .into_iter()
        .chain(of_host)
        .map(|document| (document.name, redactor.text(&document.text)))
        .collect();
    let archive = archive(&documents).context("cannot make the archive")?;
    put(path, &archive)?;
    Ok(documents.into_iter().map(|(name, _)| name).collect())
}

/// A new file, which only its owner can read.
fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = match opened {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{} exists, so nothing was written: give another name", path.display())
        }
        opened => opened.with_context(|| format!("cannot create {}", path.display()))?,
    };
    file.write_all(bytes).and_then(|()| file.sync_all()).or_else(|error| {
        let _stays = fs::remove_file(path);
        Err(error).with_context(|| format!("cannot write {}", path.display()))
    })
}

/// The files, in a directory of their own, as `tar` and `gzip` pack them.
fn archive(documents: &[(&str, String)]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (name, text) in documents {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        let path = PathBuf::from("limiter-doctor").join(name);
        archive.append_data(&mut header, path, text.as_bytes())?;
    }
    Ok(archive.into_inner()?.finish()?)
}

/// The names of this host, and of the people who have an account on it.
fn names() -> Vec<String> {
    let mut names = Vec::new();
    if let Ok(host) = nix::unistd::gethostname() {
        let host = host.to_string_lossy().into_owned();
        names.extend(host.split('.').map(str::to_owned));
        names.push(host);
    }
    names.extend(["SUDO_USER", "LOGNAME", "USER"].iter().filter_map(|name| std::env::var(name).ok()));
    names.extend(people(&fs::read_to_string("/etc/passwd").unwrap_or_default()));
    names
}

/// Those of an `/etc/passwd` that are no system's (`UID_MIN` of login.defs(5)).
fn people(passwd: &str) -> Vec<String> {
    let account = |line: &str| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?.parse::<u32>().ok()?);
        (id >= 1000 && id != 65534).then(|| name.to_owned())
    };
    passwd.lines().filter_map(account).collect()
}

fn versions() -> String {
    let mut text = format!("limiter {}\n", env!("CARGO_PKG_VERSION"));
    if let Ok(kernel) = uname() {
        let (system, release) = (kernel.sysname().to_string_lossy(), kernel.release().to_string_lossy());
        let _memory = writeln!(text, "{system} {release} {}", kernel.machine().to_string_lossy());
    }
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    text.push_str(name.unwrap_or("an unknown system"));
    text.push('\n');
    text
}

/// What matters of how the kernel was built, by the beginnings of the names.
const OPTIONS: [&str; 14] = [
    "CONFIG_BPF",
    "CONFIG_DEBUG_INFO_BTF",
    "CONFIG_CGROUP",
    "CONFIG_MPTCP",
    "CONFIG_INET_DIAG",
    "CONFIG_INET_TCP_DIAG",
    "CONFIG_PREEMPT",
    "CONFIG_SECURITY_LANDLOCK",
    "CONFIG_SECURITY_LOCKDOWN",
    "CONFIG_SYN_COOKIES",
    "CONFIG_XDP",
    "CONFIG_IPV6=",
    "CONFIG_NET_NS",
    "CONFIG_SECCOMP",
];

/// What matters of how it is set.
const SYSCTLS: [&str; 8] = [
    "net/core/bpf_jit_enable",
    "net/core/somaxconn",
    "net/ipv4/tcp_syncookies",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_fastopen",
    "net/ipv4/tcp_fwmark_accept",
    "net/mptcp/enabled",
    "kernel/unprivileged_bpf_disabled",
];

fn kernel() -> String {
    let mut text = String::new();
    for name in SYSCTLS {
        let value = fs::read_to_string(Path::new("/proc/sys").join(name));
        let value = value.map_or_else(|error| error.to_string(), |value| value.trim().to_owned());
        let _memory = writeln!(text, "{} = {value}", name.replace('/', "."));
    }
    match config() {
        Some(config) => {
            let matters = |line: &&str| OPTIONS.iter().any(|option| line.starts_with(option));
            for line in config.lines().filter(matters) {
                text.push_str(line);
                text.push('\n');
            }
        }
        None => text.push_str("how the kernel was built is not known\n"),
    }
    text
}

/// How the running kernel was built, where it or its package says so.
fn config() -> Option<String> {
    let release = uname().ok()?.release().to_string_lossy().into_owned();
    if let Ok(text) = fs::read_to_string(format!("/boot/config-{release}")) {
        return Some(text);
    }
    let mut text = String::new();
    let packed = File::open("/proc/config.gz").ok()?;
    GzDecoder::new(packed).take(MAX_CONFIG).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The last lines of the log, where there is a journal.
fn log(instance: &Instance) -> String {
    let Some(journal) = gather::find("journalctl") else { return "there is no journal here\n".to_owned() };
    let arguments =
        ["-t", "limiter", "-n", LINES, "-o", "short-iso-precise", "--no-hostname", "--no-pager", "-q"];
    match outside::run(&journal, &arguments, PATIENCE) {
        Ok(lines) if lines.is_empty() => format!("the journal has no line of instance {instance}\n"),
        Ok(lines) => lines,
        Err(failure) => format!("{failure}\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// The files of an archive.
    pub fn unpacked(path: &Path) -> Vec<(String, String)> {
        let mut archive = tar::Archive::new(GzDecoder::new(File::open(path).unwrap()));
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let name = entry.path().unwrap().display().to_string();
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                (name, text)
            })
            .collect()
    }

    #[test]
    fn an_archive_has_the_documents_without_who_somebody_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle.tar.gz");
        let host = nix::unistd::gethostname().unwrap().to_string_lossy().into_owned();
        let secret = format!(
            "198.51.100.7 2001:db8::7 anna@example.org mx1.example.org /home/dora {host}.example.org"
        );
        let document = |name| Document { name, text: secret.clone() };
        let instance = "mail".parse().unwrap();
        let names = write(&path, &instance, vec![document("doctor.json"), document("status.json")]).unwrap();
        assert_eq!(names, ["doctor.json", "status.json", "versions.txt", "kernel.txt", "log.txt"]);
        let files = unpacked(&path);
        assert_eq!(files.len(), names.len());
        for (name, text) in &files {
            for secret in ["198.51.100", "2001:db8", "anna", "example.org", "dora"] {
                assert!(!text.contains(secret), "{name}: {secret} in {text}");
            }
        }
        let of = |wanted: &str| &files.iter().find(|(name, _)| name.ends_with(wanted)).unwrap().1;
        assert_eq!(of("doctor.json"), of("status.json"), "the same words in all files");
        assert!(of("versions.txt").starts_with("limiter "), "{}", of("versions.txt"));
        assert!(of("kernel.txt").contains("net.ipv4.tcp_syncookies = "), "{}", of("kernel.txt"));
    }

    #[test]
    fn no_file_is_overwritten_and_nobody_else_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle.tar.gz");
        let instance = "mail".parse().unwrap();
        write(&path, &instance, Vec::new()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let before = fs::read(&path).unwrap();
        let said = write(&path, &instance, Vec::new()).unwrap_err().to_string();
        assert!(said.contains("exists, so nothing was written"), "{said}");
        assert_eq!(fs::read(&path).unwrap(), before);
        assert!(write(&dir.path().join("not/there"), &instance, Vec::new()).is_err());
    }

    #[test]
    fn people_are_those_with_an_account_of_their_own() {
        let passwd = "root:x:0:0::/root:/bin/sh\nanna:x:1000:1000::/home/anna:/bin/sh\nnobody:x:65534:65534::/:/bin/false\nodd\n";
        assert_eq!(people(passwd), ["anna"]);
    }
}
