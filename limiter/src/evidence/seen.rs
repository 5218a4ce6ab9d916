// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who is logged in at all, for the history: asked once in a while, of sources that have connections.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use limiter_common::{Addr, Count, Entry, Protocol, ServiceId, ServicePolicy};

use super::{
    gather::ports,
    mail_daemon::{Kind, MailDaemon},
    server,
    users::{self, Login},
};
use crate::{kernel::Tables, policy::Selection};

/// How long the mail daemon has to answer. Nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A user, seen at a service from an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// The service's name.
    pub service: String,
    /// The client.
    pub address: IpAddr,
    /// The user, as it may be shown.
    pub user: String,
}

/// Those who are logged in, and why some are not known, where a mail daemon that could tell has not. Where nobody is
/// connected, nobody is asked.
///
/// # Errors
/// When the maps cannot be read.
pub fn seen(tables: &Tables) -> Result<(BTreeSet<Seen>, Option<String>)> {
    let (mut seen, mut problem, mut services) = (BTreeSet::new(), None, Vec::new());
    for (id, policy) in tables.policy.services()? {
        if tables.total(id)?.connections() > 0 {
            services.push((id, policy));
        }
    }
    if services.is_empty() {
        return Ok((seen, problem));
    }
    let deadline = Instant::now() + PATIENCE;
    let selection = Selection { services, is_all: false };
    let serving = server::here(&ports(tables, &selection)?);
    let daemons = serving.values().filter_map(|it| it.daemon.as_ref().ok());
    let dovecots: BTreeSet<&MailDaemon> = daemons.filter(|daemon| daemon.kind == Kind::Dovecot).collect();
    for it in serving.values() {
        if let Err(why) = &it.daemon
            && it.server.daemon.as_deref() == Some(Kind::Dovecot.name())
        {
            problem = Some(why.clone());
        }
    }
    for daemon in dovecots {
        let its = |(id, _): &&(ServiceId, ServicePolicy)| {
            serving.get(id).is_some_and(|it| it.daemon.as_ref() == Ok(daemon))
        };
        let its: Vec<&(ServiceId, ServicePolicy)> = selection.services.iter().filter(its).collect();
        match users::ask(daemon, None, deadline) {
            Ok(logins) => {
                for login in logins {
                    for (id, policy) in &its {
                        if is_there(tables, *id, policy, &login)? {
                            let Login { user, address, .. } = &login;
                            let service = policy.name().to_owned();
                            seen.insert(Seen { service, address: *address, user: user.clone() });
                        }
                    }
                }
            }
            Err(why) => problem = Some(why),
        }
    }
    Ok((seen, problem))
}

/// Whether it may be a session at this service: it speaks the same, and its source has connections there.
fn is_there(tables: &Tables, id: ServiceId, policy: &ServicePolicy, login: &Login) -> Result<bool> {
    if login.protocol.is_none() || login.protocol != Protocol::from_u8(policy.protocol) {
        return Ok(false);
    }
    let source = tables.policy.source(id, policy, &Addr::from(login.address))?;
    let is_held = |entry: Entry| entry.count != Count::COLLECTED && entry.count.connections() > 0;
    Ok(tables.source(&source)?.is_some_and(is_held))
}
