// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Programs of others that say something of this host.

use std::{path::Path, process::Command, time::Duration};

use crate::bounded::{self, Failed, MAX_BYTES};

/// Runs one, in the network namespace of this thread and in the C locale; what it prints, or why it does not, in words.
pub fn run(program: &Path, arguments: &[&str], patience: Duration) -> Result<String, String> {
    let shown = format!("{} {}", program.display(), arguments.join(" "));
    let mut command = Command::new(program);
    command.args(arguments).envs([("LANG", "C"), ("LC_ALL", "C")]);
    bounded::output(&mut command, patience).map_err(|failed| match failed {
        Failed::System(error) => format!("cannot run {shown}: {error}"),
        Failed::Hangs => format!("{shown} is still running after {} s", patience.as_secs_f32()),
        Failed::Endless => format!("{shown} prints more than {} MiB", MAX_BYTES >> 20),
        Failed::Status(status, words) if words.is_empty() => format!("{shown} fails: {status}"),
        Failed::Status(_, words) => format!("{shown} fails: {words}"),
    })
}
