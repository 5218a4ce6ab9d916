// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The file of the bans: what was banned and what was ended, a line a command, appended. A line that is not whole never
//! came to be, so a command is in the file as a whole or not at all. When most of what it says is over, it is written anew.
//!
//! Times are those of the kernel (`CLOCK_BOOTTIME`), which starts anew with the host. So each line says which time it was
//! on the wall when it was written, and the first one says in which run of the host that was.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use limiter_common::Ladder;
use serde::{Deserialize, Serialize};

use crate::{ledger, staged};

/// Of the file.
const FORMAT: u32 = 2;
const SECOND_NS: u64 = 1_000_000_000;
/// The longest first line.
const MAX_HEADER: u64 = 512;
/// Bans in one line of a file that is written anew: what is damaged takes no more along.
const AT_ONCE: usize = 64;
/// How long the file may be before somebody counts what in it still matters.
const SMALL: u64 = 64 * 1024;
/// More bytes than a ban takes in it: beyond that for each, most of it is over.
const BAN_SIZE: u64 = 400;

/// Who is banned: the network as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Who {
    pub service: String,
    pub source: IpNet,
}

/// For how long, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Ban {
    pub who: Who,
    /// When it began, in nanoseconds of `CLOCK_BOOTTIME`.
    pub since_ns: u64,
    /// When it ends, likewise.
    pub until_ns: u64,
    /// Bans in a row that the ladder made.
    pub bans: u32,
    /// Who made it: `ladder` or `admin`.
    pub by: String,
}

/// The same as it is written. (Not `serde(flatten)`: that reads all of a line twice.)
#[derive(Serialize, Deserialize)]
struct Written {
    service: String,
    source: IpNet,
    since_ns: u64,
    until_ns: u64,
    bans: u32,
    by: String,
}

impl From<Written> for Ban {
    fn from(written: Written) -> Self {
        let Written { service, source, since_ns, until_ns, bans, by } = written;
        Self { who: Who { service, source }, since_ns, until_ns, bans, by }
    }
}

impl From<Ban> for Written {
    fn from(ban: Ban) -> Self {
        let Ban { who: Who { service, source }, since_ns, until_ns, bans, by } = ban;
        Self { service, source, since_ns, until_ns, bans, by }
    }
}

/// What time it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// On the wall, since 1970.
    pub unix_ms: i64,
}

impl Clock {
    pub fn now() -> Result<Self> {
        let at_ns = ledger::now_ns()?;
        let unix_ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        };
        Ok(Self { at_ns, unix_ms })
    }

    /// What `CLOCK_BOOTTIME` would be at `now` if the host had not started anew since this was noted. The clock on the
    /// wall may have been set back meanwhile: time never passes backwards.
    fn continued(self, now: Self) -> u64 {
        let passed_ms = u64::try_from(now.unix_ms.saturating_sub(self.unix_ms)).unwrap_or(0);
        self.at_ns.saturating_add(passed_ms.saturating_mul(1_000_000))
    }

    /// By how much the clock on the wall was set between the two, in milliseconds.
    pub fn step_ms(self, later: Self) -> u64 {
        let passed_ms = (later.at_ns / 1_000_000) as i64 - (self.at_ns / 1_000_000) as i64;
        later.unix_ms.saturating_sub(self.unix_ms).saturating_sub(passed_ms).unsigned_abs()
    }
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Header {
    limiter_bans: u32,
    boot: String,
}

/// Each other line: one change as a whole.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    /// [`Clock::at_ns`] and [`Clock::unix_ms`] of when it was written.
    at_ns: u64,
    unix_ms: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ban: Vec<Ban>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub end: Vec<Who>,
}

impl Line {
    pub const fn new(clock: Clock, ban: Vec<Ban>, end: Vec<Who>) -> Self {
        let Clock { at_ns, unix_ms } = clock;
        Self { at_ns, unix_ms, ban, end }
    }

    /// As of now.
    pub fn now(ban: Vec<Ban>, end: Vec<Who>) -> Result<Self> {
        Ok(Self::new(Clock::now()?, ban, end))
    }

    /// When it was written.
    pub const fn clock(&self) -> Clock {
        Clock { at_ns: self.at_ns, unix_ms: self.unix_ms }
    }

    /// Whether a ban is one that somebody can have made: what a damaged file says is put in force for nobody.
    fn is_sound(&self, ban: &Ban) -> bool {
        ban.since_ns <= ban.until_ns
            && ban.since_ns <= self.at_ns
            && ban.until_ns - ban.since_ns <= u64::from(Ladder::MAX_BAN_S) * SECOND_NS
            && ban.bans <= Ladder::MAX_BANS
            && ban.who.source == ban.who.source.trunc()
    }
}

/// What a file says.
#[derive(Debug, Default)]
pub struct Contents {
    /// In which run of the host its times are; empty: in none.
    boot: String,
    /// When something was written last; none where it was written by an older build.
    pub clock: Option<Clock>,
    /// Who is banned.
    pub bans: BTreeMap<Who, Ban>,
    /// Lines that say nothing, and bans that nobody can have made.
    pub damaged: usize,
    /// Whether it ends within a line.
    pub is_torn: bool,
}

impl Contents {
    /// What `CLOCK_BOOTTIME` is now, in the file's own terms: its bans end by it.
    pub fn now_ns(&self, boot: &str, now: Clock) -> u64 {
        match self.clock {
            Some(clock) if self.boot != boot => clock.continued(now),
            _ => now.at_ns,
        }
    }

    /// Whether its times are those of this run of the host.
    pub fn is_of(&self, boot: &str) -> bool {
        self.boot == boot
    }

    fn read(text: &[u8], now: Clock) -> Self {
        let mut contents = Self::default();
        if text.is_empty() {
            return contents;
        }
        let Some(header) = lines(text).next().and_then(|line| serde_json::from_slice::<Header>(line).ok())
        else {
            return old::read(text, now).unwrap_or(Self { damaged: 1, ..contents });
        };
        if header.limiter_bans != FORMAT {
            return Self { damaged: 1, ..contents };
        }
        contents.boot = header.boot;
        for line in lines(text).skip(1) {
            match serde_json::from_slice(line) {
                Ok(line) => contents.apply(line),
                Err(_) => contents.damaged += 1,
            }
        }
        contents.is_torn = text.last() != Some(&b'\n');
        contents
    }

    fn apply(&mut self, line: Line) {
        let sound: Vec<bool> = line.ban.iter().map(|ban| line.is_sound(ban)).collect();
        self.damaged += sound.iter().filter(|is_sound| !**is_sound).count();
        self.clock = Some(line.clock());
        for who in line.end {
            self.bans.remove(&who);
        }
        for (ban, _) in line.ban.into_iter().zip(sound).filter(|(_, is_sound)| *is_sound) {
            self.bans.insert(ban.who.clone(), ban);
        }
    }
}

/// The lines that are whole.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"))
}

/// Where a file is, and how much of it: whether somebody has written to it is seen by that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    dev: u64,
    ino: u64,
    len: u64,
}

/// What has come to a file since it was read last.
pub enum News {
    Nothing,
    /// These lines.
    Lines(Vec<Line>),
    /// It is another one, or there was none.
    All(Contents),
}

/// The file.
pub struct Journal {
    path: PathBuf,
    boot: String,
}

impl Journal {
    pub fn new(path: PathBuf) -> Result<Self> {
        const BOOT: &str = "/proc/sys/kernel/random/boot_id";
        let boot = fs::read_to_string(BOOT).with_context(|| format!("cannot read {BOOT}"))?;
        Ok(Self { path, boot: boot.trim().to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The present run of the host.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// All of it; nothing where there is none.
    pub fn read(&self) -> Result<Contents> {
        match fs::read(&self.path) {
            Ok(text) => Ok(Contents::read(&text, Clock::now()?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Contents::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", self.path.display())),
        }
    }

    /// Where it is, and how much of it there is.
    pub fn extent(&self) -> Result<Option<Extent>> {
        match fs::metadata(&self.path) {
            Ok(found) => Ok(Some(Extent { dev: found.dev(), ino: found.ino(), len: found.len() })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot inspect {}", self.path.display())),
        }
    }

    /// What has come to it since it was as `seen`.
    pub fn news(&self, seen: Option<Extent>) -> Result<(News, Option<Extent>)> {
        let extent = self.extent()?;
        let (Some(was), Some(is)) = (seen, extent) else { return Ok((News::All(self.read()?), extent)) };
        if was == is {
            return Ok((News::Nothing, extent));
        }
        if (was.dev, was.ino) != (is.dev, is.ino) || is.len < was.len {
            return Ok((News::All(self.read()?), extent));
        }
        let mut text = Vec::new();
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(was.len))?;
        file.take(is.len - was.len).read_to_end(&mut text)?;
        let parsed: Result<Vec<Line>, _> = lines(&text).map(serde_json::from_slice).collect();
        match parsed {
            Ok(lines) if text.last() == Some(&b'\n') => Ok((News::Lines(lines), extent)),
            _ => Ok((News::All(self.read()?), extent)),
        }
    }

    /// Appends a change, whole or not at all; `false` if that cannot be done, or has been done often enough, and the
    /// file has to be [written anew](Self::write). `count` is asked how many bans there are.
    pub fn append(&self, line: &Line, count: impl FnOnce() -> Result<usize>) -> Result<bool> {
        let mut file = match OpenOptions::new().read(true).append(true).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).context(self.unwritable()),
        };
        let len = file.metadata()?.len();
        let mut header = Vec::new();
        BufReader::new(&file).take(MAX_HEADER).read_until(b'\n', &mut header)?;
        let is_ours = serde_json::from_slice::<Header>(&header)
            .is_ok_and(|header| header.limiter_bans == FORMAT && header.boot == self.boot);
        let mut last = [0];
        if !is_ours || file.seek(SeekFrom::End(-1)).and_then(|_| file.read_exact(&mut last)).is_err() {
            return Ok(false);
        }
        // Somebody was killed while writing, or the file has grown for long enough.
        if last != *b"\n" || len > SMALL && len > SMALL + BAN_SIZE * count()? as u64 {
            return Ok(false);
        }
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let written = file.write_all(&text).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // What was written of it is no line; should that stay, whoever comes next writes the file anew.
            let _stays = file.set_len(len);
            return Err(error).context(self.unwritable());
        }
        Ok(true)
    }

    /// Writes it anew, whole or not at all.
    pub fn write(&self, bans: Vec<Ban>) -> Result<()> {
        self.replace(bans).context(self.unwritable())
    }

    fn replace(&self, mut bans: Vec<Ban>) -> Result<()> {
        let mut text = serde_json::to_vec(&Header { limiter_bans: FORMAT, boot: self.boot.clone() })?;
        text.push(b'\n');
        while !bans.is_empty() {
            let rest = bans.split_off(bans.len().min(AT_ONCE));
            let line = Line::now(std::mem::replace(&mut bans, rest), Vec::new())?;
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
        }
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        // Whatever the umask: who can write to it decides who is banned.
        DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
        Ok(staged::replace(&self.path, &text, staged::PRIVATE)?.sure()?)
    }

    fn unwritable(&self) -> String {
        format!("cannot write the bans to {}", self.path.display())
    }
}

/// What builds before format 2 wrote: one object with all bans, in seconds since 1970.
mod old {
    use super::{Ban, Clock, Contents, Deserialize, IpNet, Line, SECOND_NS, Who};

    #[derive(Deserialize)]
    struct State {
        bans: Vec<Saved>,
    }

    #[derive(Deserialize)]
    struct Saved {
        service: String,
        source: IpNet,
        since: u64,
        until: u64,
        bans: u32,
        reason: String,
    }

    /// As if it were noted now, in this run of the host.
    pub fn read(text: &[u8], now: Clock) -> Option<Contents> {
        let state: State = serde_json::from_slice(text).ok()?;
        let mut contents = Contents::default();
        let mut ban = Vec::new();
        for saved in state.bans {
            match times(&saved, now) {
                Some((since_ns, until_ns)) => ban.push(Ban {
                    who: Who { service: saved.service, source: saved.source },
                    since_ns,
                    until_ns,
                    bans: saved.bans,
                    by: saved.reason,
                }),
                None => contents.damaged += 1,
            }
        }
        contents.apply(Line::new(now, ban, Vec::new()));
        // Nothing has been written since.
        contents.clock = None;
        Some(contents)
    }

    /// When a ban began and ends. One that begins in the future has just begun: the clock was set back.
    fn times(saved: &Saved, now: Clock) -> Option<(u64, u64)> {
        let length_ns = saved.until.checked_sub(saved.since)?.checked_mul(SECOND_NS)?;
        let now_s = u64::try_from(now.unix_ms / 1000).unwrap_or(0);
        let passed_ns = now_s.saturating_sub(saved.since).saturating_mul(SECOND_NS);
        let since_ns = now.at_ns.saturating_sub(passed_ns);
        Some((since_ns, now.at_ns.saturating_add(length_ns).saturating_sub(passed_ns).max(since_ns)))
    }
}

#[cfg(test)]
mod tests;
