// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is read, and what is no file to be read.

use std::{fs, io::Write as _};

use super::{super::*, SAMPLE};

#[test]
fn a_file_is_loaded() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(SAMPLE.as_bytes()).unwrap();
    assert_eq!(load(file.path()).unwrap(), Config::default());
}

#[test]
fn what_is_no_readable_file_is_refused_in_one_sentence() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mode = |name: &str, mode| fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    fs::write(path("large"), vec![b'#'; 8 << 20 | 1]).unwrap();
    fs::write(path("largest"), vec![b'#'; 8 << 20]).unwrap();
    fs::write(path("latin1"), b"# gr\xfc\xdfe").unwrap();
    fs::write(path("late"), b"hostname = 'a'\n# \xc3\xa4\xc3\xb6\xff").unwrap();
    fs::write(path("nul"), b"[defaults]\nmax\0").unwrap();
    fs::write(path("anyone"), "").unwrap();
    mode("anyone", 0o666);
    for open in ["open", "sticky"] {
        fs::create_dir(path(open)).unwrap();
        fs::write(path(open).join("file"), "").unwrap();
    }
    mode("open", 0o777);
    mode("sticky", 0o1777);
    symlink(path("open/file"), path("link to open")).unwrap();
    symlink(path("largest"), path("open/link")).unwrap();
    symlink(path("circle"), path("circle")).unwrap();
    symlink("/dev/zero", path("zero")).unwrap();
    nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    load(&path("largest")).unwrap();
    load(&path("sticky/file")).unwrap();
    let open = format!(
        ": anyone can replace this file, but only root may; run `chmod o-w {}`, or move the file",
        path("open").display()
    );
    let anyone = format!(
        ": anyone can write to this file, but only root may; run `chmod o-w {}`",
        path("anyone").display()
    );
    let table = [
        ("none", ": no such file; create it, or name another"),
        ("", ": this is a directory; give the path of the configuration file in it"),
        ("nul/x", ": cannot be read (Not a directory (os error 20)); make it readable for limiter"),
        (
            "large",
            ": larger than 8 MiB, so this is not a configuration file; give the path of the right file",
        ),
        ("latin1", ":1:5: this is not UTF-8; save the file as UTF-8 text"),
        ("late", ":2:5: this is not UTF-8; save the file as UTF-8 text"),
        ("nul", ":2:4: there is a NUL character here; remove it"),
        ("circle", ": the symbolic links form a loop; give the path of the file itself"),
        ("zero", ": this is a device, not a file; give the path of the configuration file"),
        ("pipe", ": this is a pipe, not a file; give the path of the configuration file"),
        ("socket", ": this is a socket, not a file; give the path of the configuration file"),
        ("anyone", &anyone),
        ("open/file", &open),
        ("link to open", &open),
        ("open/link", &open),
    ];
    for (name, expected) in table {
        let path = path(name);
        let error = load(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("{}{expected}", path.display()));
    }
}
