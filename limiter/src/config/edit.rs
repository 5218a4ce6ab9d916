// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The text of a configuration file with a change in it, and everything else as its author wrote it.
//!
//! The change is made in the parsed document by a crate that keeps comments and order. Nothing is taken
//! on trust: what comes of it goes through the whole parser, and has to mean what the file meant before,
//! with exactly this change. What would not is refused, and nothing is written.

mod lines;
mod rules;
mod tables;
#[cfg(test)]
mod tests;

use ipnet::IpNet;
use limiter_common::ServicePolicy;
use toml_edit::{DocumentMut, InlineTable, Item, Value};

use self::tables::Home;
use super::{
    Config, ConfigError, Network, Ruling, Service, Setting, SettingError, apply,
    check::NONE,
    load::{MAX_FILE_BYTES, parse},
};

/// What is to be another in the file.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// `limiter set`.
    Settings {
        /// The service.
        service: &'a str,
        /// Its keys.
        settings: &'a [Setting],
    },
    /// `limiter allow`, `deny`, `limit` and `forget`.
    Rule {
        /// Whom it is for.
        network: IpNet,
        /// What is said of them.
        ruling: Ruling<'a>,
    },
}

/// Why a change cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file, or what would come of it, cannot be meant.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The settings make no sense for what the file says of the service.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The file's form does not take the change without becoming another elsewhere.
    #[error(
        "{file}: this change would alter other parts of the file, so nothing was changed; edit the file, then run `limiter reload`"
    )]
    Form {
        /// The file's name.
        file: String,
    },
}

/// A file with a change in it.
#[derive(Debug)]
pub struct Edited {
    /// Its text; the same as before where it said so already.
    pub text: String,
    /// What it means.
    pub config: Config,
}

/// Makes `change` in `text`; `file` is what errors call it.
///
/// # Errors
/// When the text says what cannot be meant, before or after, or cannot take the change.
pub fn edit(text: &str, file: &str, change: &Change<'_>) -> Result<Edited, EditError> {
    let before = parse(text, file)?;
    if is_made(change, &before, &before)? {
        return Ok(Edited { text: text.to_owned(), config: before });
    }
    let form = || EditError::Form { file: file.to_owned() };
    let plain = lines::plain(text);
    let mut document: DocumentMut = plain.parse().map_err(|_| form())?;
    // Keys of one table that stand between those of another would change places.
    if document.to_string().trim_end_matches('\n') != plain.trim_end_matches('\n') {
        return Err(form());
    }
    match change {
        Change::Settings { service, settings } => {
            let (_, wanted) = setting(&before, service, settings)?;
            set(&mut document, service, settings, &wanted).ok_or_else(form)?;
        }
        Change::Rule { network, ruling } => {
            let mut wanted = before.rules.clone();
            rules::change(&mut wanted, *network, *ruling)?;
            let wanted = wanted.iter().find(|rule| rule.network == *network);
            rules::rule(&mut document, *network, *ruling, wanted).ok_or_else(form)?;
        }
    }
    let text = lines::restore(text, &document.to_string());
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { file: file.to_owned() }.into());
    }
    let config = parse(&text, file)?;
    if is_made(change, &before, &config)? { Ok(Edited { text, config }) } else { Err(form()) }
}

/// Whether `after` is `before` with `change`, and nothing else.
fn is_made(change: &Change<'_>, before: &Config, after: &Config) -> Result<bool, SettingError> {
    let mut wanted = before.clone();
    match change {
        Change::Settings { service, settings } => {
            let (index, policy) = setting(before, service, settings)?;
            let Some(found) = after.services.get(index) else { return Ok(false) };
            if found.policy() != policy {
                return Ok(false);
            }
            // As it says it; the policy is what counts.
            wanted.services[index] = Service { ports: wanted.services[index].ports.clone(), ..found.clone() };
        }
        Change::Rule { network, ruling } => rules::change(&mut wanted.rules, *network, *ruling)?,
    }
    Ok(wanted == *after)
}

/// The service's place in the configuration, and its policy with the settings.
fn setting(
    config: &Config,
    service: &str,
    settings: &[Setting],
) -> Result<(usize, ServicePolicy), SettingError> {
    let found = config.services.iter().position(|known| known.name == service);
    let index = found.ok_or_else(|| {
        let known = config.services.iter().map(|service| service.name.as_str());
        SettingError::no_such_service(service, known)
    })?;
    Ok((index, apply(settings, &config.services[index].policy())?))
}

/// Writes the settings of a service; `None` if there is no place for them.
fn set(
    document: &mut DocumentMut,
    service: &str,
    settings: &[Setting],
    wanted: &ServicePolicy,
) -> Option<()> {
    let defaults = document.get("defaults").and_then(Item::as_table_like);
    let has_default_burst = defaults.is_some_and(|defaults| defaults.contains_key("burst"));
    let mut table = tables::service(document, service)?;
    for setting in settings {
        match setting {
            Setting::NetworkMaxConnections(limit) => set_network(&mut table, *limit, wanted),
            setting => table.put(setting.key(), value(*setting)),
        }
    }
    let sets_burst = settings.iter().any(|setting| matches!(setting, Setting::Burst(_)));
    for setting in settings.iter().filter(|_| !sets_burst) {
        match setting {
            // As `limiter set` has it: without a word on it, the burst is the rate's number.
            Setting::Rate(Some(spec)) if has_default_burst || table.has("burst") => {
                table.put("burst", value(Setting::Burst(spec.count)));
            }
            Setting::Rate(None) => table.remove("burst"),
            _ => {}
        }
    }
    Some(())
}

/// The value of a key as the file writes it.
fn value(setting: Setting) -> Value {
    match setting {
        Setting::MaxConnections(number)
        | Setting::Burst(number)
        | Setting::MaxTotal(Some(number))
        | Setting::Reserve(number) => i64::from(number).into(),
        words => words.to_string().into(),
    }
}

fn set_network(table: &mut Home<'_>, limit: Option<u32>, wanted: &ServicePolicy) {
    let Some(limit) = limit else { return table.put("network", NONE.into()) };
    if let Some(mut network) = table.table("network") {
        return network.put("max_connections", i64::from(limit).into());
    }
    // The prefixes of the network in [defaults] go with it.
    let (of_network, of_source, usual) = (wanted.network, wanted.source, Network::PREFIXES);
    let mut network = InlineTable::new();
    if of_network.ipv4 != usual.ipv4.min(of_source.ipv4) {
        network.insert("ipv4_prefix", i64::from(of_network.ipv4).into());
    }
    if of_network.ipv6 != usual.ipv6.min(of_source.ipv6) {
        network.insert("ipv6_prefix", i64::from(of_network.ipv6).into());
    }
    network.insert("max_connections", i64::from(limit).into());
    table.put("network", Value::InlineTable(network));
}
