// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The files that the limiter keeps: whether there is room for them, and how old they are.

use std::{fs, path::Path, time::Duration};

use nix::sys::statvfs::statvfs;

use super::{Context, Grade, Outcome, instance::warned, outcome::or_good};
use crate::{
    bans::journal::{Contents, Journal},
    instance::Instance,
    spans,
    status::About,
};

/// With less room than this, in bytes, a file may not find any.
const SCARCE: u64 = 16 << 20;

/// A place where files are kept.
struct Place {
    path: String,
    /// Bytes that are free; an error in words.
    free: Result<u64, String>,
    is_read_only: bool,
}

/// The file of the bans.
enum Bans {
    /// There is none, as long as nobody is banned.
    None,
    /// It is that large, and so old.
    There(u64, Option<Duration>),
    /// It cannot be read.
    Unreadable(String),
}

/// Looks at the directories, and at the file of the bans.
pub fn look(context: &Context) -> Vec<Outcome> {
    let places: Vec<Place> = Instance::directories().into_iter().filter_map(place).collect();
    let judged = judge(&places, &bans(&context.instance), &context.instance.bans_path());
    // Of the history the daemon says itself what is wrong.
    warned(context, About::History, Grade::Warning).chain(judged).collect()
}

/// None where there is no such directory yet: the daemon makes it.
fn place(path: &Path) -> Option<Place> {
    if !path.exists() {
        return None;
    }
    let found = statvfs(path);
    let is_read_only = found.is_ok_and(|about| about.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
    let free = found.map(|about| about.blocks_available().saturating_mul(about.fragment_size()));
    Some(Place {
        path: path.display().to_string(),
        free: free.map_err(|errno| errno.desc().to_owned()),
        is_read_only,
    })
}

fn bans(instance: &Instance) -> Bans {
    let path = instance.bans_path();
    let Ok(about) = fs::metadata(&path) else { return Bans::None };
    match Journal::new(path).and_then(|journal| journal.read()) {
        Ok(Contents { damaged: 0, is_torn: false, .. }) => {
            Bans::There(about.len(), about.modified().ok().and_then(|at| at.elapsed().ok()))
        }
        Ok(_) => Bans::Unreadable(format!("{} is damaged", instance.bans_path().display())),
        Err(problem) => Bans::Unreadable(format!("{problem:#}")),
    }
}

fn judge(places: &[Place], bans: &Bans, path: &Path) -> Vec<Outcome> {
    let mut found = Vec::new();
    for Place { path, free, is_read_only } in places {
        match free {
            _ if *is_read_only => found.push(
                Outcome::warning(format!(
                    "{path} is read-only, so what limiter keeps there is lost at a restart"
                ))
                .mended_by(format!("findmnt --target {path}")),
            ),
            Ok(free) if *free < SCARCE => found.push(
                Outcome::warning(format!(
                    "{path} has {} KiB left, so what limiter keeps there may not find room",
                    free >> 10
                ))
                .mended_by(format!("df -h {path}")),
            ),
            Ok(_) => {}
            Err(problem) => {
                found.push(Outcome::unknown(format!("cannot tell how much room {path} has: {problem}")));
            }
        }
    }
    let shown = path.display();
    let of_bans = match bans {
        Bans::None => "no ban was written".to_owned(),
        Bans::There(bytes, age) => {
            let age = age.map_or_else(String::new, |age| format!(", written {} ago", spans::time(age)));
            format!("bans in {shown}, {} KiB{age}", bytes.div_ceil(1024))
        }
        Bans::Unreadable(problem) => {
            found.push(Outcome::warning(format!(
                "{problem}: some bans in it may not outlive a restart of the host; when the daemon starts, it keeps a copy \
                 and writes a new file"
            )));
            String::new()
        }
    };
    let places: Vec<&str> = places.iter().map(|place| place.path.as_str()).collect();
    or_good(found, format!("there is room in {}; {of_bans}", places.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(free: Result<u64, String>, is_read_only: bool) -> Place {
        Place { path: "/var/lib/limiter".to_owned(), free, is_read_only }
    }

    #[test]
    fn little_room_a_read_only_place_and_a_damaged_file_are_warned_of() {
        let grades = |places: &[Place], bans: &Bans| -> Vec<Grade> {
            let judged = judge(places, bans, Path::new("/var/lib/limiter/mail.bans"));
            judged.iter().map(|outcome| outcome.grade).collect()
        };
        assert_eq!(grades(&[place(Ok(1 << 30), false)], &Bans::None), [Grade::Good]);
        assert_eq!(grades(&[place(Ok(1 << 20), false)], &Bans::None), [Grade::Warning]);
        assert_eq!(grades(&[place(Ok(1 << 30), true)], &Bans::None), [Grade::Warning]);
        assert_eq!(grades(&[place(Err("no".to_owned()), false)], &Bans::None), [Grade::Unknown]);
        assert_eq!(grades(&[], &Bans::Unreadable("damaged".to_owned())), [Grade::Warning]);
    }

    #[test]
    fn how_large_and_how_old_the_file_is_is_said() {
        let there = Bans::There(1025, Some(Duration::from_secs(90)));
        let said = judge(&[place(Ok(1 << 30), false)], &there, Path::new("/var/lib/limiter/mail.bans"));
        assert_eq!(
            said,
            [Outcome::good(
                "there is room in /var/lib/limiter; bans in /var/lib/limiter/mail.bans, 2 KiB, written 1 min 30 s ago"
            )]
        );
    }
}
