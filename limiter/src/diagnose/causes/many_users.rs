// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Many users behind one address: an office, a school, a family, or a provider's NAT.
//!
//! Against it speaks one user alone. Where one user of several has most of the sessions, it is less sure.

use std::collections::BTreeSet;

use super::super::{
    figures::Figures,
    finding::{Cause, Confidence, Fact, Finding, Judgement, Paragraph},
};
use crate::evidence::case::AddressKind;

/// So many are an office; two or three may be a family.
const MANY: u32 = 4;
/// Up to this part of the sessions, in hundredths, one user does not stand out.
const EVEN: u32 = 50;
/// From this part on it is that user who fills the limit.
const MOSTLY_ONE: u32 = 67;
/// Of the service, in hundredths: who is inside and has so much is rather a webmail.
const MOST: u32 = 50;
/// A day, in seconds.
const DAY_S: u64 = 86_400;

/// What the figures say of it.
pub fn judge(figures: &Figures<'_>) -> Judgement {
    let case = figures.case;
    let Some(users) = figures.users else { return by_the_past(figures) };
    match users.count {
        0 => return Judgement::Nothing,
        1 => return Judgement::Not("one user".to_owned()),
        _ => {}
    }
    let first = users.percent_of_first();
    let confidence = if users.count >= MANY && first <= EVEN { Confidence::High } else { Confidence::Medium };
    let is_webmail = figures.is_inside() && figures.share_of_service().is_some_and(|share| share >= MOST);
    let gone = figures.gone.saturating_add(figures.silent);
    let are_gone = figures.judged > 0 && u64::from(gone) * 2 >= u64::from(figures.judged);
    let are_others = u64::from(users.sessions) * 2 < u64::from(figures.connections);
    let confidence =
        confidence.lower_if(first >= MOSTLY_ONE).lower_if(is_webmail).lower_if(are_gone).lower_if(are_others);
    let each = format!("at most {} sessions each ({})", users.of_first, users.first);
    let mut evidence = vec![
        Fact::new("users", users.count, format!("{} users", users.count)),
        Fact::new("sessions_of_first_user", users.of_first, each),
    ];
    evidence.extend(full_days(figures));
    let people = format!("{} people share this address", users.count);
    let summary = match case.limit {
        Some(limit) if figures.is_at_its_limit() => {
            format!("{people}, and together they reach the limit of {limit}")
        }
        _ => format!("{people}, with {} connections together", figures.connections),
    };
    found(figures, confidence, summary, evidence)
}

/// Where nobody says who is there now: what was known before, and what kind of address it is.
fn by_the_past(figures: &Figures<'_>) -> Judgement {
    let periods = figures.case.history.get().into_iter().flatten();
    let known = periods.filter_map(|period| period.users).max().unwrap_or(0);
    if known >= 2 {
        let text = format!("{known} users at a time in the past");
        let confidence = if known >= MANY { Confidence::Medium } else { Confidence::Low };
        let summary = format!("up to {known} people share this address");
        return found(figures, confidence, summary, vec![Fact::new("users_before", known, text)]);
    }
    if figures.case.kind == AddressKind::CarrierNat && figures.connections > 0 {
        let text = "customers of a provider share the addresses of 100.64.0.0/10 (RFC 6598)";
        let summary = "several customers of a provider may share this address".to_owned();
        return found(figures, Confidence::Low, summary, vec![Fact::new("carrier_nat", 1_u32, text)]);
    }
    Judgement::Nothing
}

/// Days of the past on which it was at its limit.
fn full_days(figures: &Figures<'_>) -> Option<Fact> {
    let periods = figures.case.history.get()?;
    let is_full = |limit: Option<u32>, peak: u32| limit.is_some_and(|limit| peak >= limit);
    let full = periods.iter().filter(|period| is_full(period.limit, period.peak));
    let days: BTreeSet<u64> = full.map(|period| period.start_s / DAY_S).collect();
    let days = u64::try_from(days.len()).ok().filter(|days| *days >= 2)?;
    Some(Fact::new("days_at_limit", days, format!("at the limit on {days} days")))
}

fn found(figures: &Figures<'_>, confidence: Confidence, summary: String, evidence: Vec<Fact>) -> Judgement {
    Judgement::Found(Finding {
        cause: Cause::ManyUsers,
        confidence,
        explains: figures.connections,
        summary,
        evidence,
        remedies: super::raise(figures).into_iter().collect(),
        for_user: vec![
            Paragraph::NotYou,
            Paragraph::Shared,
            Paragraph::CachedConnections,
            Paragraph::TellProvider,
        ],
    })
}
