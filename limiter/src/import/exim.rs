// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Exim: what `exim -bV` and `exim -bP` print, and `exim -bP +NAME` for each named list that matters.
//!
//! Exim counts the connections of its daemon, whatever port they came to: all of its ports are one
//! service here.

use std::collections::{BTreeMap, BTreeSet};

use limiter_common::{Protocol, rule::Action};

use super::{
    hosts::Hosts,
    model::{Daemon, Limit, Service, Sourced, Unread},
    net, tls,
    words::{self, one_line, setting},
};

/// What it is called.
const NAME: &str = "Exim";

/// The host lists that say something of connections.
const HOST_LISTS: [&str; 3] = ["smtp_reserve_hosts", "host_reject_connection", "hosts_proxy"];

/// The most named lists that are asked for.
const MAX_LISTS: usize = 50;

/// The options and named lists of the text.
struct Options<'a> {
    options: BTreeMap<&'a str, &'a str>,
    lists: BTreeMap<&'a str, &'a str>,
}

impl<'a> Options<'a> {
    fn read(text: &'a str) -> Self {
        let (mut options, mut lists) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((key, value)) = line.split_once('=') else { continue };
            let mut words = key.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (Some("hostlist"), Some(name), None) => lists.insert(name, value.trim()),
                (Some(name), None, None) => options.insert(name, value.trim()),
                _ => None,
            };
        }
        Self { options, lists }
    }

    fn get(&self, name: &str) -> &'a str {
        self.options.get(name).copied().unwrap_or("")
    }
}

/// The runs that print the named lists which the text refers to and does not have.
pub fn named_lists(text: &str) -> Vec<Vec<String>> {
    let options = Options::read(text);
    let values = HOST_LISTS.iter().map(|name| options.get(name)).chain(options.lists.values().copied());
    let names: BTreeSet<String> = values
        .flat_map(items)
        .filter_map(|item| item.trim_start_matches('!').strip_prefix('+').map(str::to_owned))
        .filter(|name| !options.lists.contains_key(name.as_str()))
        .filter(|name| {
            !name.is_empty() && name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_')
        })
        .collect();
    names.into_iter().take(MAX_LISTS).map(|name| vec!["-bP".to_owned(), format!("+{name}")]).collect()
}

/// What is said of an option that is not in the text, as all of them are in that of `exim -bP`.
const MISSING: &str = "this is not in the text: give the complete output of `exim -bP`";

/// The limits in `text`.
///
/// # Errors
/// If it holds no options of Exim.
pub fn read(text: &str) -> Result<Daemon, Unread> {
    let options = Options::read(text);
    if !options.options.keys().any(|name| name.starts_with("smtp_accept_") || *name == "daemon_smtp_ports") {
        return Err(Unread::Other);
    }
    let mut daemon = Daemon::new(NAME);
    let version = text.lines().find_map(|line| line.trim_start_matches("# ").strip_prefix("Exim version "));
    daemon.version = version.and_then(|rest| rest.split_whitespace().next()).map(str::to_owned);
    let name = options.get("primary_hostname");
    if !name.is_empty() {
        daemon.hostname =
            Some(Sourced::new(name.to_owned(), format!("Exim: {}", setting("primary_hostname", name))));
    }
    let (max_total, reserve) = total(&options, &mut daemon);
    let max_connections = per_host(&options, &mut daemon);
    let ports = ports(&options, &mut daemon);
    if !ports.value.is_empty() {
        let first = if ports.value.contains(&25) { 25 } else { ports.value[0] };
        let mut service = Service {
            name: words::smtp_name(first),
            tls_ports: tls_ports(&options, &ports.value),
            tls: Vec::new(),
            ports,
            protocol: Protocol::Smtp,
            max_connections,
            ipv4_prefix: None,
            ipv6_prefix: None,
            rate: None,
            max_total,
            reserve,
        };
        certificates(&options, &mut daemon, &mut service);
        daemon.services.push(service);
    }
    host_lists(&options, &mut daemon);
    others(&options, &mut daemon);
    Ok(daemon)
}

/// Exim does not take more than this for `smtp_accept_max`.
const MOST: u64 = 4096;

/// `smtp_accept_max` holds the reserve; `max_total` does not.
fn total(options: &Options<'_>, daemon: &mut Daemon) -> (Sourced<Limit>, Option<Sourced<u64>>) {
    let (max, shown) = limit(options, daemon, "smtp_accept_max");
    let mut total = Sourced::new(max, format!("Exim: {shown}"));
    match max {
        Limit::None => total.note("So there is no limit for all of Exim."),
        Limit::Of(number) if number > MOST => {
            total.note(format!("Exim accepts at most {MOST}."));
            total.value = Limit::Of(MOST);
        }
        Limit::Of(_) | Limit::Unknown => {}
    }
    let (reserved, shown) = limit(options, daemon, "smtp_accept_reserve");
    let (Limit::Of(max), Limit::Of(reserved)) = (total.value, reserved) else {
        if reserved != Limit::None {
            daemon.leave_out(shown, "it is a part of smtp_accept_max, which is not a number here");
        }
        return (total, None);
    };
    if max <= reserved {
        daemon.leave_out(shown, "it takes all of smtp_accept_max");
        return (total, None);
    }
    total.value = Limit::Of(max - reserved);
    total.note(format!("Exim: {shown}; Exim counts them within max_total, the limiter on top of it."));
    let mut reserve = Sourced::new(reserved, format!("Exim: {shown}"));
    let hosts = setting("smtp_reserve_hosts", options.get("smtp_reserve_hosts"));
    reserve.note(format!("Exim: for {hosts}; here for local addresses and sources that a rule allows."));
    (total, Some(reserve))
}

/// A number of which 0, and what is below it, is no limit; and the setting it is. What is no number is
/// not known.
fn limit(options: &Options<'_>, daemon: &mut Daemon, name: &str) -> (Limit, String) {
    let Some(value) = options.options.get(name) else {
        daemon.leave_out(name, MISSING);
        return (Limit::Unknown, format!("{name} is not in the text"));
    };
    let shown = setting(name, value);
    match value.parse::<i64>() {
        Ok(number) => (Limit::or_none(u64::try_from(number).unwrap_or(0)), shown),
        Err(_) => {
            daemon.leave_out(shown.clone(), "this is not a number, so the limit is unknown");
            (Limit::Unknown, shown)
        }
    }
}

fn per_host(options: &Options<'_>, daemon: &mut Daemon) -> Sourced<Limit> {
    let name = "smtp_accept_max_per_host";
    let Some(value) = options.options.get(name) else {
        daemon.leave_out(name, MISSING);
        return Sourced::new(Limit::Unknown, format!("Exim: {name} is not in the text"));
    };
    let shown = setting(name, value);
    let mut limit = Sourced::new(Limit::None, format!("Exim: {shown}"));
    match value.parse() {
        Ok(0) => limit.note("Exim has no limit for one host."),
        Ok(number) => limit.value = Limit::Of(number),
        Err(_) if value.is_empty() => limit.note("Exim has no limit for one host."),
        Err(_) => {
            limit.value = Limit::Unknown;
            let why = if value.contains('$') {
                limit.note("It is an expansion, which only Exim can compute, for each connection.");
                "an expansion gives each host its own limit; Exim keeps it. Set max_connections to the limit \
                 of most hosts, and add rules for the others"
            } else {
                "this is not a number, so the limit is unknown"
            };
            daemon.leave_out(shown, why);
        }
    }
    limit
}

/// The ports its daemon listens on; those of `local_interfaces` with a port of their own, too.
fn ports(options: &Options<'_>, daemon: &mut Daemon) -> Sourced<Vec<u16>> {
    let mut ports = Sourced::new(Vec::new(), "");
    ports.source.clear();
    let value = options.options.get("daemon_smtp_ports").copied().unwrap_or("smtp");
    ports.note(format!("Exim: {}", setting("daemon_smtp_ports", value)));
    let interfaces = options.get("local_interfaces");
    let mut own_ports = Vec::new();
    let (mut without_port, mut only_loopback) = (interfaces.is_empty(), !interfaces.is_empty());
    for item in items(interfaces) {
        let (address, port) = interface(&item);
        let is_loopback = net::is_own_host(address);
        only_loopback &= is_loopback;
        without_port |= port.is_none();
        own_ports.extend(port.filter(|_| !is_loopback));
    }
    if without_port {
        for name in items(value) {
            match words::port(&name) {
                Some(port) => ports.value.push(port),
                None => daemon.leave_out(
                    setting("daemon_smtp_ports", value),
                    format!("the port of {} is unknown here: add it to the service", one_line(&name)),
                ),
            }
        }
    }
    if !own_ports.is_empty() {
        ports.note(format!("Exim: {}", setting("local_interfaces", interfaces)));
        ports.value.extend(own_ports);
    }
    if only_loopback {
        daemon.leave_out(
            setting("local_interfaces", interfaces),
            "it listens on loopback only, and local addresses are always allowed",
        );
    }
    if ports.value.len() > 1 {
        ports.note("Exim counts the connections of all its ports together, so this is one service.");
    }
    ports
}

/// Those of its ports where TLS starts at once: by number or name.
fn tls_ports(options: &Options<'_>, ports: &[u16]) -> Option<Sourced<Vec<u16>>> {
    let name = "tls_on_connect_ports";
    let value = options.options.get(name)?;
    let tls_ports = items(value).into_iter().filter_map(|item| words::port(&item));
    let tls_ports = tls_ports.filter(|port| ports.contains(port)).collect();
    Some(Sourced::new(tls_ports, format!("Exim: {}", setting(name, value))))
}

/// The certificates, of which each has its key; without a key it is in the same file.
fn certificates(options: &Options<'_>, daemon: &mut Daemon, service: &mut Service) {
    let [certificates, keys] = ["tls_certificate", "tls_privatekey"].map(|name| options.get(name));
    let shown = format!("{}, {}", setting("tls_certificate", certificates), setting("tls_privatekey", keys));
    let is_computed = certificates.contains('$') || keys.contains('$');
    let [certificates, keys] = if is_computed {
        // Not taken apart: a colon in it may separate nothing.
        [certificates, keys].map(|value| vec![value.to_owned()])
    } else {
        [certificates, keys].map(items)
    };
    for (index, certificate) in certificates.iter().enumerate() {
        let key = keys.get(index).unwrap_or(certificate);
        service.tls.extend(tls::certificate(daemon, service, (certificate, key), &shown));
    }
}

/// An address with a port of its own, if it has one: `[ADDRESS]:PORT`, or `ADDRESS.PORT`.
fn interface(item: &str) -> (&str, Option<u16>) {
    if let Some((address, port)) = item.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        return (address, words::port(port));
    }
    let dots = item.matches('.').count();
    match item.rsplit_once('.') {
        Some((address, port)) if dots == if item.contains(':') { 1 } else { 4 } => {
            (address, words::port(port))
        }
        _ => (item, None),
    }
}

fn host_lists(options: &Options<'_>, daemon: &mut Daemon) {
    for name in HOST_LISTS {
        let Some(value) = options.options.get(name) else {
            // What an Exim does not have that is built without PROXY.
            if name != "hosts_proxy" {
                daemon.leave_out(name, MISSING);
            }
            continue;
        };
        if name == "smtp_reserve_hosts" && !value.is_empty() {
            let shown = setting(name, value);
            if options.get("smtp_accept_reserve") == "0" {
                daemon.leave_out(shown, "Exim reserves nothing for them: smtp_accept_reserve is 0");
                continue;
            }
            daemon.leave_out(
                shown,
                "smtp_accept_max_per_host applies to these hosts, too; here, an allowed source has no source limit",
            );
        }
        let action = if name == "host_reject_connection" { Action::Deny } else { Action::Allow };
        let from = format!("Exim: {name}");
        if items(value).last().is_some_and(|item| item.starts_with('!')) {
            daemon.leave_out(
                words::list_item(&from, value),
                "a list that ends with an exception also matches every other host: add rules for it",
            );
        }
        let hosts = Hosts::new(daemon, action, from);
        HostList { options, hosts, seen: BTreeSet::new() }.read(value);
    }
}

/// A host list on its way into rules.
struct HostList<'a> {
    options: &'a Options<'a>,
    hosts: Hosts<'a>,
    /// The named lists that were read: they may refer to each other.
    seen: BTreeSet<String>,
}

impl HostList<'_> {
    fn read(&mut self, list: &str) {
        if list.contains('$') {
            let why = "an expansion, which only Exim can compute: add rules for the networks";
            return self.hosts.leave_out(list, why);
        }
        for item in items(list) {
            self.item(&item);
        }
    }

    fn item(&mut self, item: &str) {
        if let Some(network) = net::parse(item) {
            return self.hosts.network(network);
        }
        if item.starts_with('!') {
            return self.hosts.exception(item);
        }
        if let Some(name) = item.strip_prefix('+')
            && let Some(list) = self.options.lists.get(name)
        {
            if self.seen.insert(name.to_owned()) {
                self.read(list);
            }
            return;
        }
        let why = match item.chars().next() {
            Some('+') => {
                "the list is not in the output of `exim -bP`: also give the output of `exim -bP +NAME`"
            }
            _ if item == "*" => "this matches every host: remove the limits instead",
            Some('@') => "local addresses are always allowed",
            _ => {
                "the limiter matches networks, not names or lookups: add rules for the networks of these hosts"
            }
        };
        self.hosts.leave_out(item, why);
    }
}

/// What bounds connections in a way the limiter does not.
fn others(options: &Options<'_>, daemon: &mut Daemon) {
    // With the values that mean nothing.
    for (name, nothing, why) in [
        ("acl_smtp_connect", "", "Exim keeps what this ACL does with connections, such as a ratelimit"),
        ("smtp_load_reserve", "", "the limiter does not look at the load: Exim keeps it"),
        ("smtp_accept_queue", "0", "this limits delivery, not connections: Exim keeps it"),
        ("smtp_ratelimit_hosts", "", "this slows commands inside a session: Exim keeps it"),
        (
            "smtp_connect_backlog",
            "20",
            "this limits connections that Exim has not accepted yet: the kernel \
                                        keeps it",
        ),
        ("smtp_accept_max_per_connection", "1000", "this counts messages inside a session: Exim keeps it"),
        ("smtp_accept_max_nonmail", "10", "this counts commands inside a session: Exim keeps it"),
    ] {
        let value = options.get(name);
        if !value.is_empty() && value != nothing {
            daemon.leave_out(setting(name, value), why);
        }
    }
    let shown = options.options.iter().filter(|(_, value)| value.contains("not displayable"));
    for (name, value) in shown.filter(|(name, _)| name.starts_with("smtp_") || HOST_LISTS.contains(*name)) {
        daemon.leave_out(setting(name, value), "only root sees it: run this as root");
    }
}

/// The items of a list: between colons, or what follows `<` at its beginning; a doubled one is a plain
/// one inside an item.
fn items(value: &str) -> Vec<String> {
    let value = value.trim();
    let (separator, value) = match value.strip_prefix('<').and_then(|rest| rest.chars().next()) {
        Some(char) if char.is_ascii_punctuation() => (char, &value[2..]),
        _ => (':', value),
    };
    let mut items = Vec::new();
    let mut item = String::new();
    let mut chars = value.chars().peekable();
    while let Some(char) = chars.next() {
        if char != separator {
            item.push(char);
        } else if chars.next_if_eq(&separator).is_some() {
            item.push(separator);
        } else {
            items.push(std::mem::take(&mut item));
        }
    }
    items.push(item);
    items.iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}
