// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The mail daemons that listen here, with the settings that they were started with: what `limiter import` reads of them.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use super::{
    listening::Listening,
    mail_daemon::{Kind, MailDaemon},
    process::Process,
};
use crate::import::{self, Daemon, ImportedService, gather};

/// How long one may take to say what it has.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A mail daemon that listens.
pub struct Running {
    /// What it is called.
    pub name: &'static str,
    /// The ports at which it listens, of those that were asked for.
    pub ports: Vec<u16>,
    /// Its settings, or why they are not known.
    pub settings: Result<Daemon, String>,
}

impl Running {
    /// Its service at ports that are asked for: the only one that it has, where it listens at ports that its settings do not
    /// name. None where its settings are not known, or do not say.
    pub fn service(&self, is_asked_for: impl Fn(u16) -> bool) -> Option<&ImportedService> {
        let services = &self.settings.as_ref().ok()?.services;
        let is_common = |port: &u16| is_asked_for(*port) && self.ports.contains(port);
        self.ports.iter().find(|port| is_asked_for(**port))?;
        let by_port = services.iter().find(|its| its.ports.value.iter().any(is_common));
        by_port.or(match services.as_slice() {
            [only] => Some(only),
            _ => None,
        })
    }
}

/// Those that listen, each asked in a thread of its own.
pub fn running(listening: &[Listening]) -> Vec<Running> {
    let mut ports: BTreeMap<u32, (&Process, Kind, Vec<u16>)> = BTreeMap::new();
    for Listening { listener, process } in listening {
        let Some(process) = process else { continue };
        let Some(kind) = Kind::of(process) else { continue };
        ports.entry(process.pid).or_insert_with(|| (process, kind, Vec::new())).2.push(listener.port);
    }
    thread::scope(|scope| {
        let asked: Vec<_> = ports
            .into_values()
            .map(|(process, kind, mut ports)| {
                ports.sort_unstable();
                ports.dedup();
                (kind.name(), ports, scope.spawn(move || settings(process, kind)))
            })
            .collect();
        asked
            .into_iter()
            .map(|(name, ports, asked)| {
                let gave_up = |_| Err("reading its settings failed".to_owned());
                Running { name, ports, settings: asked.join().unwrap_or_else(gave_up) }
            })
            .collect()
    })
}

fn settings(process: &Process, kind: Kind) -> Result<Daemon, String> {
    let name = kind.name();
    let not_known =
        |why: String| format!("the settings of {name} (pid {}) are not known: {why}", process.pid);
    let daemon =
        MailDaemon::of(process).unwrap_or_else(|| Ok(MailDaemon::of_kind(kind))).map_err(not_known)?;
    let reader = match kind {
        Kind::Dovecot => &import::DOVECOT,
        Kind::Exim => &import::EXIM,
        Kind::Postfix => &import::POSTFIX,
    };
    match gather::by(reader, &daemon.arguments(), Instant::now() + PATIENCE) {
        Ok(Some(settings)) => Ok(settings),
        Ok(None) => Err(not_known(format!("{} is not found", reader.programs.join(" and ")))),
        Err(problem) => Err(not_known(format!("{problem:#}"))),
    }
}
