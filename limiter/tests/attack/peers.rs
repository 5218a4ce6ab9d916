// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What forged packets do to the usual limits, and to this one.

use std::fmt::Write as _;
use std::net::TcpStream;

use crate::forgery::{ROOM_FOR_ALL, Victim, attack, works_during};
use crate::lab::{AttackLab, agree};
use crate::raw::{SYN, Segment, Wire};
use limiter_lab::command::{feed, run};
use limiter_lab::{Family, Limiter, SOON, Sink, V4, V6, answer, eventually, proc_net, say};

const LIMIT: usize = 8;
const FORGED: u16 = 20;

const PROTECTIONS: [Protection; 3] = [Protection::Limiter, Protection::Nftables, Protection::Iptables];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protection {
    Limiter,
    Nftables,
    Iptables,
}

impl Protection {
    fn name(self) -> &'static str {
        match self {
            Self::Limiter => "limiter",
            Self::Nftables => "nftables ct count over 8",
            Self::Iptables => "iptables --connlimit-above 8",
        }
    }

    /// Limits the mail host to eight connections a source.
    fn set_up(self, lab: &AttackLab) -> Option<Limiter> {
        match self {
            Self::Limiter => return Some(Limiter::start(lab, LIMIT as u32, "reset")),
            Self::Nftables => {
                let mut command = lab.host.command("nft");
                command.args(["-f", "-"]);
                feed(command, NFTABLES).unwrap();
            }
            Self::Iptables => {
                for (program, mask) in [("iptables", "32"), ("ip6tables", "64")] {
                    let mut command = lab.host.command(program);
                    command.args(["-A", "INPUT", "-p", "tcp", "--syn", "--dport", "25", "-m", "connlimit"]);
                    command.args(["--connlimit-above", "8", "--connlimit-mask", mask]);
                    command.args(["-j", "REJECT", "--reject-with", "tcp-reset"]);
                    run(command).unwrap();
                }
            }
        }
        None
    }
}

const NFTABLES: &str = "
table inet peer {
    set v4 { type ipv4_addr; size 65535; flags dynamic; }
    set v6 { type ipv6_addr; size 65535; flags dynamic; }
    chain input {
        type filter hook input priority 0
        tcp dport 25 ct state new add @v4 { ip saddr ct count over 8 } reject with tcp reset
        tcp dport 25 ct state new add @v6 { ip6 saddr ct count over 8 } reject with tcp reset
    }
}
";

/// How many of nine connections that the honest client opens are served, all held.
fn served_of_nine(lab: &AttackLab, family: Family) -> usize {
    let sessions: Vec<TcpStream> = (0..=LIMIT)
        .filter_map(|_| {
            let (stream, answer) = lab.client.run(|| answer(family.source(), family.port(25), SOON));
            stream.filter(|_| answer.is_service())
        })
        .collect();
    sessions.len()
}

/// As [`served_of_nine`], before and after SYNs in the client's name.
fn measure(protection: Protection, victim: Victim, family: Family, forged: u16) -> usize {
    let Some(lab) = AttackLab::new() else { return 0 };
    if victim == Victim::IsSilent {
        lab.lose_resets_of_the_client();
    }
    let _server = Sink::with_backlog(&lab, 25, 1_024);
    let _limiter = protection.set_up(&lab);
    let arrived = || proc_net::counter(&lab.host, "InSegs").unwrap();
    let before = arrived();
    let syns: Vec<Segment> = (0..forged)
        .map(|n| Segment::new((family.source(), 1_024 + n).into(), family.port(25), SYN, u32::from(n), 0))
        .collect();
    Wire::to_send(&lab).send_all(&syns);
    // What nftables and iptables reject does not come to TCP: the first eight do.
    eventually("the forged SYNs have arrived", SOON, || {
        let arrived = arrived() - before;
        if arrived >= u64::from(forged.min(8)) { Ok(()) } else { Err(format!("{arrived}")) }
    });
    served_of_nine(&lab, family)
}

#[test]
fn twenty_forged_syns_lock_an_honest_client_out_of_nftables_and_iptables_but_not_out_of_this() {
    if AttackLab::new().is_none() {
        return;
    }
    let mut table = "an honest client opens nine connections of eight allowed; served are:\n".to_owned();
    let mut line = |what: &str, family: &str, [peace, resets, silent]: [&str; 3]| {
        let _ = writeln!(table, "{what:30} {family:5} {peace:>12} {resets:>24} {silent:>24}");
    };
    line("", "", ["", "20 SYNs forged,", "20 SYNs forged,"]);
    line("", "", ["no forgery", "victim resets SYN-ACKs", "firewall drops resets"]);
    let mut failures = Vec::new();
    for protection in PROTECTIONS {
        for (family, name) in [(V4, "IPv4"), (V6, "IPv6")] {
            let peace = measure(protection, Victim::Resets, family, 0);
            let resets = measure(protection, Victim::Resets, family, FORGED);
            let silent = measure(protection, Victim::IsSilent, family, FORGED);
            let found = [peace, resets, silent];
            let [a, b, c] = found.map(|served| served.to_string());
            line(protection.name(), name, [&a, &b, &c]);
            let as_expected = match protection {
                Protection::Limiter => found == [LIMIT; 3],
                _ => peace == LIMIT && silent == 0,
            };
            if !as_expected {
                failures.push(format!("{protection:?} {name}: {found:?}"));
            }
        }
    }
    say(&table);
    assert!(failures.is_empty(), "not as expected: {failures:#?}");
}

#[test]
fn an_attack_in_its_name_locks_an_honest_client_out_of_nftables_and_iptables_but_not_out_of_this() {
    let mut table = String::new();
    let mut failures = Vec::new();
    for protection in PROTECTIONS {
        for (family, name) in [(V4, "IPv4"), (V6, "IPv6")] {
            let Some(lab) = AttackLab::new() else { return };
            lab.lose_resets_of_the_client();
            let _server = Sink::with_backlog(&lab, 25, ROOM_FOR_ALL);
            let limiter = protection.set_up(&lab);
            let (frames, wire) = (attack(family), Wire::to_send(&lab));
            let (work, held) = works_during(&lab, family, || wire.send_frames(frames));
            drop(held);
            if let Some(limiter) = &limiter {
                agree(&lab, limiter, family.source(), 0);
            }
            let (served, refused, after) = (work.served, work.refusals.len(), served_of_nine(&lab, family));
            let _ = writeln!(
                table,
                "{:30} {name:5} {:>12} {served:>10} {refused:>10} {after:>12}",
                protection.name(),
                frames.len()
            );
            let as_expected = match protection {
                Protection::Limiter => served > 0 && refused == 0 && after == LIMIT,
                // What is served afterwards varies: the forged resets free some of what the forged SYNs took.
                _ => refused > 10 * served as usize,
            };
            if !as_expected {
                failures.push(format!("{protection:?} {name}: {served}, {refused}, {after}"));
            }
        }
    }
    let head = format!("{:36} {:>12} {:>10} {:>10} {:>12}", "", "forged", "served", "refused", "of nine");
    say(&format!(
        "an honest client who never holds all of its {LIMIT} works while packets are forged in its name; served and \
         refused meanwhile, and served of nine afterwards:\n{head}\n{table}"
    ));
    assert!(failures.is_empty(), "not as expected: {failures:#?}");
}
