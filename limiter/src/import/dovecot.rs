//! Dovecot 2.3 and 2.4: what `doveconf` or `doveconf -n` prints.
//!
//! Dovecot limits a user from an address, after the login. Before it, an address may hold whatever the
//! login processes can serve: that is what the limiter's `max_connections` can be without refusing what
//! Dovecot accepts.

mod tree;

use std::fmt::Write as _;

use limiter_common::{Protocol, rule::Action};

use self::tree::Block;
use super::{
    model::{Daemon, Service, Sourced},
    net,
    words::{one_line, setting},
};

/// What it is called.
const NAME: &str = "Dovecot";

/// What holds where the text says nothing, as that of `doveconf -n` does.
const DEFAULTS: &str = "
protocols = imap pop3
mail_max_userip_connections = 10
default_process_limit = 100
default_client_limit = 1000
service imap-login {
  inet_listener imap {
    port = 143
  }
  inet_listener imaps {
    port = 993
  }
  service_count = 1
}
service pop3-login {
  inet_listener pop3 {
    port = 110
  }
  inet_listener pop3s {
    port = 995
  }
  service_count = 1
}
service submission-login {
  inet_listener submission {
    port = 587
  }
  service_count = 1
}
service managesieve-login {
  inet_listener sieve {
    port = 4190
  }
  service_count = 1
}
service imap {
  client_limit = 1
  process_limit = 1024
}
service pop3 {
  client_limit = 1
  process_limit = 1024
}
service submission {
  client_limit = 1
  process_limit = 1024
}
service managesieve {
  client_limit = 1
  process_limit = 1024
}
";

/// What clients speak with Dovecot: its name in `protocols`, its services, and what it is here.
const KINDS: [(&str, &str, &str, Protocol); 4] = [
    ("imap", "imap", "imap", Protocol::Imap),
    ("pop3", "pop3", "pop3", Protocol::Pop3),
    ("sieve", "managesieve", "sieve", Protocol::Sieve),
    ("submission", "submission", "submission", Protocol::Smtp),
];

/// The limits in `text`; `None` if it holds no settings of Dovecot.
pub fn read(text: &str) -> Option<Daemon> {
    let settings = Settings { said: Block::read(text), defaults: Block::read(DEFAULTS) };
    let known = [
        "protocols",
        "mail_location",
        "mail_driver",
        "listen",
        "dovecot_config_version",
        "ssl",
        "auth_mechanisms",
    ];
    let is_dovecot = known.iter().any(|name| settings.said.value(name).is_some())
        || ["service", "passdb", "userdb", "namespace"]
            .iter()
            .any(|kind| settings.said.blocks(kind).next().is_some());
    if !is_dovecot {
        return None;
    }
    let mut daemon = Daemon::new(NAME);
    // "# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf"
    let mut first_words = text.lines().filter_map(|line| line.strip_prefix("# ")?.split_whitespace().next());
    let is_version = |word: &&str| word.contains('.') && word.starts_with(|char: char| char.is_ascii_digit());
    daemon.version = first_words.find(is_version).map(str::to_owned);
    for (protocol, name, ours, speaks) in KINDS {
        if settings.is_on(protocol) || settings.is_on(name) {
            service(&settings, &mut daemon, (name, ours, speaks));
        }
    }
    networks(&settings, &mut daemon);
    for kind in ["remote", "local"] {
        for (block, what) in settings.said.blocks(kind).filter_map(|block| Some((block, block.label()?))) {
            if let Some(value) = block.value(USER_IP) {
                daemon.leave_out(
                    format!("{kind} {} {{ {} }}", one_line(what), setting(USER_IP, value)),
                    "it counts each user of an address for itself, after the login: Dovecot keeps it",
                );
            }
        }
    }
    Some(daemon)
}

const USER_IP: &str = "mail_max_userip_connections";

/// What is said, and the defaults beneath.
struct Settings {
    said: Block,
    defaults: Block,
}

impl Settings {
    fn value(&self, name: &str) -> Option<&str> {
        self.said.value(name).or_else(|| self.defaults.value(name))
    }

    fn of_service(&self, service: &str, name: &str) -> Option<&str> {
        [&self.said, &self.defaults]
            .into_iter()
            .find_map(|block| block.block("service", service)?.value(name))
    }

    /// Whether a protocol is served: a list, or in 2.4 a block of booleans.
    fn is_on(&self, protocol: &str) -> bool {
        if let Some(block) = self.said.blocks("protocols").next() {
            return block.value(protocol).is_some_and(|value| value == "yes");
        }
        self.value("protocols").is_some_and(|list| list.split_whitespace().any(|word| word == protocol))
    }

    /// A number; 0 is that of `or`; `None`: no limit.
    fn number(&self, service: &str, names: &[&str], or: &str) -> (Option<u64>, String) {
        let said = names.iter().find_map(|name| Some((*name, self.of_service(service, name)?)));
        if let Some((name, value)) = said.filter(|(_, value)| *value != "0") {
            return (value.parse().ok(), setting(name, value));
        }
        let value = self.value(or).unwrap_or("0");
        (value.parse().ok().filter(|number| *number != 0), setting(or, value))
    }
}

/// One protocol: the login processes, and the sessions behind them.
fn service(settings: &Settings, daemon: &mut Daemon, (name, ours, protocol): (&str, &str, Protocol)) {
    let login = format!("{name}-login");
    let ports = ports(settings, daemon, &login);
    if ports.value.is_empty() {
        return;
    }
    let max_total = total(settings, name, &login);
    let user_ip = settings.said.block("protocol", name).and_then(|block| block.value(USER_IP));
    let value = user_ip.or_else(|| settings.value(USER_IP)).unwrap_or("0");
    let shown = match user_ip {
        Some(_) => format!("protocol {name} {{ {} }}", setting(USER_IP, value)),
        None => setting(USER_IP, value),
    };
    let mut max_connections = Sourced::new(
        0,
        format!("Dovecot: {shown} counts each user of an address for itself, and only after the login."),
    );
    max_connections.note("An address as such has no limit.");
    let mut why = "a limit of each user and address, after the login; the limiter counts addresses, before it: Dovecot \
                   keeps it"
        .to_owned();
    if value != "0" {
        let _ = write!(
            why,
            ". To limit addresses, too, set max_connections to {} for each person behind one",
            one_line(value)
        );
    }
    daemon.leave_out(shown, why);
    daemon.services.push(Service {
        name: ours.to_owned(),
        ports,
        protocol,
        max_connections,
        ipv4_prefix: None,
        ipv6_prefix: None,
        rate: None,
        max_total,
        reserve: None,
    });
}

/// What Dovecot can serve: a login process keeps a connection with TLS to its end, since it encrypts; one
/// without TLS moves to the process of its session.
fn total(settings: &Settings, name: &str, login: &str) -> Sourced<u64> {
    let (sessions, shown_sessions) = settings.number(name, &["process_limit"], "default_process_limit");
    let (each, shown_each) = settings.number(name, &["client_limit"], "default_client_limit");
    let sessions = product(sessions, each);
    let shown_sessions = format!("service {name} {{ {shown_sessions}, {shown_each} }}");
    if settings.value("ssl") == Some("no") {
        let mut total = Sourced::new(sessions.unwrap_or(0), format!("Dovecot: {shown_sessions}"));
        total.note("Dovecot: ssl = no, so a login process hands each connection on.");
        return total;
    }
    let (processes, shown_processes) = settings.number(login, &["process_limit"], "default_process_limit");
    // Its name in 2.3 and in 2.4.
    let counts = ["restart_request_count", "service_count"];
    let (count, shown_count) = settings.number(login, &counts, "");
    let (each, shown_each) = match count {
        Some(1) => (Some(1), shown_count),
        _ => settings.number(login, &["client_limit"], "default_client_limit"),
    };
    let logins = product(processes, each);
    let shown_logins = format!("service {login} {{ {shown_processes}, {shown_each} }}");
    match (logins, sessions) {
        (Some(logins), Some(sessions)) if sessions < logins => {
            let mut total = Sourced::new(sessions, format!("Dovecot: {shown_sessions}"));
            total.note(format!("Dovecot: that is less than {shown_logins}, which would be {logins}."));
            total
        }
        (Some(logins), _) => {
            let mut total = Sourced::new(logins, format!("Dovecot: {shown_logins}"));
            total.note("A login process encrypts, and keeps a connection with TLS to its end.");
            total
        }
        (None, sessions) => Sourced::new(sessions.unwrap_or(0), format!("Dovecot: {shown_sessions}")),
    }
}

/// The product of two limits, none of which may be there.
fn product(processes: Option<u64>, each: Option<u64>) -> Option<u64> {
    processes.map(|processes| processes.saturating_mul(each.unwrap_or(u64::MAX)))
}

/// The ports of the login service's listeners that others than the host itself reach.
fn ports(settings: &Settings, daemon: &mut Daemon, login: &str) -> Sourced<Vec<u16>> {
    let mut ports = Sourced::new(Vec::new(), "");
    ports.source.clear();
    let (said, defaults) = (settings.said.block("service", login), settings.defaults.block("service", login));
    let listeners = |block: Option<&'_ Block>| -> Vec<String> {
        let labels =
            block.into_iter().flat_map(|block| block.blocks("inet_listener")).filter_map(Block::label);
        labels.map(str::to_owned).collect()
    };
    let mut names = listeners(defaults);
    names.extend(listeners(said));
    names.sort_unstable();
    names.dedup();
    for name in names {
        let value = |key: &str| {
            [said, defaults]
                .into_iter()
                .flatten()
                .find_map(|block| block.block("inet_listener", &name)?.value(key))
        };
        let port: u16 = value("port").and_then(|port| port.parse().ok()).unwrap_or(0);
        if port == 0 {
            continue;
        }
        let what = format!("service {login} {{ inet_listener {} {{ port = {port} }} }}", one_line(&name));
        let address = value("address").or_else(|| value("listen")).filter(|address| !address.is_empty());
        let address = address.or_else(|| settings.value("listen")).unwrap_or("*");
        let is_loopback = |host: &str| net::is_own_host(host);
        let mut hosts = address.split([',', ' ']).filter(|host| !host.is_empty()).peekable();
        if hosts.peek().is_some() && hosts.all(is_loopback) {
            daemon.leave_out(what, "only this host itself reaches it, which is allowed anyway");
            continue;
        }
        if value("haproxy") == Some("yes") {
            let what = format!("service {login} {{ inet_listener {} {{ haproxy = yes }} }}", one_line(&name));
            daemon.leave_out(
                what,
                "connections come from a proxy, which the limiter takes for the client: allow its address",
            );
        }
        ports.note(format!("Dovecot: {what}"));
        ports.value.push(port);
    }
    ports
}

/// The networks that connect for others: webmail and proxies.
fn networks(settings: &Settings, daemon: &mut Daemon) {
    for name in ["login_trusted_networks", "haproxy_trusted_networks"] {
        let value = settings.value(name).unwrap_or("");
        let from = format!("Dovecot: {name}");
        for word in value.split([',', ' ', '\t']).filter(|word| !word.is_empty()) {
            match net::parse(word) {
                Some(network) => daemon.rule(network, Action::Allow, &from),
                None => daemon.leave_out(
                    format!("{from}: {}", one_line(word)),
                    "the limiter knows networks, no names: give the networks of these hosts by hand",
                ),
            }
        }
    }
}
