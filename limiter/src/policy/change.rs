// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A change of the policy in force, and of the configuration file where that is asked for: both in one step, or neither.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use ipnet::IpNet;
use limiter_common::rule::Network;
use serde::Serialize;

use super::{
    local, rules,
    services::{self, Services},
};
use crate::{
    config::{self, Change, Config, ConfigError, EditError, Edited, Ruling, SettingError, StagedConfig},
    instance::Instance,
    kernel::{
        Tables,
        sets::{PolicySet, RuleEntry},
    },
};

/// A change, and what it makes of the policy in force. Nothing has happened yet.
pub struct Planned<'a> {
    /// What the file is to say, one edit after the other.
    edits: &'a [Change<'a>],
    /// The policy in force.
    pub before: PolicySet,
    /// The policy with the change.
    pub after: PolicySet,
}

/// The configuration file that has the change, too.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Saved {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it says something new.
    pub changed: bool,
}

/// The file does not say what is in force, so a change of it would bring other changes with it.
#[derive(Debug, thiserror::Error)]
pub enum StaleFile {
    /// Somebody has edited it.
    #[error(
        "{file}: the file has changed since it was last applied, so nothing was changed; apply it with `{limiter} reload`, then repeat this command",
        limiter = .instance.program()
    )]
    Edited {
        /// Its name.
        file: String,
        /// Whose file it is.
        instance: Instance,
    },
    /// Somebody has removed it.
    #[error(
        "{file}: the applied file no longer exists, so nothing was changed; restore it, or repeat this command without --save"
    )]
    Gone {
        /// Its name.
        file: String,
    },
}

/// Plans a change of `before`: all of the edits, or none.
///
/// # Errors
/// When one of them makes no sense for what is in force.
pub fn plan<'a>(before: PolicySet, edits: &'a [Change<'a>]) -> Result<Planned<'a>, SettingError> {
    let after = edited(&before, edits)?;
    Ok(Planned { edits, before, after })
}

/// `policy` with these edits, one after the other: what comes of the file that has them.
fn edited(policy: &PolicySet, edits: &[Change<'_>]) -> Result<PolicySet, SettingError> {
    let mut after = policy.clone();
    let rulings = edits.iter().filter_map(|edit| match *edit {
        Change::Rule { network, ruling } => Some((network, ruling)),
        Change::Settings { .. } => None,
    });
    let rulings: Vec<(IpNet, Ruling<'_>)> = rulings.collect();
    if !rulings.is_empty() {
        after.rules = with_rulings(&policy.rules, &rulings, &policy.services)?;
    }
    for edit in edits {
        let Change::Settings { service, settings } = edit else { continue };
        let known = after.services.iter_mut().find(|(_, policy)| policy.name() == *service);
        let (_, policy) = known.ok_or_else(|| no_such_service(&policy.services, service))?;
        *policy = config::apply(settings, policy)?;
    }
    Ok(after)
}

fn no_such_service(services: &Services, name: &str) -> SettingError {
    SettingError::no_such_service(name, services.iter().map(|(_, policy)| policy.name()))
}

/// The rules of a policy after these rulings on the admin's.
fn with_rulings(
    before: &[RuleEntry],
    rulings: &[(IpNet, Ruling<'_>)],
    services: &Services,
) -> Result<Vec<RuleEntry>, SettingError> {
    let numbers = services::numbers(services);
    let admins = rules::admins_rules(before.to_vec());
    let mut admins: HashMap<Network, RuleEntry> =
        admins.into_iter().map(|rule| (rule.network, rule)).collect();
    for (network, ruling) in rulings {
        if let Ruling::Limit(_, Some(service)) = ruling
            && !numbers.contains_key(service)
        {
            return Err(no_such_service(services, service));
        }
        let key = config::network(network);
        let rule = admins.remove(&key).map(|rule| rules::as_config(&rule, services));
        let rule = ruling.apply(*network, rule)?;
        let entries = rules::of_config(rule.as_slice(), &numbers);
        admins.extend(entries.into_iter().map(|rule| (key, rule)));
    }
    Ok(rules::in_force(admins.into_values().collect(), local::built_in(before), services))
}

impl Planned<'_> {
    /// Puts the change in force, and with `saves` in the configuration file, which keeps its comments and order. The
    /// policy is to be locked.
    ///
    /// # Errors
    /// When that fails at any step. Then nothing has changed, or the error says what has.
    pub fn carry_out(self, instance: &Instance, tables: &mut Tables, saves: bool) -> Result<Option<Saved>> {
        if !saves {
            tables.policy.replace(&self.after)?;
            return Ok(None);
        }
        let File { path, staged, config } = self.stage(instance)?;
        let changed = staged.is_some();
        // What was read from the file last, for the next reload to tell what was changed live.
        let applied = instance.prepare_applied(&config.to_string())?;
        let after = PolicySet { fingerprint: config.fingerprint(), ..self.after };
        let known = instance.config_path()?;
        naming(instance, Some(&path), Ok(known), || {
            let left = applied.leave()?;
            put_in_place(tables, &self.before, &after, staged, &path).or_else(|problem| {
                left.take_back().with_context(|| {
                    format!("{problem:#}; the next reload may report a live change as a change of the file")
                })?;
                Err(problem)
            })
        })?;
        Ok(Some(Saved { path, changed }))
    }

    /// Writes the file with the change beside the one that there is.
    fn stage(&self, instance: &Instance) -> Result<File> {
        let path = instance.config_path()?.unwrap_or_else(|| PathBuf::from(config::DEFAULT_PATH));
        let name = path.display().to_string();
        let before = match config::read(&path) {
            Ok(text) => Some(text),
            Err(ConfigError::Missing { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let text = before.as_deref().unwrap_or_default();
        // What it means, not how it is written: a comment more does no harm, since the file is read anew.
        let unedited = config::parse(text, &name)?;
        if unedited.fingerprint() != self.before.fingerprint {
            return Err(match before {
                Some(_) => StaleFile::Edited { file: name, instance: instance.clone() },
                None => StaleFile::Gone { file: name },
            }
            .into());
        }
        let mut edited = Edited { text: text.to_owned(), config: unedited };
        for edit in self.edits {
            edited = config::edit(&edited.text, &name, edit).map_err(|error| match error {
                EditError::Config(error) => error.into(),
                EditError::Setting(error) => error.into(),
                form @ EditError::Form { .. } => anyhow!(form),
            })?;
        }
        let (is_new, config) = (edited.text != text, edited.config);
        let staged = if is_new {
            Some(StagedConfig::write(&path, before, &edited.text).with_context(|| cannot_write(&path))?)
        } else {
            None
        };
        Ok(File { path, staged, config })
    }
}

/// A changed file that is not in place yet.
struct File {
    path: PathBuf,
    /// `None`: it says so already.
    staged: Option<StagedConfig>,
    config: Config,
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}, so nothing was changed", path.display())
}

/// Takes `step` while `path` is the file that `limiter reload` reads. If that fails, it is the file that was `known`
/// before, if one was.
pub(super) fn naming<T>(
    instance: &Instance,
    path: Option<&Path>,
    known: Result<Option<PathBuf>>,
    step: impl FnOnce() -> Result<T>,
) -> Result<T> {
    instance.set_config_path(path)?;
    step().or_else(|problem| {
        let Ok(known) = known else { return Err(problem) };
        instance.set_config_path(known.as_deref()).with_context(|| {
            let file = path.map_or_else(|| "nothing".into(), Path::to_string_lossy);
            format!("{problem:#}; from now on `limiter reload` reads {file}")
        })?;
        Err(problem)
    })
}

/// Puts `after` in force and the file in its place: both, or neither.
fn put_in_place(
    tables: &mut Tables,
    before: &PolicySet,
    after: &PolicySet,
    staged: Option<StagedConfig>,
    path: &Path,
) -> Result<()> {
    tables.policy.replace(after)?;
    let Some(Err(error)) = staged.map(StagedConfig::commit) else { return Ok(()) };
    let problem = anyhow::Error::new(error).context(cannot_write(path));
    tables.policy.replace(before).with_context(|| {
        format!("the change is in force, but not saved in {} ({:#})", path.display(), problem.root_cause())
    })?;
    Err(problem)
}

#[cfg(test)]
mod tests {
    use limiter_common::Action;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::{Limiting, OrNone, RateSpec, Setting},
        policy::apply::of_config,
    };

    const FILE: &str = "limiter.toml";

    /// Networks around each other and apart; of some all or a part is the host's own.
    const NETWORKS: [&str; 8] = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.3/32",
        "192.0.2.1/32",
        "fe80::1/128",
        "fe80::/10",
        "2001:db8::/32",
    ];
    const LOCAL: [&str; 4] = ["127.0.0.0/8", "192.0.2.1/32", "10.1.2.3/32", "fe80::1/128"];
    const SERVICES: [&str; 3] = ["imap", "smtp", "submission"];

    fn network(text: &str) -> IpNet {
        config::parse_network(text).unwrap()
    }

    fn local_addresses() -> Vec<RuleEntry> {
        let rule = |text: &&str| RuleEntry {
            is_local: true,
            built_in: true,
            ..RuleEntry::new(config::network(&network(text)), Action::Limit)
        };
        let mut rules: Vec<RuleEntry> = LOCAL.iter().map(rule).collect();
        rules.sort_by_key(|rule| rule.network);
        local::built_in(&rules)
    }

    /// What a file means, where the services have these numbers: all that edits can change of it.
    fn meant(config: &Config, numbers: &HashMap<&str, limiter_common::ServiceId>) -> PolicySet {
        // A change is put in force with the fingerprint of the file that has it, if one has.
        PolicySet { fingerprint: 0, ports: Vec::new(), ..of_config(config, numbers, local_addresses()) }
    }

    fn any_limiting() -> impl Strategy<Value = Limiting> {
        let spec = (1u32..100, prop::sample::select(vec![1u32, 60, 3600]));
        let spec = prop::option::of(spec.prop_map(|(count, period_s)| RateSpec { count, period_s }));
        let number = || 1u32..20;
        let limits = (
            prop::option::of(number()),
            prop::option::of(spec),
            prop::option::of(number()),
            prop::option::of(prop::option::of(number())),
        );
        limits.prop_map(|(max_connections, rate, burst, network_max_connections)| Limiting {
            max_connections,
            rate: rate.map(OrNone),
            burst,
            network_max_connections: network_max_connections.map(OrNone),
        })
    }

    fn any_ruling() -> impl Strategy<Value = Ruling<'static>> {
        let service = prop::option::of(prop::sample::select(&SERVICES[..]));
        prop_oneof![
            1 => Just(Ruling::Allow),
            1 => Just(Ruling::Deny),
            1 => Just(Ruling::Forget),
            5 => (any_limiting(), service).prop_map(|(limiting, service)| Ruling::Limit(limiting, service)),
        ]
    }

    fn any_setting() -> impl Strategy<Value = Setting> {
        prop_oneof![
            (1u32..20).prop_map(Setting::MaxConnections),
            (1u32..9).prop_map(Setting::Burst),
            prop::option::of((1u32..99).prop_map(|count| RateSpec { count, period_s: 60 }))
                .prop_map(Setting::Rate),
            prop::option::of(1u32..40).prop_map(Setting::NetworkMaxConnections),
            prop::option::of(1u32..40).prop_map(Setting::MaxTotal),
        ]
    }

    /// An edit that owns its settings.
    #[derive(Clone, Debug)]
    enum Step {
        Rule(IpNet, Ruling<'static>),
        Settings(&'static str, [Setting; 1]),
    }

    impl Step {
        fn edit(&self) -> Change<'_> {
            match self {
                Self::Rule(network, ruling) => Change::Rule { network: *network, ruling: *ruling },
                Self::Settings(service, settings) => Change::Settings { service, settings },
            }
        }
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let service = prop::sample::select(&SERVICES[..]);
        let networks = prop::sample::select(&NETWORKS[..]);
        prop_oneof![
            5 => (networks, any_ruling()).prop_map(|(text, ruling)| Step::Rule(network(text), ruling)),
            1 => (service, any_setting()).prop_map(|(service, setting)| Step::Settings(service, [setting])),
        ]
    }

    /// A rule for each of some networks, each with a comment, a rule of which it is.
    fn file(rules: &[(&str, u8)]) -> String {
        let rule = |(network, kind): &(&str, u8)| {
            let says = match kind {
                0 => "allow = true",
                1 => "deny = true",
                2 if network.contains(':') => "source_prefix = 128",
                2 => "source_prefix = 32\nmax_connections = 3",
                3 => "max_connections = { smtp = 7, \"*\" = 3 }\nrate = \"60/min\"\nburst = { imap = 2 }",
                _ => "max_connections = 5\nnetwork_max_connections = 30",
            };
            format!(
                "# before {network}\n[[rule]]\nnetwork = \"{network}\" # it\ncomment = \"of {network}\"\n{says}\n"
            )
        };
        rules.iter().map(rule).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        /// Whatever is done, in whatever order: the policy in force is what the file then means, with all that rules
        /// inherit from each other and the rules that are built in; what the one refuses the other refuses for the same
        /// reason; and what somebody has written beside a rule stays as long as the rule does.
        #[test]
        fn any_sequence_of_edits_means_the_same_live_and_in_the_file(
            rules in prop::collection::btree_map(prop::sample::select(&NETWORKS[..]), 0u8..5, 0..5),
            steps in prop::collection::vec(any_step(), 1..10), turn in 0usize..3,
        ) {
            let rules: Vec<(&str, u8)> = rules.into_iter().collect();
            let mut text = file(&rules);
            let config = config::parse(&text, FILE).unwrap();
            // Numbers do not have to be in the order of the names.
            let mut names: Vec<&str> = config.services.iter().map(|service| service.name.as_str()).collect();
            names.rotate_left(turn);
            let numbers = names.into_iter().zip((1..).map(limiter_common::ServiceId)).collect();
            let mut live = meant(&config, &numbers);
            let mut commented: Vec<&str> = rules.iter().map(|(network, _)| *network).collect();
            for step in &steps {
                let (edit, before) = (step.edit(), text.clone());
                match (edited(&live, &[edit]), config::edit(&text, FILE, &edit)) {
                    (Ok(after), Ok(edited)) => {
                        prop_assert_eq!(&after, &meant(&edited.config, &numbers), "{:?}\n{}", step, edited.text);
                        (live, text) = (after, edited.text);
                    }
                    (Err(live), Err(EditError::Setting(file))) => prop_assert_eq!(live, file),
                    (live, file) => prop_assert!(false, "{:?}: {:?}, {:?}\n{}", step, live, file, before),
                }
                if let Step::Rule(network, Ruling::Forget) = step {
                    commented.retain(|known| known.parse() != Ok(*network));
                }
                for network in &commented {
                    let comment = format!("comment = \"of {network}\"\n");
                    prop_assert!(text.contains(&comment) && text.contains(&format!("# before {network}\n")), "{}", text);
                }
            }
        }

        /// All at once, as a command does it, is one after the other.
        #[test]
        fn edits_that_are_made_together_are_made_in_their_order(
            steps in prop::collection::vec(any_step(), 1..6),
        ) {
            let config = config::parse(&file(&[("10.0.0.0/8", 2), ("fe80::/10", 1)]), FILE).unwrap();
            let before = meant(&config, &HashMap::new());
            // What settings do to a service, and rulings to a rule, does not depend on each other.
            let edits: Vec<Change<'_>> = steps.iter().map(Step::edit).collect();
            let together = edited(&before, &edits);
            let one_by_one = edits.iter().try_fold(before, |policy, edit| edited(&policy, &[*edit]));
            prop_assert_eq!(together.is_ok(), one_by_one.is_ok());
            if let (Ok(together), Ok(one_by_one)) = (together, one_by_one) {
                prop_assert_eq!(together, one_by_one);
            }
        }

        /// A rule in the kernel is what the configuration said, but for its comment.
        #[test]
        fn a_rule_that_is_read_from_the_kernel_says_what_the_file_says(
            rulings in prop::collection::vec(any_ruling(), 1..6), at in 0usize..NETWORKS.len(),
        ) {
            let (network, policy) = (network(NETWORKS[at]), meant(&Config::default(), &HashMap::new()));
            let mut rule = None;
            for ruling in rulings {
                rule = ruling.apply(network, rule.clone()).unwrap_or(rule);
            }
            let numbers = services::numbers(&policy.services);
            for entry in rules::of_config(rule.as_slice(), &numbers) {
                let read = rules::as_config(&entry, &policy.services);
                prop_assert_eq!(rules::of_config(&[read], &numbers), [entry]);
            }
        }
    }

    #[test]
    fn an_edit_for_a_service_that_does_not_exist_changes_nothing() {
        let policy = meant(&Config::default(), &HashMap::new());
        let settings = [Setting::MaxConnections(3)];
        let limit = Ruling::Limit(Limiting::connections(3), Some("smpt"));
        for edit in [
            Change::Settings { service: "smpt", settings: &settings },
            Change::Rule { network: network("10.0.0.0/8"), ruling: limit },
        ] {
            let error = edited(&policy, &[edit]).unwrap_err().to_string();
            assert!(error.contains("smpt") && error.contains("imap"), "{error}");
        }
    }

    #[test]
    fn limits_of_services_are_in_the_order_in_which_the_kernel_has_them() {
        let text = "[[rule]]\nnetwork = \"10.0.0.0/8\"\nmax_connections = { imap = 2, smtp = 7 }\n";
        let config = config::parse(text, FILE).unwrap();
        // A service that was added later has a larger number than those behind it in the alphabet.
        let numbers = HashMap::from([("imap", limiter_common::ServiceId(9))]);
        let policy = of_config(&config, &numbers, Vec::new());
        let mut in_kernel = policy.clone();
        for rule in &mut in_kernel.rules {
            rule.limits.sort_by_key(|(service, _)| *service);
        }
        assert_eq!(policy, in_kernel, "or the same file would be another policy each time");
    }
}
