// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the daemon makes of a process that somebody else has taken over, or that does not live.

use std::{
    io::{self, ErrorKind, Read as _},
    net::TcpStream,
    os::fd::AsFd,
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

use rustix::{
    io::ioctl_fionbio,
    net::{RecvFlags, SendFlags, send as send_bytes},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::*;
use crate::greeter::{
    Bounds, Greeter, Health, Listener, LogLine, RefusalLog, Services, Settings,
    channel::{self, Reader},
    log::{Answer as Got, Refused},
    messages::{Answer, Noted, Notice, Order, Question},
    tests::{GROUNDS, Never, PATIENCE, eventually, words},
    tls::Unsigned,
};

/// Hands the process's ends to the test, which is the process.
#[derive(Debug)]
struct Given(Sender<Ends>);

#[derive(Debug)]
struct Nothing;

impl Launch for Given {
    fn launch(&self, ends: Ends) -> anyhow::Result<Box<dyn Launched>> {
        self.0.send(ends)?;
        Ok(Box::new(Nothing))
    }
}

impl Launched for Nothing {
    fn pid(&self) -> Option<u32> {
        Some(4711)
    }

    fn end(self: Box<Self>) -> String {
        "it was ended".to_owned()
    }
}

/// A daemon's part, and the processes that it starts.
struct Daemon {
    processes: Receiver<Ends>,
    health: Health,
    log: RefusalLog,
    _stop: watch::Sender<bool>,
}

impl Daemon {
    fn new() -> Self {
        let (given, processes) = channel();
        let (settings, steer) = (Settings::default(), Box::new(|_: &Listener| Ok(())));
        settings.set_words(Services::default(), words());
        let listener = Listener::bind().unwrap();
        let launch = Box::new(Given(given));
        let greeter =
            Greeter::new(listener, settings, Box::new(Never), steer, launch, Bounds::default()).unwrap();
        let (health, log) = (greeter.health(), greeter.log());
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(greeter.serve(stopped));
        Self { processes, health, log, _stop: stop }
    }

    /// The next process, which has had its first order.
    fn process(&self) -> Ends {
        let ends = tokio::task::block_in_place(|| self.processes.recv_timeout(PATIENCE)).unwrap();
        assert_eq!(received::<Order>(&ends.orders), Order::Say);
        ends
    }

    /// The next process, which says that it serves.
    fn serving(&self) -> Ends {
        let ends = self.process();
        channel::send(&ends.orders, &Notice::Ready { landlock: true }, &[]).unwrap();
        eventually("it serves", || self.health.process().pid.is_some());
        ends
    }

    /// Waits until there is no process any more because of that.
    fn ends(&self, why: &str) {
        eventually(why, || self.health.process().problem.is_some_and(|problem| problem.contains(why)));
    }
}

fn received<T: DeserializeOwned>(socket: impl AsFd) -> T {
    tokio::task::block_in_place(|| Reader::new().receive(socket, RecvFlags::empty()).unwrap().unwrap().0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_sends_what_it_never_would_is_ended_and_another_is_started() {
    let daemon = Daemon::new();
    for bytes in [&b"\xff\xff\xff\xff"[..], b"\x07", &[0xaa; 10_000]] {
        let process = daemon.serving();
        send_bytes(&process.orders, bytes, SendFlags::empty()).unwrap();
        daemon.ends("it sends what it never would");
    }
    // A descriptor is none of what it may send.
    let process = daemon.serving();
    channel::send(&process.orders, &Notice::Alive, &[process.orders.as_fd()]).unwrap();
    daemon.ends("it sends what it never would");
    let process = daemon.serving();
    send_bytes(&process.questions, b"\xff", SendFlags::empty()).unwrap();
    daemon.ends("it sends what it never would");
    drop(daemon.serving());
    daemon.ends("it has closed its socket");
    assert_eq!(daemon.health.process().restarts, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_floods_the_daemon_is_ended() {
    let daemon = Daemon::new();
    let process = daemon.serving();
    let begun = Instant::now();
    let is_heard =
        |sent: io::Result<()>| sent.err().is_none_or(|error| error.kind() == ErrorKind::WouldBlock);
    let flood = || while is_heard(channel::send(&process.orders, &Notice::Alive, &[])) {};
    tokio::task::block_in_place(flood);
    assert!(begun.elapsed() < PATIENCE);
    daemon.ends("it sends too much");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_signed_with_a_key_that_is_not_there() {
    let daemon = Daemon::new();
    let process = daemon.serving();
    for (number, key) in [(7_u64, 0), (8, u64::MAX)] {
        let question = Question::Sign { key, scheme: 0x0403, message: b"a message".to_vec() };
        channel::send(&process.questions, &(number, question), &[]).unwrap();
        let answer: (u64, Answer) = received(&process.questions);
        assert_eq!(answer, (number, Answer::Signature(Err(Unsigned::Unknown))));
    }
    assert!(daemon.health.process().problem.is_none(), "it may ask");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_says_of_refusals_is_one_line_of_the_log_each_with_a_name_that_there_is() {
    let daemon = Daemon::new();
    let process = daemon.serving();
    let refused = Refused {
        service: "smtp\n2026 WARN all is lost".into(),
        remote: "::ffff:192.0.2.7".parse().unwrap(),
        reason: GROUNDS.reason,
        count: 8,
        limit: 8,
        answer: Got::Reply,
    };
    channel::send(&process.orders, &Notice::Refused(vec![Noted::of(&refused, 3)]), &[]).unwrap();
    channel::send(&process.orders, &Notice::Others(u64::MAX), &[]).unwrap();
    channel::send(&process.orders, &Notice::Others(u64::MAX), &[]).unwrap();
    let mut lines = Vec::new();
    eventually("they are in the log", || {
        lines.extend(daemon.log.lines(Instant::now()));
        !lines.is_empty()
    });
    let expected = Refused { service: "mail".into(), remote: "192.0.2.7".parse().unwrap(), ..refused };
    assert_eq!(lines, [LogLine::Source(expected, 0)]);
    channel::send(&process.orders, &Notice::Failed("no\r\nmore\x1b[2J".repeat(100)), &[]).unwrap();
    drop(process);
    daemon.ends("nomore");
    let problem = daemon.health.process().problem.unwrap();
    assert!(problem.len() < 500 && !problem.contains(char::is_control), "{problem:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_end_at_once_are_started_once_a_second() {
    let daemon = Daemon::new();
    let begun = Instant::now();
    for _ in 0..4 {
        drop(daemon.process());
    }
    let took = begun.elapsed();
    assert!((Duration::from_secs(3)..Duration::from_secs(8)).contains(&took), "{took:?}");
    daemon.ends("it cannot start");
    let said = daemon.health.process().warning().unwrap();
    assert!(said.contains("refused clients get a reset"), "{said}");
}

/// The kernel closes what the process has, and that is all that there is of it.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_in_the_queue_of_a_process_that_ends_is_reset() {
    let (given, processes) = channel();
    let listener = Listener::at("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.address();
    let steer = Box::new(|_: &Listener| Ok(()));
    let launch = Box::new(Given(given));
    let (dues, bounds) = (Box::new(Never), Bounds::default());
    let greeter = Greeter::new(listener, Settings::default(), dues, steer, launch, bounds).unwrap();
    let health = greeter.health();
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(greeter.serve(stopped));
    let process = tokio::task::block_in_place(|| processes.recv_timeout(PATIENCE)).unwrap();
    channel::send(&process.orders, &Notice::Ready { landlock: false }, &[]).unwrap();
    eventually("it serves", || health.process().landlock == Some(false));
    let client = TcpStream::connect(address).unwrap();
    ioctl_fionbio(&client, true).unwrap();
    drop(process);
    eventually("the client is reset", || {
        let mut byte = [0];
        (&client).read(&mut byte).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    });
}
