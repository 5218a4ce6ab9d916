// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Connections with the users that are logged in on them, as far as a mail daemon tells.

use std::{
    collections::{BTreeSet, HashMap},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use ipnet::IpNet;
use limiter_common::ServiceId;

use super::{
    case::Session,
    connections,
    gather::ports,
    mail_daemon::{Kind, MailDaemon},
    server,
    users::{self, Login},
};
use crate::{kernel::Tables, policy::Selection};

/// How long mail daemons have to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The connections of clients in `remote` at these services, with processes and users, in no order; and why users are not
/// known, where a mail daemon that could tell has not.
///
/// # Errors
/// As of [`connections`].
pub fn sessions(
    tables: &Tables,
    remote: Option<IpNet>,
    services: &Selection,
) -> Result<(Vec<Session>, Option<String>)> {
    let deadline = Instant::now() + PATIENCE;
    let ports = ports(tables, services)?;
    let asked = thread::spawn(move || logins(&ports, remote, deadline));
    let connections = connections(tables, remote, |id| services.includes(id), true);
    let (logins, problem) = asked.join().unwrap_or_default();
    let users = users::by_process(&logins);
    let session = |connection: super::Connection| {
        let user = connection.process.as_ref().and_then(|process| users.get(&process.pid)).cloned();
        Session { connection, user }
    };
    Ok((connections?.into_iter().map(session).collect(), problem))
}

/// Who is logged in by what Dovecot says, which is the only one that can tell.
fn logins(
    ports: &HashMap<ServiceId, Vec<u16>>,
    network: Option<IpNet>,
    deadline: Instant,
) -> (Vec<Login>, Option<String>) {
    let (mut logins, mut problem) = (Vec::new(), None);
    let mut daemons: BTreeSet<MailDaemon> = BTreeSet::new();
    for serving in server::here(ports).into_values() {
        match serving.daemon {
            Ok(daemon) if daemon.kind == Kind::Dovecot => drop(daemons.insert(daemon)),
            Err(reason) if serving.server.daemon.as_deref() == Some(Kind::Dovecot.name()) => {
                problem = Some(reason);
            }
            _ => {}
        }
    }
    for daemon in daemons {
        match users::ask(&daemon, network, deadline) {
            Ok(those) => logins.extend(those),
            Err(reason) => problem = Some(reason),
        }
    }
    (logins, problem)
}
