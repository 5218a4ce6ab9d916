// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The kernel: which one it is, what it was built with, and what it allows.

use std::{fs, io::ErrorKind};

use super::{Context, Outcome};
use crate::kernel::{btf, environment, release::Release};

/// The oldest that the tests run on, and which is kept whole.
const TESTED: (u32, u32) = (6, 1);
/// The oldest that has all the programs use.
const OLDEST: (u32, u32) = (5, 15);

/// Which kernel runs.
pub fn release(_: &Context) -> Vec<Outcome> {
    vec![judge_release(&Release::running(), environment::real_time_warning())]
}

fn judge_release(release: &Release, real_time: Option<&str>) -> Outcome {
    if !release.is_at_least(OLDEST) {
        let (major, minor) = OLDEST;
        return Outcome::bad(format!("this is Linux {release}, and {major}.{minor} or later is needed"));
    }
    if let Some(warning) = real_time {
        return Outcome::warning(warning);
    }
    if !release.is_at_least(TESTED) {
        let (major, minor) = TESTED;
        return Outcome::note(format!(
            "this is Linux {release}, and limiter is tested on {major}.{minor} and later"
        ));
    }
    Outcome::good(format!("Linux {release}"))
}

/// The kernel's own types (BTF), and what it can do by them.
pub fn types(_: &Context) -> Vec<Outcome> {
    let no_census = btf::layout().map(|layout| layout.no_census);
    vec![judge_types(no_census.map_err(|problem| format!("{problem:#}")))]
}

/// `no_census` is why there is no census, if that is so.
fn judge_types(no_census: Result<Option<String>, String>) -> Outcome {
    match no_census {
        Err(problem) => Outcome::bad(problem),
        Ok(Some(reason)) => Outcome::warning(format!(
            "connections older than the limiter are not counted, and counts are not checked: {reason}; use another \
             kernel"
        )),
        Ok(None) => Outcome::good("the kernel describes its types (BTF)"),
    }
}

/// The compiler for kernel programs.
pub fn jit(context: &Context) -> Vec<Outcome> {
    vec![judge_jit(context.jit.as_deref())]
}

/// `text` is `net.core.bpf_jit_enable` (`Documentation/admin-guide/sysctl/net.rst`).
fn judge_jit(text: Option<&str>) -> Outcome {
    match text.map(str::trim) {
        Some("1") => Outcome::good("the kernel compiles its programs (bpf_jit_enable = 1)"),
        Some("2") => Outcome::note(
            "the kernel writes each program that it compiles to its log (bpf_jit_enable = 2), which is for debugging",
        )
        .mended_by("sysctl -w net.core.bpf_jit_enable=1"),
        Some("0") => Outcome::warning(
            "the kernel interprets its programs (bpf_jit_enable = 0), so each connection costs several times as much",
        )
        .mended_by("sysctl -w net.core.bpf_jit_enable=1"),
        _ => Outcome::unknown(
            "cannot tell whether the kernel compiles its programs, because net.core.bpf_jit_enable is visible in the \
             first network namespace only",
        ),
    }
}

/// Whether the kernel is locked down.
pub fn lockdown(_: &Context) -> Vec<Outcome> {
    let seen = match fs::read_to_string("/sys/kernel/security/lockdown") {
        Ok(text) => Lockdown::Says(text),
        Err(error) if error.kind() == ErrorKind::NotFound => Lockdown::Absent,
        Err(error) => Lockdown::Unreadable(error.to_string()),
    };
    vec![judge_lockdown(&seen)]
}

/// What `/sys/kernel/security/lockdown` says (`kernel_lockdown(7)`).
enum Lockdown {
    Says(String),
    /// The kernel has none, or securityfs is mounted nowhere.
    Absent,
    Unreadable(String),
}

fn judge_lockdown(seen: &Lockdown) -> Outcome {
    match seen {
        Lockdown::Says(text) if text.contains("[confidentiality]") => Outcome::bad(
            "the kernel is locked down for confidentiality, and refuses programs that read its memory: boot with \
             lockdown=integrity or without",
        ),
        Lockdown::Says(text) if text.contains("[none]") => Outcome::good("the kernel is not locked down"),
        Lockdown::Says(text) if text.contains("[integrity]") => {
            Outcome::good("the kernel is locked down for integrity, which limiter does not mind")
        }
        Lockdown::Says(text) => Outcome::unknown(format!("the kernel's lockdown is {:?}", text.trim())),
        Lockdown::Absent => Outcome::good("the kernel has no lockdown, or does not show it here"),
        Lockdown::Unreadable(error) => {
            Outcome::unknown(format!("cannot read the kernel's lockdown: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    #[test]
    fn a_kernel_is_judged_by_its_release() {
        let grade = |release: &str, real_time| judge_release(&release.into(), real_time).grade;
        assert_eq!(grade("6.12.117+deb13-amd64", None), Grade::Good);
        assert_eq!(grade("6.1.0-56-amd64", None), Grade::Good);
        assert_eq!(grade("5.15.0-1-amd64", None), Grade::Note);
        assert_eq!(grade("5.10.0-30-amd64", None), Grade::Bad);
        assert_eq!(grade("7.3.4+deb14-rt-amd64", Some("real time")), Grade::Warning);
    }

    #[test]
    fn an_interpreter_is_warned_of_with_the_command() {
        assert_eq!(judge_jit(Some("1\n")).grade, Grade::Good);
        assert_eq!(judge_jit(Some("2\n")).grade, Grade::Note);
        let interprets = judge_jit(Some("0\n"));
        assert_eq!(interprets.grade, Grade::Warning);
        assert_eq!(interprets.command.as_deref(), Some("sysctl -w net.core.bpf_jit_enable=1"));
        assert_eq!(judge_jit(None).grade, Grade::Unknown);
    }

    #[test]
    fn a_lockdown_is_bad_only_where_it_takes_something_away() {
        let grade = |text: &str| judge_lockdown(&Lockdown::Says(text.to_owned())).grade;
        assert_eq!(grade("[none] integrity confidentiality\n"), Grade::Good);
        assert_eq!(grade("none [integrity] confidentiality\n"), Grade::Good);
        assert_eq!(grade("none integrity [confidentiality]\n"), Grade::Bad);
        assert_eq!(grade("what"), Grade::Unknown);
        assert_eq!(judge_lockdown(&Lockdown::Absent).grade, Grade::Good);
        assert_eq!(judge_lockdown(&Lockdown::Unreadable("no".to_owned())).grade, Grade::Unknown);
    }

    #[test]
    fn a_kernel_without_types_is_bad_and_one_without_the_census_a_warning() {
        assert_eq!(judge_types(Err("cannot read it".to_owned())).grade, Grade::Bad);
        assert_eq!(judge_types(Ok(Some("no member".to_owned()))).grade, Grade::Warning);
        assert_eq!(judge_types(Ok(None)).grade, Grade::Good);
    }
}
