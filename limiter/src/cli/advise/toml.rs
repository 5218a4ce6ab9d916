// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A suggestion as a part of a configuration file, with its reasons beside it.

use std::{collections::BTreeMap, fmt::Write as _};

use limiter_common::Action;

use crate::{advice::Advice, cli::output::wrapped, config};

/// Columns of a comment.
const COLUMNS: usize = 100;

/// All suggestions. A network that gets a limit at several services has one rule.
pub fn toml(advice: &[Advice]) -> String {
    let mut text = String::new();
    let mut rules: BTreeMap<_, config::Rule> = BTreeMap::new();
    for one in advice {
        let Some(suggestion) = &one.suggestion else {
            let why = one.not_suggested.as_deref().unwrap_or("nothing is known");
            comment(&mut text, &format!("{}: {why}.", one.service));
            text.push('\n');
            continue;
        };
        for reason in &suggestion.reasons {
            comment(&mut text, &format!("{reason}."));
        }
        for doubt in &suggestion.doubts {
            comment(&mut text, &format!("But {doubt}."));
        }
        let _memory =
            writeln!(text, "[service.{}]\nmax_connections = {}", one.service, suggestion.max_connections);
        if one.observes {
            text.push_str("mode = \"enforce\"\n");
        }
        text.push('\n');
        for own in &suggestion.rules {
            let rule =
                rules.entry(own.network).or_insert_with(|| config::Rule::new(own.network, Action::Limit));
            rule.max_connections.services.insert(one.service.clone(), own.max_connections);
            let why = format!("{}: {}", one.service, own.why);
            rule.comment =
                Some(rule.comment.take().map_or_else(|| why.clone(), |before| format!("{before}; {why}")));
        }
    }
    for rule in rules.values() {
        let _memory = writeln!(text, "{rule}");
    }
    if text.is_empty() {
        comment(&mut text, "The history has no connection of these days, so there is nothing to advise.");
    }
    text
}

fn comment(text: &mut String, words: &str) {
    for line in wrapped(words, Some(COLUMNS)) {
        let _memory = writeln!(text, "# {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::{super::example, toml};
    use crate::config;

    #[test]
    fn what_is_printed_is_a_configuration_that_says_what_is_suggested() {
        for (state, advice, _) in example::states() {
            let text = toml(&advice);
            let config =
                config::parse(&text, "advice").unwrap_or_else(|error| panic!("{state}: {error}\n{text}"));
            for one in &advice {
                let Some(suggestion) = &one.suggestion else { continue };
                let service = config.services.iter().find(|it| it.name == one.service).unwrap();
                assert_eq!(service.max_connections, suggestion.max_connections, "{text}");
                for own in &suggestion.rules {
                    let rule = config.rules.iter().find(|rule| rule.network == own.network).unwrap();
                    let limit = rule.max_connections.at(Some(&one.service));
                    assert_eq!(limit, Some(&own.max_connections), "{text}");
                }
            }
        }
    }
}
