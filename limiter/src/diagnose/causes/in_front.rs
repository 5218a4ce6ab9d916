// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A webmail, a proxy, a gateway or the bridge of a container in front: many clients with one address, which is private or
//! the host's own, or holds most of the service's connections.
//!
//! Against it speaks a public address with a small part of the connections, or one user alone.

use std::net::IpAddr;

use super::super::{
    figures::Figures,
    finding::{Cause, Confidence, Fact, Finding, Judgement, Paragraph, Remedy},
};
use crate::evidence::case::AddressKind;

/// A part of the service's connections, in hundredths, that no client has by itself.
const MOST: u32 = 50;
/// One that is more than a single machine in a local network has.
const MUCH: u32 = 25;
/// Fewer connections of a service say nothing of who has most of them.
const FEWEST_OF_SERVICE: u32 = 8;
/// The same of a public address, where each may be a whole office.
const FEWEST_OF_PUBLIC: u32 = 20;
/// So many users at a public address that has most of the connections are more than most offices have.
const USERS_OF_PUBLIC: u32 = 10;
/// Several users.
const SEVERAL: u32 = 3;

/// What the figures say of it.
pub fn judge(figures: &Figures<'_>) -> Judgement {
    let case = figures.case;
    if figures.connections == 0 {
        return Judgement::Nothing;
    }
    let share = figures.share_of_service().unwrap_or(0);
    let has_most = share >= MOST && case.whole.connections >= FEWEST_OF_SERVICE;
    let users = figures.users.map(|users| users.count);
    let confidence = match (case.kind, users) {
        (AddressKind::Local, _) => Some(if has_most { Confidence::High } else { Confidence::Medium }),
        (AddressKind::Private, Some(SEVERAL..)) if share >= MUCH => Some(Confidence::High),
        (AddressKind::Private, Some(2..)) => Some(Confidence::Medium),
        (AddressKind::Private, Some(_)) => has_most.then_some(Confidence::Low),
        (AddressKind::Private, None) => (has_most || is_bridge(case.address)).then_some(Confidence::Medium),
        (AddressKind::Public | AddressKind::CarrierNat, Some(USERS_OF_PUBLIC..)) => {
            let is_more = has_most && case.whole.connections >= FEWEST_OF_PUBLIC;
            is_more.then_some(Confidence::Medium)
        }
        (AddressKind::Public | AddressKind::CarrierNat, _) => None,
    };
    let kind = kind(case.kind);
    let Some(confidence) = confidence else {
        return match (figures.is_inside(), users) {
            (true, None) => Judgement::Nothing,
            (true, Some(_)) => Judgement::Not(format!("{kind}, but one user")),
            (false, _) => Judgement::Not(format!("{kind}, {share} % of the service")),
        };
    };
    let text = format!("{share} % of the service's connections");
    let mut evidence = vec![
        Fact::new("inside", u32::from(figures.is_inside()), kind),
        Fact::new("share_of_service_percent", share, text),
    ];
    if let Some(users) = users {
        let text = if users == 1 { "1 user".to_owned() } else { format!("{users} users") };
        evidence.push(Fact::new("users", users, text));
    }
    Judgement::Found(Finding {
        cause: Cause::InFront,
        confidence,
        explains: figures.connections,
        summary: summary(figures, users),
        evidence,
        remedies: remedies(figures),
        for_user: vec![Paragraph::NotYou, Paragraph::TellProvider],
    })
}

fn summary(figures: &Figures<'_>, users: Option<u32>) -> String {
    let what = if is_bridge(figures.case.address) {
        "a container network hides its clients behind this address"
    } else if figures.is_inside() {
        "a webmail, proxy or gateway on your side stands for its users"
    } else {
        "a proxy or webmail seems to stand for its users"
    };
    match users {
        Some(users @ 2..) => format!("{what} ({users} users)"),
        _ => what.to_owned(),
    }
}

const fn kind(kind: AddressKind) -> &'static str {
    match kind {
        AddressKind::Public => "a public address",
        AddressKind::Private => "a private address",
        AddressKind::CarrierNat => "an address of a provider's NAT",
        AddressKind::Local => "an address of this host",
    }
}

fn remedies(figures: &Figures<'_>) -> Vec<Remedy> {
    let mut remedies: Vec<Remedy> = super::raise(figures).into_iter().collect();
    if figures.is_inside() {
        let allow = format!("allow {}", super::source(figures));
        remedies.push(Remedy::limiter(allow, "no limit for it at any service; only if it is yours"));
    }
    if is_bridge(figures.case.address) {
        remedies.push(Remedy::by_hand(
            "protect the network namespace of the container, with `limiter run --netns`",
            "there the addresses of the clients are seen, if nothing has replaced them before",
        ));
    }
    remedies
}

/// Whether an address is that of a bridge as Docker and Podman make them by default: the first of a network in their pools
/// (172.17.0.0/16 to 172.31.0.0/16; 10.88.0.0/16 and 10.89.N.0/24).
fn is_bridge(address: IpAddr) -> bool {
    let IpAddr::V4(address) = address else { return false };
    matches!(address.octets(), [172, 17..=31, 0, 1] | [10, 88, 0, 1] | [10, 89, _, 1])
}
