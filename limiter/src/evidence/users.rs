// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who is logged in: what Dovecot's `doveadm who` prints.
//!
//! It names the user, the address and the process of each session, and no port. Without TLS that process has the
//! connection; with TLS the login process keeps it, so the user is known for the address, and not for the connection.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::{Path, PathBuf},
    time::Instant,
};

use ipnet::IpNet;
use limiter_common::Protocol;
use serde::Deserialize;

use super::{
    mail_daemon::{Kind, MailDaemon},
    tool::{self, Ask, Program},
    words,
};

/// A session with a user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    /// The user, as it may be shown.
    pub user: String,
    /// The user as the mail daemon has it, if that is nothing but a name.
    pub exact: Option<String>,
    /// What it speaks; none if that is not known here.
    pub protocol: Option<Protocol>,
    /// The process of the session.
    pub pid: u32,
    /// The client.
    pub address: IpAddr,
}

/// A row of `doveadm -f json who -1`, of 2.3 and 2.4. All fields are strings; of those that are not named here others come
/// and go with the version.
#[derive(Deserialize)]
struct Row {
    username: String,
    service: String,
    pid: String,
    ip: String,
}

/// The longest name that a mail daemon is told again.
const LONGEST: usize = 255;

/// Those who are logged in from `network`, or from anywhere, if the daemon tells by the `deadline`.
///
/// # Errors
/// Why it does not, as a part of a sentence.
pub fn ask(daemon: &MailDaemon, network: Option<IpNet>, deadline: Instant) -> Result<Vec<Login>, String> {
    match daemon.kind {
        Kind::Dovecot => {}
        Kind::Exim | Kind::Postfix => {
            return Err(format!("{} does not tell who is logged in", daemon.kind.name()));
        }
    }
    let network = network.map(|network| {
        let is_host = network.prefix_len() == network.max_prefix_len();
        if is_host { network.addr().to_string() } else { network.to_string() }
    });
    let mut asked = doveadm(daemon, "who", false)?;
    asked.arguments.splice(0..0, ["-f", "json"]);
    asked.arguments.push("-1");
    asked.arguments.extend(network.as_deref());
    read(&tool::ask(&asked, deadline)?)
}

/// A command of Dovecot's program, of which arguments are to follow.
///
/// # Errors
/// When there is nobody it could ask.
pub fn doveadm<'a>(daemon: &'a MailDaemon, command: &'a str, may_signal: bool) -> Result<Ask<'a>, String> {
    let anvil = daemon.anvil.as_deref().ok_or("Dovecot has no socket anvil")?;
    let path = anvil.to_str().ok_or("the path of Dovecot's socket anvil is no text")?;
    let mut arguments = daemon.arguments();
    arguments.extend([command, "-a", path]);
    let sockets = vec![anvil.to_owned()];
    Ok(Ask { program: Program::Doveadm, arguments, reads: reads(daemon), sockets, may_signal })
}

/// What it reads of the configuration.
fn reads(daemon: &MailDaemon) -> Vec<PathBuf> {
    let main = daemon.configuration.as_deref().unwrap_or(Path::new("/etc/dovecot/dovecot.conf"));
    // What it includes is beside it, as a rule.
    let folder = main.parent().filter(|folder| folder.starts_with("/etc")).map(Path::to_owned);
    vec![folder.unwrap_or_else(|| main.to_owned())]
}

/// What it has printed.
fn read(text: &str) -> Result<Vec<Login>, String> {
    let rows: Vec<Row> =
        serde_json::from_str(text).map_err(|_| "doveadm printed something else than sessions".to_owned())?;
    let login = |row: Row| {
        let Row { username, service, pid, ip } = row;
        let is_name =
            |name: &String| !name.is_empty() && name.len() <= LONGEST && name.chars().all(words::is_plain);
        Some(Login {
            user: words::shown(&username),
            exact: Some(username).filter(is_name),
            protocol: protocol(&service),
            pid: pid.parse().ok()?,
            address: ip.parse::<IpAddr>().ok()?.to_canonical(),
        })
    };
    // What is no session is not counted as one.
    Ok(rows.into_iter().filter_map(login).collect())
}

fn protocol(service: &str) -> Option<Protocol> {
    match service {
        "imap" => Some(Protocol::Imap),
        "pop3" => Some(Protocol::Pop3),
        "sieve" | "managesieve" => Some(Protocol::Sieve),
        "submission" => Some(Protocol::Smtp),
        _ => None,
    }
}

/// How many sessions each user has, of those from `network` that speak this.
pub fn counted(logins: &[Login], protocol: Protocol, network: &IpNet) -> BTreeMap<String, u32> {
    let mut users = BTreeMap::new();
    let here =
        logins.iter().filter(|login| login.protocol == Some(protocol) && network.contains(&login.address));
    for login in here {
        *users.entry(login.user.clone()).or_default() += 1;
    }
    users
}

/// The user of each process; one that serves several users is left out.
pub fn by_process(logins: &[Login]) -> HashMap<u32, String> {
    let mut users: HashMap<u32, Option<&str>> = HashMap::new();
    for login in logins {
        let user = users.entry(login.pid).or_insert(Some(&login.user));
        *user = user.filter(|user| *user == login.user);
    }
    users.into_iter().filter_map(|(pid, user)| Some((pid, user?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Dovecot 2.3.19 prints it.
    const PRINTED: &str = r#"[{"username":"anna","service":"imap","pid":"17532","ip":"192.0.2.7"},{"username":"anna","service":"imap","pid":"17531","ip":"192.0.2.7"},{"username":"ben","service":"pop3","pid":"17533","ip":"192.0.2.8"}]"#;

    #[test]
    fn sessions_are_read_with_their_users() {
        let logins = read(PRINTED).unwrap();
        assert_eq!(logins.len(), 3);
        let network = "192.0.2.7/32".parse().unwrap();
        assert_eq!(counted(&logins, Protocol::Imap, &network), BTreeMap::from([("anna".to_owned(), 2)]));
        assert_eq!(counted(&logins, Protocol::Pop3, &network), BTreeMap::new());
        let all = "192.0.2.0/24".parse().unwrap();
        assert_eq!(counted(&logins, Protocol::Pop3, &all), BTreeMap::from([("ben".to_owned(), 1)]));
        assert_eq!(by_process(&logins)[&17533], "ben");
        assert_eq!(read("[]"), Ok(Vec::new()));
    }

    #[test]
    fn a_process_with_several_users_is_nobodys() {
        let text = r#"[{"username":"anna","service":"imap","pid":"7","ip":"192.0.2.7"},
            {"username":"ben","service":"imap","pid":"7","ip":"192.0.2.7"},
            {"username":"eve","service":"imap","pid":"8","ip":"192.0.2.7"},
            {"username":"eve","service":"imap","pid":"8","ip":"192.0.2.7"}]"#;
        assert_eq!(by_process(&read(text).unwrap()), HashMap::from([(8, "eve".to_owned())]));
    }

    #[test]
    fn nothing_that_a_mail_daemon_prints_is_trusted() {
        let row = |user: &str, pid: &str, ip: &str| {
            let user = serde_json::to_string(user).unwrap();
            format!(r#"[{{"username":{user},"service":"imap","pid":"{pid}","ip":"{ip}","more":{{}}}}]"#)
        };
        let user = |text: &str| read(&row(text, "1", "192.0.2.7")).unwrap().remove(0);
        assert_eq!(
            user("a\u{1b}[31mb"),
            Login { exact: None, user: "a\u{fffd}[31mb".to_owned(), ..user("x") }
        );
        assert_eq!(user("").exact, None);
        assert_eq!(user(&"x".repeat(256)).exact, None);
        let long = user(&"x".repeat(3 << 20));
        assert!(long.user.len() < 200 && long.exact.is_none());
        for (pid, ip) in [("-1", "192.0.2.7"), ("99999999999999999999", "192.0.2.7"), ("1", "here"), ("", "")]
        {
            assert_eq!(read(&row("anna", pid, ip)), Ok(Vec::new()), "{pid} {ip}");
        }
        let deep = "[".repeat(100_000);
        for other in ["", "{}", "null", "anna", "[1]", r#"[{"username":"x"}]"#, deep.as_str(), "[{"] {
            assert!(read(other).is_err(), "{}", &other[..other.len().min(20)]);
        }
    }
}
