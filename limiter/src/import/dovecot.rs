// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Dovecot 2.3 and 2.4: what `doveconf` or `doveconf -n` prints.
//!
//! Dovecot limits a user from an address, after the login. Before it, an address may hold whatever the
//! login processes can serve: that is what the limiter's `max_connections` can be without refusing what
//! Dovecot accepts.

mod capacity;
mod settings;
mod tree;

use std::fmt::Write as _;

use limiter_common::{Protocol, rule::Action};

use self::{
    settings::Settings,
    tree::{Block, Text},
};
use super::{
    model::{Daemon, Limit, OwnLimit, Scope, Service, Sourced, Unread},
    net, tls,
    words::{list_item, one_line, setting},
};

/// What it is called.
const NAME: &str = "Dovecot";

/// What clients speak with Dovecot: its name in `protocols`, its services, and what it is here.
const KINDS: [(&str, &str, &str, Protocol); 4] = [
    ("imap", "imap", "imap", Protocol::Imap),
    ("pop3", "pop3", "pop3", Protocol::Pop3),
    ("sieve", "managesieve", "sieve", Protocol::Sieve),
    ("submission", "submission", "submission", Protocol::Smtp),
];

/// Limits of Dovecot 1, which Dovecot 2 does not have.
const OF_DOVECOT_1: [&str; 5] = [
    "login_max_connections",
    "login_max_logging_users",
    "login_max_processes_count",
    "login_process_per_connection",
    "max_mail_processes",
];

const USER_IP: &str = "mail_max_userip_connections";

/// The lists of networks that connect for others: proxies and webmail.
const NETWORKS: [&str; 2] = ["login_trusted_networks", "haproxy_trusted_networks"];

/// The limits in `text`.
///
/// # Errors
/// If it holds no settings of Dovecot, or not all of them.
pub fn read(text: &str) -> Result<Daemon, Unread> {
    let Text { settings: said, not_understood, cut } = Text::read(text);
    let known = [
        "protocols",
        "mail_location",
        "mail_driver",
        "listen",
        "dovecot_config_version",
        "ssl",
        "auth_mechanisms",
    ];
    let is_dovecot = known.iter().any(|name| said.value(name).is_some())
        || ["service", "passdb", "userdb", "namespace", "protocols"]
            .iter()
            .any(|kind| said.blocks(kind).next().is_some());
    if !is_dovecot {
        return Err(Unread::Other);
    }
    if let Some(where_it_shows) = cut {
        return Err(Unread::Cut(one_line(&where_it_shows)));
    }
    let mut daemon = Daemon::new(NAME);
    // "# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf"
    let mut first_words = text.lines().filter_map(|line| line.strip_prefix("# ")?.split_whitespace().next());
    // The same line, behind the colon.
    let path = text.lines().find_map(|line| line.strip_prefix("# 2.")?.split_once(": /"));
    daemon.configuration = path.map(|(_, path)| one_line(&format!("/{path}")));
    let is_version = |word: &&str| word.contains('.') && word.starts_with(|char: char| char.is_ascii_digit());
    daemon.version = first_words.find(is_version).map(str::to_owned);
    daemon.not_understood(&not_understood);
    let settings = Settings::new(said, daemon.version.as_deref());
    if let Some(note) = settings.of_another_version() {
        daemon.leave_out("not in the text", note);
    }
    for (protocol, name, ours, speaks) in KINDS {
        if settings.is_on(&mut daemon, protocol) || protocol != name && settings.is_on(&mut daemon, name) {
            service(&settings, &mut daemon, (name, ours, speaks));
        }
    }
    if daemon.services.is_empty() {
        daemon.leave_out(
            "protocols",
            "according to the text, none of these is enabled for clients other than this host",
        );
    }
    networks(&settings, &mut daemon);
    others(&settings.said, "", &mut daemon);
    Ok(daemon)
}

/// One protocol: the login processes, and the sessions behind them.
fn service(settings: &Settings, daemon: &mut Daemon, (name, ours, protocol): (&str, &str, Protocol)) {
    let login = format!("{name}-login");
    let ports = ports(settings, daemon, &login);
    if ports.value.is_empty() {
        return;
    }
    let max_total = capacity::total(settings, daemon, name, &login);
    let (max_connections, of_user) = per_user(settings, daemon, name);
    let mut own = vec![OwnLimit::new(USER_IP, of_user, Scope::UserAtSource)];
    own.extend(capacity::own(settings, name, &login));
    let mut service = Service {
        name: ours.to_owned(),
        tls_ports: Some(tls_ports(settings, &login, &ports.value)),
        tls: Vec::new(),
        ports,
        protocol,
        max_connections,
        ipv4_prefix: None,
        ipv6_prefix: None,
        rate: None,
        max_total,
        reserve: None,
        own,
    };
    certificate(settings, daemon, &mut service);
    daemon.services.push(service);
}

/// Those of the ports where TLS starts at once. `ssl` of a listener says so; those that end with `s` are so by default.
fn tls_ports(settings: &Settings, login: &str, ports: &[u16]) -> Sourced<Vec<u16>> {
    let mut tls_ports = Sourced::new(Vec::new(), "");
    tls_ports.source.clear();
    for name in settings.listeners(login) {
        let value = |key: &str| settings.of_listener(login, &name, key);
        let Limit::Of(port) = settings.number(value("port").unwrap_or("0")) else { continue };
        let Ok(port) = u16::try_from(port) else { continue };
        let by_default = if OF_TLS.contains(&name.as_str()) { "yes" } else { "no" };
        if ports.contains(&port) && value("ssl").unwrap_or(by_default) == "yes" {
            tls_ports.note(format!(
                "Dovecot: service {login} {{ inet_listener {} {{ ssl = yes }} }}",
                one_line(&name)
            ));
            tls_ports.value.push(port);
        }
    }
    if tls_ports.value.is_empty() {
        tls_ports.note(format!("Dovecot: no listener of {login} has ssl = yes"));
    }
    tls_ports
}

/// The listeners that have `ssl = yes` without being told.
const OF_TLS: [&str; 3] = ["imaps", "pop3s", "submissions"];

/// The certificate that all its services have.
fn certificate(settings: &Settings, daemon: &mut Daemon, service: &mut Service) {
    let of_2_4 = ["ssl_server_cert_file", "ssl_server_key_file"].map(|name| (name, settings.of_server(name)));
    let of_2_3 = ["ssl_cert", "ssl_key"].map(|name| (name, settings.value(name)));
    let has_one = |pair: &[(&str, Option<&str>); 2]| pair[0].1.is_some_and(|value| !value.is_empty());
    let Some([(name, certificate), (key_name, key)]) = [of_2_4, of_2_3].into_iter().find(has_one) else {
        return;
    };
    let (certificate, key) = (certificate.unwrap_or_default(), key.unwrap_or_default());
    let shown = format!("{}, {}", setting(name, certificate), setting(key_name, key));
    // 2.3 reads what follows `<` from a file.
    let file = |value: &str| value.strip_prefix('<').unwrap_or(value).trim().to_owned();
    let found = tls::certificate(daemon, service, (&file(certificate), &file(key)), &shown);
    service.tls.extend(found);
}

/// The run that prints what the text hides: the file of the key.
pub fn hidden(text: &str) -> Vec<Vec<String>> {
    let is_hidden = text.lines().any(|line| line.starts_with("ssl_key = # hidden"));
    if is_hidden { vec![vec!["-P".to_owned(), "ssl_key".to_owned()]] } else { Vec::new() }
}

/// An address as such has no limit, which is the first; a user from an address has the second.
fn per_user(settings: &Settings, daemon: &mut Daemon, name: &str) -> (Sourced<Limit>, Limit) {
    // Its name in `protocol` is that of `protocols`.
    let mut labels = KINDS.iter().filter(|kind| kind.1 == name).flat_map(|kind| [kind.0, kind.1]);
    let of_protocol = labels
        .find_map(|label| settings.said.labelled("protocol", label).find_map(|block| block.value(USER_IP)));
    let value = of_protocol.or_else(|| settings.value(USER_IP)).unwrap_or("0");
    let shown = match of_protocol {
        Some(_) => format!("protocol {name} {{ {} }}", setting(USER_IP, value)),
        None => setting(USER_IP, value),
    };
    let mut max_connections = Sourced::new(
        Limit::None,
        format!("Dovecot: {shown} counts each user of an address separately, and only after the login."),
    );
    max_connections.note("An address alone has no limit.");
    let mut why = "a limit per user and address, after the login; the limiter counts addresses, before the \
                   login: Dovecot keeps it"
        .to_owned();
    let of_user = settings.number(value);
    match of_user {
        Limit::Of(number) => {
            let _ = write!(
                why,
                ". To limit addresses, too, set max_connections to {number} for each person behind one"
            );
        }
        Limit::None => {}
        Limit::Unknown => why.push_str(". Its number is invalid"),
    }
    daemon.leave_out(shown, why);
    (max_connections, of_user)
}

/// The ports of the login service's listeners that others than the host itself reach.
fn ports(settings: &Settings, daemon: &mut Daemon, login: &str) -> Sourced<Vec<u16>> {
    let mut ports = Sourced::new(Vec::new(), "");
    ports.source.clear();
    for name in settings.listeners(login) {
        let value = |key: &str| settings.of_listener(login, &name, key);
        let listener = format!("service {login} {{ inet_listener {} {{", one_line(&name));
        let written = value("port").unwrap_or("0");
        let port: u16 = match settings.number(written) {
            Limit::Of(number) if u16::try_from(number).is_ok() => u16::try_from(number).unwrap_or(0),
            Limit::None => continue,
            _ => {
                let what = format!("{listener} {} }} }}", setting("port", written));
                daemon.leave_out(what, "this is not a valid port: add it to the service");
                continue;
            }
        };
        let what = format!("{listener} port = {port} }} }}");
        if is_loopback(settings, value("address").or_else(|| value("listen"))) {
            daemon.leave_out(what, "only this host can reach it, and local addresses are always allowed");
            continue;
        }
        if value("haproxy") == Some("yes") {
            daemon.is_behind_proxy(format!("{listener} haproxy = yes }} }}"));
            daemon.leave_out(
                format!("{listener} haproxy = yes }} }}"),
                "connections come from a proxy, which the limiter counts as the client: allow its address",
            );
        }
        ports.note(format!("Dovecot: {what}"));
        ports.value.push(port);
    }
    ports
}

/// Whether a listener with these addresses is for the host itself alone.
fn is_loopback(settings: &Settings, addresses: Option<&str>) -> bool {
    let addresses = addresses.filter(|addresses| !addresses.is_empty());
    let addresses = addresses.or_else(|| settings.value("listen")).unwrap_or("*");
    let mut hosts = addresses.split([',', ' ']).filter(|host| !host.is_empty()).peekable();
    hosts.peek().is_some() && hosts.all(net::is_own_host)
}

/// The networks that connect for others: webmail and proxies.
fn networks(settings: &Settings, daemon: &mut Daemon) {
    for name in NETWORKS {
        let from = format!("Dovecot: {name}");
        let (words, not_understood) = settings.list(name);
        for word in &words {
            match net::parse(word) {
                Some(network) => daemon.rule(network, Action::Allow, &from),
                None => daemon.leave_out(
                    list_item(&from, word),
                    "the limiter matches networks, not names: add rules for the networks of these hosts",
                ),
            }
        }
        for item in not_understood {
            daemon.leave_out(list_item(&from, &item), "this is neither yes nor no: add a rule for it");
        }
    }
}

/// What is said of a part of the connections, and what others than the login services listen on.
fn others(block: &Block, around: &str, daemon: &mut Daemon) {
    for (name, value) in block.values() {
        let shown = inside(around, &setting(name, value));
        if OF_DOVECOT_1.contains(&name) {
            daemon.leave_out(shown, "a limit of Dovecot 1, which Dovecot 2 does not have");
        } else if name == USER_IP && !around.is_empty() && !is_protocol(around) {
            let why = "it counts each user of an address separately, after the login: Dovecot keeps it";
            daemon.leave_out(shown, why);
        } else if NETWORKS.contains(&name) && !around.is_empty() && !value.is_empty() {
            daemon.leave_out(shown, "this applies to only some of the connections: add rules for them");
        }
    }
    for inner in block.all_blocks() {
        let head = one_line(&inner.head());
        let path = if around.is_empty() { head.clone() } else { format!("{around} {{ {head}") };
        if NETWORKS.contains(&inner.kind()) && !around.is_empty() {
            daemon.leave_out(
                inside(around, &head),
                "this applies to only some of the connections: add rules for them",
            );
            continue;
        }
        if inner.kind() == "service" && around.is_empty() {
            listens(inner, &path, daemon);
            continue;
        }
        others(inner, &path, daemon);
    }
}

/// A setting in the blocks around it, all of which are open.
fn inside(around: &str, setting: &str) -> String {
    if around.is_empty() {
        return setting.to_owned();
    }
    let blocks = 1 + around.matches(" { ").count();
    format!("{around} {{ {setting}{}", " }".repeat(blocks))
}

/// Whether this is the block of a protocol that has been read.
fn is_protocol(around: &str) -> bool {
    KINDS.iter().any(|kind| [kind.0, kind.1].iter().any(|name| around == format!("protocol {name}")))
}

/// The ports of a service that is none of the login services.
fn listens(service: &Block, path: &str, daemon: &mut Daemon) {
    let label = service.label().unwrap_or_default();
    if KINDS.iter().any(|kind| label.strip_suffix("-login") == Some(kind.1)) {
        return;
    }
    for listener in service.blocks("inet_listener") {
        let Some(port) = listener.value("port").filter(|port| !["", "0"].contains(port)) else { continue };
        let limits = ["process_limit", "client_limit", "service_count", "restart_request_count"];
        let limits = limits.iter().filter_map(|name| Some(setting(name, service.value(name)?)));
        let limits = limits.collect::<Vec<_>>().join(", ");
        let limits = if limits.is_empty() { limits } else { format!(" ({limits})") };
        daemon.leave_out(
            format!("{path} {{ {} {{ {} }} }}", one_line(&listener.head()), setting("port", port)),
            format!("it is not a login service{limits}: add a [service] for it, if other hosts can reach it"),
        );
    }
}
