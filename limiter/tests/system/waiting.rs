// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the gate holds back is to be seen.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use limiter_lab::client::{first_line, knock};
use limiter_lab::pinned::age_waiters;
use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, eventually, same, sockets};

/// How long one is listened to who may have nothing to say.
const SHORT: Duration = Duration::from_millis(20);

/// The WAITING figure of a source at smtp, and how long the first has waited.
fn waiting(limiter: &Limiter, source: &str) -> (u64, f64) {
    let list = limiter.json(&["list"]);
    let listed = list["sources"].as_array().unwrap();
    let Some(entry) = listed.iter().find(|entry| entry["source"] == source) else { return (0, 0.0) };
    (entry["waiting"].as_u64().unwrap(), entry["waiting_seconds"].as_f64().unwrap())
}

#[test]
fn handshakes_without_a_place_wait_are_listed_and_get_in_when_one_is_free() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let sink = Sink::start(&lab, 25);
    // Longer than a slow machine takes for the test.
    let limiter = Limiter::start_with(
        &lab,
        "[service.smtp]\nmax_connections = 4\nresponse = \"reset\"\nwait = \"60s\"\n",
    );
    for (family, name) in [(V4, "198.51.100.7/32"), (V6, "2001:db8:7::/64")] {
        let (source, smtp) = (family.source(), family.port(25));
        // All SYNs are judged while none is established: the gate sorts them out.
        lab.deafen(source);
        let knocking: Vec<_> = (0..10).map(|_| lab.client.run(|| knock(source, smtp))).collect();
        eventually("the SYNs are there", SOON, || {
            let from_here = sockets::half_open(&lab.host, 25);
            same("half open", &from_here.iter().filter(|c| c.remote.ip() == source).count(), &10)
        });
        lab.undeafen(source);
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 4);
        // One of the four may have got in by now, where an ACK that came twice had kept it waiting for a moment.
        let mut those = 0;
        eventually("four wait", SOON, || {
            those = waiting(&limiter, name).0;
            if (3..=4).contains(&those) && sockets::half_open(&lab.host, 25).len() as u64 == those {
                return Ok(());
            }
            Err(format!("{those} wait"))
        });
        assert!(limiter.source("smtp", source).held >= 6);
        eventually("the first has waited for a while", SOON, || {
            let seconds = waiting(&limiter, name).1;
            if seconds >= 0.2 { Ok(()) } else { Err(format!("{seconds} s")) }
        });
        let said = limiter.ok(&["explain", &source.to_string()]);
        assert!(
            said.contains(&format!("smtp: {those} handshakes wait for a place, the first for ")),
            "{said}"
        );
        let said = limiter.ok(&["status"]);
        assert!(said.contains(&format!("smtp: {those} wait for a place, the first for ")), "{said}");
        assert!(limiter.ok(&["status", "--verify"]).contains("all counts match"));
        // They get in, two by two, as fast as places come free.
        let served: Vec<_> = knocking
            .iter()
            .filter(|socket| {
                sockets::established(&lab.host, 25)
                    .iter()
                    .any(|c| Ok(c.remote) == socket.local_addr().map_err(|_| ()))
            })
            .take(2)
            .collect();
        assert_eq!(served.len(), 2);
        for socket in served {
            socket.shutdown(std::net::Shutdown::Both).unwrap();
        }
        eventually("two more came in", SOON, || {
            same("waiting", &waiting(&limiter, name).0, &(those - 2))?;
            same("served in all", &sink.tally(source).ever, &6)
        });
        drop(knocking);
        eventually("no client waits", SOON * 2, || {
            same("half open", &sockets::half_open(&lab.host, 25).len(), &0)
        });
    }
    sockets::settled(&lab.host, &limiter, 25);
}

/// Two clients of a source, listed by this name, that may hold one connection: their SYNs are judged before either is
/// established, so one of them waits.
fn two_of_whom_one_waits(
    lab: &Lab,
    limiter: &Limiter,
    (source, name): (IpAddr, &str),
    smtp: SocketAddr,
) -> Vec<TcpStream> {
    lab.deafen(source);
    let clients: Vec<_> = (0..2).map(|_| lab.client.run(|| knock(source, smtp))).collect();
    eventually("the SYNs are there", SOON, || {
        same("half open", &sockets::half_open(&lab.host, 25).len(), &2)
    });
    lab.undeafen(source);
    eventually("one waits", SOON, || same("waiting", &waiting(limiter, name).0, &1));
    clients
}

/// One that waits while a limit is raised, or its source allowed, gets in at once; while it is denied, it is told.
#[test]
fn who_waits_sees_what_the_admin_changes() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, "[service.smtp]\nmax_connections = 1\nwait = \"60s\"\n");
    for (family, name) in [(V4, "198.51.100.7/32"), (V6, "2001:db8:7::/64")] {
        let (source, smtp) = (family.source(), family.port(25));
        let text = source.to_string();
        let two = || two_of_whom_one_waits(&lab, &limiter, (source, name), smtp);
        let clients = two();
        limiter.ok(&["limit", &text, "2"]);
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 2);
        drop(clients);
        sockets::settled(&lab.host, &limiter, 25);
        limiter.ok(&["forget", &text]);

        let clients = two();
        limiter.ok(&["deny", &text]);
        eventually("one is reset", SOON, || {
            let reset = clients.iter().filter(|client| first_line(client, SHORT) == Answer::Reset).count();
            same("reset", &reset, &1)
        });
        drop(clients);
        sockets::settled(&lab.host, &limiter, 25);
        limiter.ok(&["forget", &text]);

        let clients = two();
        limiter.ok(&["set", "smtp", "wait=0s"]);
        eventually("one is told", SOON, || {
            let told =
                |client| matches!(first_line(client, SHORT), Answer::Line(line) if line.starts_with("421 "));
            same("told", &clients.iter().filter(|client| told(client)).count(), &1)
        });
        drop(clients);
        sockets::settled(&lab.host, &limiter, 25);
        limiter.ok(&["set", "smtp", "wait=60s"]);
    }
}

/// Those that the kernel has given up in a time without a daemon are told by the next one, and refused; those of long
/// ago are nobody's refusal today.
#[test]
fn who_waited_long_before_the_daemon_came_is_not_refused_by_it() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    // The kernel gives a handshake up after three seconds.
    lab.host.sysctl("ipv4/tcp_synack_retries", "1").unwrap();
    let mut limiter = Limiter::start_with(&lab, "[service.smtp]\nmax_connections = 1\nwait = \"60s\"\n");
    for (family, name) in [(V4, "198.51.100.7/32"), (V6, "2001:db8:7::/64")] {
        let (source, smtp) = (family.source(), family.port(25));
        for (age_s, refused) in [(0, 1), (100, 0)] {
            let before = limiter.counter("smtp", "refused");
            limiter.kill();
            let clients = two_of_whom_one_waits(&lab, &limiter, (source, name), smtp);
            eventually("the kernel gives it up", SOON, || {
                same("half open", &sockets::half_open(&lab.host, 25).len(), &0)
            });
            age_waiters(&limiter, Duration::from_secs(age_s));
            // Without a daemon its record stays. After 90 s it is certain that nobody waits.
            assert_eq!(waiting(&limiter, name).0, refused, "{age_s} s ago");
            limiter.run();
            eventually("no client waits", SOON, || same("waiting", &waiting(&limiter, name).0, &0));
            eventually("one has ended", SOON, || {
                let ended = |client| match first_line(client, SHORT) {
                    Answer::Line(line) => line.starts_with("421 "),
                    answer => answer == Answer::Reset,
                };
                same("ended", &clients.iter().filter(|client| ended(client)).count(), &1)
            });
            assert_eq!(limiter.counter("smtp", "refused") - before, refused, "{age_s} s ago");
            drop(clients);
            sockets::settled(&lab.host, &limiter, 25);
        }
    }
}
