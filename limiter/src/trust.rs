// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who decides what a file says: whoever owns it or may write to it, and whoever may put another in its place,
//! in any directory on the way to it.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fmt::{self, Display, Formatter},
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    unistd::{getegid, geteuid},
};

const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITE: u32 = 0o020;
/// In such a directory everyone may make files, and rename only their own.
const STICKY: u32 = 0o1000;
/// As many links as the kernel follows (`MAXSYMLINKS`, `include/linux/namei.h`).
const MOST_LINKS: usize = 40;

/// Somebody else has a say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Distrust {
    /// The file, or a directory or symbolic link on the way to it.
    pub path: PathBuf,
    /// Whether it is the file itself.
    pub is_file: bool,
    /// Who.
    pub who: Who,
}

/// Who else has a say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// This user owns it.
    Owner(u32),
    /// The members of this group may write.
    Group(u32),
    /// Everyone may write.
    Anyone,
}

/// Follows `path` as the kernel does, and looks at all it comes by: what is there, and who else than root, or whoever
/// runs this, has a say in it.
///
/// # Errors
/// As of the system calls: where there is no such file, for one.
pub fn look(path: &Path) -> io::Result<(Metadata, Option<Distrust>)> {
    let mut left: VecDeque<OsString> = parts(&std::path::absolute(path)?);
    let mut at = PathBuf::from("/");
    let mut about = fs::symlink_metadata(&at)?;
    let mut distrust = judge(&at, &about);
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        about = fs::symlink_metadata(&next)?;
        distrust = distrust.or_else(|| judge(&next, &about));
        if about.is_symlink() {
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::ELOOP.into());
            }
            let target = fs::read_link(&next)?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            for part in parts(&target).into_iter().rev() {
                left.push_front(part);
            }
        } else {
            at = next;
        }
    }
    Ok((about, distrust))
}

/// The names in a path, and its steps upwards.
fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(part).collect()
}

fn judge(path: &Path, about: &Metadata) -> Option<Distrust> {
    let who = who(about, geteuid().as_raw(), getegid().as_raw())?;
    Some(Distrust { path: path.to_owned(), is_file: !about.is_dir() && !about.is_symlink(), who })
}

/// Who else than root and this user has a say in what is there.
fn who(about: &Metadata, user: u32, group: u32) -> Option<Who> {
    if ![0, user].contains(&about.uid()) {
        return Some(Who::Owner(about.uid()));
    }
    // The mode of a link says nothing, and what is in a sticky directory is its owner's to rename.
    if about.is_symlink() || (about.is_dir() && about.mode() & STICKY != 0) {
        return None;
    }
    if about.mode() & OTHERS_WRITE != 0 {
        return Some(Who::Anyone);
    }
    let is_foreign = about.mode() & GROUP_WRITE != 0 && ![0, group].contains(&about.gid());
    is_foreign.then_some(Who::Group(about.gid()))
}

/// What is wrong, and what to do.
impl Display for Distrust {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let who = self.who;
        let remedy = match who {
            Who::Owner(_) => format!("chown -h root {path}"),
            Who::Group(_) => format!("chmod g-w {path}"),
            Who::Anyone => format!("chmod o-w {path}"),
        };
        if self.is_file {
            write!(f, "{who} can write to this file, but only root may; run `{remedy}`")
        } else {
            write!(f, "{who} can replace this file, but only root may; run `{remedy}`, or move the file")
        }
    }
}

impl Display for Who {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(user) => write!(f, "user {user}"),
            Self::Group(group) => write!(f, "group {group}"),
            Self::Anyone => write!(f, "anyone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    /// A directory in one, with a file in it.
    fn tree() -> (tempfile::TempDir, PathBuf) {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("above/dir");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("file"), "").unwrap();
        (top, dir)
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn distrusted(path: &Path) -> Option<(PathBuf, Who)> {
        look(path).unwrap().1.map(|distrust| (distrust.path, distrust.who))
    }

    #[test]
    fn whoever_may_write_on_the_way_to_a_file_has_a_say_in_it() {
        let (_top, dir) = tree();
        let (above, file) = (dir.parent().unwrap(), dir.join("file"));
        assert_eq!(distrusted(&file), None);
        for path in [above, &dir, &file] {
            let is_dir = path.is_dir();
            mode(path, if is_dir { 0o777 } else { 0o666 });
            assert_eq!(distrusted(&file), Some((path.to_owned(), Who::Anyone)));
            mode(path, 0o1777);
            assert_eq!(distrusted(&file).is_none(), is_dir, "what is in a sticky directory is its owner's");
            mode(path, if is_dir { 0o755 } else { 0o644 });
        }
        assert_eq!(distrusted(&dir.join("../dir/./file")), None);
    }

    #[test]
    fn of_another_owner_or_group_nothing_is_trusted() {
        if !geteuid().is_root() {
            return limiter_lab::skip("only root can give files away");
        }
        let (_top, dir) = tree();
        let (above, file) = (dir.parent().unwrap(), dir.join("file"));
        for path in [above, &dir, &file] {
            chown(path, Some(65_534), None).unwrap();
            assert_eq!(distrusted(&file), Some((path.to_owned(), Who::Owner(65_534))));
            chown(path, Some(0), Some(12)).unwrap();
            assert_eq!(distrusted(&file), None, "a group that may not write");
            mode(path, 0o775);
            assert_eq!(distrusted(&file), Some((path.to_owned(), Who::Group(12))));
            chown(path, None, Some(0)).unwrap();
            assert_eq!(distrusted(&file), None, "root's group");
        }
    }

    #[test]
    fn links_are_followed_and_whoever_owns_one_has_a_say() {
        let (top, dir) = tree();
        let open = top.path().join("open");
        fs::create_dir(&open).unwrap();
        let [first, second, last] = ["first", "open/second", "last"].map(|name| top.path().join(name));
        symlink("open/second/file", &first).unwrap();
        symlink(&dir, &second).unwrap();
        symlink("first", &last).unwrap();
        assert_eq!(distrusted(&last), None);
        let (about, _) = look(&last).unwrap();
        assert_eq!(about.ino(), fs::metadata(&last).unwrap().ino());
        mode(&open, 0o777);
        assert_eq!(distrusted(&last), Some((open.clone(), Who::Anyone)), "a link in the middle of the way");
        mode(&open, 0o1777);
        assert_eq!(distrusted(&last), None);
        if geteuid().is_root() {
            std::os::unix::fs::lchown(&second, Some(65_534), None).unwrap();
            assert_eq!(distrusted(&last), Some((second, Who::Owner(65_534))));
        } else {
            limiter_lab::skip("only root can give links away");
        }
        symlink("circle", top.path().join("circle")).unwrap();
        let circle = look(&top.path().join("circle")).unwrap_err();
        assert_eq!(circle.raw_os_error(), Some(Errno::ELOOP as i32));
    }
}
