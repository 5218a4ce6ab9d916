//! Exim alone. It counts the processes it has for each client.
//!
//! Debian has it in a package that cannot be installed beside Postfix, so it is unpacked.

use std::{
    fs::{self, File},
    os::unix::fs::chown,
    path::PathBuf,
    process::Stdio,
};

use anyhow::Result;

use super::Host;
use crate::{
    bench::lab::{LIMIT, port},
    packages, paths,
};

/// Its user and group. It insists on their name, and no package has made them.
const USER: u32 = 65533;

/// What all its sources may hold at a time, and one of them where it is admitted.
const PROCESSES: usize = 200;

/// Where it is unpacked.
fn folder() -> PathBuf {
    paths::root().join("target/bench/exim")
}

/// The program.
fn program() -> PathBuf {
    folder().join("usr/sbin/exim4")
}

/// Gets it, if it is not there.
///
/// # Errors
///
/// When apt does not have it.
pub fn unpack() -> Result<()> {
    if program().exists() {
        return Ok(());
    }
    packages::unpack(packages::EXIM, "another mail server that limits, for comparison", &folder())
}

/// Its version, as the package is named.
pub fn version() -> String {
    let files = fs::read_dir(folder()).into_iter().flatten().flatten();
    let mut names = files.filter_map(|file| file.file_name().into_string().ok());
    names.find_map(|name| name.strip_suffix(".deb").map(ToOwned::to_owned)).unwrap_or_default()
}

/// A daemon for each port, since the limit is that of a daemon.
pub fn start(host: &Host) -> Result<()> {
    for (name, entry) in [
        ("passwd", format!("Debian-exim:x:{USER}:{USER}::/:/bin/false")),
        ("group", format!("Debian-exim:x:{USER}:")),
    ] {
        let present = fs::read_to_string(format!("/etc/{name}"))?;
        // Another package may have made them.
        let added = if present.contains("Debian-exim:") { String::new() } else { entry + "\n" };
        fs::write(host.path(name), present + &added)?;
    }
    for (port, limit) in [(port::ADMITS, PROCESSES), (port::REPLIES, LIMIT)] {
        let dir = host.path(&port.to_string());
        for folder in ["", "spool", "log"] {
            fs::create_dir(dir.join(folder))?;
            chown(dir.join(folder), Some(USER), Some(USER))?;
        }
        let config = dir.join("exim.conf");
        fs::write(
            &config,
            format!(
                "primary_hostname = mx.example.net\nspool_directory = {dir}/spool\nlog_file_path = {dir}/log/%s\n\
                 pid_file_path = {dir}/pid\ndaemon_smtp_ports = {port}\nsmtp_accept_max = {PROCESSES}\n\
                 smtp_accept_max_per_host = {limit}\nsmtp_connect_backlog = 4096\nhost_lookup =\n\
                 rfc1413_query_timeout = 0s\nkeep_environment =\nbegin acl\n",
                dir = dir.display()
            ),
        )?;
        let log = File::create(dir.join("start"))?;
        // In a mount namespace, which ends with it, where the names are known.
        let mut exim = host.cgroup.command(&host.netns, "unshare");
        exim.args(["--mount", "sh", "-c"])
            .arg("mount --bind \"$0\" /etc/passwd && mount --bind \"$1\" /etc/group && shift && exec \"$@\"")
            .args([host.path("passwd"), host.path("group"), program()])
            .arg("-C")
            .arg(&config)
            .arg("-bdf");
        // They end with their cgroup.
        let _child = exim.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        host.wait_for(port, &dir.join("start"))?;
    }
    Ok(())
}
