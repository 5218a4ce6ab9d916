// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The configuration file against what is in force.

use std::path::{Path, PathBuf};

use super::{Context, Outcome, instance::not_loaded};
use crate::{
    config::{self, ConfigError},
    instance::Instance,
    kernel::Tables,
    policy::{self, Difference, Preview},
};

/// What is known of the file.
enum Facts {
    /// The daemon was started without one.
    None,
    /// Nobody knows which one it is, in a sentence.
    Unknown(String),
    /// It is not there.
    Missing(PathBuf),
    /// It cannot be used, in a sentence.
    Invalid(String),
    /// What a reload would change.
    Compared(PathBuf, Preview),
}

/// Compares them.
pub fn look(context: &Context) -> Vec<Outcome> {
    let Some(tables) = context.tables() else { return without_instance(&context.instance) };
    let facts = match (tables, context.instance.config_path()) {
        (Err(problem), _) => Facts::Unknown(problem),
        (_, Err(problem)) => Facts::Unknown(format!("{problem:#}")),
        (Ok(_), Ok(None)) => Facts::None,
        (Ok(tables), Ok(Some(path))) => gather(&context.instance, &tables, path),
    };
    vec![judge(&context.instance, &facts)]
}

fn gather(instance: &Instance, tables: &Tables, path: PathBuf) -> Facts {
    match config::load(&path) {
        Err(ConfigError::Missing { .. }) => Facts::Missing(path),
        Err(error) => Facts::Invalid(error.to_string()),
        Ok(config) => match policy::preview(instance, tables, &config) {
            Ok(preview) => Facts::Compared(path, preview),
            Err(problem) => Facts::Unknown(format!("{problem:#}")),
        },
    }
}

/// Whether a daemon would start with the file that it would read.
fn without_instance(instance: &Instance) -> Vec<Outcome> {
    let path = Path::new(config::DEFAULT_PATH);
    match config::load(path) {
        Ok(_) => vec![Outcome::good(format!("{} can be used", path.display()))],
        Err(ConfigError::Missing { .. }) => not_loaded(),
        Err(error) => vec![judge(instance, &Facts::Invalid(error.to_string()))],
    }
}

/// So many differences are named.
const NAMED: usize = 3;

fn named(differences: &[Difference]) -> String {
    let shown = differences.iter().take(NAMED).map(|Difference { what, key, was, is }| match key {
        Some(key) => format!("{key} of {what} is {was} (file: {is})"),
        None => format!("{what} is {was} (file: {is})"),
    });
    let shown = shown.collect::<Vec<_>>().join("; ");
    match differences.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

fn judge(instance: &Instance, facts: &Facts) -> Outcome {
    let limiter = instance.program();
    let reload = format!("{limiter} reload");
    match facts {
        Facts::None => {
            Outcome::good("the daemon was started without a file: the built-in services are in force")
        }
        Facts::Unknown(problem) => Outcome::unknown(problem),
        Facts::Missing(path) => Outcome::warning(format!(
            "{} does not exist any more, and the next start needs it: restore it; `{limiter} rules` \
             and `status` show what is in force",
            path.display()
        )),
        Facts::Invalid(error) => {
            Outcome::bad(format!("the file cannot be used, so the next start fails: {error}"))
        }
        Facts::Compared(path, Preview { is_edited: true, differences }) if !differences.is_empty() => {
            Outcome::warning(format!(
                "{} was changed and not reloaded: {}",
                path.display(),
                named(differences)
            ))
            .mended_by(reload)
        }
        Facts::Compared(path, Preview { is_edited: false, differences }) if !differences.is_empty() => {
            Outcome::note(format!(
                "changed live and not in {}: {}; a reload takes it back, and the same commands with --save keep it",
                path.display(),
                named(differences)
            ))
        }
        Facts::Compared(path, _) => Outcome::good(format!("{} is what is in force", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    fn judged(facts: &Facts) -> Outcome {
        judge(&"mail".parse().unwrap(), facts)
    }

    fn difference(what: &str) -> Difference {
        Difference {
            what: what.to_owned(),
            key: Some("max_connections"),
            was: "20".to_owned(),
            is: "10".to_owned(),
        }
    }

    #[test]
    fn a_file_that_was_changed_is_a_warning_and_a_live_change_a_note() {
        let compared = |is_edited, count| {
            let differences = ["imap", "pop3", "sieve", "smtp"][..count].iter().map(|what| difference(what));
            judged(&Facts::Compared(
                "/etc/l.toml".into(),
                Preview { is_edited, differences: differences.collect() },
            ))
        };
        let said = compared(true, 1);
        assert_eq!(
            (said.grade, said.command.as_deref()),
            (Grade::Warning, Some("limiter --instance mail reload"))
        );
        assert_eq!(
            said.sentence,
            "/etc/l.toml was changed and not reloaded: max_connections of imap is 20 (file: 10)"
        );
        assert!(compared(true, 4).sentence.ends_with("; and 1 more"));
        assert_eq!(compared(false, 1).grade, Grade::Note);
        assert_eq!(compared(false, 0).grade, Grade::Good);
        assert_eq!(compared(true, 0).grade, Grade::Good, "other words for the same");
    }

    #[test]
    fn a_file_that_a_start_would_fail_with_is_bad() {
        assert_eq!(judged(&Facts::Invalid("line 3".to_owned())).grade, Grade::Bad);
        assert_eq!(judged(&Facts::Missing("/etc/l.toml".into())).grade, Grade::Warning);
        assert_eq!(judged(&Facts::None).grade, Grade::Good);
        assert_eq!(judged(&Facts::Unknown("no".to_owned())).grade, Grade::Unknown);
    }
}
