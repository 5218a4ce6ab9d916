// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! On what it was measured.

use std::{
    fs,
    process::Command,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use nix::sys::utsname::uname;
use serde::Serialize;

use super::plan::{Contestant, Plan};
use crate::paths;

/// Everything that one has to know to compare.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// Seconds since 1970, UTC.
    pub measured_at: u64,
    /// Model.
    pub processor: String,
    /// How many.
    pub processors: usize,
    /// In MiB.
    pub memory_mib: u64,
    /// Release and version.
    pub kernel: String,
    /// Processes that were ready to run at the end, in the mean of the last minute, ours included.
    pub load: f64,
    /// The project's commit.
    pub commit: String,
    /// Of each contestant that took part.
    pub versions: Vec<(String, String)>,
}

/// Looks.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn describe(plan: &Plan) -> Result<Machine> {
    let processor = fs::read_to_string("/proc/cpuinfo")?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let system = uname()?;
    let versions: [(Contestant, &str, &[&str]); 4] = [
        (Contestant::Nftables, "nft", &["--version"]),
        (Contestant::Iptables, "iptables", &["--version"]),
        (Contestant::Haproxy, "haproxy", &["-v"]),
        (Contestant::Postfix, "postconf", &["-d", "mail_version"]),
    ];
    let mut named: Vec<_> = versions
        .into_iter()
        .filter(|(contestant, ..)| plan.needs(*contestant))
        .map(|(contestant, program, arguments)| {
            let version =
                line_of(Command::new(program).args(arguments).env("PATH", limiter_lab::command::path()));
            (contestant.to_string(), version)
        })
        .collect();
    if plan.needs(Contestant::Exim) {
        named.push((Contestant::Exim.to_string(), crate::unpacked::EXIM.version()));
    }
    Ok(Machine {
        measured_at: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        processor: field(&processor, "model name").to_owned(),
        processors: thread::available_parallelism()?.get(),
        memory_mib: field(&memory, "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0) / 1024,
        kernel: format!("{} {}", system.release().display(), system.machine().display()),
        load: fs::read_to_string("/proc/loadavg")?.split(' ').next().unwrap_or_default().parse()?,
        commit: line_of(
            Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(paths::root()),
        ),
        versions: named,
    })
}

/// What stands behind the colon.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(':')).map_or("unknown", |(_, value)| value.trim())
}

/// The first line a program prints; nothing if it fails.
fn line_of(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned()
}
