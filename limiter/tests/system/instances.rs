// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Several instances on one machine, and what one leaves behind: nothing.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use limiter_lab::command::run;
use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, eventually, let_time_pass, sockets};

#[test]
fn two_instances_in_two_namespaces_do_not_see_each_other() {
    let (Some(here), Some(there)) = (Lab::new(crate::BINARY), Lab::new(crate::BINARY)) else { return };
    let _sinks = [&here, &there].map(|lab| Sink::start(lab, 25));
    let ours = Limiter::start(&here, 3, "reply");
    let theirs = Limiter::start(&there, 5, "reply");
    // The same addresses on both sides.
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        let full: Vec<TcpStream> = (0..3).map(|_| here.served(source, smtp)).collect();
        assert_eq!(here.answer(source, smtp), Answer::Line(Limiter::smtp_reply(3, source)));
        assert_eq!(theirs.source("smtp", source).connections, 0);
        let other: Vec<TcpStream> = (0..5).map(|_| there.served(source, smtp)).collect();
        assert_eq!(there.answer(source, smtp), Answer::Line(Limiter::smtp_reply(5, source)));
        sockets::agree(&here.host, &ours, ("smtp", 25), source, 3);
        sockets::agree(&there.host, &theirs, ("smtp", 25), source, 5);
        drop((full, other));
    }
    let counters =
        |limiter: &Limiter| ["accepted", "refused_concurrency"].map(|name| limiter.counter("smtp", name));
    assert_eq!((counters(&ours), counters(&theirs)), ([6, 2], [10, 2]));
    sockets::settled(&here.host, &ours, 25);
    sockets::settled(&there.host, &theirs, 25);

    drop(ours);
    let full: Vec<TcpStream> = (0..5).map(|_| there.served(V4.source(), V4.port(25))).collect();
    assert_eq!(there.answer(V4.source(), V4.port(25)), Answer::Line(Limiter::smtp_reply(5, V4.source())));
    let unlimited: Vec<TcpStream> = (0..9).map(|_| here.served(V4.source(), V4.port(25))).collect();
    drop((full, unlimited));
}

/// `bpftool -j KIND show WHICH…`, or nothing if there is no such object.
fn bpftool(kind: &str, which: &[&str]) -> Option<Value> {
    let mut command = Command::new("bpftool");
    command.args(["-j", kind, "show"]).args(which);
    serde_json::from_str(&run(command).ok()?).ok()
}

/// Kind and number of a kernel object.
type Object = (&'static str, u64);

/// The kernel objects of an instance: what its pins hold, and what that holds in turn.
fn objects(pins: &Path) -> BTreeSet<Object> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(pins).expect("an instance has pins") {
        let path = entry.expect("a pin").path();
        if path.is_dir() {
            found.append(&mut objects(&path));
            continue;
        }
        let path = path.to_str().expect("a plain path");
        let mut kinds = ["prog", "map", "link"].into_iter();
        let known = kinds.find_map(|kind| Some((kind, bpftool(kind, &["pinned", path])?)));
        let (kind, object) =
            known.unwrap_or_else(|| panic!("bpftool does not know what is pinned at {path}"));
        found.insert((kind, object["id"].as_u64().expect("an id")));
        found.extend(object["prog_id"].as_u64().map(|id| ("prog", id)));
    }
    let programs: Vec<u64> = found.iter().filter(|(kind, _)| *kind == "prog").map(|&(_, id)| id).collect();
    for id in programs {
        let Some(program) = bpftool("prog", &["id", &id.to_string()]) else { continue };
        let maps = program["map_ids"].as_array().into_iter().flatten();
        found.extend(maps.filter_map(Value::as_u64).map(|id| ("map", id)));
        found.extend(program["btf_id"].as_u64().map(|id| ("btf", id)));
    }
    found
}

/// Those of `objects` that still exist.
fn left(objects: &BTreeSet<Object>) -> Vec<(Object, Value)> {
    let show = |&object: &Object| Some((object, bpftool(object.0, &["id", &object.1.to_string()])?));
    objects.iter().filter_map(show).collect()
}

/// Unloads, and requires that nothing of the instance is left, and nothing is limited.
fn unloads_without_trace(lab: &Lab, limiter: &Limiter) {
    let objects = objects(&limiter.pins());
    for kind in ["prog", "map", "link"] {
        assert!(
            objects.iter().any(|(found, _)| *found == kind),
            "an instance has at least one {kind}: {objects:?}"
        );
    }
    assert_eq!(left(&objects).len(), objects.len(), "bpftool finds what there is");
    limiter.ok(&["unload"]);
    assert!(!limiter.pins().exists(), "the directory of its pins is gone");
    // The kernel frees programs and maps after a grace period. To look at a map is to open and close it, and a program
    // array that is closed for the last time twice, before the kernel has come to clear it, keeps a reference for ever
    // (`prog_array_map_clear`, kernel/bpf/arraymap.c, takes one more each time and queues its work once). So: not at
    // once, and not too often.
    let slowly = || let_time_pass(Duration::from_millis(500), "the maps are not looked at too often");
    slowly();
    eventually("no program, link, map or BTF of the instance is left", SOON, || {
        let left = left(&objects);
        if left.is_empty() {
            return Ok(());
        }
        slowly();
        Err(format!("{left:#?}"))
    });
    let status = limiter.cli(&["status"]);
    assert_eq!(status.code, Some(3), "status says that nothing is loaded: {status:?}");
    let unlimited: Vec<TcpStream> = (0..5).map(|_| lab.served(V4.source(), V4.port(25))).collect();
    drop(unlimited);
}

#[test]
fn unload_after_the_daemon_has_ended_leaves_no_program_link_map_or_pin() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start(&lab, 2, "reply");
    let sessions: Vec<TcpStream> = (0..2).map(|_| lab.served(V4.source(), V4.port(25))).collect();
    assert_eq!(lab.answer(V4.source(), V4.port(25)), Answer::Line(Limiter::smtp_reply(2, V4.source())));
    limiter.stop();
    unloads_without_trace(&lab, &limiter);
    drop(sessions);
}

#[test]
fn unload_after_the_daemon_was_killed_and_after_a_takeover_leaves_nothing_either() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start(&lab, 2, "reply");
    let first = objects(&limiter.pins());
    limiter.kill();
    limiter.run();
    limiter.kill();
    unloads_without_trace(&lab, &limiter);
    eventually("nothing of the first daemon is left", SOON, || {
        let left = left(&first);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    });
}

#[test]
fn an_unloaded_instance_can_be_loaded_again_and_counts_from_zero() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start(&lab, 2, "reply");
    let (source, smtp) = (V4.source(), V4.port(25));
    drop(lab.served(source, smtp));
    sockets::settled(&lab.host, &limiter, 25);
    limiter.stop();
    limiter.ok(&["unload"]);
    limiter.run();
    assert_eq!(limiter.counter("smtp", "accepted"), 0);
    let sessions: Vec<TcpStream> = (0..2).map(|_| lab.served(source, smtp)).collect();
    assert_eq!(lab.answer(source, smtp), Answer::Line(Limiter::smtp_reply(2, source)));
    drop(sessions);
    sockets::settled(&lab.host, &limiter, 25);
}
