// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is changed by hand, for the daemon's log: a command leaves a line of who did what, and the daemon takes it.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::instance::Instance;

/// Lines of what a command has said that are kept.
const LINES: usize = 20;
/// Characters of a command that are kept.
const LENGTH: usize = 400;
/// Bytes of those that nobody takes: without a daemon they are for the next one.
const MAX: u64 = 1 << 20;
/// How old one may be before it is said when it was.
const FRESH: Duration = Duration::from_secs(10);

/// A change by hand.
#[derive(Serialize, Deserialize)]
struct Change {
    /// When, in seconds since 1970.
    at: u64,
    who: String,
    command: String,
    /// What it said.
    said: Vec<String>,
}

/// Leaves word of what this command has done.
pub fn leave(instance: &Instance, said: &[String]) -> Result<()> {
    let path = instance.changes_path();
    let said = match said.get(LINES..) {
        Some(more) if !more.is_empty() => [&said[..LINES], &[format!("and {} more", more.len())]].concat(),
        _ => said.to_vec(),
    };
    let words = std::env::args_os().skip(1);
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let mut command = format!("limiter {}", words.join(" "));
    if let Some((at, _)) = command.char_indices().nth(LENGTH) {
        command.replace_range(at.., "…");
    }
    let change = Change { at: now_s(), who: who(), command, said };
    let mut lock = instance.lock_changes()?;
    let file = lock.file();
    let len = file.seek(SeekFrom::End(0))?;
    if len > MAX {
        return Ok(());
    }
    let line = format!("{}\n", serde_json::to_string(&change)?);
    file.write_all(line.as_bytes()).or_else(|error| {
        // Half a line would spoil the next one.
        file.set_len(len)?;
        Err(error).with_context(|| format!("cannot write {}", path.display()))
    })
}

/// Says what was left, once.
pub fn tell(instance: &Instance) -> Result<()> {
    let path = instance.changes_path();
    if fs::metadata(&path).map_or(0, |found| found.len()) == 0 {
        return Ok(());
    }
    let mut text = Vec::new();
    // Somebody is just writing: then in a moment.
    let Some(mut lock) = instance.try_lock_changes()? else { return Ok(()) };
    let file = lock.file();
    file.read_to_end(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    file.set_len(0)?;
    drop(lock);
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let (changes, spoiled): (Vec<_>, Vec<_>) =
        lines.map(serde_json::from_slice::<Change>).partition(Result::is_ok);
    for change in changes.into_iter().flatten() {
        info!("{}", sentence(&change, now_s()));
    }
    if !spoiled.is_empty() {
        warn!("cannot log {} live changes: {} is damaged", spoiled.len(), path.display());
    }
    Ok(())
}

fn sentence(change: &Change, now_s: u64) -> String {
    let Change { at, who, command, said } = change;
    let age = Duration::from_secs(now_s.saturating_sub(*at));
    let when = if age > FRESH {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs((*at).min(u64::from(u32::MAX)));
        format!(", at {}", humantime::format_rfc3339_seconds(at))
    } else {
        String::new()
    };
    let what = if said.is_empty() { String::new() } else { format!(": {}", said.join("; ")) };
    format!("changed by {who}{when}: `{command}`{what}").replace(|c: char| c.is_control(), " ")
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Who has given this command: the user that has logged in, as far as the kernel knows (`pam_loginuid`), and what the
/// command was started by.
fn who() -> String {
    let read = |path: String| fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    let name = |uid: u32| {
        User::from_uid(Uid::from_raw(uid))
            .ok()
            .flatten()
            .map_or_else(|| format!("user {uid}"), |user| user.name)
    };
    // 2³²-1: nobody has logged in.
    let login = read("/proc/self/loginuid".to_owned())
        .and_then(|uid| uid.parse().ok())
        .filter(|uid| *uid != u32::MAX);
    let user = login
        .map(name)
        .or_else(|| std::env::var("SUDO_USER").ok())
        .unwrap_or_else(|| name(Uid::current().as_raw()));
    let parent = std::os::unix::process::parent_id();
    match read(format!("/proc/{parent}/comm")) {
        Some(by) => format!("{user} ({by}, pid {parent})"),
        None => user,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_one_line_of_who_what_and_was() {
        let change = |said: &[&str]| Change {
            at: 1_790_000_000,
            who: "anna (bash, pid 7)".to_owned(),
            command: "limiter set smtp max_connections=3".to_owned(),
            said: said.iter().map(|&line| line.to_owned()).collect(),
        };
        let said = |change: &Change, later: u64| sentence(change, 1_790_000_000 + later);
        assert_eq!(
            said(&change(&["smtp: max_connections 2 -> 3"]), 1),
            "changed by anna (bash, pid 7): `limiter set smtp max_connections=3`: smtp: max_connections 2 -> 3"
        );
        assert_eq!(
            said(&change(&["a", "b\nc"]), 3600),
            "changed by anna (bash, pid 7), at 2026-09-21T14:13:20Z: `limiter set smtp max_connections=3`: a; b c"
        );
        assert_eq!(
            said(&change(&[]), 0),
            "changed by anna (bash, pid 7): `limiter set smtp max_connections=3`"
        );
    }
}
