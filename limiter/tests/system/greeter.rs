// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The greeter's process: what it may, what becomes of it, and of those who come meanwhile.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::Value;

use limiter_lab::command::Outcome;
use limiter_lab::limiter::HOSTNAME;
use limiter_lab::poll::patience;
use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, client, eventually, same};

const CONFIG: &str = "[defaults]\nmax_connections = 1\nwait = \"0s\"\n[ladder]\nreplies = \"none\"\n";
/// Another one is there after this; the kernel tells of the end at once.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What `limiter status` says of the greeter.
fn greeter(limiter: &Limiter) -> Value {
    limiter.json(&["status"])["greeter"].clone()
}

/// The child of the daemon.
fn child(limiter: &Limiter) -> Option<i32> {
    let daemon = limiter.pid()?;
    let tasks = fs::read_dir(format!("/proc/{daemon}/task")).ok()?;
    let children = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    children.collect::<String>().split_whitespace().next()?.parse().ok()
}

/// Waits for another child than this one.
fn next_child(limiter: &Limiter, last: Option<i32>) -> i32 {
    eventually("there is a greeter", SOON, || {
        child(limiter).filter(|pid| Some(*pid) != last).ok_or_else(|| limiter.log())
    })
}

/// A part of `/proc/PID/status`.
fn field(pid: i32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Waits until the greeter tells one client why.
fn tells(lab: &Lab) {
    let refusal = Answer::Line(Limiter::smtp_reply(1, V4.source()));
    eventually("a client is told why", SOON, || {
        same("answer", &lab.answer(V4.source(), V4.port(25)), &refusal)
    });
}

/// A limiter whose greeter has told a client why it is refused; and what holds the only place.
fn refusing(lab: &Lab) -> (Limiter, (Sink, TcpStream)) {
    let sink = Sink::start(lab, 25);
    let limiter = Limiter::start_with(lab, CONFIG);
    let held = lab.served(V4.source(), V4.port(25));
    tells(lab);
    (limiter, (sink, held))
}

#[test]
fn it_may_nothing_but_talk_to_clients_and_to_the_daemon() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let (limiter, _held) = refusing(&lab);
    let pid = next_child(&limiter, None);
    for (name, value) in [
        ("Name", "limiter-greeter"),
        ("Uid", "65534 65534 65534 65534"),
        ("Gid", "65534 65534 65534 65534"),
        ("Groups", ""),
        ("Threads", "1"),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        assert_eq!(field(pid, name), value, "{name}");
    }
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let files = files.map(|file| fs::read_link(file.unwrap().path()).unwrap().display().to_string());
    let kinds: Vec<String> = files.map(|file| file.split(":[").next().unwrap().to_owned()).collect();
    let of = |kind: &str| kinds.iter().filter(|file| file.as_str() == kind).count();
    // The listener, two to the daemon, one of them three times, and the client, if it is still there.
    assert!((5..=6).contains(&of("socket")), "{kinds:?}");
    // The three standard ones, and the spare one; what tells of events; the counts.
    assert_eq!(
        [of("/dev/null"), of("anon_inode"), of("/memfd:limiter-greeter (deleted)")],
        [4, 1, 1],
        "{kinds:?}"
    );
    assert!(kinds.len() <= 12, "{kinds:?}");
    assert!(fs::read(format!("/proc/{pid}/environ")).unwrap().is_empty());
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(limit("Max open files"), "1040 1040");
    assert_eq!(limit("Max data size"), format!("{0} {0}", 128 << 20));
    for name in ["Max core file size", "Max processes", "Max file size", "Max locked memory"] {
        assert_eq!(limit(name), "0 0", "{name}");
    }
    // Nobody's processes cannot look into it, either.
    let mut look = Command::new("setpriv");
    look.args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"]).arg(format!("/proc/{pid}/maps"));
    assert_ne!(Outcome::of(look).code, Some(0));
    eventually("status knows of it", SOON, || {
        let said = greeter(&limiter);
        same("pid", &said["pid"], &pid.into()).and_then(|()| same("restarts", &said["restarts"], &0.into()))
    });
    let said = limiter.ok(&["status"]);
    assert!(said.contains(&format!("greeter pid {pid}")), "{said}");
    assert!(limiter.json(&["status"])["warnings"].as_array().unwrap().is_empty());
}

#[test]
fn killed_five_times_it_is_there_again_within_a_second_and_meanwhile_everyone_gets_a_reset() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, CONFIG);
    let _served = [V4, V6].map(|family| lab.served(family.source(), family.port(25)));
    tells(&lab);
    let ends = AtomicBool::new(false);
    let (told, answers) = std::thread::scope(|scope| {
        let clients = [V4, V6].map(|family| {
            let (lab, ends) = (&lab, &ends);
            scope.spawn(move || {
                lab.client.run(|| {
                    let mut answers = Vec::new();
                    while !ends.load(Relaxed) {
                        answers.push(client::answer(family.source(), family.port(25), SOON).1);
                    }
                    answers
                })
            })
        });
        let mut last = None;
        let mut took = Vec::new();
        for _ in 0..5 {
            let pid = next_child(&limiter, last);
            tells(&lab);
            // One that has lived for so long is replaced at once.
            limiter_lab::let_time_pass(AT_ONCE, "a crash loop is slower");
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            let killed = Instant::now();
            tells(&lab);
            took.push(killed.elapsed());
            last = Some(pid);
        }
        ends.store(true, Relaxed);
        let answers = clients.map(|clients| clients.join().unwrap());
        (took, answers.concat())
    });
    assert!(told.iter().all(|took| *took < AT_ONCE * patience()), "{told:?}");
    let lines =
        answers.iter().filter(|answer| matches!(answer, Answer::Line(line) if line.starts_with("421 ")));
    let resets = answers.iter().filter(|answer| **answer == Answer::Reset).count();
    let others: Vec<_> =
        answers.iter().filter(|answer| !matches!(answer, Answer::Line(_) | Answer::Reset)).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(lines.count() > 100 && resets > 0, "{resets} resets of {}", answers.len());
    let log = limiter.log();
    assert!(log.contains("has ended unexpectedly (it has closed its socket; signal: 9 (SIGKILL))"), "{log}");
    eventually("status counts them", SOON, || same("restarts", &greeter(&limiter)["restarts"], &5.into()));
    assert!(limiter.json(&["status"])["warnings"].as_array().unwrap().is_empty(), "all is well again");
    let said = limiter.ok(&["status"]);
    assert!(said.contains("greeter: since the daemon started it was started again 5 times"), "{said}");
    // What the killed ones have counted is not lost.
    assert!(greeter(&limiter)["greeted"].as_u64().unwrap() > 100);
}

#[test]
fn it_ends_with_the_daemon_however_that_ends_and_the_next_daemon_has_one_of_its_own() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start_with(&lab, CONFIG);
    let _served = lab.served(V4.source(), V4.port(25));
    let mut last = None;
    for killed in [true, false, true] {
        tells(&lab);
        let pid = next_child(&limiter, last);
        if killed {
            limiter.kill();
        } else {
            limiter.stop();
        }
        eventually("the greeter has ended, too", AT_ONCE, || {
            // Whoever inherits it may not have noticed.
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            if status.is_empty() || status.contains("State:	Z") { Ok(()) } else { Err(status) }
        });
        assert_eq!(lab.answer(V4.source(), V4.port(25)), Answer::Reset);
        limiter.run();
        last = Some(pid);
    }
    tells(&lab);
}

/// It could be in the middle of something, or somebody has stopped it.
#[test]
fn one_that_does_not_answer_is_replaced() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let (limiter, _held) = refusing(&lab);
    let pid = next_child(&limiter, None);
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    eventually("it is replaced", Duration::from_secs(30), || match child(&limiter) {
        Some(other) if other != pid => Ok(()),
        other => Err(format!("{other:?}")),
    });
    tells(&lab);
    assert!(limiter.log().contains("it does not answer"), "{}", limiter.log());
}

#[test]
fn where_it_cannot_be_confined_there_is_none_and_status_says_why() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let wrapper = ["setpriv", "--pdeathsig", "TERM", "--bounding-set=-setuid"];
    let limiter = Limiter::start_by(&lab, CONFIG, &wrapper);
    let _served = lab.served(V4.source(), V4.port(25));
    let why = "cannot become user 65534, group 65534 (CAP_SETUID, CAP_SETGID)";
    eventually("status says so", SOON, || {
        let warnings = limiter.json(&["status"])["warnings"].to_string();
        if warnings.contains(why) && warnings.contains("get a reset") { Ok(()) } else { Err(warnings) }
    });
    for _ in 0..20 {
        assert_eq!(lab.answer(V4.source(), V4.port(25)), Answer::Reset);
    }
    assert_eq!(limiter.json(&["status"])["in_force"], true);
    assert!(greeter(&limiter)["pid"].is_null());
    eventually("it is tried again every second", SOON, || {
        let restarts = greeter(&limiter)["restarts"].as_u64().unwrap();
        if restarts >= 2 { Ok(()) } else { Err(format!("{restarts}")) }
    });
    let log = limiter.log();
    let said = log.lines().filter(|line| line.contains(why)).count();
    assert_eq!(said, 1, "once, not every second: {log}");
}

/// Whether a process has these bytes in its memory.
fn has_in_memory(pid: i32, bytes: &[u8]) -> bool {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let ranges = maps.lines().filter(|line| !line.contains("[v")).map(|line| {
        let (begin, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        (number(begin), number(end))
    });
    ranges.into_iter().any(|(begin, end)| {
        let mut part = vec![0; (end - begin) as usize];
        let read = memory.read_at(&mut part, begin).unwrap_or_default();
        part[..read].windows(bytes.len()).any(|window| window == bytes)
    })
}

/// A private number of P-256 in the form in which *ring* keeps it: times 2^256, modulo the order of the group (FIPS 186-4,
/// D.1.2.3), in words, the lowest first.
fn kept(number: &[u8]) -> Vec<u8> {
    const ORDER: [u64; 4] =
        [0xf3b9_cac2_fc63_2551, 0xbce6_faad_a717_9e84, 0xffff_ffff_ffff_ffff, 0xffff_ffff_0000_0000];
    let words: Vec<u64> =
        number.rchunks(8).map(|word| u64::from_be_bytes(word.try_into().unwrap())).collect();
    let mut words: [u64; 4] = words.try_into().unwrap();
    for _ in 0..256 {
        let is_over = words[3] >> 63 == 1;
        for at in (0..4).rev() {
            words[at] = words[at] << 1 | if at > 0 { words[at - 1] >> 63 } else { 0 };
        }
        if is_over || words.iter().rev().ge(ORDER.iter().rev()) {
            let mut borrow = false;
            for (word, order) in words.iter_mut().zip(ORDER) {
                let (less, first) = word.overflowing_sub(order);
                let (less, second) = less.overflowing_sub(borrow.into());
                (*word, borrow) = (less, first || second);
            }
        }
    }
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn the_private_key_is_nowhere_in_its_memory() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 465);
    let files = tempfile::tempdir().unwrap();
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| files.path().join(name));
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let names = [HOSTNAME.to_owned(), V4.host.to_string()];
    let signed = CertificateParams::new(names).unwrap().self_signed(&pair).unwrap();
    fs::write(&certificate, signed.pem()).unwrap();
    let mut umask = Command::new("install");
    umask.args(["-m", "600", "/dev/null"]).arg(&key);
    assert_eq!(Outcome::of(umask).code, Some(0));
    fs::write(&key, pair.serialize_pem()).unwrap();
    let [certificate_path, key_path] = [&certificate, &key].map(|path| path.display());
    let tls = format!("tls = {{ certificate = \"{certificate_path}\", key = \"{key_path}\" }}\n");
    let limiter = Limiter::start_with(&lab, &CONFIG.replace("[ladder]", &format!("{tls}[ladder]")));
    let _served = lab.served(V4.source(), V4.port(465));
    // A handshake, which takes a signature.
    let mut openssl = lab.client.command("openssl");
    openssl.args(["s_client", "-quiet", "-connect", &V4.port(465).to_string(), "-CAfile"]).arg(&certificate);
    openssl.stdin(std::process::Stdio::null());
    let said = Outcome::of(openssl);
    assert!(said.stdout.contains(&Limiter::smtp_words(1, V4.source())), "{said:?}");
    // Of a key in PKCS #8 the private number follows the version (RFC 5915, 3).
    let der = pair.serialize_der();
    let at = der.windows(5).position(|window| window == [2, 1, 1, 4, 32]).unwrap() + 5;
    let number = &der[at..at + 32];
    let public = CertificateDer::from_pem_file(&certificate).unwrap();
    let greeter = next_child(&limiter, None);
    let daemon = i32::try_from(limiter.pid().unwrap()).unwrap();
    // The search finds what is there.
    assert!(has_in_memory(greeter, &public), "its certificate");
    assert!(has_in_memory(daemon, &kept(number)), "the daemon's key");
    let reversed: Vec<u8> = number.iter().rev().copied().collect();
    for secret in [number, &reversed, &kept(number), &der] {
        assert!(!has_in_memory(greeter, secret), "{secret:02x?}");
    }
    let text = pair.serialize_pem();
    let line = text.lines().nth(1).unwrap();
    assert!(!has_in_memory(greeter, line.as_bytes()), "the file's text");
}

#[test]
fn nobody_starts_it_by_hand() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::absent(&lab);
    for numbers in [["3", "4", "5"], ["0", "1", "2"], ["-1", "99", "100"]] {
        let outcome =
            limiter.cli(&[&["greeter", "--"][..], &numbers, &["65534", "65534", "64", "1"]].concat());
        assert_ne!(outcome.code, Some(0), "{outcome:?}");
        assert!(outcome.stderr.contains("no command"), "{outcome:?}");
    }
    let help = limiter.ok(&["help"]);
    let verbs: BTreeSet<&str> = help.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(verbs.contains("run") && !verbs.contains("greeter"), "{help}");
}
