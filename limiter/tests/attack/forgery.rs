// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Packets in the name of an honest client, who works throughout.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::honest::{self, EndOf, Work};
use crate::lab::{AttackLab, agree, nobody};
use crate::raw::{ACK, RST, SYN, Segment, Wire};
use limiter_lab::pinned::Ledger;
use limiter_lab::{Family, Limiter, Sink, V4, V6, let_time_pass, proc_net, say};

const LIMIT: u32 = 8;
/// What a connection pays for its rate. The burst is larger than any number of connections here, so nobody is
/// refused for it; and every one moves the time at which its source is due by an hour, to the nanosecond.
const PAYS: Duration = Duration::from_secs(3600);
const RATE: &str = "rate = \"1/h\"\nburst = 1000000\n";
/// What the honest client holds at most: it never gives a reason to refuse it.
const HOLDS: usize = 7;
/// Of each kind: SYNs, ACKs for what is pending, ACKs for what is not, RSTs.
const FORGED: u32 = 100_000;
/// Other names in which packets are forged.
const OTHERS: u16 = 10_000;
/// Frames of one kind in a row.
const STRETCH: usize = 250;
/// A backlog that no attack of these fills.
pub const ROOM_FOR_ALL: i32 = 300_000;
/// How long the honest client works undisturbed, for comparison.
const PEACE: Duration = Duration::from_secs(1);

/// Numbers that look like chance and are the same each time (xorshift32).
struct Chance(u32);

impl Chance {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    fn port(&mut self, first: u16, last: u16) -> u16 {
        first + (self.next() % (u32::from(last - first) + 1)) as u16
    }
}

/// Every frame of an attack on the source of `family`, in the order they are sent.
///
/// Handshakes are forged from ports below those the client's kernel chooses from (32768 and up). A SYN that
/// happens to come from the very port of an honest one makes its TCP wait for a second, whatever protects
/// the host. ACKs and RSTs come from all ports, those of living connections too.
pub fn attack(family: Family) -> &'static [Vec<u8>] {
    static ATTACKS: [OnceLock<Vec<Vec<u8>>>; 2] = [const { OnceLock::new() }; 2];
    ATTACKS[usize::from(family.host.is_ipv6())].get_or_init(|| {
        let (victim, to) = (family.source(), family.port(25));
        let at = |port| SocketAddr::new(victim, port);
        let mut chance = Chance(0x5eed);
        let mut frames = Vec::new();
        let mut others = 0..OTHERS;
        for _ in 0..FORGED as usize / STRETCH {
            let syns: Vec<Segment> = (0..STRETCH)
                .map(|_| Segment::new(at(chance.port(1_024, 32_767)), to, SYN, chance.next(), 0))
                .collect();
            let pending = syns.iter().map(|syn| Segment {
                flags: ACK,
                seq: syn.seq + 1,
                ack: chance.next(),
                ..syn.clone()
            });
            let pending: Vec<Segment> = pending.collect();
            frames.extend(syns.iter().map(Segment::frame));
            frames.extend(pending.iter().map(Segment::frame));
            for n in 0..STRETCH {
                let port = if n % 2 == 0 { chance.port(1, 1_023) } else { chance.port(32_768, 65_535) };
                frames.push(Segment::new(at(port), to, ACK, chance.next(), chance.next()).frame());
            }
            for (n, syn) in syns.iter().enumerate() {
                let reset = if n % 4 == 0 {
                    // The number is right: whoever forged the SYN knows it.
                    Segment { flags: RST, seq: syn.seq + 1, ..syn.clone() }
                } else {
                    Segment::new(at(chance.port(1, 65_535)), to, RST, chance.next(), 0)
                };
                frames.push(reset.frame());
            }
            for n in others.by_ref().take(usize::from(OTHERS).div_ceil(FORGED as usize / STRETCH)) {
                let from = SocketAddr::new(nobody(family, n), 4_000);
                let syn = Segment::new(from, to, SYN, chance.next(), 0);
                let ack = Segment { flags: ACK, seq: syn.seq + 1, ack: chance.next(), ..syn.clone() };
                frames.extend([syn.frame(), ack.frame()]);
            }
        }
        frames
    })
}

/// The honest client works at `to` while `meanwhile` runs; what it held in the end is still open.
pub fn works_during(
    lab: &AttackLab,
    family: Family,
    meanwhile: impl FnOnce(),
) -> (Work, impl ExactSizeIterator<Item = std::net::TcpStream>) {
    let stop = AtomicBool::new(false);
    let (work, held) = std::thread::scope(|scope| {
        let work = || {
            lab.client.enter();
            honest::work(family.source(), family.port(25), HOLDS, &stop)
        };
        let honest = scope.spawn(work);
        {
            let _end = EndOf(&stop);
            meanwhile();
        }
        honest.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    (work, held.into_iter())
}

/// The sources the limiter knows, by name.
fn known(limiter: &Limiter) -> BTreeSet<String> {
    let list = limiter.json(&["list"]);
    let sources = list["sources"].as_array().expect("a list of sources");
    sources.iter().map(|source| source["source"].as_str().expect("a name").to_owned()).collect()
}

/// Whether the honest client's host answers SYN-ACKs for what it never asked with resets, as hosts do, or a
/// firewall before it keeps them from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    Resets,
    IsSilent,
}

fn forgery(syncookies: &str, backlog: i32) {
    for victim in [Victim::Resets, Victim::IsSilent] {
        let Some(lab) = AttackLab::new() else { return };
        lab.host.sysctl("ipv4/tcp_syncookies", syncookies).unwrap();
        if victim == Victim::IsSilent {
            lab.lose_resets_of_the_client();
        }
        let _server = Sink::with_backlog(&lab, 25, backlog);
        let config = format!("[defaults]\nmax_connections = {LIMIT}\nresponse = \"reset\"\n{RATE}");
        let limiter = Limiter::start_with(&lab, &config);
        let mut expected = BTreeSet::new();
        for family in [V4, V6] {
            let source = family.source();
            let frames = attack(family);
            let wire = Wire::to_send(&lab);
            let (peace, held) = works_during(&lab, family, || let_time_pass(PEACE, "honest work in peace"));
            assert_eq!(peace.refusals, [], "refused in peace");
            agree(&lab, &limiter, source, held.len());
            drop(held);
            agree(&lab, &limiter, source, 0);

            let due = Ledger::open(&limiter).due_ns(source);
            let before =
                ["InSegs", "SyncookiesSent"].map(|counter| proc_net::counter(&lab.host, counter).unwrap());
            let began = Instant::now();
            let (war, held) = works_during(&lab, family, || wire.send_frames(frames));
            let lasted = began.elapsed();
            let after =
                ["InSegs", "SyncookiesSent"].map(|counter| proc_net::counter(&lab.host, counter).unwrap());
            say(&format!(
                "forgery, tcp_syncookies={syncookies}, the victim {victim:?}, {source}: {} forged packets in \
                 {lasted:.1?}, {} SYN cookies; honest: {:.0} connections/s (in peace {:.0}), the slowest \
                 {:.0?} (in peace {:.0?}), {} of {} refused",
                frames.len(),
                after[1] - before[1],
                war.pace(),
                peace.pace(),
                war.slowest,
                peace.slowest,
                war.refusals.len(),
                war.served as usize + war.refusals.len(),
            ));
            let arrived = after[0] - before[0];
            assert!(arrived >= frames.len() as u64, "of {} forged packets {arrived} arrived", frames.len());
            assert_eq!(war.refusals, [], "refused under attack");
            agree(&lab, &limiter, source, held.len());
            let counted = limiter.source("smtp", source);
            let ever = u64::from(peace.served + war.served);
            assert_eq!(
                (counted.accepted, counted.refused, counted.held, counted.peak),
                (ever, 0, 0, HOLDS as u64),
                "nothing but its own connections counts: {counted:?}"
            );
            let paid = Ledger::open(&limiter).due_ns(source) - due;
            assert_eq!(
                paid,
                u64::from(war.served) * PAYS.as_nanos() as u64,
                "nothing else pays for its rate"
            );
            expected.insert(name(source));
            assert_eq!(known(&limiter), expected, "only who completed a handshake is known");
            drop(held);
            agree(&lab, &limiter, source, 0);
        }
        assert_eq!(limiter.counter("smtp", "refused_concurrency"), 0);
    }
}

/// The name of a source, as the limiter lists it.
fn name(source: IpAddr) -> String {
    match source {
        IpAddr::V4(v4) => format!("{v4}/32"),
        IpAddr::V6(v6) => format!("{}/64", std::net::Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
    }
}

#[test]
fn forged_packets_change_nothing_for_the_one_they_name() {
    forgery("0", ROOM_FOR_ALL);
}

#[test]
fn forged_packets_change_nothing_when_the_syn_queue_overflows_into_cookies() {
    forgery("1", 1_024);
}

#[test]
fn forged_packets_change_nothing_with_syn_cookies_always() {
    forgery("2", 1_024);
}
