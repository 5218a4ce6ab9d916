// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The daemon never runs out of descriptors, however many are refused at once.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, client, eventually, sockets};

/// Clients at once.
const CLIENTS: usize = 2000;
/// A SYN that found the greeter's queue full comes again after 1, 3, 7, 15 and 31 seconds.
const PATIENCE: Duration = Duration::from_secs(40);

fn sources() -> Vec<IpAddr> {
    [V4.sources, V6.sources].concat()
}

/// So many clients of all sources connect at once, and none closes before all have their answer.
fn crowd(lab: &Lab, clients: usize) -> Vec<Answer> {
    let sources = sources();
    lab.client.run(|| {
        let to = |source: IpAddr| if source.is_ipv4() { V4.port(25) } else { V6.port(25) };
        let streams: Vec<_> =
            sources.iter().cycle().take(clients).map(|&source| client::knock(source, to(source))).collect();
        let until = Instant::now() + PATIENCE;
        let answers = streams.iter().map(|stream| {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            client::first_line(stream, left)
        });
        answers.collect()
    })
}

/// How many descriptors the daemon has open.
fn open(limiter: &Limiter) -> usize {
    let directory = PathBuf::from(format!("/proc/{}/fd", limiter.pid().unwrap()));
    std::fs::read_dir(directory).unwrap().count()
}

#[test]
fn of_2000_refused_at_once_nobody_waits_and_what_the_admin_asks_for_is_done_however_few_files_there_are() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let config = "[defaults]\nmax_connections = 1\n[ladder]\nreplies = \"none\"\n";
    let limiter = Limiter::start_with_files(&lab, config, (128, 400));
    assert!(limiter.log().contains("the greeter serves 384 clients at once"), "{}", limiter.log());
    let at_rest = open(&limiter);
    assert!(at_rest <= 256, "it has {at_rest} open: what is kept for it must be more than it needs");
    let held: Vec<_> = sources()
        .into_iter()
        .map(|source| lab.served(source, if source.is_ipv4() { V4.port(25) } else { V6.port(25) }))
        .collect();
    let answers = std::thread::scope(|scope| {
        let crowd = scope.spawn(|| crowd(&lab, CLIENTS));
        // Meanwhile it has files for what it is asked to do.
        limiter.ok(&["ban", "203.0.113.77"]);
        kill(Pid::from_raw(i32::try_from(limiter.pid().unwrap()).unwrap()), Signal::SIGHUP).unwrap();
        eventually("it reads its file again", SOON, || {
            let log = limiter.log();
            if log.contains("reloaded the configuration") { Ok(()) } else { Err(log) }
        });
        crowd.join().unwrap()
    });
    let told =
        answers.iter().filter(|answer| matches!(answer, Answer::Line(line) if line.starts_with("421 ")));
    let reset = answers.iter().filter(|answer| **answer == Answer::Reset);
    let (told, reset) = (told.count(), reset.count());
    assert_eq!(told + reset, CLIENTS, "everyone has an answer: {told} were told, {reset} reset");
    assert!(told >= 100, "{told} were told, {reset} reset");
    let log = limiter.log();
    assert!(!log.contains("Too many open files") && !log.contains("cannot accept"), "{log}");
    drop(held);
    sockets::settled(&lab.host, &limiter, 25);
    eventually("its descriptors are free again", SOON, || {
        let open = open(&limiter);
        if open <= at_rest + 4 { Ok(()) } else { Err(format!("{open} are open, {at_rest} were before")) }
    });
}

#[test]
fn of_hundreds_that_waited_and_are_told_at_once_nobody_is_left_without_an_answer() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    // Half of the backlog may wait, and all of these are told within one second.
    let config = "[defaults]\nmax_connections = 40\nwait = \"1s\"\n[ladder]\nreplies = \"none\"\n";
    let limiter = Limiter::start_with_files(&lab, config, (128, 300));
    let answers = crowd(&lab, 480);
    let served = answers.iter().filter(|answer| answer.is_service()).count();
    let silent = answers.iter().filter(|answer| matches!(answer, Answer::Silence | Answer::Closed)).count();
    assert_eq!(silent, 0, "{answers:?}");
    assert!(served >= 240, "{served} were served, 40 of each source at least");
    assert!(!limiter.log().contains("Too many open files"), "{}", limiter.log());
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn it_takes_as_many_files_as_it_may_have_and_no_more() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let soft_limit = |limiter: &Limiter| {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", limiter.pid().unwrap())).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap().to_owned();
        line.split_whitespace().nth(3).unwrap().parse::<u32>().unwrap()
    };
    let mut limiter = Limiter::start_with_files(&lab, "", (128, 4096));
    assert_eq!(soft_limit(&limiter), 320, "the greeter's are its own");
    assert!(!limiter.log().contains("limit of open files"), "{}", limiter.log());
    limiter.stop();
    drop(limiter);
    let limiter = Limiter::start_with_files(&lab, "", (2000, 4096));
    assert_eq!(soft_limit(&limiter), 2000, "what is enough stays");
}
