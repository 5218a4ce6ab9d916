// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A limiter for one cgroup, which comes and goes with a service.

use crate::support::service::{cgroup, remake, serve};
use limiter_lab::process::tethered;
use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, eventually, same};

/// Two are served at most, of each family.
fn is_limited(lab: &Lab) {
    for family in [V4, V6] {
        let held = [0; 2].map(|_| lab.served(family.source(), family.port(25)));
        assert_eq!(lab.answer(family.source(), family.port(25)), Answer::Reset);
        drop(held);
    }
}

const TWO: &str = "[defaults]\nmax_connections = 2\nresponse = \"reset\"\n";

#[test]
fn a_service_that_is_started_again_in_a_new_cgroup_is_limited_again() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let group = cgroup(&lab);
    let mut server = serve(&lab, &group);
    let limiter = Limiter::start_in_with(&lab, group.path(), TWO);
    is_limited(&lab);
    let pid = limiter.pid();
    for _ in 0..2 {
        server.kill().unwrap();
        let id = remake(&group);
        eventually("status says so", SOON, || same("code", &limiter.cli(&["status"]).code, &Some(3)));
        server = serve(&lab, &group);
        eventually("it is followed", SOON, || same("code", &limiter.cli(&["status"]).code, &Some(0)));
        assert_ne!(group.id().unwrap(), id);
        is_limited(&lab);
        assert_eq!(limiter.pid(), pid, "in the same process");
        // The limits are in force a moment before it serves again.
        eventually("it serves", SOON, || {
            same("pid", &limiter.json(&["status"])["daemon"]["pid"], &pid.unwrap().into())
        });
    }
    let log = limiter.log();
    assert!(log.contains("a new cgroup exists at") && !log.contains("ERROR"), "{log}");
}

/// The advice of the warning helps: another daemon takes over.
#[test]
fn the_next_daemon_protects_the_cgroup_that_is_at_the_path_by_then() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let group = cgroup(&lab);
    let mut server = serve(&lab, &group);
    let mut limiter = Limiter::start_in_with(&lab, group.path(), TWO);
    limiter.kill();
    server.kill().unwrap();
    remake(&group);
    server = serve(&lab, &group);
    let said = limiter.cli(&["status"]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stdout.contains("programs not attached: ledger, release, gate"), "{said:?}");
    limiter.run();
    is_limited(&lab);
    drop(server);
}

/// A socket has the cgroup of who has opened it, as with systemd's socket activation.
#[test]
fn a_listener_outside_of_the_cgroup_is_warned_of() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let group = cgroup(&lab);
    let warned = |limiter: &Limiter| {
        let warnings = limiter.json(&["status"])["warnings"].clone();
        let warnings: Vec<String> = serde_json::from_value(warnings).unwrap();
        warnings
            .iter()
            .filter(|warning| warning.contains("outside the protected cgroup"))
            .cloned()
            .collect::<Vec<_>>()
    };
    let server = serve(&lab, &group);
    let limiter = Limiter::start_in_with(&lab, group.path(), TWO);
    assert_eq!(warned(&limiter), Vec::<String>::new());
    drop(server);
    let _sink = Sink::start(&lab, 25);
    let warnings = warned(&limiter);
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("smtp: the socket that listens on port 25 "),
        "{warnings:?}"
    );
    // Of all cgroups none is outside.
    drop(limiter);
    let limiter = Limiter::start(&lab, 2, "reset");
    assert_eq!(warned(&limiter), Vec::<String>::new());
}

/// There the root of the tree is the container's own cgroup.
#[test]
fn in_a_cgroup_namespace_the_daemon_says_that_only_the_container_is_limited() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let group = cgroup(&lab);
    let tree = limiter_lab::cgroup::root().unwrap();
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::absent(&lab);
    let arguments = limiter.run_arguments();
    let mut command = tethered("sh");
    // The first argument is the cgroup, the second where the tree is.
    let inside =
        "umount \"$1\" && mount -t cgroup2 none \"$1\" && shift && exec setpriv --pdeathsig TERM \"$@\"";
    let enter =
        "echo $$ > \"$1/cgroup.procs\" && shift && exec unshare --cgroup --mount sh -c \"$0\" sh \"$@\"";
    command.args(["-c", enter, inside]).arg(group.path()).arg(&tree).arg(crate::BINARY).args(arguments);
    limiter.run_as(command, |_| ());
    let log = limiter.log();
    assert!(log.contains("limiter runs in a cgroup namespace"), "{log}");
    drop(lab.served(V4.source(), V4.port(25)));
    assert_eq!(limiter.counter("smtp", "accepted"), 0, "it was opened outside");
    let warnings = limiter.json(&["status"])["warnings"].to_string();
    assert!(warnings.contains("outside the protected cgroup"), "{warnings}");
    // On the host nothing is said.
    limiter.stop();
    limiter.ok(&["unload"]);
    limiter.run();
    assert_eq!(limiter.log().matches("cgroup namespace").count(), 1, "{}", limiter.log());
}
