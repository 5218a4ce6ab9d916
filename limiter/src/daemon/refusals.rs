// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Refusals in the log: not each, of which there may be a million a second, but how many, at which service, and why; and
//! who was refused, as far as the daemon told or reset it itself.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use limiter_common::{Addr, Counters, Reason};
use tracing::info;

use crate::{
    greeter::{LINES, LogLine as Line, RefusalLog, Refused},
    kernel::{Tables, sets::RuleEntry},
    policy,
};

/// How often, at most.
const EVERY: Duration = Duration::from_secs(60);
/// The first ones are not waited for so long: somebody may be looking.
const FIRST: Duration = Duration::from_secs(5);

/// What was said last.
pub struct Refusals {
    /// By service: what had been counted, and when.
    said: HashMap<String, (Counters, Instant)>,
    /// Who was refused.
    log: RefusalLog,
    /// The rules, and the change since which they are as they are: there may be a hundred thousand.
    rules: Option<(u64, Vec<RuleEntry>)>,
}

impl Refusals {
    /// What was refused before is not said again.
    pub fn new(tables: &Tables, log: RefusalLog) -> Result<Self> {
        let long_ago = Instant::now().checked_sub(EVERY.saturating_sub(FIRST)).unwrap_or_else(Instant::now);
        let said = counters(tables)?.into_iter().map(|(name, now)| (name, (now, long_ago)));
        Ok(Self { said: said.collect(), log, rules: None })
    }

    /// Says what has been refused since, where it is time.
    pub fn round(&mut self, tables: &Tables) -> Result<()> {
        let now = Instant::now();
        for line in self.log.lines(now) {
            match line {
                Line::Source(refused, besides) => {
                    let rule = self.rule(tables, &refused)?;
                    say(&refused, besides, rule.as_deref().unwrap_or("none"));
                }
                Line::Others(others) => {
                    info!(target: "limiter::refused", others, "{}", not_listed(others));
                }
            }
        }
        let all = counters(tables)?;
        self.said.retain(|name, _| all.iter().any(|(other, _)| other == name));
        for (name, counters) in all {
            let (before, at) = self.said.entry(name.clone()).or_insert((counters, now));
            if now.duration_since(*at) < EVERY {
                continue;
            }
            if let Some(said) = sentence(before, &counters) {
                info!(target: "limiter::refusals", service = name, "{name}: {said}");
                (*before, *at) = (counters, now);
            }
        }
        Ok(())
    }
}

impl Refusals {
    /// The network of the rule that counts for a source, if there is one.
    fn rule(&mut self, tables: &Tables, refused: &Refused) -> Result<Option<String>> {
        let change = tables.policy.change()?;
        let rules = match self.rules.take() {
            Some((known, rules)) if known == change => rules,
            _ => tables.policy.rules()?,
        };
        let rule = policy::covering(&rules, &Addr::from(refused.remote));
        let rule = rule.map(|rule| rule.network.to_string());
        self.rules = Some((change, rules));
        Ok(rule)
    }
}

/// One line: the words for people, the fields for programs.
fn say(refused: &Refused, besides: u64, rule: &str) {
    let Refused { service, remote, reason, count, limit, answer } = refused;
    info!(
        target: "limiter::refused",
        service = service.as_ref(),
        source = %remote,
        reason = reason.name(),
        count,
        limit,
        response = answer.name(),
        rule,
        more = besides,
        "{}",
        who(refused, besides, rule)
    );
}

/// The words of it.
fn who(refused: &Refused, besides: u64, rule: &str) -> String {
    let Refused { service, remote, reason, count, limit, answer } = refused;
    // What a rate counts is not what is open.
    let numbers = if *reason == Reason::Rate { String::new() } else { format!(" ({count} of {limit})") };
    let rule = if rule == "none" { String::new() } else { format!(", rule {rule}") };
    let more = if besides == 0 { String::new() } else { format!(", and {besides} more") };
    let answer = answer.name();
    format!("refused {remote} at {service}: {reason}{numbers}, {answer}{rule}{more}")
}

/// The words for those who have no line.
fn not_listed(others: u64) -> String {
    format!(
        "refused {others} more connections, which are not listed, because there are at most {LINES} such lines a minute"
    )
}

fn counters(tables: &Tables) -> Result<Vec<(String, Counters)>> {
    let services = tables.policy.services()?;
    services.iter().map(|(id, policy)| Ok((policy.name().to_owned(), tables.counters(*id)?))).collect()
}

/// What has been refused between two looks; none if nothing.
fn sentence(before: &Counters, now: &Counters) -> Option<String> {
    let parts = |before: &[u64; 6], now: &[u64; 6]| -> Vec<String> {
        let since = Reason::ALL
            .iter()
            .zip(before.iter().zip(now))
            .map(|(reason, (before, now))| (reason, now.wrapping_sub(*before)));
        since.filter(|(_, n)| *n != 0).map(|(reason, n)| format!("{} {n}", reason.name())).collect()
    };
    let refused = parts(&before.refused, &now.refused);
    let observed = parts(&before.would_refuse, &now.would_refuse);
    let held = now.held.wrapping_sub(before.held);
    let mut said = Vec::new();
    if !refused.is_empty() {
        let replied = now.replied.wrapping_sub(before.replied);
        said.push(format!("packets refused: {}; clients sent to the greeter: {replied}", refused.join(", ")));
    }
    if held != 0 {
        said.push(format!("handshakes held back: {held}"));
    }
    if !observed.is_empty() {
        said.push(format!("would have been refused: {}", observed.join(", ")));
    }
    (!said.is_empty()).then(|| said.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::greeter::Answer;

    #[test]
    fn a_line_says_who_was_refused_where_and_why() {
        let refused = Refused {
            service: "smtp".into(),
            remote: "192.0.2.7".parse().unwrap(),
            reason: Reason::Concurrency,
            count: 9,
            limit: 8,
            answer: Answer::Reply,
        };
        assert_eq!(who(&refused, 0, "none"), "refused 192.0.2.7 at smtp: concurrency (9 of 8), reply");
        assert_eq!(
            who(
                &Refused { reason: Reason::Rate, answer: Answer::Alert, ..refused.clone() },
                311,
                "192.0.2.0/24"
            ),
            "refused 192.0.2.7 at smtp: rate, alert, rule 192.0.2.0/24, and 311 more"
        );
        assert_eq!(
            who(&Refused { answer: Answer::Reset, ..refused }, 0, "none"),
            "refused 192.0.2.7 at smtp: concurrency (9 of 8), reset"
        );
    }

    #[test]
    fn who_has_no_line_is_counted_and_it_is_said_why() {
        assert_eq!(
            not_listed(4711),
            "refused 4711 more connections, which are not listed, because there are at most 60 such lines a minute"
        );
    }

    #[test]
    fn refusals_are_said_by_reason_and_nothing_where_there_are_none() {
        let mut before = Counters { replied: 10, ..Counters::default() };
        before.refused[Reason::Concurrency as usize] = 100;
        assert_eq!(sentence(&before, &before), None);
        let mut now = Counters { replied: 13, held: 2, ..before };
        now.refused[Reason::Concurrency as usize] = 105;
        now.refused[Reason::Rate as usize] = 1;
        assert_eq!(
            sentence(&before, &now).unwrap(),
            "packets refused: concurrency 5, rate 1; clients sent to the greeter: 3; handshakes held back: 2"
        );
        now = before;
        now.would_refuse[Reason::Total as usize] = 4;
        assert_eq!(sentence(&before, &now).unwrap(), "would have been refused: total 4");
    }
}
