// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The daemon comes and goes; the limits and the counts stay.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use limiter_lab::client::{answer, ask, first_line};
use limiter_lab::command::run;
use limiter_lab::watch::Watch;
use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, eventually, let_time_pass, sockets};

const SMTP: (&str, u16) = ("smtp", 25);

/// Without its daemon, the limit of `limit` holds, refuses with a reset, and counts.
fn limits_without_daemon(
    lab: &Lab,
    limiter: &Limiter,
    limit: u64,
    sessions: &mut Vec<TcpStream>,
    source: IpAddr,
    smtp: SocketAddr,
) {
    let status = limiter.json(&["status"]);
    assert_eq!(status["daemon"]["running"], false, "{status:#}");
    sockets::agree(&lab.host, limiter, SMTP, source, limit);
    assert_eq!(lab.answer(source, smtp), Answer::Reset, "no daemon, no words");
    let refused = limiter.source("smtp", source).refused;
    assert_eq!(lab.answer(source, smtp), Answer::Reset);
    assert_eq!(limiter.source("smtp", source).refused, refused + 1);
    sessions.pop();
    sockets::agree(&lab.host, limiter, SMTP, source, limit - 1);
    sessions.push(lab.served(source, smtp));
    sockets::agree(&lab.host, limiter, SMTP, source, limit);
    assert_eq!(lab.answer(source, smtp), Answer::Reset);
}

/// The daemon ends by `end`, and a new one takes over.
fn ends_and_is_replaced(end: impl Fn(&mut Limiter)) {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start(&lab, 8, "reply");
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        let mut sessions: Vec<TcpStream> = (0..8).map(|_| lab.served(source, smtp)).collect();
        let before = limiter.source("smtp", source);
        end(&mut limiter);
        limits_without_daemon(&lab, &limiter, 8, &mut sessions, source, smtp);

        limiter.run();
        sockets::agree(&lab.host, &limiter, SMTP, source, 8);
        let after = limiter.source("smtp", source);
        let kept = (after.accepted, after.refused, after.peak, after.limit);
        assert_eq!(kept, (before.accepted + 1, before.refused + 3, 8, 8), "it goes on where it was");
        assert_eq!(
            lab.answer(source, smtp),
            Answer::Line(Limiter::smtp_reply(8, source)),
            "replies are back"
        );
        for session in &sessions {
            assert_eq!(ask(session, "NOOP", SOON), Answer::Line("250 2.0.0 Ok".to_owned()));
        }
        sessions.pop();
        sockets::agree(&lab.host, &limiter, SMTP, source, 7);
        sessions.push(lab.served(source, smtp));
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_killed_daemon_leaves_limits_that_hold_and_a_new_one_takes_over_the_counts() {
    ends_and_is_replaced(Limiter::kill);
}

#[test]
fn a_daemon_that_ends_on_sigterm_leaves_limits_that_hold_and_a_new_one_takes_over_the_counts() {
    ends_and_is_replaced(Limiter::stop);
}

#[test]
fn what_ended_while_there_was_no_daemon_is_not_counted_by_the_next_one() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start(&lab, 8, "reply");
    let sessions: Vec<TcpStream> = (0..8).map(|_| lab.served(V4.source(), V4.port(25))).collect();
    limiter.kill();
    drop(sessions);
    sockets::agree(&lab.host, &limiter, SMTP, V4.source(), 0);
    limiter.run();
    sockets::settled(&lab.host, &limiter, 25);
    drop(lab.served(V4.source(), V4.port(25)));
    sockets::settled(&lab.host, &limiter, 25);
}

/// What a load has seen.
#[derive(Default)]
struct Load {
    done: AtomicBool,
    served: AtomicU32,
    refused: AtomicU32,
    kept_waiting: AtomicU32,
    surprises: Mutex<Vec<String>>,
}

impl Load {
    /// Connects, stays for `stay`, and leaves as a mail client does, until it is done.
    ///
    /// It waits for the server's end before it connects again, so that it never has more than the one
    /// connection; a refusal by reply is a refusal as much as one by reset.
    fn run(&self, lab: &Lab, source: IpAddr, smtp: SocketAddr, stay: Duration) {
        lab.client.enter();
        while !self.done.load(Ordering::Relaxed) {
            match answer(source, smtp, SOON) {
                (Some(stream), answer) if answer.is_service() => {
                    self.served.fetch_add(1, Ordering::Relaxed);
                    let_time_pass(stay, "a client stays");
                    let goodbye = (ask(&stream, "QUIT", SOON), first_line(&stream, SOON));
                    if goodbye != (Answer::Line("221 2.0.0 Bye".to_owned()), Answer::Closed) {
                        self.surprised(format!("{source}: QUIT: {goodbye:?}"));
                    }
                }
                // A greeter that is killed between its accept and its words closes without any.
                (_, Answer::Line(_) | Answer::Reset | Answer::Closed) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    let_time_pass(Duration::from_millis(1), "the pace of who is refused");
                }
                // Its handshake waits in the SYN queue, where others are faster again and again.
                (_, Answer::Silence) => {
                    self.kept_waiting.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn surprised(&self, what: String) {
        self.surprises.lock().expect("no panic holds it").push(what);
    }
}

#[test]
fn ten_takeovers_under_load_let_nobody_over_the_limit_and_refuse_nobody_below_it() {
    const LIMIT: usize = 4;
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start_patient(&lab, 4, "reply");
    let [greedy, honest, steady] = V4.sources;
    let smtp = V4.port(25);
    let patient: Vec<TcpStream> = (0..2).map(|_| lab.served(steady, smtp)).collect();
    let (over, below) = (Load::default(), Load::default());
    let watch = Watch::start(&lab.host, 25, 1);

    std::thread::scope(|scope| {
        // They stay for longer than two readings of the table take, and leave few behind in TIME_WAIT: each
        // of those makes the table longer to read.
        for _ in 0..6 {
            scope.spawn(|| over.run(&lab, greedy, smtp, Duration::from_millis(200)));
        }
        for _ in 0..LIMIT {
            scope.spawn(|| below.run(&lab, honest, smtp, Duration::from_millis(20)));
        }
        let takeovers = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for takeover in 0..10 {
                let before = over.served.load(Ordering::Relaxed);
                if takeover % 3 == 2 {
                    limiter.stop();
                } else {
                    limiter.kill();
                }
                limiter.run();
                assert_eq!(limiter.source("smtp", steady).connections, 2, "after takeover {takeover}");
                watch.sees(greedy);
                eventually("the load goes on", SOON, || {
                    let now = over.served.load(Ordering::Relaxed);
                    if now >= before + 20 { Ok(()) } else { Err(format!("served {before}, and now {now}")) }
                });
            }
        }));
        // Whatever happened, the load has to end, or the scope never does.
        over.done.store(true, Ordering::Relaxed);
        below.done.store(true, Ordering::Relaxed);
        takeovers.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });

    let surprises =
        [over.surprises, below.surprises].map(|list| list.into_inner().expect("no panic held it")).concat();
    assert_eq!(surprises, Vec::<String>::new());
    assert!(over.refused.into_inner() > 100, "six clients on four count: many are refused");
    assert_eq!(sink.tally(greedy).peak, LIMIT, "by what the server held at once");
    let peak = watch.peak_of(greedy, |cookie| sink.accepted(*cookie));
    assert!((1..=LIMIT).contains(&peak), "by the kernel's table: {peak}");
    let (refused, kept_waiting) = (below.refused.into_inner(), below.kept_waiting.into_inner());
    assert_eq!((refused, kept_waiting), (0, 0), "beside {:?} that were served", below.served);
    assert_eq!(limiter.source("smtp", honest).refused, 0);
    assert!(sink.tally(honest).ever > 200, "{:?}", sink.tally(honest));
    drop(patient);
    // A handshake that waited at the gate when its client went is the kernel's until it has repeated the
    // SYN-ACK for the last time.
    eventually("every handshake is over", Duration::from_secs(70), || {
        let waiting = sockets::half_open(&lab.host, 25);
        if waiting.is_empty() { Ok(()) } else { Err(format!("{waiting:?}")) }
    });
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn a_change_made_live_outlasts_a_takeover_until_the_file_says_something_new() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start(&lab, 8, "reply");
    let limit =
        |limiter: &Limiter| limiter.json(&["explain", "198.51.100.7"])["services"][0]["limit"].clone();
    for service in limiter.services() {
        limiter.ok(&["set", &service, "max_connections=3"]);
    }
    limiter.kill();
    limiter.run();
    assert_eq!(limit(&limiter), 3, "the same file");
    limiter.kill();
    limiter.configure("[defaults]\nmax_connections = 5\n");
    limiter.run();
    assert_eq!(limit(&limiter), 5, "another file");
}

#[test]
fn programs_that_someone_detached_are_missed_by_status_and_attached_again_by_the_next_daemon() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start(&lab, 2, "reset");
    let (source, smtp) = (V4.source(), V4.port(25));
    assert_eq!(limiter.json(&["status"])["in_force"], true);
    let sessions: Vec<TcpStream> = (0..2).map(|_| lab.served(source, smtp)).collect();
    for name in ["gate", "admission"] {
        bpftool(&format!("link detach pinned {}/link-{name}", limiter.pins().display()));
    }
    let outcome = limiter.cli(&["status", "--json"]);
    assert_eq!(outcome.code, Some(3), "a script can tell: {outcome:?}");
    let status: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(status["in_force"], false);
    let warning = status["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.contains("gate, admission"), "{status:#}");
    limiter.kill();
    limiter.run();
    assert_eq!(limiter.json(&["status"])["in_force"], true);
    assert_eq!(lab.answer(source, smtp), Answer::Reset);
    sockets::agree(&lab.host, &limiter, SMTP, source, 2);
    drop(sessions);
    sockets::settled(&lab.host, &limiter, 25);
}

/// Pins of another layout are in the way: `bpftool` makes them so by `change`, which gets the directory.
fn another_layout(message: &str, change: impl Fn(&str)) {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start(&lab, 2, "reply");
    let (source, smtp) = (V4.source(), V4.port(25));
    limiter.kill();
    change(limiter.pins().to_str().expect("a plain path"));
    for verb in [&["list"] as &[&str], &["set", "smtp", "max_connections=5"], &["explain", "192.0.2.7"]] {
        let outcome = limiter.cli(verb);
        assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(1), 1), "{verb:?}: {outcome:?}");
        assert!(outcome.stderr.contains(message), "{verb:?}: {outcome:?}");
    }
    limiter.run();
    // It says so after it serves.
    eventually("the daemon says what it replaced", SOON, || {
        if limiter.log().contains(message) { Ok(()) } else { Err(limiter.log()) }
    });
    let sessions: Vec<TcpStream> = (0..2).map(|_| lab.served(source, smtp)).collect();
    assert_eq!(lab.answer(source, smtp), Answer::Line(Limiter::smtp_reply(2, source)));
    sockets::agree(&lab.host, &limiter, SMTP, source, 2);
    drop(sessions);
    sockets::settled(&lab.host, &limiter, 25);
}

/// Runs `bpftool` with the words of `line`.
pub fn bpftool(line: &str) {
    let mut command = Command::new("bpftool");
    command.args(line.split_whitespace());
    run(command).unwrap();
}

#[test]
fn pins_of_another_version_are_not_read_but_replaced_with_a_word() {
    another_layout("its layout is 99", |pins| {
        bpftool(&format!("map update pinned {pins}/LAYOUT key 0 0 0 0 value 99 0 0 0 0 0 0 0"));
    });
}

#[test]
fn a_pinned_map_of_another_shape_is_not_read_but_replaced_with_a_word() {
    another_layout("LEDGER", |pins| {
        std::fs::remove_file(format!("{pins}/LEDGER")).expect("it is pinned");
        bpftool(&format!("map create {pins}/LEDGER type hash key 8 value 8 entries 16 name LEDGER"));
    });
}
