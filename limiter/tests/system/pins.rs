// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Where pins are not as usual: a BPF file system of a mount namespace's own, and one that is read-only.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown, lchown, symlink};
use std::path::Path;
use std::process::Command;

use crate::privileges::left;
use limiter_lab::command::Outcome;
use limiter_lab::process::Process;
use limiter_lab::{Lab, Limiter, SOON, eventually};

/// Starts a daemon with a BPF file system of its own; its log is at `log`.
fn start_apart(lab: &Lab, limiter: &Limiter, log: &Path) -> Process {
    const APART: &str = "mount -t bpf bpf /sys/fs/bpf && exec setpriv --pdeathsig TERM \"$@\"";
    let mut command = lab.host.command("unshare");
    command.args(["--mount", "sh", "-c", APART, "sh", crate::BINARY]).args(limiter.run_arguments());
    command.env("NO_COLOR", "1").stderr(fs::File::create(log).unwrap());
    let daemon = Process::start("a daemon apart", command).unwrap();
    eventually("it serves", 6 * SOON, || {
        let number = fs::read_to_string(format!("/run/limiter/{}.pid", limiter.instance)).unwrap_or_default();
        if number == format!("{}\n", daemon.pid()) { Ok(()) } else { Err(fs::read_to_string(log).unwrap()) }
    });
    daemon
}

#[test]
fn limits_in_a_file_system_of_their_own_are_promised_to_nobody_and_found_from_the_host() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::absent(&lab);
    let log = limiter.config_path().with_file_name("apart");
    let mut daemon = start_apart(&lab, &limiter, &log);
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("WARN /sys/fs/bpf may not be the host's"), "{said}");
    for arguments in [&["status"][..], &["list"], &["deny", "192.0.2.9"], &["unload"]] {
        let outcome = limiter.cli(arguments);
        assert_eq!(outcome.code, Some(1), "{arguments:?}: {outcome:?}");
        let way = format!("`nsenter --mount --target {} limiter", daemon.pid());
        assert!(outcome.stderr.contains(&way), "{arguments:?}: {outcome:?}");
    }
    assert!(daemon.ended().unwrap().is_none(), "unload has ended what it cannot unload");
    // As they say.
    let inside = |arguments: &[&str]| {
        let mut command = Command::new("nsenter");
        command.args([
            "--mount",
            "--target",
            &daemon.pid().to_string(),
            crate::BINARY,
            "--instance",
            &limiter.instance,
        ]);
        command.args(arguments);
        Outcome::of(command)
    };
    assert_eq!(inside(&["status"]).code, Some(0));
    let outcome = inside(&["unload"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    eventually("it has ended", SOON, || {
        daemon.ended().unwrap().map(drop).ok_or_else(|| "it runs".to_owned())
    });
    assert_eq!(left(&limiter), Vec::<String>::new());

    let mut daemon = start_apart(&lab, &limiter, &log);
    assert!(daemon.stop().unwrap().success());
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("only as long as this /sys/fs/bpf is mounted somewhere"), "{said}");
    // Its limits have ended with it.
    assert!(limiter.ok(&["unload"]).contains("was not loaded"));
    assert_eq!(left(&limiter), Vec::<String>::new());
}

#[test]
fn the_hosts_file_system_is_known_in_another_mount_namespace() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::absent(&lab);
    let arguments = limiter.run_arguments();
    limiter.run_as(lab.host.command("unshare"), |command| {
        command.args(["--mount", "setpriv", "--pdeathsig", "TERM", crate::BINARY]).args(arguments);
    });
    limiter.stop();
    let log = limiter.log();
    assert!(!log.contains("WARN") && log.contains("the limits stay in force"), "{log}");
    assert_eq!(limiter.json(&["status"])["in_force"], true);
}

#[test]
fn what_cannot_be_unloaded_is_not_unloaded_by_half() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 1, "reset");
    let links = || fs::read_dir(limiter.pins()).unwrap().count();
    let before = links();
    let mut command = Command::new("unshare");
    let read_only = "mount -o remount,bind,ro /sys/fs/bpf && exec \"$@\"";
    command.args([
        "--mount",
        "sh",
        "-c",
        read_only,
        "sh",
        crate::BINARY,
        "--instance",
        &limiter.instance,
        "unload",
    ]);
    let outcome = Outcome::of(command);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("read-only file system, so nothing was changed"), "{outcome:?}");
    let status = limiter.json(&["status"]);
    assert_eq!((&status["in_force"], &status["daemon"]["running"]), (&true.into(), &true.into()));
    assert_eq!(links(), before);
    limiter.ok(&["unload"]);
    assert_eq!(left(&limiter), Vec::<String>::new());
}

/// Where any user may write to the BPF file system, as with `mount -t bpf` and nothing more.
#[test]
fn what_somebody_else_has_put_where_pins_are_made_is_neither_removed_nor_in_the_way() {
    const NOBODY: Option<u32> = Some(65_534);
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let other = Lab::new(crate::BINARY).unwrap();
    let victim = Limiter::start_with(&other, "");
    let mut limiter = Limiter::absent(&lab);
    let squat = limiter.pins().with_file_name(format!("{}+new", limiter.instance));
    let theirs = limiter.pins().with_file_name(format!("{}-theirs", limiter.instance));
    let dir = |path: &Path| {
        fs::create_dir(path).unwrap();
        chown(path, NOBODY, NOBODY).unwrap();
    };
    let link = |to: &Path| {
        symlink(to, &squat).unwrap();
        lchown(&squat, NOBODY, NOBODY).unwrap();
    };
    let cases: [(&str, &dyn Fn()); 5] = [
        ("an empty directory", &|| dir(&squat)),
        ("a directory with another in it", &|| {
            dir(&squat);
            dir(&squat.join("x"));
        }),
        ("a link to a directory of theirs", &|| {
            dir(&theirs);
            link(&theirs);
        }),
        ("a link to the pins of another instance", &|| link(&victim.pins())),
        ("a link to nothing", &|| link(Path::new("/sys/fs/bpf/nothing"))),
    ];
    for (what, put) in cases {
        put();
        let before = fs::symlink_metadata(&squat).unwrap().ino();
        limiter.run();
        assert_eq!(limiter.json(&["status"])["in_force"], true, "{what}");
        assert!(limiter.log().contains("is used in place of one that is not limiter's"), "{}", limiter.log());
        if what.contains("another instance") {
            // A start that replaces all needs such a place, too, as does each unload.
            limiter.stop();
            limiter.configure("max_sources = 65536\n");
            limiter.run();
            assert_eq!(limiter.json(&["status"])["in_force"], true, "{what}");
        }
        limiter.stop();
        limiter.ok(&["unload"]);
        limiter.configure("");
        assert!(limiter.ok(&["unload"]).contains("was not loaded"), "{what}");
        let others = left(&limiter);
        assert!(
            others.iter().all(|left| left.starts_with(squat.to_str().unwrap()) || left.contains("-theirs")),
            "{what}: {others:?}"
        );
        assert_eq!(fs::symlink_metadata(&squat).unwrap().ino(), before, "{what}");
        assert_eq!(victim.json(&["status"])["in_force"], true, "{what}");
        if fs::symlink_metadata(&squat).unwrap().is_symlink() {
            fs::remove_file(&squat).unwrap();
        } else {
            fs::remove_dir_all(&squat).unwrap();
        }
        let _is_not_there = fs::remove_dir(&theirs);
    }

    // Under the name of the instance itself nothing of theirs is believed, and the sentence says whose it is.
    let cases: [&dyn Fn(); 2] =
        [&|| dir(&limiter.pins()), &|| symlink("/sys/fs/bpf/nothing", limiter.pins()).unwrap()];
    for put in cases {
        put();
        let mut command = Command::new(crate::BINARY);
        command.args(limiter.run_arguments());
        for outcome in [Outcome::of(command), limiter.cli(&["status"]), limiter.cli(&["unload"])] {
            assert_eq!(outcome.code, Some(1), "{outcome:?}");
            assert!(outcome.stderr.contains(limiter.pins().to_str().unwrap()), "{outcome:?}");
        }
        if limiter.pins().is_symlink() {
            fs::remove_file(limiter.pins()).unwrap();
        } else {
            fs::remove_dir(limiter.pins()).unwrap();
        }
    }
}
