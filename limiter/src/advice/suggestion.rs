// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The limit that refuses nobody who looks honest, nobody of whom nothing is known, and as many of the others as that leaves;
//! and the few sources that want so much more that they get a rule of their own, or are left to the administrator.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use limiter_common::ServicePolicy;
use serde::Serialize;

use super::{
    past::{ByPeak, Past},
    source::{Look, Source},
};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Suggestion {
    /// The limit of a source.
    pub max_connections: u32,
    /// Networks that want more.
    pub rules: Vec<OwnRule>,
    /// Sources that hold far more than all others, and of which nothing says whether they are honest: they are refused.
    pub undecided: Vec<Undecided>,
    /// What speaks for it, a sentence each.
    pub reasons: Vec<String>,
    /// What speaks against trusting it, a sentence each.
    pub doubts: Vec<String>,
}

/// A rule for one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OwnRule {
    /// Which.
    #[cfg_attr(test, schemars(with = "String"))]
    pub network: IpNet,
    /// The limit of each source in it.
    pub max_connections: u32,
    /// Why, in a sentence.
    pub why: String,
}

/// A source that an administrator has to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Undecided {
    /// Which.
    #[cfg_attr(test, schemars(with = "String"))]
    pub source: IpNet,
    /// The most connections at one time.
    pub peak: u32,
}

impl Suggestion {
    /// How many connections a source may hold by it.
    #[cfg(test)]
    pub fn of(&self, source: &IpNet) -> u32 {
        let own = self.rules.iter().filter(|rule| rule.network.contains(source));
        own.max_by_key(|rule| rule.network.prefix_len())
            .map_or(self.max_connections, |rule| rule.max_connections)
    }
}

/// So many sources get a rule of their own at most; where more want much, much is what is usual.
const MOST_RULES: usize = 10;
/// So many of one network make it a rule for the network.
const NEIGHBOURS: usize = 3;
/// Two mail programs open so many by default (Thunderbird: five each): no lower limit is suggested, whoever was there so far.
const LEAST: u32 = 10;
/// One day is not over yet, as a rule, and no other day is like it.
const FEWEST_DAYS: usize = 2;
/// Of fewer days than this a week is not known.
const WEEK: usize = 7;

/// What follows from `sources`, and from the peaks of the `rest`, of which nothing else is known.
///
/// # Errors
/// Why nothing is suggested, a sentence.
pub fn suggest(past: &Past, days: usize, sources: &[Source], rest: &ByPeak) -> Result<Suggestion, String> {
    if days < FEWEST_DAYS {
        let has = if days == 0 { "no connection" } else { "connections of one day only" };
        return Err(format!(
            "not enough history: it has {has} at {}; a suggestion takes {FEWEST_DAYS} days, and a week is better",
            past.service
        ));
    }
    // Nobody is refused of whom it is not known that they should be.
    let mut wanting: Vec<&Source> = sources.iter().filter(|source| source.look != Look::Dubious).collect();
    wanting.sort_by(|a, b| (b.wants(), a.source).cmp(&(a.wants(), b.source)));
    let of_rest = rest.keys().next_back().copied().unwrap_or(0);
    if wanting.is_empty() && of_rest == 0 {
        return Err("nothing is suggested: all sources come and go, and have no known user".to_owned());
    }
    let (apart, others) = wanting.split_at(apart(&wanting, of_rest));
    let (honest_apart, unknown_apart): (Vec<&Source>, Vec<&Source>) =
        apart.iter().partition(|source| source.look == Look::Honest);
    let most = |look: Look| others.iter().find(|source| source.look == look).copied();
    let (honest, unknown) = (most(Look::Honest), most(Look::Unknown));
    let with_honest = with_room(honest.map_or(0, Source::wants).max(of_rest));
    let with_unknown = chosen(unknown.map_or(0, |source| source.peak));
    let max_connections = with_honest.max(with_unknown);
    let reason = if with_unknown > with_honest { of_unknown(unknown) } else { of_honest(honest, of_rest) };
    let room = (with_honest >= with_unknown).then(|| {
        format!("{max_connections} leaves room for a quarter more, or two, and is no less than {LEAST}")
    });
    let beyond = refuses(max_connections, sources, &unknown_apart);
    Ok(Suggestion {
        max_connections,
        rules: rules(&honest_apart, max_connections),
        undecided: unknown_apart.iter().map(|it| Undecided { source: it.source, peak: it.peak }).collect(),
        reasons: std::iter::once(reason).chain(room).chain([beyond]).collect(),
        doubts: doubts(past, days, &wanting),
    })
}

/// Why the limit is no lower, where an honest source or one of the rest has the most.
fn of_honest(honest: Option<&Source>, of_rest: u32) -> String {
    match honest.filter(|source| source.wants() >= of_rest) {
        Some(source) if source.was_at_limit => format!(
            "{} holds the most of those that look honest: {} connections, and was refused there; how many it wants is not \
             known, so it is taken for {}",
            source.source,
            source.peak,
            source.wants()
        ),
        Some(source) => format!(
            "{} holds the most of those that look honest: {} connections at one time",
            source.source, source.peak
        ),
        None => format!(
            "sources that never reached half of their limit, of which nothing more is known, held up to {of_rest} \
             connections at one time"
        ),
    }
}

/// The same, where it is one of which nothing is known.
fn of_unknown(unknown: Option<&Source>) -> String {
    let (source, peak) = unknown.map_or_else(Default::default, |it| (it.source.to_string(), it.peak));
    format!(
        "{source} holds the most: {peak} connections at one time; nothing says whether it is honest, so the limit is no \
         lower, and leaves no room for more"
    )
}

/// Whom the limit would have refused: of the others nobody is above it.
fn refuses(max_connections: u32, sources: &[Source], undecided: &[&Source]) -> String {
    let beyond = |source: &Source| -> Vec<u64> {
        let peaks = source.peaks.values().filter_map(|peak| peak.checked_sub(max_connections));
        peaks.filter(|&beyond| beyond > 0).map(u64::from).collect()
    };
    let dubious = sources.iter().filter(|source| source.look == Look::Dubious);
    let dubious: Vec<u64> = dubious.flat_map(beyond).collect();
    let undecided: Vec<u64> = undecided.iter().flat_map(|source| beyond(source)).collect();
    let connections: u64 = dubious.iter().chain(&undecided).sum();
    match (dubious.len(), undecided.len()) {
        (0, 0) => "it would have refused nobody".to_owned(),
        (source_days, 0) => format!(
            "it would have refused {connections} connections at least on {source_days} source-days, all of sources that \
             come and go and have no known user"
        ),
        (dubious, undecided) => format!(
            "it would have refused {connections} connections at least: on {dubious} source-days of sources that come and \
             go and have no known user, on {undecided} of those that are undecided"
        ),
    }
}

/// How many of them, the largest first, stand so far apart from the others that they get a rule: each wants twice as many as
/// the largest of those that follow, or more. Where nobody follows, nobody stands apart.
fn apart(wanting: &[&Source], of_rest: u32) -> usize {
    let usual = |from: usize| wanting.get(from).map_or(0, |source| source.wants()).max(of_rest);
    let most = wanting.len().min(MOST_RULES);
    let is_apart = |count: &usize| {
        let last = wanting.get(count - 1).map_or(0, |source| source.wants());
        usual(*count) > 0 && last >= 2 * usual(*count).max(LEAST)
    };
    (1..=most).rev().find(is_apart).unwrap_or(0)
}

/// Their rules: one for a network where several of it want more.
fn rules(apart: &[&Source], max_connections: u32) -> Vec<OwnRule> {
    let mut networks: BTreeMap<IpNet, Vec<&Source>> = BTreeMap::new();
    for source in apart {
        networks.entry(around(&source.source)).or_default().push(source);
    }
    let mut rules = Vec::new();
    for (network, sources) in networks {
        if sources.len() >= NEIGHBOURS {
            let wants = sources.iter().map(|source| source.wants()).max().unwrap_or(0);
            rules.push(OwnRule {
                network,
                max_connections: with_room(wants).max(max_connections),
                why: format!("{} sources of this network want up to {wants} connections", sources.len()),
            });
            continue;
        }
        rules.extend(sources.into_iter().map(|source| OwnRule {
            network: source.source,
            max_connections: with_room(source.wants()).max(max_connections),
            why: why(source),
        }));
    }
    rules
}

fn why(source: &Source) -> String {
    let who = match source.users {
        Some(1) => ", one user is known",
        Some(2..) => ", several users are known",
        Some(0) | None => "",
    };
    let more = if source.was_at_limit { " and was refused there" } else { "" };
    format!("it held {} connections at one time{more}{who}", source.peak)
}

/// The network that one owner is likely to have.
fn around(source: &IpNet) -> IpNet {
    let prefix = match source.addr() {
        IpAddr::V4(_) => 24,
        IpAddr::V6(_) => 48,
    };
    IpNet::new(source.addr(), prefix.min(source.prefix_len())).map_or(*source, |network| network.trunc())
}

fn doubts(past: &Past, days: usize, wanting: &[&Source]) -> Vec<String> {
    let mut doubts = Vec::new();
    if days < WEEK {
        doubts.push(format!("the history has {days} days; a week shows more"));
    }
    if past.days.iter().any(|day| !day.is_complete) {
        doubts.push(
            "not all sources of these days were kept: there may have been more with few connections"
                .to_owned(),
        );
    }
    let at_limit = wanting.iter().filter(|source| source.was_at_limit && source.look == Look::Honest).count();
    if at_limit > 0 {
        let whose = if at_limit == 1 {
            "one source that looks honest was refused at its limit: how many connections it wants".to_owned()
        } else {
            format!(
                "{at_limit} sources that look honest were refused at their limit: how many connections they want"
            )
        };
        doubts.push(format!(
            "{whose} is not known, so twice as many are assumed; a service that observes shows it (`limiter set {} \
             mode=observe`)",
            past.service
        ));
    }
    doubts
}

/// So many, and a quarter more, or two; as a number that people choose.
fn with_room(connections: u32) -> u32 {
    chosen(connections.saturating_add((connections / 4).max(2)))
}

/// So many, or the next number that people choose.
fn chosen(connections: u32) -> u32 {
    const STEPS: [u32; 10] = [10, 12, 15, 20, 25, 30, 40, 50, 60, 80];
    let wanted = connections.max(LEAST);
    let mut unit = 1_u32;
    while let Some(next) = unit.checked_mul(10) {
        if let Some(step) = STEPS.iter().map(|step| step.saturating_mul(unit)).find(|step| *step >= wanted) {
            return step.min(ServicePolicy::MAX_LIMIT);
        }
        unit = next;
    }
    ServicePolicy::MAX_LIMIT
}

#[cfg(test)]
mod tests {
    use super::{chosen, with_room};

    #[test]
    fn a_limit_leaves_room_and_is_a_number_that_people_choose() {
        let rooms = [0, 1, 2, 3, 5, 8, 10, 12, 16, 31, 64, 65, 100, 999].map(with_room);
        assert_eq!(rooms, [10, 10, 10, 10, 10, 10, 12, 15, 20, 40, 80, 100, 150, 1500]);
        for connections in 0..10_000 {
            assert!(with_room(connections) >= connections + 2);
            assert!(chosen(connections) >= connections);
        }
        assert_eq!([20, 21, 100, 101].map(chosen), [20, 25, 100, 120]);
    }
}
