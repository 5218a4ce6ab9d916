// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The whole new policy or, with any error, none of it.

use std::fs;
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, client, eventually, sockets};

#[test]
fn a_reload_puts_the_file_in_force_and_keeps_the_counts() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sinks = [25, 2525].map(|port| Sink::start(&lab, port));
    let limiter = Limiter::start(&lab, 2, "reset");
    let held: Vec<TcpStream> = [V4, V6]
        .map(|family| [0; 2].map(|_| lab.served(family.source(), family.port(25))))
        .into_iter()
        .flatten()
        .collect();
    limiter.configure(
        "[defaults]\nmax_connections = 3\nresponse = \"reset\"\nwait = \"9s\"\n[service.smtp]\nports = [25, 2525]\n\
         [[rule]]\nnetwork = \"198.51.100.8\"\ndeny = true\n[[rule]]\nnetwork = \"2001:db8:8::/64\"\ndeny = true\n",
    );
    let said = limiter.ok(&["set", "imap", "max_connections=9", "wait=0"]);
    assert!(said.contains("imap: wait 5s -> 0s"), "{said}");
    let said = limiter.ok(&["status"]);
    assert!(said.contains("\nimap: no client waits for a place\n") && !said.contains("smtp: "), "{said}");
    let said = limiter.ok(&["reload"]);
    assert!(said.contains("limiter.toml: in force"), "{said}");
    let said = limiter.ok(&["status"]);
    assert!(said.contains("\nimap: clients wait 9 s for a place\n"), "{said}");
    for family in [V4, V6] {
        let source = family.source();
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 2);
        let third = lab.served(source, family.port(2525));
        assert_eq!(
            lab.answer(source, family.port(25)),
            Answer::Reset,
            "the ports of a service share its limit"
        );
        assert_eq!(lab.answer(family.sources[1], family.port(25)), Answer::Silence, "denied");
        drop(third);
    }
    let imap = limiter.json(&["status"])["services"].as_array().unwrap()[0].clone();
    assert_eq!((&imap["name"], &imap["max_connections"]), (&"imap".into(), &3.into()), "the file's word");
    assert_eq!(imap["wait_seconds"], 9, "the file's word");
    drop(held);
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn what_is_counted_at_a_port_stays_counted_when_the_port_is_no_services_any_more() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sinks = [25, 2525].map(|port| Sink::start(&lab, port));
    let limits = "[defaults]\nmax_connections = 3\nresponse = \"reset\"\n";
    let limiter = Limiter::start_with(&lab, &format!("{limits}[service.smtp]\nports = [25, 2525]\n"));
    let held = [V4, V6].map(|family| lab.served(family.source(), family.port(2525)));
    limiter.configure(limits);
    limiter.ok(&["reload"]);
    let free = [V4, V6].map(|family| lab.served(family.source(), family.port(2525)));
    let verified = limiter.json(&["status", "--verify"])["verified"].clone();
    assert_eq!(verified["differences"].as_array().unwrap().len(), 0, "{verified:#}");
    for family in [V4, V6] {
        assert_eq!(limiter.source("smtp", family.source()).connections, 1, "and no other is");
    }
    drop((held, free));
    sockets::settled(&lab.host, &limiter, 2525);
}

#[test]
fn a_signal_reloads_the_daemons_own_settings_too() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 1, "reply");
    let held = [V4, V6].map(|family| lab.served(family.source(), family.port(25)));
    limiter.configure_all("hostname = \"new.example.net\"\n[defaults]\nmax_connections = 1\n");
    kill(Pid::from_raw(i32::try_from(limiter.pid().unwrap()).unwrap()), Signal::SIGHUP).unwrap();
    for family in [V4, V6] {
        eventually("it greets by its new name", SOON, || {
            match lab.answer(family.source(), family.port(25)) {
                Answer::Line(line) if line.starts_with("421 4.7.0 new.example.net ") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
    drop(held);
    sockets::settled(&lab.host, &limiter, 25);
}

/// Who knows the daemon's number may signal it: `limiter reload` does so the moment it is there.
#[test]
fn the_first_signal_does_not_end_the_daemon() {
    const STARTS: usize = 5;
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start(&lab, 1, "reset");
    let number = PathBuf::from(format!("/run/limiter/{}.pid", limiter.pins().file_name().unwrap().display()));
    for start in 1..=STARTS {
        limiter.stop();
        let old = fs::read_to_string(&number).expect("the daemon's number");
        // Not by looking all the time: the daemon needs the processor while it loads.
        let changes = Inotify::init(InitFlags::IN_CLOEXEC).unwrap();
        changes.add_watch(&number, AddWatchFlags::IN_MODIFY).unwrap();
        let hasty = std::thread::spawn({
            let number = number.clone();
            move || {
                loop {
                    changes.read_events().unwrap();
                    let text = fs::read_to_string(&number).unwrap_or_default();
                    if text != old && text.ends_with('\n') {
                        return kill(Pid::from_raw(text.trim().parse().unwrap()), Signal::SIGHUP).unwrap();
                    }
                }
            }
        });
        limiter.run();
        eventually("it reads its file again", SOON, || {
            let read = limiter.log().matches("reloaded the configuration").count();
            if read == start { Ok(()) } else { Err(format!("{read} times after {start} starts")) }
        });
        hasty.join().unwrap();
    }
}

/// Two policies that differ in everything; each connection is judged by one of them.
#[test]
fn two_hundred_reloads_under_load_refuse_nobody_whom_neither_policy_refuses() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let one = "[defaults]\nmax_connections = 5\nresponse = \"reset\"\n\
               [[rule]]\nnetwork = \"198.51.100.8\"\ndeny = true\n[[rule]]\nnetwork = \"2001:db8:8::/48\"\ndeny = true\n";
    let other = "[service.smtp]\nmax_connections = 4\nresponse = \"reset\"\nmax_total = 1000\nrate = \"1000000/s\"\n\
                 network = { max_connections = 100 }\n[service.pop3]\nports = []\n\
                 [[rule]]\nnetwork = \"198.51.100.0/24\"\nmax_connections = 4\n\
                 [[rule]]\nnetwork = \"198.51.100.8\"\ndeny = true\n[[rule]]\nnetwork = \"2001:db8:8::/48\"\ndeny = true\n";
    let limiter = Limiter::start_with(&lab, one);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (lab, stop) = (&lab, &stop);
        let clients: Vec<_> = [V4, V6]
            .into_iter()
            .flat_map(|family| {
                // Never more than both allow, and never one that both refuse.
                let honest = scope.spawn(move || {
                    lab.client.run(|| {
                        let mut served = 0_u32;
                        while !stop.load(Ordering::Relaxed) {
                            let held: Vec<_> = (0..3)
                                .map(|_| client::dial(family.source(), family.port(25), SOON))
                                .collect();
                            for stream in held {
                                let stream = stream.expect("neither policy refuses the third");
                                // The server's last word is said when it has let go.
                                stream.shutdown(Shutdown::Write).unwrap();
                                std::io::copy(&mut &stream, &mut std::io::sink()).unwrap();
                                served += 1;
                            }
                        }
                        served
                    })
                });
                let denied = scope.spawn(move || {
                    lab.client.run(|| {
                        let mut refused = 0_u32;
                        while !stop.load(Ordering::Relaxed) {
                            let stream =
                                client::dial(family.sources[1], family.port(25), Duration::from_millis(20));
                            assert!(stream.is_err(), "both policies deny it");
                            refused += 1;
                        }
                        refused
                    })
                });
                [honest, denied]
            })
            .collect();
        for round in 0..200 {
            limiter.configure(if round % 2 == 0 { other } else { one });
            limiter.ok(&["reload"]);
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            assert!(client.join().unwrap() > 100);
        }
    });
    sockets::settled(&lab.host, &limiter, 25);
}

/// The numbers of services are not in the order of their names where one was added later.
#[test]
fn a_reload_of_the_same_file_changes_nothing_whenever_its_services_were_added() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start_with(&lab, "");
    limiter.configure(
        "[service.a-new-one]\nports = [2525]\nprotocol = \"smtp\"\n\
         [[rule]]\nnetwork = \"198.51.100.0/24\"\nmax_connections = { a-new-one = 3, smtp = 7 }\n",
    );
    let said = limiter.json(&["reload"]);
    assert!(said["changes"].to_string().contains("3 to a-new-one"), "{said:#}");
    let said = limiter.json(&["reload"]);
    assert_eq!((&said["changed"], &said["changes"]), (&false.into(), &serde_json::json!([])), "{said:#}");
    let rules = limiter.json(&["rules"]);
    let rule = rules["rules"].as_array().unwrap().iter().find(|rule| rule["network"] == "198.51.100.0/24");
    assert_eq!(rule.unwrap()["services"], serde_json::json!([["smtp", 7], ["a-new-one", 3]]));
}

#[test]
fn a_reload_says_what_is_in_force_only_when_the_daemon_starts_anew() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start_with(&lab, "");
    for (text, key, other) in [
        ("max_sources = 2048\n", "max_sources", "max_bans"),
        ("[ladder]\nmax_bans = 2048\n", "max_bans", "max_sources"),
    ] {
        let before = limiter.log().len();
        limiter.configure(text);
        let outcome = limiter.cli(&["reload"]);
        let warning =
            format!("limiter: warning: {key} is read only when the daemon starts: stop it and start");
        assert!(outcome.code == Some(0) && outcome.stderr.starts_with(&warning), "{outcome:?}");
        let told = |key: &str| {
            limiter.log()[before..].contains(&format!("{key} is read only when the daemon starts"))
        };
        eventually("it is said", SOON, || if told(key) { Ok(()) } else { Err(limiter.log()) });
        assert!(!told(other));
    }
}

#[test]
fn a_reload_without_a_daemon_says_what_is_in_force_only_when_one_runs() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start_with(&lab, "");
    limiter.stop();
    limiter.configure_all("hostname = \"mx2.example.net\"\ninterfaces = []\n[ladder]\nban = \"5m\"\n");
    let outcome = limiter.cli(&["reload"]);
    let warning =
        "limiter: warning: hostname, interfaces are applied by the daemon, which is not running: start";
    assert!(outcome.code == Some(0) && outcome.stderr.starts_with(warning), "{outcome:?}");
    let again = limiter.cli(&["reload"]);
    assert!(again.stderr.is_empty() && again.stdout.contains("unchanged"), "{again:?}");
    limiter.configure("max_sources = 2048\n");
    for _ in 0..2 {
        let stderr = limiter.cli(&["reload"]).stderr;
        assert!(stderr.contains("max_sources") && stderr.contains("applied by the daemon"), "{stderr}");
    }
}

#[test]
fn a_daemon_that_cannot_read_what_is_in_force_says_so_until_the_next_reload() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 1, "reset");
    let applied = format!("/run/limiter/{}.applied", limiter.instance);
    fs::write(&applied, "max_sources = \"no number\"\n").unwrap();
    kill(Pid::from_raw(limiter.pid().unwrap() as i32), Signal::SIGUSR1).unwrap();
    eventually("the daemon says so", SOON, || {
        let log = limiter.log();
        let said = "ERROR the daemon cannot use the configuration that `limiter reload` put in force";
        if log.contains(said) && log.contains(&applied) { Ok(()) } else { Err(log) }
    });
    assert!(
        !limiter.log().contains("the old configuration stays in force"),
        "that is in force is what reload has read"
    );
    limiter.ok(&["reload"]);
    assert!(!fs::read_to_string(&applied).unwrap().contains("no number"));
}
