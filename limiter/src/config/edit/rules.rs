//! `[[rule]]`: what is said of one network.

use std::collections::BTreeMap;

use ipnet::IpNet;
use limiter_common::Action;
use toml_edit::{DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::{
    Ruling,
    tables::{Home, append, push, take_out},
};
use crate::config::{
    Rule, parse_network,
    rules::{EVERY_OTHER, PerService},
};

/// `rules` with what is said of `network`, as `limiter allow`, `deny`, `limit` and `forget` mean it.
pub fn change(rules: &mut Vec<Rule>, network: IpNet, ruling: Ruling<'_>) {
    let before = rules.iter().position(|rule| rule.network == network).map(|index| rules.remove(index));
    let mut comment = None;
    let limited = before.and_then(|mut rule| {
        comment = rule.comment.take();
        (rule.action == Action::Limit).then_some(rule)
    });
    let mut rule = match ruling {
        Ruling::Forget => return,
        Ruling::Allow => Rule::new(network, Action::Allow),
        Ruling::Deny => Rule::new(network, Action::Deny),
        Ruling::Limit(connections, service) => {
            let mut rule = limited.unwrap_or_else(|| Rule::new(network, Action::Limit));
            let PerService { all, services } = &mut rule.max_connections;
            match service {
                Some(service) => {
                    services.insert(service.to_owned(), connections);
                }
                None => (*all, *services) = (Some(connections), BTreeMap::new()),
            }
            rule
        }
    };
    rule.comment = comment;
    let at = rules.partition_point(|rule| rule.network < network);
    rules.insert(at, rule);
}

/// The same in the document; `None` if there is no place for it.
pub fn rule(document: &mut DocumentMut, network: IpNet, ruling: Ruling<'_>) -> Option<()> {
    let is_it = |table: &dyn TableLike| {
        let written = table.get("network").and_then(Item::as_str);
        written.and_then(|written| parse_network(written).ok()) == Some(network)
    };
    match document.get_mut("rule") {
        None | Some(Item::ArrayOfTables(_)) => {
            let rules = document.get_mut("rule").and_then(Item::as_array_of_tables_mut);
            let index = rules.as_ref().and_then(|rules| rules.iter().position(|rule| is_it(rule)));
            match (index, ruling) {
                (None, Ruling::Forget) => {}
                (Some(index), Ruling::Forget) => take_out(document, "rule", index)?,
                (Some(index), _) => say(&mut Home::Lines(rules?.get_mut(index)?), ruling),
                (None, _) => {
                    let mut rule = Table::new();
                    rule.insert("network", Item::Value(shown(network).into()));
                    say(&mut Home::Lines(&mut rule), ruling);
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
                    say(&mut Home::Braces(rules.get_mut(index)?.as_inline_table_mut()?), ruling);
                }
                (None, _) => {
                    let mut rule = InlineTable::new();
                    rule.insert("network", shown(network).into());
                    say(&mut Home::Braces(&mut rule), ruling);
                    push(rules, rule);
                }
            }
        }
        Some(_) => return None,
    }
    Some(())
}

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

/// Makes a rule say `ruling` and nothing else.
fn say(rule: &mut Home<'_>, ruling: Ruling<'_>) {
    let (key, value): (&str, Value) = match ruling {
        Ruling::Forget => return,
        Ruling::Allow => ("allow", true.into()),
        Ruling::Deny => ("deny", true.into()),
        Ruling::Limit(connections, None) => ("max_connections", i64::from(connections).into()),
        Ruling::Limit(connections, Some(service)) => {
            if let Some(mut limits) = rule.table("max_connections") {
                return limits.put(service, i64::from(connections).into());
            }
            let mut limits = InlineTable::new();
            limits.insert(service, i64::from(connections).into());
            // What it says for all services it still says for the others.
            let all = rule.keys().get("max_connections").and_then(Item::as_integer);
            if let Some(all) = all {
                limits.insert(EVERY_OTHER, all.into());
            }
            ("max_connections", Value::InlineTable(limits))
        }
    };
    if matches!(ruling, Ruling::Allow | Ruling::Deny) {
        // What is said where there are limits: the first gives its place.
        let mut said = LIMITS.into_iter().filter(|said| rule.has(said));
        let (first, others): (Option<&str>, Vec<&str>) = (said.next(), said.collect());
        for other in others {
            rule.remove(other);
        }
        if let Some(first) = first {
            return rule.exchange(first, key, value);
        }
    }
    let said = ["allow", "deny", "max_connections"].into_iter().find(|said| rule.has(said));
    match said {
        Some(said) if said != key => rule.exchange(said, key, value),
        _ => rule.put(key, value),
    }
}
