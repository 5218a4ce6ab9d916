// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A change of the running policy, and with `--save` of the configuration file: both, or neither.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};

use super::{
    answer::{Answer, Done, Saved},
    exit::WrongUsage,
    run::DEFAULT_CONFIG,
};
use crate::{
    config::{self, Change, Config, ConfigError, EditError, Edited, StagedConfig},
    instance::Instance,
    kernel::{Tables, sets::PolicySet},
};

#[derive(clap::Args)]
pub struct Save {
    /// Also write the change to the configuration file, and keep its comments and order
    #[arg(long)]
    save: bool,
}

/// A changed file that is not in place yet.
pub struct Pending {
    path: PathBuf,
    /// `None`: it says so already.
    staged: Option<StagedConfig>,
    config: Config,
}

impl Save {
    /// Prepares the file with all of these changes, if that was asked for. The policy is to be locked.
    pub fn prepare(
        &self,
        instance: &Instance,
        tables: &Tables,
        changes: &[Change<'_>],
    ) -> Result<Option<Pending>> {
        if !self.save {
            return Ok(None);
        }
        let path = instance.config_path()?.unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG));
        let name = path.display().to_string();
        let before = match config::read(&path) {
            Ok(text) => Some(text),
            Err(ConfigError::Missing { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let text = before.as_deref().unwrap_or_default();
        // What it means, not how it is written: a comment more does no harm, since the file is read anew.
        let unedited = config::parse(text, &name)?;
        if unedited.fingerprint() != tables.policy.fingerprint()? {
            return Err(WrongUsage(match before {
                Some(_) => format!(
                    "{name}: the file has changed since it was last applied, so nothing was changed; apply it \
                     with `limiter --instance {instance} reload`, then repeat this command"
                ),
                None => format!(
                    "{name}: the applied file no longer exists, so nothing was changed; restore it, or repeat \
                     this command without --save"
                ),
            })
            .into());
        }
        let mut edited = Edited { text: text.to_owned(), config: unedited };
        for change in changes {
            edited = config::edit(&edited.text, &name, change).map_err(|error| match error {
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
        Ok(Some(Pending { path, staged, config }))
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}, so nothing was changed", path.display())
}

/// Puts `after` in force in the place of `before`, and the file in its place, if there is one; what was `done` is the
/// answer.
pub fn carry_out(
    instance: &Instance,
    tables: &mut Tables,
    before: &PolicySet,
    after: &PolicySet,
    pending: Option<Pending>,
    done: Vec<Done>,
) -> Result<Answer> {
    let mut answer = Answer::new(done);
    let Some(Pending { path, staged, config }) = pending else {
        tables.policy.replace(after)?;
        return Ok(answer);
    };
    let is_new = staged.is_some();
    let known = instance.config_path()?;
    // What was read from the file last, for the next reload to tell what was changed live.
    let applied = instance.prepare_applied(&config.to_string())?;
    let after = PolicySet { fingerprint: config.fingerprint(), ..after.clone() };
    instance.set_config_path(Some(&path))?;
    let put = applied.leave().and_then(|left| {
        put_in_place(tables, before, &after, staged, &path).or_else(|problem| {
            left.take_back().with_context(|| {
                format!("{problem:#}; the next reload may report a live change as a change of the file")
            })?;
            Err(problem)
        })
    });
    if let Err(problem) = put {
        instance
            .set_config_path(known.as_deref())
            .with_context(|| format!("{problem:#}; from now on `limiter reload` reads {}", path.display()))?;
        return Err(problem);
    }
    answer.changed |= is_new;
    answer.file = Some(Saved { path, changed: is_new });
    Ok(answer)
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
