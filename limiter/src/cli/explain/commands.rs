// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Commands that can be pasted, each with what it does below it.

use crate::{
    cli::output::Screen,
    diagnose::{Command, Remedy},
};

/// As wide as the words before what is said of a case.
pub const LABEL: usize = 10;

/// Shows these remedies, the first behind this label; `program` is how the limiter is called.
pub fn commands(screen: &mut Screen, label: &str, program: &str, remedies: &[Remedy]) {
    for (index, remedy) in remedies.iter().enumerate() {
        let label = if index == 0 { label } else { "" };
        match typed(program, remedy) {
            (command, true) => screen.labelled_command(label, LABEL, &command),
            (what, false) => screen.labelled(label, LABEL, &what),
        }
        screen.labelled("", LABEL + 2, &remedy.effect);
    }
}

/// What a remedy is in a line, and whether that is a command.
fn typed(program: &str, remedy: &Remedy) -> (String, bool) {
    match &remedy.command {
        Command::Limiter(words) => (format!("{program} {words}"), true),
        Command::Shell(words) => (words.clone(), true),
        Command::ByHand(what) => (what.clone(), false),
    }
}
