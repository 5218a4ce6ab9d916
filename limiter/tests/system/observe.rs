// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Observing: verdicts are made and counted, and nobody is refused.

use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, client, eventually, sockets};

const CONFIG: &str = "
[defaults]
response = \"reset\"
[service.smtp]
max_connections = 3
max_total = 5
[[rule]]
network = \"203.0.113.0/24\"
deny = true
";

/// Connections that come and go in a fixed order: who comes, or which of those that came goes.
enum Step {
    Comes(IpAddr),
    Goes(usize),
}

/// What a week is like, in short.
fn pattern() -> Vec<Step> {
    use Step::{Comes, Goes};
    let [one, two, denied] = V4.sources;
    let six = V6.source();
    vec![
        Comes(one),
        Comes(one),
        Comes(one),
        Comes(one),
        Comes(two),
        Comes(denied),
        Comes(six),
        Comes(six),
        Goes(0),
        Comes(one),
        Comes(six),
        Comes(two),
        Goes(3),
        Goes(4),
        Comes(six),
        Comes(six),
        Comes(denied),
        Goes(6),
        Goes(7),
        Comes(one),
        Comes(two),
        Comes(six),
        Goes(1),
        Comes(one),
        Comes(one),
    ]
}

/// Plays the pattern; who came and was not served is not there to go. Returns how many were refused.
fn play(lab: &Lab, limiter: &Limiter) -> u64 {
    let mut came: Vec<Option<TcpStream>> = Vec::new();
    let mut refused = 0;
    for step in pattern() {
        match step {
            Step::Comes(source) => {
                let port = if source.is_ipv4() { V4.port(25) } else { V6.port(25) };
                // Who is denied hears nothing: not for so long that the SYN is repeated.
                let patience = if source == V4.sources[2] { Duration::from_millis(900) } else { SOON };
                let stream = lab.client.run(|| client::dial(source, port, patience)).ok();
                refused += u64::from(stream.is_none());
                if let Some(stream) = &stream {
                    let greeted = client::first_line(stream, SOON);
                    assert!(greeted.is_service(), "{greeted:?}");
                }
                came.push(stream);
            }
            Step::Goes(which) => {
                if let Some(stream) = came[which].take() {
                    stream.shutdown(std::net::Shutdown::Write).unwrap();
                    // The server's last word is said when it has let go.
                    std::io::copy(&mut &stream, &mut std::io::sink()).unwrap();
                }
            }
        }
    }
    drop(came);
    sockets::settled(&lab.host, limiter, 25);
    refused
}

#[test]
fn it_would_have_refused_exactly_what_enforcing_refuses() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, CONFIG);
    let refused = play(&lab, &limiter);
    let by_reason = ["denied", "banned", "total", "network", "concurrency", "rate"];
    let enforced = by_reason.map(|reason| limiter.counter("smtp", &format!("refused_{reason}")));
    assert_eq!(enforced.iter().sum::<u64>(), refused);
    assert!(enforced[0] > 0 && enforced[2] > 0 && enforced[4] > 0, "{enforced:?}");

    limiter.ok(&["set", "smtp", "mode=observe"]);
    assert_eq!(play(&lab, &limiter), 0, "nobody is refused");
    let status = limiter.json(&["status"]);
    let smtp =
        status["services"].as_array().unwrap().iter().find(|service| service["name"] == "smtp").unwrap();
    let would = by_reason.map(|reason| smtp["counters"]["would_refuse"][reason].as_u64().unwrap());
    assert_eq!(would, enforced);
    assert!(status["warnings"].to_string().contains("smtp is in observe mode"), "{status:#}");

    limiter.ok(&["set", "smtp", "mode=enforce"]);
    assert_eq!(play(&lab, &limiter), refused);
}

#[test]
fn one_service_may_observe_while_the_others_enforce() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sinks = [25, 143].map(|port| Sink::start(&lab, port));
    let limiter = Limiter::start_with(
        &lab,
        "[defaults]\nmax_connections = 2\nresponse = \"reset\"\n[service.imap]\nmode = \"observe\"\n",
    );
    for family in [V4, V6] {
        let source = family.source();
        let held: Vec<_> = (0..6).map(|_| lab.served(source, family.port(143))).collect();
        let also: Vec<_> = (0..2).map(|_| lab.served(source, family.port(25))).collect();
        assert_eq!(lab.answer(source, family.port(25)), Answer::Reset);
        let known = limiter.source("imap", source);
        assert_eq!((known.connections, known.peak, known.would_refuse), (6, 6, 4), "the count there is");
        sockets::agree(&lab.host, &limiter, ("imap", 143), source, 6);
        drop((held, also));
    }
    sockets::settled(&lab.host, &limiter, 25);
    sockets::settled(&lab.host, &limiter, 143);
}

#[test]
fn what_was_let_through_beyond_the_limit_is_counted_when_the_service_enforces_again() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(
        &lab,
        "mode = \"observe\"\n[defaults]\nmax_connections = 2\nresponse = \"reset\"\n",
    );
    for family in [V4, V6] {
        let (source, to) = (family.source(), family.port(25));
        // A denial that was only observed, and is taken back, is no different.
        let is_denied = source.is_ipv6();
        if is_denied {
            limiter.ok(&["deny", &source.to_string()]);
        }
        let mut held: Vec<_> = (0..5).map(|_| lab.served(source, to)).collect();
        assert_eq!(limiter.source("smtp", source).would_refuse, if is_denied { 5 } else { 3 });
        limiter.ok(&["set", "smtp", "mode=enforce"]);
        if is_denied {
            limiter.ok(&["forget", &source.to_string()]);
        }
        for left in (2..=5_u64).rev() {
            assert_eq!(lab.answer(source, to), Answer::Reset, "it holds {left} of 2");
            sockets::agree(&lab.host, &limiter, ("smtp", 25), source, left);
            held.pop();
            eventually("it is let go", SOON, || match limiter.source("smtp", source).connections {
                now if now == left - 1 => Ok(()),
                now => Err(now.to_string()),
            });
        }
        held.push(lab.served(source, to));
        assert_eq!(lab.answer(source, to), Answer::Reset);
        drop(held);
        limiter.ok(&["set", "smtp", "mode=observe"]);
    }
    sockets::settled(&lab.host, &limiter, 25);
    assert_eq!(limiter.counter("smtp", "drift"), 0);
}
