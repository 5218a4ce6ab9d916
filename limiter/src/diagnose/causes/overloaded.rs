// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The mail daemon is slow, or has reached a limit of its own that is nearer than ours, so that places come free late.
//!
//! Signs: connections that nobody greets, a queue of connections that nobody accepts, clients that have closed and of which
//! the daemon does not let go, and its own limit on the service used up. Against it speaks that all are greeted. A source
//! that holds most of the service's connections may be the reason, not the victim: then it is less sure.

use super::super::{
    figures::Figures,
    finding::{Cause, Confidence, Fact, Finding, Judgement, Paragraph, Remedy},
};
use crate::{
    evidence::case::{DaemonLimit, LimitScope},
    spans::time,
};

/// So many connections without a greeting for 5 s are no accident: a server that keeps up greets within one.
pub const NOT_GREETED: u32 = 3;
/// So many say it without another sign.
const MANY_NOT_GREETED: u32 = 10;
/// How full the queue is, in hundredths, when the daemon does not keep up; it is nearly empty where it does.
const QUEUE_FULL: u64 = 80;
/// Of a source's connections, in hundredths, those that its clients have closed and the daemon has not.
const CLOSED_BY_CLIENT: u64 = 25;
/// At least so many: one or two are on their way to being closed at any moment.
const FEWEST_CLOSED: u32 = 3;
/// Who holds this much of the service, in hundredths, may be the reason.
const MOST: u32 = 50;

/// What the figures say of it.
pub fn judge(figures: &Figures<'_>) -> Judgement {
    let (case, server) = (figures.case, &figures.case.server);
    let (mut evidence, mut remedies, mut signs) = (Vec::new(), Vec::new(), 0);
    if server.not_greeted >= NOT_GREETED {
        signs += if server.not_greeted >= MANY_NOT_GREETED { 2 } else { 1 };
        let (count, longest) = (server.not_greeted, time(server.longest_not_greeted));
        let text = format!("{count} connections of the service have no greeting, the first for {longest}");
        evidence.push(Fact::new("not_greeted", count, text));
    }
    if let Some((waiting, room)) = server.accept_queue
        && room > 0
        && u64::from(waiting) * 100 >= u64::from(room) * QUEUE_FULL
    {
        signs += 1;
        let text = format!("{waiting} connections wait to be accepted, with room for {room}");
        evidence.push(Fact::new("accept_queue", waiting, text));
    }
    if let Some((value, limit)) = reached(figures) {
        signs += 1;
        let DaemonLimit { daemon, setting, file, reload, .. } = limit;
        let text = format!("{daemon} serves {value} ({setting}), and {} are there", case.whole.connections);
        evidence.push(Fact::new("daemon_limit", value, text));
        let what = format!("raise {setting} in {file}, then `{reload}`");
        remedies.push(Remedy::by_hand(what, format!("{daemon} serves {value} at once")));
    }
    let closed = figures.client_closed;
    let is_much = u64::from(closed) * 100 >= u64::from(figures.connections) * CLOSED_BY_CLIENT;
    if closed >= FEWEST_CLOSED && is_much {
        signs += 1;
        let text = format!("{} closed by the client, and not yet by the server", figures.of_all(closed));
        evidence.push(Fact::new("closed_by_client", closed, text));
    }
    if signs == 0 {
        let is_looked_at = server.accept_queue.is_some() && server.not_greeted == 0;
        return if is_looked_at { Judgement::Not("all are greeted".to_owned()) } else { Judgement::Nothing };
    }
    let confidence = if signs >= 2 { Confidence::High } else { Confidence::Medium };
    let is_most = figures.connections > 1 && figures.share_of_service().is_some_and(|share| share >= MOST);
    let list = format!("connections --service {}", case.service);
    remedies.push(Remedy::limiter(list, "what each connection waits for"));
    let daemon = server.daemon.as_deref().unwrap_or("the mail server");
    Judgement::Found(Finding {
        cause: Cause::Overloaded,
        confidence: confidence.lower_if(is_most),
        explains: figures.connections,
        summary: format!("{daemon} does not keep up, so places come free late"),
        evidence,
        remedies,
        for_user: vec![Paragraph::NotYou, Paragraph::TellProvider],
    })
}

/// The mail daemon's own limit on the service that is used up; the lowest of several.
fn reached<'a>(figures: &Figures<'a>) -> Option<(u64, &'a DaemonLimit)> {
    let limits = figures.case.server.limits.iter().filter(|limit| limit.scope == LimitScope::Service);
    let valued = limits.filter_map(|limit| Some((limit.value?, limit)));
    let used = valued.filter(|(value, _)| *value > 0 && u64::from(figures.case.whole.connections) >= *value);
    used.min_by_key(|(value, _)| *value)
}
