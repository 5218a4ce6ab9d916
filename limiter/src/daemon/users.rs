// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The thread that tells the history who is logged in. It asks the mail daemon, which may be slow or hang, so nobody else
//! waits for it, and it ends with the process.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::watch;
use tracing::info;

use crate::{
    config::Config,
    evidence::{self, Seen},
    history::Users,
    instance::Instance,
    kernel::Tables,
};

/// How often it asks.
const EVERY: Duration = Duration::from_secs(60);
/// The first time it does not wait so long: the history's first look comes five seconds after the start.
const FIRST: Duration = Duration::from_secs(2);

/// Starts it; the history takes from what it returns whom it has seen.
///
/// # Errors
/// When this process may have no more threads.
pub fn follow(instance: &Instance, config: watch::Receiver<Config>) -> Result<Users> {
    let users = Users::default();
    let (seen, pins) = (users.clone(), instance.pins());
    let run = move || {
        let mut known: Option<String> = None;
        let mut wait = FIRST;
        loop {
            std::thread::sleep(wait);
            wait = EVERY;
            // Where nothing is kept, nobody is asked.
            if config.borrow().history.is_none() {
                continue;
            }
            let problem = match Tables::open(&pins).and_then(|tables| evidence::seen(&tables)) {
                Ok((found, problem)) => {
                    for Seen { service, address, user } in found {
                        seen.saw(&service, address, &user);
                    }
                    problem
                }
                Err(problem) => Some(format!("{problem:#}")),
            };
            if let Some(problem) = problem.as_ref().filter(|problem| known.as_ref() != Some(problem)) {
                info!("the history does not get to know users: {problem}");
            }
            known = problem;
        }
    };
    std::thread::Builder::new().name("users".to_owned()).spawn(run).context("cannot start a thread")?;
    Ok(users)
}
