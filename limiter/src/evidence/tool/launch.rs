// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Starts the process, and reads what it prints.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    bounded::{self, Failed, MAX_BYTES},
    sandbox::again,
};

/// The name of this part of the program, which nobody types.
const PART: &str = "tool";

/// A program that may be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Program {
    /// Dovecot's.
    Doveadm,
}

impl Program {
    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Doveadm => "doveadm",
        }
    }

    /// Where it is: where distributions have it, or whoever builds it.
    pub fn path(self) -> Option<PathBuf> {
        let folders = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"].map(Path::new);
        folders.iter().map(|folder| folder.join(self.name())).find(|path| path.is_file())
    }
}

/// What a program is asked.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// The program.
    pub program: Program,
    /// Its arguments.
    pub arguments: Vec<&'a str>,
    /// Files, and directories with what is below them, that it reads.
    pub reads: Vec<PathBuf>,
    /// Sockets that it connects to.
    pub sockets: Vec<PathBuf>,
    /// Whether it ends processes of others.
    pub may_signal: bool,
}

/// Asks, and returns what it prints.
///
/// # Errors
/// Why there is no answer by the `deadline`, as a part of a sentence.
pub fn ask(ask: &Ask<'_>, deadline: Instant) -> Result<String, String> {
    let Ask { program, arguments, reads, sockets, may_signal } = ask;
    let name = program.name();
    let begun = Instant::now();
    let patience = deadline.saturating_duration_since(begun);
    let mut command = again::part(PART, []);
    command.arg(name).arg(format!("--parent={}", std::process::id()));
    for (option, paths) in [("--reads", reads), ("--sockets", sockets)] {
        for path in paths {
            command.arg(option).arg(path);
        }
    }
    command.args(may_signal.then_some("--may-signal")).arg("--").args(arguments);
    command.envs([("LANG", "C"), ("LC_ALL", "C"), ("PATH", "/usr/sbin:/usr/bin")]);
    bounded::output(&mut command, patience).map_err(|failed| match failed {
        Failed::System(error) => format!("{name} cannot be started: {error}"),
        Failed::Hangs => format!("{name} did not answer within {}", shown(patience)),
        Failed::Endless => format!("{name} printed more than {} MiB", MAX_BYTES >> 20),
        Failed::Status(status, words) if words.is_empty() => format!("{name} failed: {status}"),
        Failed::Status(_, words) => format!("{name} failed: {}", super::super::words::shown(&words)),
    })
}

fn shown(time: Duration) -> String {
    format!("{} s", time.as_secs_f32().round())
}
