// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter check`: whether a configuration file is right, what it means, and what a reload of it would change.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Error, Result, bail};
use serde::Serialize;

use super::{
    configured::{self, Configured},
    loaded::{if_loaded, nothing_loaded, steadily},
    output::{self, Format, Screen},
};
use crate::{
    config::{self, Config},
    instance::Instance,
    policy::{self, Difference, Preview},
};

#[derive(clap::Args)]
pub struct Args {
    /// Check this file [default: the file that the loaded instance has read last, or else
    /// /etc/limiter/limiter.toml if it exists]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    pub format: Format,
}

/// What there is to say of a file without mistakes.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Document {
    /// Its path; null where there is none, and the built-in services are meant.
    file: Option<String>,
    #[serde(flatten)]
    means: Configured,
    in_force: InForce,
}

/// The file against what is in force.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "state", rename_all = "snake_case")]
enum InForce {
    /// The instance is loaded, and both were compared.
    Compared {
        /// Whether the file means something else than when it was put in force; if not, what a reload changes is what
        /// was changed live.
        edited: bool,
        /// What a reload would change.
        changes: Vec<Difference>,
    },
    /// The instance is not loaded.
    NotLoaded {
        /// The same in a sentence.
        reason: String,
    },
    /// What is in force cannot be read.
    Unknown {
        /// Why.
        reason: String,
    },
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let file = match &args.file {
        Some(file) => Some(file.clone()),
        None => file_of(instance)?,
    };
    let config = file.as_deref().map(config::load).transpose()?.unwrap_or_default();
    let document = Document::new(file.as_deref(), &config, against(instance, &config));
    if args.format.json {
        output::json(&document)?;
    } else {
        document.screen(output::width()).show()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The file that a reload would read, or a start.
fn file_of(instance: &Instance) -> Result<Option<PathBuf>> {
    let of_loaded = match instance.config_path() {
        Err(problem) if is_forbidden(&problem) => {
            let limiter = instance.program();
            bail!(
                "only root may know which file instance {instance} has read: name it, `{limiter} check FILE`"
            );
        }
        // It is not loaded.
        known => known.ok().flatten(),
    };
    // Where it cannot be told whether there is one, reading it says why.
    let default =
        || Some(PathBuf::from(config::DEFAULT_PATH)).filter(|path| path.try_exists().unwrap_or(true));
    Ok(of_loaded.or_else(default))
}

fn is_forbidden(problem: &Error) -> bool {
    let mut causes = problem.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
}

/// What a reload would change, as far as that can be told.
fn against(instance: &Instance, config: &Config) -> InForce {
    let preview = steadily(instance, || {
        let tables = if_loaded(instance)?;
        tables.map(|tables| policy::preview(instance, &tables, config)).transpose()
    });
    match preview {
        Ok(Some(Preview { is_edited, differences })) => {
            InForce::Compared { edited: is_edited, changes: differences }
        }
        Ok(None) => InForce::NotLoaded { reason: nothing_loaded(instance) },
        Err(problem) => InForce::Unknown { reason: format!("{problem:#}") },
    }
}

impl Document {
    fn new(file: Option<&Path>, config: &Config, in_force: InForce) -> Self {
        let means = Configured::new(&policy::of_config(config, &HashMap::new(), Vec::new()));
        Self { file: file.map(|path| path.display().to_string()), means, in_force }
    }

    /// What people are told.
    pub fn screen(&self, width: output::Width) -> Screen {
        let mut screen = Screen::new(width);
        let file = self.file.as_deref();
        screen.line(&file.map_or_else(
            || format!("{} does not exist: the built-in services are meant", config::DEFAULT_PATH),
            |file| format!("{file}: no mistakes"),
        ));
        screen.blank();
        self.means.show(&mut screen);
        match &self.in_force {
            InForce::Compared { changes, .. } if changes.is_empty() => {
                screen.paragraph(["a reload would change nothing"]);
            }
            InForce::Compared { edited, changes } => {
                let said = if *edited {
                    "a reload would change:"
                } else {
                    "the file is in force, but for live changes; a reload would revert them:"
                };
                let lines = configured::lines(changes).into_iter().map(|line| format!("  {line}"));
                screen.paragraph(std::iter::once(said.to_owned()).chain(lines));
            }
            InForce::NotLoaded { reason } => {
                screen.paragraph([format!("not compared with what is in force: {reason}")]);
            }
            InForce::Unknown { reason } => {
                screen.paragraph([format!("what a reload would change is not known: {reason}")]);
            }
        }
        screen
    }
}

#[cfg(test)]
pub mod example {
    //! What is shown in each state.

    use super::{Document, InForce};
    use crate::{
        config,
        policy::{differences, of_config},
    };

    /// A file against another that is in force, against nothing, and against what cannot be read.
    pub fn states() -> [(&'static str, Document); 5] {
        let old = config::parse("", "a file").expect("a configuration");
        let text = "hostname = \"mx.example.net\"\n[service.smtp]\nmax_connections = 5\nrate = \"60/min\"\nmode = \"observe\"\n\
                    [service.sieve]\nports = []\n[[rule]]\nnetwork = \"10.0.0.0/8\"\nallow = true\n\
                    [[rule]]\nnetwork = \"203.0.113.0/24\"\nmax_connections = 3\n";
        let new = config::parse(text, "a file").expect("a configuration");
        let [before, after] =
            [&old, &new].map(|config| of_config(config, &std::collections::HashMap::new(), Vec::new()));
        let changes = || differences(&before, &after);
        let of = |in_force| Document::new(Some("/etc/limiter/limiter.toml".as_ref()), &new, in_force);
        let reason =
            || "limiter needs root to load and read its kernel programs: run it with sudo".to_owned();
        let loaded = super::nothing_loaded(&"limiter".parse().expect("a name"));
        [
            ("edited", of(InForce::Compared { edited: true, changes: changes() })),
            ("live", of(InForce::Compared { edited: false, changes: changes() })),
            ("same", of(InForce::Compared { edited: true, changes: Vec::new() })),
            ("not-loaded", Document::new(None, &old, InForce::NotLoaded { reason: loaded })),
            ("unknown", of(InForce::Unknown { reason: reason() })),
        ]
    }
}
