// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `[[rule]]`: the rule of one network.

use ipnet::IpNet;
use toml_edit::{Decor, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::tables::{Home, append, push, take_out};
use crate::config::{Rule, Ruling, SettingError, check::NONE, parse_network, rules::EVERY_OTHER};

/// `rules` with the rule of `network` as `ruling` makes it.
///
/// # Errors
/// When limits make no sense together.
pub fn change(rules: &mut Vec<Rule>, network: IpNet, ruling: Ruling<'_>) -> Result<(), SettingError> {
    let before = rules.iter().position(|rule| rule.network == network).map(|index| rules.remove(index));
    let at = rules.partition_point(|rule| rule.network < network);
    rules.splice(at..at, ruling.apply(network, before)?);
    Ok(())
}

/// The same in the document, in which the network's rule is `wanted` then; `None` if there is no place for it.
pub fn rule(
    document: &mut DocumentMut,
    network: IpNet,
    ruling: Ruling<'_>,
    wanted: Option<&Rule>,
) -> Option<()> {
    let is_it = |table: &dyn TableLike| {
        let text = table.get("network").and_then(Item::as_str);
        text.and_then(|text| parse_network(text).ok()) == Some(network)
    };
    match document.get_mut("rule") {
        None | Some(Item::ArrayOfTables(_)) => {
            let rules = document.get_mut("rule").and_then(Item::as_array_of_tables_mut);
            let index = rules.as_ref().and_then(|rules| rules.iter().position(|rule| is_it(rule)));
            match (index, ruling) {
                (None, Ruling::Forget) => {}
                (Some(index), Ruling::Forget) => take_out(document, "rule", index)?,
                (Some(index), _) => write_rule(&mut Home::Lines(rules?.get_mut(index)?), ruling, wanted)?,
                (None, _) => {
                    let mut rule = Table::new();
                    rule.insert("network", Item::Value(shown(network).into()));
                    write_rule(&mut Home::Lines(&mut rule), ruling, wanted)?;
                    append(document, "rule", rule)?;
                }
            }
        }
        Some(Item::Value(Value::Array(rules))) => {
            let is_it = |rule: &Value| rule.as_inline_table().is_some_and(|rule| is_it(rule));
            let index = rules.iter().position(is_it);
            match (index, ruling) {
                (None, Ruling::Forget) => {}
                (Some(index), Ruling::Forget) => drop(rules.remove(index)),
                (Some(index), _) => {
                    let rule = rules.get_mut(index)?.as_inline_table_mut()?;
                    write_rule(&mut Home::Braces(rule), ruling, wanted)?;
                }
                (None, _) => {
                    let mut rule = InlineTable::new();
                    rule.insert("network", shown(network).into());
                    write_rule(&mut Home::Braces(&mut rule), ruling, wanted)?;
                    push(rules, rule);
                }
            }
        }
        Some(_) => return None,
    }
    Some(())
}

/// The keys of a rule without.
const DECISIONS: [&str; 2] = ["allow", "deny"];

/// The keys of a rule with limits.
const LIMITS: [&str; 5] = ["max_connections", "rate", "burst", "network_max_connections", "source_prefix"];

/// A single address is written as one.
fn shown(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

/// Makes a rule, which is `wanted` then, say `ruling`; `None` if there is no place for it.
fn write_rule(rule: &mut Home<'_>, ruling: Ruling<'_>, wanted: Option<&Rule>) -> Option<()> {
    let (limiting, service) = match ruling {
        Ruling::Forget => return Some(()),
        Ruling::Allow | Ruling::Deny => {
            decide(rule, if ruling == Ruling::Allow { "allow" } else { "deny" });
            return Some(());
        }
        Ruling::Limit(limiting, service) => (limiting, service),
    };
    let mut keys: Vec<(&str, Value)> = Vec::new();
    if let Some(limit) = limiting.max_connections {
        keys.push(("max_connections", i64::from(limit).into()));
    }
    if let Some(limit) = limiting.network_max_connections {
        keys.push((
            "network_max_connections",
            limit.0.map_or_else(|| NONE.into(), |limit| i64::from(limit).into()),
        ));
    }
    for (key, value) in keys {
        put_at(rule, key, value, service);
    }
    if limiting.rate.is_none() && limiting.burst.is_none() {
        return Some(());
    }
    // The burst of others depends on it, so both are written anew.
    let rates = &wanted?.rate;
    let (rate, burst) = rates.texts();
    put(rule, "rate", rate?.parse().ok()?);
    let mut limited = rates.services.values().chain(&rates.all).flatten();
    match burst {
        // Without a word on it, the burst is the rate's number.
        Some(burst) if limited.any(|rate| rate.burst != rate.spec.count) => {
            put(rule, "burst", burst.parse().ok()?);
        }
        _ => rule.remove("burst"),
    }
    Some(())
}

/// Makes a rule say `verdict` and nothing else.
fn decide(rule: &mut Home<'_>, verdict: &str) {
    let mut given = DECISIONS.into_iter().chain(LIMITS).filter(|given| rule.has(given));
    // The first gives its place.
    let (first, others): (Option<&str>, Vec<&str>) = (given.next(), given.collect());
    for other in others {
        rule.remove(other);
    }
    match first {
        Some(first) if first != verdict => rule.exchange(first, verdict, true.into()),
        _ => rule.put(verdict, true.into()),
    }
}

/// Makes a rule with limits say `value`.
fn put(rule: &mut Home<'_>, key: &str, value: Value) {
    match DECISIONS.into_iter().find(|given| rule.has(given)) {
        Some(decided) => rule.exchange(decided, key, value),
        None => rule.put(key, value),
    }
}

/// The same, of one service beside what it says of others.
fn put_at(rule: &mut Home<'_>, key: &str, value: Value, service: Option<&str>) {
    let Some(service) = service else { return put(rule, key, value) };
    if let Some(mut given) = rule.table(key) {
        return given.put(service, value);
    }
    let mut given = InlineTable::new();
    given.insert(service, value);
    // What it says of all services it still says of the others.
    if let Some(mut all) = rule.keys().get(key).and_then(Item::as_value).cloned() {
        *all.decor_mut() = Decor::default();
        given.insert(EVERY_OTHER, all);
    }
    put(rule, key, Value::InlineTable(given));
}
