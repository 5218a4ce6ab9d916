// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The clocks: those that limits are judged by never go back; the one on the wall matters for certificates, for the log, and
//! for bans over a restart of the host.

use std::time::Duration;

use anyhow::Result;
use nix::libc;

use super::{Context, Outcome, outcome::or_good};
use crate::{ledger, spans};

/// What the clocks say.
struct Facts {
    /// How long the host was asleep since it was started: what `CLOCK_BOOTTIME` is ahead of `CLOCK_MONOTONIC`.
    asleep: Result<Duration, String>,
    /// Whether the kernel knows the clock on the wall to be right; none where it does not say.
    is_kept: Option<bool>,
}

/// Reads them.
pub fn look(_: &Context) -> Vec<Outcome> {
    let asleep = || -> Result<Duration> {
        let (monotonic, boot) = (ledger::monotonic_ns()?, ledger::now_ns()?);
        Ok(Duration::from_nanos(boot.saturating_sub(monotonic)))
    };
    judge(&Facts { asleep: asleep().map_err(|problem| format!("{problem:#}")), is_kept: is_kept() })
}

/// `adjtimex(2)`, which changes nothing as long as no mode is set. A seccomp filter may forbid it.
fn is_kept() -> Option<bool> {
    // SAFETY: a struct of numbers, for which zeros are valid.
    let mut about: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes to `about`, which is that large, and nothing else.
    let state = unsafe { libc::adjtimex(&raw mut about) };
    (state >= 0).then_some(about.status & libc::STA_UNSYNC == 0)
}

/// From so long on it is worth to know: both clocks are read one after the other.
const ASLEEP: Duration = Duration::from_secs(1);

fn judge(facts: &Facts) -> Vec<Outcome> {
    let mut found = Vec::new();
    match &facts.asleep {
        Ok(asleep) if *asleep >= ASLEEP => found.push(Outcome::note(format!(
            "the host was asleep for {} since it was started: meanwhile bans and rates went on, and the age of connections did not",
            spans::time(*asleep)
        ))),
        Ok(_) => {}
        Err(problem) => found.push(Outcome::unknown(problem)),
    }
    match facts.is_kept {
        Some(true) => {}
        Some(false) => found.push(
            Outcome::note(
                "no time service keeps the clock of this host right (or it does not tell the kernel): certificates, the \
                 log and bans over a restart go by it",
            )
            .mended_by("timedatectl set-ntp true"),
        ),
        None => found.push(Outcome::unknown("the kernel does not tell whether the clock is right")),
    }
    or_good(found, "the clock is kept right, and the host was never asleep")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    #[test]
    fn a_host_that_slept_and_a_clock_that_nobody_keeps_are_notes() {
        let grades = |asleep, is_kept| -> Vec<Grade> {
            let facts = Facts { asleep: Ok(Duration::from_millis(asleep)), is_kept };
            judge(&facts).iter().map(|outcome| outcome.grade).collect()
        };
        assert_eq!(grades(0, Some(true)), [Grade::Good]);
        assert_eq!(grades(999, Some(true)), [Grade::Good]);
        assert_eq!(grades(60_000, Some(true)), [Grade::Note]);
        assert_eq!(grades(60_000, Some(false)), [Grade::Note, Grade::Note]);
        assert_eq!(grades(0, None), [Grade::Unknown]);
    }
}
