// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the shield remembers: it is dropped as it was judged, counted as if it were judged each time, and forgotten
//! with the first change.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use limiter_common::{Addr, Key, Syn};

use crate::frame::{CUSTOMER, Frame};
use crate::setup::{Setup, Sources, Verdict};
use limiter_lab::pinned::{Penalties, now_ns};
use limiter_lab::{V4, cpu};

use Verdict::{Drop, Pass};

const SMTP: u16 = 25;

/// Frames that make a cached drop, and come again.
const TIMES: u32 = 5;

/// Runs this on each CPU: each remembers for itself.
fn on_each_cpu(mut run: impl FnMut()) -> u32 {
    let cpus = cpu::allowed().expect("the kernel tells");
    for &cpu in &cpus {
        cpu::bind_to(&[cpu]).expect("it may run there");
        run();
    }
    cpu::bind_to(&cpus).expect("it may run anywhere");
    cpus.len() as u32
}

impl Setup {
    /// What becomes of a frame on each CPU, which must be the same; how many drops that were.
    #[track_caller]
    fn everywhere(&self, frame: &Frame, expected: Verdict) -> u64 {
        let frame = frame.bytes();
        let cpus = on_each_cpu(|| {
            for _ in 0..TIMES {
                assert_eq!(self.verdict(&frame), expected);
            }
        });
        u64::from(TIMES * cpus)
    }

    /// Packets dropped of a source that is banned from smtp, as `limiter bans` shows it.
    #[track_caller]
    fn dropped_of(&self, source: &str) -> u64 {
        let bans = self.limiter.json(&["bans"]);
        let bans = bans["bans"].as_array().expect("a list");
        let ban = bans.iter().find(|ban| ban["source"] == source && ban["service"] == "smtp").expect("a ban");
        ban["dropped"].as_u64().expect("a number")
    }
}

/// How a source is shown.
fn shown(source: IpAddr) -> String {
    match source {
        IpAddr::V4(v4) => format!("{v4}/32"),
        IpAddr::V6(v6) => format!("{}/64", Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
    }
}

#[test]
fn whatever_the_admin_changes_holds_for_the_very_next_frame() {
    let Some(setup) = Setup::new() else { return };
    for sources in Sources::of_both() {
        let syn = |from| Frame::syn(from, sources.host, SMTP);
        let (banned, denied) = (syn(sources.banned), syn(sources.denied));
        let (banned_ip, denied_ip) = (sources.banned.to_string(), sources.denied.to_string());
        let network = if sources.host.is_ipv4() { "198.51.100.0/24" } else { "2001:db8:7::/48" };
        let ok = |args: &[&str]| drop(setup.limiter.ok(args));
        setup.everywhere(&banned, Drop);
        ok(&["unban", &banned_ip]);
        setup.everywhere(&banned, Pass);
        ok(&["ban", &banned_ip]);
        setup.everywhere(&banned, Drop);
        ok(&["allow", &banned_ip]);
        setup.everywhere(&banned, Pass);
        ok(&["forget", &banned_ip]);
        setup.everywhere(&banned, Drop);
        setup.everywhere(&denied, Drop);
        ok(&["allow", &denied_ip]);
        setup.everywhere(&denied, Pass);
        ok(&["forget", &denied_ip]);
        setup.everywhere(&denied, Drop);
        ok(&["forget", network]);
        setup.everywhere(&denied, Pass);
        ok(&["deny", network]);
        setup.everywhere(&denied, Drop);
        ok(&["set", "smtp", "mode=observe"]);
        setup.everywhere(&denied, Pass);
        setup.everywhere(&banned, Pass);
        // What the file says, and nothing else.
        ok(&["reload"]);
        setup.everywhere(&denied, Drop);
        setup.everywhere(&banned, Drop);
        setup.limiter.configure("interfaces = []\n[service.smtp]\nports = [2525]\n");
        ok(&["reload"]);
        setup.everywhere(&denied, Pass);
        setup.everywhere(&banned, Pass);
        setup.limiter.configure(crate::setup::CONFIG);
        ok(&["reload"]);
        setup.everywhere(&banned, Drop);
    }
}

#[test]
fn a_change_for_somebody_else_changes_nothing() {
    let Some(setup) = Setup::new() else { return };
    for sources in Sources::of_both() {
        let frame = Frame::syn(sources.banned, sources.host, SMTP);
        let mut drops = setup.everywhere(&frame, Drop);
        setup.limiter.ok(&["ban", "192.0.2.77"]);
        drops += setup.everywhere(&frame, Drop);
        setup.limiter.ok(&["unban", "192.0.2.77"]);
        drops += setup.everywhere(&frame, Drop);
        assert_eq!(setup.dropped_of(&shown(sources.banned)), drops);
    }
}

/// When the ban of a source from smtp ends, in nanoseconds of `CLOCK_BOOTTIME`.
fn banned_until_ns(setup: &Setup, source: IpAddr) -> u64 {
    let (source, Penalties(penalties, smtp)) = (Addr::from(source), Penalties::open(&setup.limiter));
    let mut penalties = penalties.iter().map(Result::unwrap);
    let is_it = |key: &Key| key.service == smtp.0 && source.cut(key.prefix) == key.addr;
    penalties.find(|(key, _)| is_it(key)).expect("it is banned").1.banned_until_ns
}

#[test]
fn a_ban_ends_when_it_should() {
    let Some(setup) = Setup::new() else { return };
    for sources in Sources::of_both() {
        let source = sources.was_banned;
        setup.limiter.ok(&["ban", &source.to_string(), "--service", "smtp", "--for", "4s"]);
        let until_ns = banned_until_ns(&setup, source);
        let frame = Frame::syn(source, sources.host, SMTP).bytes();
        loop {
            let before_ns = now_ns();
            let verdict = setup.verdict(&frame);
            if verdict == Drop {
                assert!(before_ns < until_ns, "{} ms after its end", (before_ns - until_ns) / 1_000_000);
            } else {
                assert!(now_ns() >= until_ns, "before its end");
                break;
            }
        }
    }
}

#[test]
fn every_drop_is_counted_once_and_with_its_ban() {
    let Some(setup) = Setup::new() else { return };
    for sources in Sources::of_both() {
        let frame = Frame::syn(sources.banned, sources.host, SMTP);
        let (source, name) = (sources.banned.to_string(), shown(sources.banned));
        let counters = || ["dropped", "refused_banned"].map(|counter| setup.limiter.counter("smtp", counter));
        let [dropped, refused] = counters();
        let mut drops = setup.everywhere(&frame, Drop);
        assert_eq!(counters(), [dropped + drops, refused + drops]);
        assert_eq!(setup.dropped_of(&name), drops);
        // In frames of another look it is the same source.
        drops += setup.everywhere(&frame.clone().with(|frame| frame.tags = vec![CUSTOMER]), Drop);
        drops += setup.everywhere(&frame.clone().with(|frame| frame.ports.0 = 7), Drop);
        assert_eq!(counters(), [dropped + drops, refused + drops]);
        assert_eq!(setup.dropped_of(&name), drops);
        // Banned anew, it is the same ban for longer; after an end, another one.
        setup.limiter.ok(&["ban", &source, "--service", "smtp", "--for", "2h"]);
        assert_eq!(setup.dropped_of(&name), drops);
        drops += setup.everywhere(&frame, Drop);
        assert_eq!(setup.dropped_of(&name), drops);
        setup.limiter.ok(&["unban", &source, "--service", "smtp"]);
        setup.limiter.ok(&["ban", &source, "--service", "smtp", "--for", "2h"]);
        assert_eq!(setup.dropped_of(&name), 0);
        assert_eq!(setup.everywhere(&frame, Drop), setup.dropped_of(&name));
    }
}

#[test]
fn sources_that_share_a_place_are_told_apart() {
    let Some(setup) = Setup::new() else { return };
    let place = |source: Ipv4Addr| {
        Syn::new(&Addr::from(IpAddr::from(source)), &Addr::from(V4.host), SMTP.to_be()).slot()
    };
    let [first, second, ordinary] = {
        let first = Ipv4Addr::new(203, 0, 113, 77);
        let others = (1..=u16::MAX).map(|n| Ipv4Addr::from(0xc612_0000 + u32::from(n)));
        let mut others = others.filter(|&other| place(other) == place(first));
        [first, others.next().unwrap(), others.next().unwrap()]
    };
    for banned in [first, second] {
        setup.limiter.ok(&["ban", &banned.to_string(), "--service", "smtp", "--for", "1h"]);
    }
    let frames = [first, second, ordinary].map(|from| Frame::syn(from.into(), V4.host, SMTP));
    let mut drops = [0, 0];
    for _ in 0..TIMES {
        drops[0] += setup.everywhere(&frames[0], Drop);
        setup.everywhere(&frames[2], Pass);
        drops[1] += setup.everywhere(&frames[1], Drop) + setup.everywhere(&frames[1], Drop);
        setup.everywhere(&frames[2], Pass);
    }
    assert_eq!([first, second].map(|source| setup.dropped_of(&shown(source.into()))), drops);
    // What one is denied, the other is not.
    setup.limiter.ok(&["unban", &second.to_string()]);
    setup.everywhere(&frames[0], Drop);
    setup.everywhere(&frames[1], Pass);
    setup.everywhere(&frames[0], Drop);
}

#[test]
fn what_is_remembered_holds_for_one_address_and_port_of_the_host() {
    let Some(setup) = Setup::new() else { return };
    for sources in Sources::of_both() {
        setup.everywhere(&Frame::syn(sources.banned, sources.host, SMTP), Drop);
        setup.everywhere(&Frame::syn(sources.banned, sources.host, 143), Pass);
        setup.everywhere(&Frame::syn(sources.banned, sources.host, 80), Pass);
        let next = match sources.host {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from(u32::from(v4) + 90)),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) + 90)),
        };
        setup.everywhere(&Frame::syn(sources.banned, next, SMTP), Pass);
        setup.everywhere(&Frame::syn(sources.banned_elsewhere, sources.host, SMTP), Pass);
    }
}

#[test]
fn a_daemon_that_takes_over_finds_what_is_remembered_and_can_change_it() {
    let Some(mut setup) = Setup::new() else { return };
    let [sources, _] = Sources::of_both();
    let frame = Frame::syn(sources.banned, sources.host, SMTP);
    let name = shown(sources.banned);
    let mut drops = setup.everywhere(&frame, Drop);
    setup.replace_daemon();
    assert_eq!(setup.dropped_of(&name), drops);
    drops += setup.everywhere(&frame, Drop);
    assert_eq!(setup.dropped_of(&name), drops);
    setup.limiter.ok(&["unban", &sources.banned.to_string()]);
    setup.everywhere(&frame, Pass);
}
