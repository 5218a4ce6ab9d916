// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Every refused client reads the whole line, and then the end: in plain text and inside TLS, whether it speaks first or
//! not, next door and over links that carry small packets and lose one of a hundred.
//!
//! A few hundred clients of each kind, or as many as `LIMITER_REPLIES` says of those in plain text, and a tenth of that
//! inside TLS: `cargo xtask replies` has 100,000 and 10,000.

use std::time::Duration;

use super::crowd::Crowd;
use super::full::{Full, PLAIN, TLS, source};
use limiter_lab::{proc_net, say};

/// Of each kind.
const CLIENTS: u32 = 2_000;
/// Sources; a greeter has an eighth of its connections for one.
const SOURCES: u16 = 24;
/// Under way at a time: less than the greeter has room for, with those that have heard and have not been let go.
const AT_ONCE: usize = 400;
/// The same inside TLS: less than may begin in one moment, if the machine stood still before.
const AT_ONCE_IN_TLS: usize = 40;
/// Handshakes in a second: less than the budget of TLS.
const HANDSHAKES: u32 = 120;
/// There and back over the narrow links.
const RTT: Duration = Duration::from_millis(20);
const LOSS_PERCENT: u64 = 1;
/// The longest that a client waits: for as many repetitions as a hundred thousand clients may need.
const PATIENCE: Duration = Duration::from_secs(60);

fn clients() -> u32 {
    let set = std::env::var("LIMITER_REPLIES").ok();
    set.map_or(CLIENTS, |set| set.parse().expect("a number of clients"))
}

/// Clients of all sources and ports by turns. Those who heard less than the whole line are what is wrong.
fn tell(full: &Full, is_tls: bool, says_first: bool) -> Option<String> {
    let (clients, ports) = if is_tls { (clients() / 10, TLS) } else { (clients(), PLAIN) };
    let call = |number: u32| {
        let source = source((number % u32::from(SOURCES)) as u16);
        Full::call(source, ports[(number / u32::from(SOURCES) % 3) as usize], says_first)
    };
    let crowd = Crowd {
        clients,
        at_once: if is_tls { AT_ONCE_IN_TLS } else { AT_ONCE },
        a_second: is_tls.then_some(HANDSHAKES),
        patience: PATIENCE,
        tls: is_tls.then_some(&full.tls),
        call: &call,
    };
    let lost = full.lost();
    let repeated = || proc_net::counter(&full.lab.host, "RetransSegs").unwrap();
    let before = repeated();
    let told = full.lab.client.run(|| crowd.run()).unwrap();
    let summary = format!(
        "{}, {}: {told}; {} segments lost, {} sent again by the mail host",
        if is_tls { "inside TLS" } else { "in plain text" },
        if says_first { "speaks first" } else { "listens" },
        full.lost() - lost,
        repeated() - before,
    );
    say(&summary);
    (told.whole != clients).then_some(summary)
}

/// All kinds, one after the other.
fn tell_all(full: &Full) {
    let kinds = [(false, false), (false, true), (true, false), (true, true)];
    let wrong: Vec<String> =
        kinds.into_iter().filter_map(|(is_tls, says_first)| tell(full, is_tls, says_first)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let told = 2 * u64::from(clients() + clients() / 10);
    full.counts("greeted", told);
    full.counts("greeted_by_tls", 2 * u64::from(clients() / 10));
}

#[test]
fn every_refused_client_reads_the_whole_line() {
    let Some(full) = Full::new(SOURCES) else { return };
    tell_all(&full);
}

#[test]
fn every_refused_client_reads_the_whole_line_over_a_link_with_small_packets_and_loss() {
    let Some(mut full) = Full::new(SOURCES) else { return };
    full.over_narrow_links(RTT, LOSS_PERCENT);
    tell_all(&full);
    assert!(full.lost() > 0, "the links lose segments");
}
