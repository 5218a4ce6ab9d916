// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Exim on the client host of a lab, with a queue for the mail host.
//!
//! Debian lets a host have one mail server, which is Postfix here; so `cargo xtask test` unpacks Exim beside it.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::mail_daemon::Files;
use limiter_lab::process::Process;
use limiter_lab::{Lab, V4};

/// Its user and group: it insists on their name, and no package has made them.
const USER: u32 = 65533;

/// Tries again after 5 seconds. Otherwise as it comes, without names to look up.
const CONFIG: &str = "
exim_path = {exim}
primary_hostname = sender.example.org
spool_directory = {dir}/spool
log_file_path = {dir}/%slog
local_interfaces = 127.0.0.1
keep_environment =
host_lookup =
begin routers
smarthost:
  driver = manualroute
  route_list = * {host}
  transport = remote_smtp
begin transports
remote_smtp:
  driver = smtp
  port = 25
begin retry
* * F,1h,5s
";

/// An Exim with messages that it has not tried to deliver yet.
pub struct Exim<'a> {
    lab: &'a Lab,
    files: Files,
}

impl<'a> Exim<'a> {
    /// Queues so many.
    pub fn with_queue(lab: &'a Lab, messages: usize) -> Self {
        let files = Files::new();
        for dir in ["spool", "etc", "etc/exim4"] {
            files.dir(dir);
        }
        for (name, entry) in [
            ("passwd", format!("Debian-exim:x:{USER}:{USER}::/:/bin/false\n")),
            ("group", format!("Debian-exim:x:{USER}:\n")),
        ] {
            let known = fs::read_to_string(Path::new("/etc").join(name)).expect("every host has it");
            // The first entry of a name counts.
            files.write(&format!("etc/{name}"), &(entry + &known));
        }
        let exim = program().display().to_string();
        let config = CONFIG.replace("{exim}", &exim).replace("{host}", &V4.host.to_string());
        // Debian's. With a configuration that is elsewhere it gives up root, and cannot hand connections on.
        files.write("etc/exim4/exim4.conf", &config);
        for log in ["spool", "mainlog", "rejectlog", "paniclog"] {
            if log != "spool" {
                files.write(log, "");
            }
            chown(files.path(log), Some(USER), Some(USER)).expect("root may");
        }
        let exim = Self { lab, files };
        for number in 0..messages {
            let mut child = exim.command(&["-odq", "-f", "list@sender.example.org"]);
            child.arg(format!("to-{number}@mx.example.net")).stdin(Stdio::piped());
            let mut child = child.spawn().expect("Exim can be started");
            child
                .stdin
                .take()
                .expect("it is piped")
                .write_all(b"Subject: one of many\n\n")
                .expect("Exim reads");
            assert!(child.wait().expect("a child of ours").success(), "Exim queues: {}", exim.log());
        }
        exim
    }

    /// Delivers all of them at once, as if they had come in this moment, and again every 5 seconds, until the processes
    /// end.
    pub fn release(&self) -> Vec<Process> {
        let log = self.log();
        let ids = log.lines().filter(|line| line.contains(" <= ")).filter_map(|line| line.split(' ').nth(2));
        // What Exim itself starts for each message that has come in.
        let deliveries = ids.map(|id| self.command(&["-Mc", id]));
        let pid = self.files.path("spool/pid");
        let mut runner = self.command(&["-bdf", "-q5s", "-oX", "2525", "-oP"]);
        runner.arg(pid);
        deliveries.chain([runner]).map(|command| self.start(command)).collect()
    }

    fn start(&self, mut command: Command) -> Process {
        let output = File::options().create(true).append(true).open(self.files.path("output"));
        let output = output.expect("a directory of ours");
        command.stdout(output.try_clone().expect("a file")).stderr(output);
        Process::start("Exim", command).unwrap()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.files.path(name)).unwrap_or_default();
        ["mainlog", "paniclog", "output"].map(read).concat()
    }

    /// Exim with these arguments, where it finds its account.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.lab.client.command("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc && exec \"$@\""]);
        command.arg(self.files.path("etc")).arg(program()).args(arguments);
        command
    }
}

/// Where it is unpacked.
fn program() -> PathBuf {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/unpacked/exim4-daemon-light");
    let program = unpacked.join("usr/sbin/exim4");
    assert!(program.exists(), "{} is not there: `cargo xtask test` unpacks it", program.display());
    program
}
