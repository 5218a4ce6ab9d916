// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Mail servers with a queue: what their administrator sees of a refusal in the log.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use limiter_lab::poll;

use super::{
    case::{Seen, Way},
    host::Full,
};
use crate::senders::{
    host::Host,
    mailer, mailers,
    plan::{Mta, Timers},
};

/// Within this they have tried.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether they have.
const INTERVAL: Duration = Duration::from_millis(100);

/// A mail server, and where it logs.
pub struct Sender {
    /// Its name.
    pub client: &'static str,
    mta: Mta,
    log: &'static str,
    /// What comes before the words in its log.
    before: &'static str,
}

/// All of them.
pub const ALL: [Sender; 2] = [
    Sender { client: "Postfix", mta: Mta::Postfix, log: "log", before: "status=" },
    Sender { client: "Exim", mta: Mta::Exim, log: "mainlog", before: "SMTP error" },
];

/// What one logs that has mail for a host that refuses it.
///
/// # Errors
///
/// When it does not start, or does not log a refusal.
pub fn see(name: &str, limiter: &Path, config: &str, sender: &Sender) -> Result<Seen> {
    let mut host = Host::new(&format!("{name}-{}", sender.client.to_lowercase()))?;
    let _full = Full::new(&host.netns, name, limiter, config)?;
    let mailer = mailers::of(sender.mta);
    mailer.queue(&mut host, Timers::Default, &mailer::message(1))?;
    mailer.release(&mut host, Timers::Default)?;
    let logged = poll::until(PATIENCE, INTERVAL, || {
        let log = host.log(sender.log);
        let words = log
            .lines()
            .filter(|line| line.contains(" 421 "))
            .find_map(|line| line.find(sender.before).and_then(|at| line.get(at..)));
        Ok::<_, anyhow::Error>(words.map(str::to_owned))
    })?;
    let line =
        logged.with_context(|| format!("{} logs no refusal:\n{}", sender.client, host.log(sender.log)))?;
    Ok(Seen { client: sender.client, port: 25, way: Way::Plain, lines: vec![line], code: None })
}
