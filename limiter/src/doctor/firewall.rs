// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Mail ports that a firewall translates or hands on to another host, by its rules: what conntrack shows only while there
//! are such connections.

mod rules;

use std::{collections::BTreeSet, fs, net::IpAddr, path::Path, thread, time::Duration};

use limiter_common::{Addr, rule::Network};

use self::rules::{of_iptables, of_nftables};
use super::{Context, Grade, Outcome, instance::warned, outcome::or_good, outside};
use crate::{
    conntrack::Translation,
    import::gather,
    policy,
    status::{self, About},
};

/// How long one of the programs may take.
const PATIENCE: Duration = Duration::from_millis(1200);

/// What is read of the rules.
struct Facts {
    translations: BTreeSet<Translation>,
    /// The programs that could be asked.
    asked: Vec<&'static str>,
    /// What went wrong with one.
    problems: Vec<String>,
}

/// Reads the rules in the network namespace of this thread.
pub fn look(context: &Context) -> Vec<Outcome> {
    if !context.sees_network {
        return vec![Outcome::unknown(context.not_seen())];
    }
    let known: Vec<Outcome> = warned(context, About::Firewall, Grade::Bad).collect();
    let facts = gather();
    let own = policy::addresses().unwrap_or_default();
    let is_local =
        |address: IpAddr| own.iter().any(|rule| rule.network.covers(&Network::of(Addr::from(address))));
    let warnings = status::translated(&context.instance, &context.services, &facts.translations, is_local);
    judge(known, warnings, &facts)
}

fn judge(known: Vec<Outcome>, warnings: Vec<String>, facts: &Facts) -> Vec<Outcome> {
    let mut found = known;
    for warning in warnings {
        if !found.iter().any(|outcome| outcome.sentence == warning) {
            found.push(Outcome::quoting(Grade::Bad, warning));
        }
    }
    found.extend(facts.problems.iter().map(Outcome::unknown));
    or_good(
        found,
        match facts.asked.as_slice() {
            [] => "neither nft nor iptables is installed, and conntrack shows no translated mail port"
                .to_owned(),
            asked => format!("no rule translates a mail port ({})", asked.join(", ")),
        },
    )
}

/// What is asked, and how its answer is read.
type Asked = (&'static str, &'static [&'static str], fn(&str) -> BTreeSet<Translation>);

const ASKED: [Asked; 3] = [
    ("nft", &["--json", "list", "ruleset"], of_nftables),
    ("iptables-nft-save", &["-t", "nat"], of_iptables),
    ("ip6tables-nft-save", &["-t", "nat"], of_iptables),
];

/// To ask these loads the module, so they are asked only where it is loaded.
const LEGACY: [(&str, Asked); 2] = [
    ("ip_tables_names", ("iptables-legacy-save", &["-t", "nat"], of_iptables)),
    ("ip6_tables_names", ("ip6tables-legacy-save", &["-t", "nat"], of_iptables)),
];

fn gather() -> Facts {
    let is_loaded = |file: &str| {
        let tables = fs::read_to_string(Path::new("/proc/thread-self/net").join(file)).unwrap_or_default();
        tables.lines().any(|table| table == "nat")
    };
    let legacy = LEGACY.into_iter().filter(|(file, _)| is_loaded(file)).map(|(_, asked)| asked);
    let programs = ASKED.into_iter().chain(legacy);
    let programs = programs.filter_map(|asked| gather::find(asked.0).map(|program| (program, asked)));
    let programs: Vec<_> = programs.collect();
    let answers: Vec<(&'static str, Result<BTreeSet<Translation>, String>)> = thread::scope(|scope| {
        let asked: Vec<_> = programs
            .iter()
            .map(|(program, (name, arguments, read))| {
                (
                    *name,
                    scope.spawn(move || outside::run(program, arguments, PATIENCE).map(|text| read(&text))),
                )
            })
            .collect();
        asked.into_iter().filter_map(|(name, asked)| Some((name, asked.join().ok()?))).collect()
    });
    let mut facts = Facts { translations: BTreeSet::new(), asked: Vec::new(), problems: Vec::new() };
    for (name, answer) in answers {
        match answer {
            Ok(translations) => {
                facts.asked.push(name);
                facts.translations.extend(translations);
            }
            Err(failure) => facts.problems.push(format!("the rules of a firewall are not known: {failure}")),
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rules_say_is_bad_once_and_what_cannot_be_read_unknown() {
        let facts = |problems: &[&str], asked| Facts {
            translations: BTreeSet::new(),
            asked,
            problems: problems.iter().map(|problem| (*problem).to_owned()).collect(),
        };
        let known = vec![Outcome::bad("imap: a firewall forwards")];
        let said =
            judge(known.clone(), vec!["imap: a firewall forwards".to_owned()], &facts(&[], vec!["nft"]));
        assert_eq!(said, known);
        let said = judge(Vec::new(), vec!["smtp: a firewall forwards".to_owned()], &facts(&[], vec!["nft"]));
        assert_eq!(said[0].grade, Grade::Bad);
        assert_eq!(judge(Vec::new(), Vec::new(), &facts(&["no"], Vec::new())), [Outcome::unknown("no")]);
        let said = judge(Vec::new(), Vec::new(), &facts(&[], Vec::new()));
        assert!(said[0].grade == Grade::Good && said[0].sentence.contains("neither nft"), "{said:?}");
    }
}
