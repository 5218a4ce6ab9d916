// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How full the tables are.

use anyhow::Result;
use limiter_common::waiting::MAX_WAITERS;

use super::{Context, Grade, Outcome, instance::not_loaded, instance::warned, outcome::or_good};
use crate::{
    bans,
    instance::Instance,
    kernel::{Tables, sets::MAX_RULES},
    policy,
    status::About,
};

/// What is in a table, and what could be.
struct Level {
    what: &'static str,
    taken: u64,
    most: u64,
    /// The key that makes it larger, if there is one.
    key: Option<&'static str>,
    /// What happens when it is full.
    full: &'static str,
}

/// All tables of the instance.
pub fn look(context: &Context) -> Vec<Outcome> {
    let Some(tables) = context.tables() else { return not_loaded() };
    match tables.and_then(|tables| levels(&tables).map_err(|problem| format!("{problem:#}"))) {
        Ok(levels) => {
            let full: Vec<Outcome> = warned(context, About::Ledger, Grade::Bad).collect();
            judge(&context.instance, full, &levels)
        }
        Err(problem) => vec![Outcome::unknown(problem)],
    }
}

fn levels(tables: &Tables) -> Result<Vec<Level>> {
    let (sources, most_sources) = tables.room()?;
    let rules = policy::admins_rules(tables.policy.rules()?).len() as u64;
    Ok(vec![
        Level {
            what: "sources and networks",
            taken: sources,
            most: most_sources.into(),
            key: Some("max_sources"),
            full: "new sources are counted with their network",
        },
        Level {
            what: "bans",
            taken: bans::all(tables)?.bans.len() as u64,
            most: tables.max_bans()?.into(),
            key: Some("max_bans"),
            full: "the oldest bans of the ladder are given up",
        },
        Level {
            what: "waiters",
            taken: tables.waiters()?.len() as u64,
            most: MAX_WAITERS.into(),
            key: None,
            full: "who finds no room waits until the kernel repeats its SYN-ACK, and gets no reason",
        },
        Level {
            what: "rules",
            taken: rules,
            most: MAX_RULES.into(),
            key: None,
            full: "no rule can be added",
        },
    ])
}

fn judge(instance: &Instance, full: Vec<Outcome>, levels: &[Level]) -> Vec<Outcome> {
    let is_said = !full.is_empty();
    let mut found = full;
    for Level { what, taken, most, key, full } in levels {
        let percent = taken.saturating_mul(100) / (*most).max(1);
        // Of a full ledger `limiter status` has warned.
        if percent < 80 || is_said && *key == Some("max_sources") {
            continue;
        }
        let sentence = format!(
            "{percent} % of the room for {what} is taken ({taken} of {most}): when it is full, {full}"
        );
        found.push(match key {
            Some(key) => Outcome::warning(format!(
                "{sentence}; raise {key} in the configuration file, stop the daemon, and start it again"
            ))
            .mended_by(format!("{} list --sort connections", instance.program())),
            None => Outcome::warning(sentence),
        });
    }
    let levels = levels.iter().map(|level| format!("{} of {} {}", level.taken, level.most, level.what));
    or_good(found, levels.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(taken: u64, key: Option<&'static str>) -> Level {
        Level { what: "sources", taken, most: 100, key, full: "it is full" }
    }

    #[test]
    fn a_table_is_warned_of_before_it_is_full() {
        let judged =
            |full: &[Outcome], levels: &[Level]| judge(&"mail".parse().unwrap(), full.to_vec(), levels);
        let good = judged(&[], &[level(79, None), level(0, Some("max_bans"))]);
        assert_eq!(good, [Outcome::good("79 of 100 sources, 0 of 100 sources")]);
        let said = judged(&[], &[level(80, Some("max_sources"))]);
        assert_eq!(said[0].grade, Grade::Warning);
        assert!(
            said[0].sentence.starts_with("80 % of the room for sources is taken (80 of 100)"),
            "{said:?}"
        );
        assert!(said[0].sentence.contains("raise max_sources"), "{said:?}");
        let full = [Outcome::bad("the ledger is full")];
        assert_eq!(judged(&full, &[level(100, Some("max_sources"))]), full, "said once");
        assert_eq!(judged(&full, &[level(100, None)]).len(), 2);
        assert_eq!(judged(&[], &[Level { most: 0, ..level(0, None) }])[0].grade, Grade::Good);
    }
}
