//! A change of the running policy, and with `--save` of the configuration file: both, or neither.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};

use super::{WrongUsage, output, run::DEFAULT_CONFIG};
use crate::{
    config::{self, Change, Config, ConfigError, Draft, EditError},
    instance::Instance,
    kernel::{Tables, sets::PolicySet},
};

#[derive(clap::Args)]
pub struct Save {
    /// Write it into the configuration file as well; its comments and its order stay
    #[arg(long)]
    save: bool,
}

/// A changed file that is not in place yet.
pub struct Pending {
    path: PathBuf,
    /// `None`: it says so already.
    draft: Option<Draft>,
    config: Config,
}

impl Save {
    /// Whether it was asked for.
    pub const fn is_asked_for(&self) -> bool {
        self.save
    }

    /// Prepares the file, if that was asked for. The policy is to be locked.
    pub fn prepare(
        &self,
        instance: &Instance,
        tables: &Tables,
        change: &Change<'_>,
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
        if config::parse(text, &name)?.fingerprint() != tables.policy.fingerprint()? {
            return Err(WrongUsage(match before {
                Some(_) => format!(
                    "{name}: it says something else than what was put in force last, so nothing was changed; \
                     `limiter --instance {instance} reload` puts it in force, then do this again"
                ),
                None => format!(
                    "{name}: the file that was put in force is gone, so nothing was changed; put it back, or do \
                     this without --save"
                ),
            })
            .into());
        }
        let edited = config::edit(text, &name, change).map_err(|error| match error {
            EditError::Config(error) => error.into(),
            EditError::Setting(error) => error.into(),
            form @ EditError::Form { .. } => anyhow!(form),
        })?;
        let (is_new, config) = (edited.text != text, edited.config);
        let draft = if is_new {
            Some(Draft::write(&path, before, &edited.text).with_context(|| cannot_write(&path))?)
        } else {
            None
        };
        Ok(Some(Pending { path, draft, config }))
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}, so nothing was changed", path.display())
}

/// Puts `after` in force in the place of `before`, and the file in its place, if there is one; then says
/// what was `done`.
pub fn carry_out(
    instance: &Instance,
    tables: &mut Tables,
    before: &PolicySet,
    after: &PolicySet,
    pending: Option<Pending>,
    done: &[String],
) -> Result<()> {
    let Some(Pending { path, draft, config }) = pending else {
        tables.policy.replace(after)?;
        output::done(done);
        return Ok(());
    };
    let said = if draft.is_some() { "saved" } else { "says so already" };
    let known = instance.config_path()?;
    instance.set_config_path(Some(&path))?;
    let after = PolicySet { fingerprint: config.fingerprint(), ..after.clone() };
    if let Err(problem) = put_in_place(tables, before, &after, draft, &path) {
        instance.set_config_path(known.as_deref()).with_context(|| {
            format!("{problem:#}; and from now on {} is what `limiter reload` reads", path.display())
        })?;
        return Err(problem);
    }
    output::done(done);
    output::done(&[format!("{}: {said}", path.display())]);
    Ok(())
}

/// Puts `after` in force and the file in its place: both, or neither.
fn put_in_place(
    tables: &mut Tables,
    before: &PolicySet,
    after: &PolicySet,
    draft: Option<Draft>,
    path: &Path,
) -> Result<()> {
    tables.policy.replace(after)?;
    let Some(Err(error)) = draft.map(Draft::commit) else { return Ok(()) };
    let problem = anyhow::Error::new(error).context(cannot_write(path));
    tables.policy.replace(before).with_context(|| {
        format!("the change is in force, and not in the file {} ({:#})", path.display(), problem.root_cause())
    })?;
    Err(problem)
}
