// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Network namespaces: hosts without a machine.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command;
use crate::process::tethered;

/// Where `ip` keeps them.
pub const FOLDER: &str = "/run/netns";

/// A network namespace with a name, as long as this lives.
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes it; its loopback interface is up.
    ///
    /// # Errors
    ///
    /// When `ip` cannot.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        ip(&["netns", "add", &name])?;
        let opened = File::open(PathBuf::from(FOLDER).join(&name));
        let namespace = match opened.context("ip netns add has made no namespace") {
            Ok(file) => Self { name, file },
            Err(error) => {
                delete(&name);
                return Err(error);
            }
        };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// As `ip` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the kernel shows it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(FOLDER).join(&self.name)
    }

    /// A command that runs in it, and ends with the thread that started it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = tethered("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Moves the calling thread into it, for good.
    #[expect(clippy::expect_used, reason = "who could make it may enter it")]
    pub fn enter(&self) {
        setns(&self.file, CloneFlags::CLONE_NEWNET).expect("root may enter a network namespace");
    }

    /// Runs `work` in it, on a thread of its own: a thread has a network namespace. Sockets made there stay there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Sets a `net.*` sysctl of it, by its path below `/proc/sys/net`.
    ///
    /// # Errors
    ///
    /// When the kernel has none of that name, or does not take the value.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        self.run(|| fs::write(format!("/proc/sys/net/{path}"), value))
            .with_context(|| format!("cannot set net/{path} to {value}"))
    }

    /// Joins it to another one by a veth link; the interface on either side has this name. It goes with either of them.
    ///
    /// # Errors
    ///
    /// When `ip` cannot.
    pub fn veth_to(&self, other: &Self, interface: &str) -> Result<()> {
        let peer = ["peer", "name", interface, "netns", other.name()];
        self.ip(&[&["link", "add", interface, "type", "veth"][..], &peer].concat())
    }

    /// Gives an end of a link to a host an address, and the way to the host at the other end.
    ///
    /// # Errors
    ///
    /// When `ip` cannot.
    pub fn connect(&self, interface: &str, address: IpAddr, peer: IpAddr) -> Result<()> {
        let (bits, nodad) = if address.is_ipv4() { (32, "") } else { (128, " nodad") };
        self.ip_batch(&format!(
            "address add {address}/{bits} dev {interface}{nodad}\nlink set {interface} up\n\
             route add {peer}/{bits} dev {interface} src {address}\n"
        ))
    }

    /// `ip` in it.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn ip(&self, arguments: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.name], arguments].concat())
    }

    /// `ip -batch` in it: a command a line.
    ///
    /// # Errors
    ///
    /// When one of them fails.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        command::feed(program(&["-n", &self.name, "-batch", "-"]), lines)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

/// Removes the namespace of this name, and ends what still runs in it: a process that outlived its guard would keep it.
pub fn delete(name: &str) {
    let processes = command::run(program(&["netns", "pids", name])).unwrap_or_default();
    for process in processes.lines().filter_map(|pid| pid.trim().parse().ok()).map(Pid::from_raw) {
        if process != Pid::this() {
            let _gone_already = kill(process, Signal::SIGKILL);
        }
    }
    if let Err(error) = ip(&["netns", "delete", name]) {
        eprintln!("{error:#}");
    }
}

/// `ip`, out of reach of Ctrl-C, so that what is begun is finished and can be undone.
fn program(arguments: &[&str]) -> Command {
    let mut ip = Command::new("ip");
    ip.args(arguments).env("PATH", command::path()).process_group(0);
    ip
}

fn ip(arguments: &[&str]) -> Result<()> {
    command::run(program(arguments)).map(drop)
}
