// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Ending sessions by the mail daemon that serves them: `doveadm kick`. The client is told, inside TLS too, and the mail
//! daemon puts its mailbox in order.
//!
//! `doveadm kick` takes a user, an address, or both, and ends all sessions of these, at whatever port. So it is asked only
//! where exactly those are meant.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use ipnet::IpNet;
use limiter_common::ServiceId;

use super::{
    Connection,
    mail_daemon::{Kind, MailDaemon},
    process, tool,
    users::{self, Login},
};
use crate::{kernel::Tables, listeners};

/// How long the mail daemon has to say who is logged in, and to end their sessions; in all.
const PATIENCE: Duration = Duration::from_secs(5);
/// After the last command it has this long until the connections are gone.
const GONE_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks whether they are.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What the mail daemon is told.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Kick {
    /// End all sessions of the address.
    Address(IpAddr),
    /// End all sessions of this user at the address.
    User(String, IpAddr),
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Kicked {
    /// The cookies of the connections that the mail daemon has ended.
    pub ended: HashSet<u64>,
    /// Why it was not asked, or did not do it, where it serves some of them; a part of a sentence.
    pub problem: Option<String>,
}

/// Has the mail daemon end those of the connections that are `meant`, by their cookies, as far as it can; `all` are the
/// connections of `network` at all services, with their processes, and `ports` the ports of the services at which all
/// connections of it are meant.
///
/// # Errors
/// When the records of the connections cannot be read.
pub fn kick(
    tables: &Tables,
    network: IpNet,
    all: &[Connection],
    meant: &HashSet<u64>,
    ports: &HashMap<ServiceId, Vec<u16>>,
) -> Result<Kicked> {
    let deadline = Instant::now() + PATIENCE;
    let is_dovecots = |one: &&Connection| meant.contains(&one.cookie) && is_dovecots(one);
    if !all.iter().any(|one| is_dovecots(&one)) {
        return Ok(Kicked::default());
    }
    let told = || -> Result<(MailDaemon, Vec<Login>), String> {
        let daemon = dovecot(all)?;
        let logins = users::ask(&daemon, Some(network), deadline)?;
        Ok((daemon, logins))
    };
    let (daemon, logins) = match told() {
        Ok(told) => told,
        Err(problem) => return Ok(Kicked { problem: Some(problem), ..Kicked::default() }),
    };
    let mut kicked = Kicked::default();
    let mut asked: HashSet<u64> = HashSet::new();
    for (kick, cookies) in plan(all, meant, &logins, serves_only(ports)) {
        match carry_out(&daemon, &kick, deadline) {
            Ok(()) => asked.extend(cookies),
            Err(problem) => {
                kicked.problem = Some(problem);
                break;
            }
        }
    }
    let until = Instant::now() + GONE_WITHIN;
    while !asked.is_empty() {
        let recorded = tables.recorded()?;
        let gone: Vec<u64> = asked.iter().filter(|cookie| !recorded.contains(cookie)).copied().collect();
        for cookie in gone {
            asked.remove(&cookie);
            kicked.ended.insert(cookie);
        }
        if Instant::now() >= until {
            break;
        }
        thread::sleep(LOOK_AGAIN);
    }
    Ok(kicked)
}

fn is_dovecots(one: &Connection) -> bool {
    one.process.as_ref().and_then(Kind::of) == Some(Kind::Dovecot)
}

/// The Dovecot that serves them, if it can be asked.
fn dovecot(all: &[Connection]) -> Result<MailDaemon, String> {
    let mut processes = all.iter().filter(|one| is_dovecots(one)).filter_map(|one| one.process.as_ref());
    let found = processes.find_map(|process| MailDaemon::of(process).filter(Result::is_ok));
    found.unwrap_or_else(|| Err("the process dovecot is not to be found".to_owned()))
}

/// Whether Dovecot listens at these ports only: then no session of an address is at another.
fn serves_only(ports: &HashMap<ServiceId, Vec<u16>>) -> bool {
    let Ok(listeners) = listeners::all() else { return false };
    let known: HashSet<u16> = ports.values().flatten().copied().collect();
    let others: Vec<_> = listeners.iter().filter(|listener| !known.contains(&listener.port)).collect();
    let owners = process::owners(&others.iter().map(|listener| listener.inode).collect());
    !owners.values().any(|owner| Kind::of(owner) == Some(Kind::Dovecot))
}

/// What to tell it, and which connections that ends. `serves_only`: all sessions are at services that are meant.
fn plan(
    all: &[Connection],
    meant: &HashSet<u64>,
    logins: &[Login],
    serves_only: bool,
) -> Vec<(Kick, Vec<u64>)> {
    let mut addresses: BTreeMap<IpAddr, Vec<&Connection>> = BTreeMap::new();
    for one in all.iter().filter(|one| is_dovecots(one)) {
        addresses.entry(one.remote).or_default().push(one);
    }
    let mut kicks = Vec::new();
    for (address, connections) in addresses {
        let here: Vec<&Login> = logins.iter().filter(|login| login.address == address).collect();
        if here.is_empty() {
            continue;
        }
        let is_meant = |one: &&Connection| meant.contains(&one.cookie);
        if serves_only && here.len() <= connections.len() && connections.iter().all(is_meant) {
            let cookies = connections.iter().map(|one| one.cookie).collect();
            kicks.push((Kick::Address(address), cookies));
            continue;
        }
        let mut users: BTreeMap<&str, Vec<&Login>> = BTreeMap::new();
        for login in here {
            users.entry(&login.user).or_default().push(login);
        }
        for of_user in users.into_values() {
            let cookies = connections_of(&of_user, &connections, logins);
            let name = of_user[0].exact.as_deref().filter(|name| is_no_pattern(name));
            if let (Some(name), Some(cookies)) = (name, cookies)
                && cookies.iter().all(|cookie| meant.contains(cookie))
                && of_user.iter().all(|login| login.exact.as_deref() == Some(name))
            {
                kicks.push((Kick::User(name.to_owned(), address), cookies));
            }
        }
    }
    kicks
}

/// The connections of these sessions, if each is known by its process.
fn connections_of(sessions: &[&Login], connections: &[&Connection], logins: &[Login]) -> Option<Vec<u64>> {
    let of_session = |session: &&Login| {
        let mut sessions = logins.iter().filter(|login| login.pid == session.pid);
        let is_alone = sessions.next().is_some() && sessions.next().is_none();
        let is_its = |one: &&&Connection| one.process.as_ref().is_some_and(|it| it.pid == session.pid);
        let mut found = connections.iter().filter(is_its);
        let only = found.next().filter(|_| is_alone && found.next().is_none())?;
        Some(only.cookie)
    };
    sessions.iter().map(of_session).collect()
}

/// Whether Dovecot takes it for one name, and not for an option, several names, or an address.
fn is_no_pattern(name: &str) -> bool {
    !name.starts_with('-')
        && !name.contains(['*', '?'])
        && name.parse::<IpNet>().is_err()
        && name.parse::<IpAddr>().is_err()
}

fn carry_out(daemon: &MailDaemon, kick: &Kick, deadline: Instant) -> Result<(), String> {
    let (user, address) = match kick {
        Kick::Address(address) => (None, address.to_string()),
        Kick::User(user, address) => (Some(user.as_str()), address.to_string()),
    };
    let mut asked = users::doveadm(daemon, "kick", true)?;
    asked.arguments.extend(user);
    asked.arguments.push(&address);
    tool::ask(&asked, deadline).map(drop)
}

#[cfg(test)]
mod tests {
    use limiter_common::Protocol;

    use super::*;
    use crate::evidence::{Process, State, tests::connection};

    const ADDRESS: &str = "198.51.100.7";

    /// A connection of a process, with its number as cookie.
    fn of(pid: u32, name: &str) -> Connection {
        let process = Process { pid, name: name.to_owned(), unit: None };
        let open = connection(State::Open, &format!("{ADDRESS}:4000"), "192.0.2.1:143");
        Connection { cookie: pid.into(), process: Some(process), ..open }
    }

    fn login(user: &str, pid: u32) -> Login {
        Login {
            user: user.to_owned(),
            exact: Some(user.to_owned()),
            protocol: Some(Protocol::Imap),
            pid,
            address: ADDRESS.parse().unwrap(),
        }
    }

    fn planned(
        all: &[Connection],
        meant: &[u64],
        logins: &[Login],
        serves_only: bool,
    ) -> Vec<(Kick, Vec<u64>)> {
        plan(all, &meant.iter().copied().collect(), logins, serves_only)
    }

    fn user(name: &str, cookies: &[u64]) -> (Kick, Vec<u64>) {
        (Kick::User(name.to_owned(), ADDRESS.parse().unwrap()), cookies.to_vec())
    }

    #[test]
    fn where_all_of_an_address_is_meant_the_address_is_named() {
        let all = [of(1, "imap"), of(2, "imap-login")];
        let logins = [login("anna", 1), login("ben", 77)];
        let address = (Kick::Address(ADDRESS.parse().unwrap()), vec![1, 2]);
        assert_eq!(planned(&all, &[1, 2], &logins, true), [address]);
        assert_eq!(planned(&all, &[1, 2], &logins, false), [user("anna", &[1])], "ben may be elsewhere");
        let more = [login("anna", 1), login("ben", 77), login("ben", 78)];
        assert_eq!(planned(&all, &[1, 2], &more, true), [user("anna", &[1])], "one more than connections");
        assert_eq!(planned(&all, &[1, 2], &[], true), [], "nobody is logged in");
    }

    #[test]
    fn where_some_are_meant_users_are_named_of_whom_all_sessions_are() {
        let all = [of(1, "imap"), of(2, "imap"), of(3, "imap")];
        let logins = [login("anna", 1), login("anna", 2), login("ben", 3)];
        assert_eq!(planned(&all, &[1, 2], &logins, true), [user("anna", &[1, 2])]);
        assert_eq!(planned(&all, &[1, 3], &logins, true), [user("ben", &[3])], "anna keeps one");
        assert_eq!(planned(&all, &[], &logins, true), []);
        let of_one_process = [login("anna", 1), login("ben", 1)];
        assert_eq!(planned(&all, &[1], &of_one_process, true), [], "a process of two");
    }

    #[test]
    fn a_name_that_means_others_too_is_not_told() {
        let all = [of(1, "imap"), of(2, "imap")];
        for name in ["*", "ann?", "-f", "192.0.2.0/24", "192.0.2.7"] {
            assert_eq!(planned(&all, &[1], &[login(name, 1)], true), [], "{name}");
        }
        let unclean = Login { exact: None, ..login("anna", 1) };
        assert_eq!(planned(&all, &[1], &[unclean], true), []);
    }

    #[test]
    fn other_mail_daemons_are_not_told_anything() {
        let all = [of(1, "smtpd")];
        assert_eq!(planned(&all, &[1], &[login("anna", 1)], true), []);
    }
}
