// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Postfix: what `postconf` (with or without `-x` or `-n`), `postconf -M` and `postconf -P` print, one
//! after the other.
//!
//! What the text does not have is what Postfix has without being told, if `postconf -n` would not print
//! it. Postfix counts connections for each client and each service of master.cf (anvil's key is
//! `service:client`), which is what the limiter does.

mod output;

use limiter_common::{Protocol, rule::Action};

use self::output::{Master, Output, STRESS};
use super::{
    hosts::Hosts,
    model::{Daemon, Limit, OwnLimit, RateSpec, Scope, Service, Sourced, Unread},
    net, tls,
    words::{self, one_line, setting},
};

/// What it is called.
const NAME: &str = "Postfix";

/// Limits of what happens inside a session, and what they count.
const INSIDE: [(&str, &str); 4] = [
    ("smtpd_client_message_rate_limit", "messages"),
    ("smtpd_client_recipient_rate_limit", "recipients"),
    ("smtpd_client_auth_rate_limit", "AUTH commands"),
    ("smtpd_client_new_tls_session_rate_limit", "TLS handshakes"),
];

/// The name that the parameter of the exceptions had before 2.2.
const OLD_EXCEPTIONS: &str = "smtpd_client_connection_limit_exceptions";

/// Its name since.
const EXCEPTIONS: &str = "smtpd_client_event_limit_exceptions";

/// The limits in `text`.
///
/// # Errors
/// If it holds no settings of Postfix, or not all of them.
pub fn read(text: &str) -> Result<Daemon, Unread> {
    let output = Output::read(text);
    if !output.is_postfix() {
        return Err(Unread::Other);
    }
    if let Some(where_it_shows) = output.cut {
        return Err(Unread::Cut(where_it_shows));
    }
    let mut daemon = Daemon::new(NAME);
    daemon.version = output.given("", "mail_version").map(str::to_owned);
    daemon.configuration = output.given("", "config_directory").map(one_line);
    daemon.not_understood(&output.not_understood);
    if let Some(name) = output.value("", "myhostname") {
        daemon.hostname =
            Some(Sourced::new(name.clone(), format!("Postfix: {}", setting("myhostname", &name))));
    }
    if !output.has_main() {
        daemon.leave_out("main.cf", "the output of `postconf` is missing, so the limits are unknown");
    }
    if let Some(first) = output.begins_late() {
        daemon.leave_out(
            "main.cf",
            format!(
                "the text seems to lack its beginning, because no parameter comes before {first}: import uses \
                 Postfix's defaults for missing parameters"
            ),
        );
    }
    let masters = if output.masters.is_empty() {
        daemon.leave_out(
            "master.cf",
            "the output of `postconf -M` is missing, so import assumes only the service smtp",
        );
        vec![Master::smtp()]
    } else {
        output.masters.clone()
    };
    old_exceptions(&output, &mut daemon);
    for master in masters.iter().filter(|master| master.kind == "inet") {
        service(&output, master, &mut daemon);
    }
    if let Some(interfaces) = own_interfaces(&output) {
        daemon.leave_out(interfaces, "it listens on loopback only, and local addresses are always allowed");
    }
    Ok(daemon)
}

/// The old name of the exceptions: while it has a value, the default of the new one is empty.
fn old_exceptions(output: &Output, daemon: &mut Daemon) {
    let Some(value) = output.given("", OLD_EXCEPTIONS).filter(|value| !value.is_empty()) else { return };
    let why = format!(
        "the old name of {EXCEPTIONS}, whose default is empty while this is set: if {EXCEPTIONS} has no value, \
         Postfix exempts neither these networks nor mynetworks. Add a rule for these networks if needed"
    );
    daemon.leave_out(setting(OLD_EXCEPTIONS, value), why);
}

/// One service of master.cf that clients connect to.
fn service(output: &Output, master: &Master, daemon: &mut Daemon) {
    let Master { name, command, .. } = master;
    let what = format!("master.cf: {name} inet {command}");
    let (host, port_name) = match name.rsplit_once(':') {
        Some((host, port)) => (Some(host).filter(|host| !host.is_empty()), port),
        None => (None, name.as_str()),
    };
    if host.is_some_and(net::is_own_host) {
        return daemon.leave_out(what, "only this host can reach it, and local addresses are always allowed");
    }
    if let Some(disabled) = disabled(output, master) {
        return daemon.leave_out(format!("{what}, {disabled}"), "Postfix does not start it");
    }
    let is_postscreen = command == "postscreen";
    if command != "smtpd" && !is_postscreen {
        if host.is_none()
            && let Some(interfaces) = own_interfaces(output)
        {
            let why = "only this host can reach it, and local addresses are always allowed";
            return daemon.leave_out(format!("{what}, {interfaces}"), why);
        }
        return daemon.leave_out(what, "it is not a mail service of Postfix itself: add a [service] for it");
    }
    let Some(port) = words::port(port_name) else {
        return daemon
            .leave_out(what, format!("the port of {port_name} is unknown here: add it to the service"));
    };
    if output.without_options.contains(&master.service_id()) {
        daemon.leave_out(
            format!("{what} -o …"),
            "import does not understand the options after the program, so its limits are unknown: also give \
             the output of `postconf -P`",
        );
    }
    let mut of = Of { output, name, daemon };
    let ipv4_prefix = of.prefix("smtpd_client_ipv4_prefix_length");
    let ipv6_prefix = of.prefix("smtpd_client_ipv6_prefix_length");
    let mut service = Service {
        name: words::smtp_name(port),
        ports: Sourced::new(vec![port], format!("Postfix: {what}")),
        tls_ports: None,
        tls: Vec::new(),
        protocol: Protocol::Smtp,
        max_connections: Sourced::new(Limit::None, ""),
        ipv4_prefix,
        ipv6_prefix,
        rate: None,
        max_total: Sourced::new(Limit::None, ""),
        reserve: None,
        own: Vec::new(),
    };
    of.tls(port, &mut service);
    if is_postscreen {
        of.behind_postscreen(&mut service);
    } else {
        of.smtpd(master, &mut service);
    }
    daemon.services.push(service);
}

/// The setting by which services without an address are for this host itself alone.
fn own_interfaces(output: &Output) -> Option<String> {
    let value = output.value("", "inet_interfaces")?;
    let mut hosts = value.split([',', ' ', '\t']).filter(|host| !host.is_empty()).peekable();
    let is_local = |host: &str| host.eq_ignore_ascii_case("loopback-only") || net::is_own_host(host);
    (hosts.peek().is_some() && hosts.all(is_local)).then(|| setting("inet_interfaces", &value))
}

/// The setting by which Postfix does not start a service: `smtp/inet`, `smtp.inet` or `inet`, and
/// exceptions before them.
fn disabled(output: &Output, master: &Master) -> Option<String> {
    let parameter = "master_service_disable";
    let value = output.value("", parameter)?;
    let Master { name, kind, .. } = master;
    for item in value.split([',', ' ', '\t']).filter(|item| !item.is_empty()) {
        let (pattern, is_exception) = match item.strip_prefix('!') {
            Some(pattern) => (pattern, true),
            None => (item, false),
        };
        if pattern == kind || pattern == format!("{name}/{kind}") || pattern == format!("{name}.{kind}") {
            return (!is_exception).then(|| setting(parameter, &value));
        }
    }
    None
}

/// A parameter, as master.cf or main.cf has it.
fn shown(output: &Output, name: &str, parameter: &str, value: &str) -> String {
    let setting = setting(parameter, value);
    match output.given(name, parameter) {
        Some(_) => format!("master.cf: {name} -o {setting}"),
        None if output.given("", parameter).is_some() => setting,
        None if !output.has_main() => format!("{parameter} is not in the text"),
        None => format!("{setting} (its default)"),
    }
}

/// The number in master.cf.
fn maxproc(master: &Master) -> String {
    format!("maxproc of {} in master.cf", one_line(&master.name))
}

/// A service on its way into the model.
struct Of<'a> {
    output: &'a Output,
    /// Under what the output has its parameters.
    name: &'a str,
    daemon: &'a mut Daemon,
}

impl Of<'_> {
    fn shown(&self, parameter: &str, value: &str) -> String {
        shown(self.output, self.name, parameter, value)
    }

    /// Names a setting whose value is not known, and returns it as it is written.
    fn not_known(&mut self, parameter: &str) -> String {
        let raw = self.output.raw(self.name, parameter).unwrap_or_default();
        let shown = self.shown(parameter, raw);
        let mut why = "only Postfix can compute it: give the output of `postconf -x`".to_owned();
        if raw.contains(STRESS) {
            why.push_str(", which has the value for Postfix without stress");
        }
        self.daemon.leave_out(shown.clone(), why);
        shown
    }

    /// A limit, 0 being none, and the setting it is. What is no number is not known.
    fn limit(&mut self, parameter: &str) -> (Limit, String) {
        let Some(value) = self.output.value(self.name, parameter) else {
            return (Limit::Unknown, self.not_known(parameter));
        };
        let shown = self.shown(parameter, &value);
        if self.output.without_options.iter().any(|service_id| service_id == self.name) {
            return (Limit::Unknown, shown);
        }
        let limit = value.parse().map_or(Limit::Unknown, Limit::or_none);
        if limit == Limit::Unknown {
            self.daemon.leave_out(shown.clone(), "this is not a number, so the limit is unknown");
        }
        (limit, shown)
    }

    /// How much of an address makes a client, since 3.8.
    fn prefix(&mut self, parameter: &str) -> Option<Sourced<u64>> {
        // Before 3.8 each address is a client.
        self.output.raw(self.name, parameter)?;
        match self.limit(parameter) {
            (Limit::Of(bits), shown) => Some(Sourced::new(bits, format!("Postfix: {shown}"))),
            (Limit::None | Limit::Unknown, shown) => {
                self.daemon
                    .leave_out(shown, "this is not a valid prefix length, so the limiter's default applies");
                None
            }
        }
    }

    /// Whether TLS starts at once, and with which certificates.
    fn tls(&mut self, port: u16, service: &mut Service) {
        if self.output.without_options.iter().any(|service_id| service_id == self.name) {
            return;
        }
        let parameter = "smtpd_tls_wrappermode";
        if let Some(value) = self.output.value(self.name, parameter) {
            let ports = if value == "yes" { vec![port] } else { Vec::new() };
            let shown = self.shown(parameter, &value);
            service.tls_ports = Some(Sourced::new(ports, format!("Postfix: {shown}")));
        }
        let value = |parameter: &str| {
            let value = self.output.value(self.name, parameter).filter(|value| !value.is_empty())?;
            Some((self.shown(parameter, &value), value))
        };
        let mut found: Vec<(String, String, String)> = Vec::new();
        if let Some((shown, files)) = value("smtpd_tls_chain_files") {
            let mut files = files.split([',', ' ', '\t']).filter(|file| !file.is_empty());
            // Of several files each may be of a key, of a certificate, or of both.
            let file = match (files.next(), files.next()) {
                (Some(file), None) => file.to_owned(),
                _ => String::from("several files"),
            };
            found.push((file.clone(), file, shown));
        } else {
            for (certificate, key) in [
                ("smtpd_tls_cert_file", "smtpd_tls_key_file"),
                ("smtpd_tls_eccert_file", "smtpd_tls_eckey_file"),
            ] {
                let Some((shown, file)) = value(certificate).filter(|(_, file)| file != "none") else {
                    continue;
                };
                match value(key) {
                    Some((shown_key, key)) => found.push((file, key, format!("{shown}, {shown_key}"))),
                    None => found.push((file.clone(), file, shown)),
                }
            }
        }
        for (certificate, key, shown) in found {
            service.tls.extend(tls::certificate(self.daemon, service, (&certificate, &key), &shown));
        }
    }

    fn smtpd(mut self, master: &Master, service: &mut Service) {
        let (limit, shown) = self.limit("smtpd_client_connection_count_limit");
        service.max_connections = Sourced::new(limit, format!("Postfix: {shown}"));
        if limit == Limit::None {
            service.max_connections.note("Postfix has no limit for one client.");
        }
        service.max_total = self.total(master);
        service.own = vec![
            OwnLimit::new("smtpd_client_connection_count_limit", limit, Scope::Source),
            OwnLimit::new(
                if master.processes == "-" { "default_process_limit".to_owned() } else { maxproc(master) },
                service.max_total.value,
                Scope::Service,
            ),
        ];
        service.rate = self.rate();
        self.exceptions();
        for (parameter, what) in INSIDE {
            let (limit, shown) = self.limit(parameter);
            if limit != Limit::None {
                let why = format!(
                    "it counts {what} inside a session, which the limiter does not see: Postfix keeps it"
                );
                self.daemon.leave_out(shown, why);
            }
        }
        self.proxy("smtpd_upstream_proxy_protocol");
    }

    /// Each process of smtpd serves one connection.
    fn total(&mut self, master: &Master) -> Sourced<Limit> {
        let Master { name, processes, .. } = master;
        if processes == "-" {
            let (limit, shown) = self.limit("default_process_limit");
            return Sourced::new(limit, format!("Postfix: {shown} (maxproc of {name} in master.cf is -)"));
        }
        let limit = processes.parse().map_or(Limit::Unknown, Limit::or_none);
        let shown = format!("master.cf: {name} has maxproc {}", one_line(processes));
        let mut total = Sourced::new(limit, format!("Postfix: {shown}"));
        match limit {
            Limit::None => total.note("So the service as a whole has no limit."),
            Limit::Of(_) => {}
            Limit::Unknown => self.daemon.leave_out(shown, "this is not a number, so the limit is unknown"),
        }
        total
    }

    fn rate(&mut self) -> Option<Sourced<RateSpec>> {
        let (Limit::Of(count), shown) = self.limit("smtpd_client_connection_rate_limit") else { return None };
        let parameter = "anvil_rate_time_unit";
        let Some(unit) = self.output.value(self.name, parameter) else {
            self.not_known(parameter);
            return None;
        };
        let time = setting(parameter, &unit);
        let Some(spec) = seconds(&unit).and_then(|seconds| RateSpec::of(count, seconds)) else {
            self.daemon.leave_out(format!("{shown}, {time}"), "the limiter cannot hold this rate");
            return None;
        };
        let mut rate = Sourced::new(spec, format!("Postfix: {shown}, {time}"));
        if !spec.exact {
            rate.note("This exact rate is not possible: it is the next higher one.");
        }
        rate.note(
            "Postfix starts a new count after each period; here connections become available one by one.",
        );
        Some(rate)
    }

    /// The clients whose connections are not limited.
    fn exceptions(&mut self) {
        let Some(value) = self.output.value(self.name, EXCEPTIONS) else {
            self.not_known(EXCEPTIONS);
            return;
        };
        let mut from = EXCEPTIONS.to_owned();
        if self.output.given(self.name, EXCEPTIONS).is_some() {
            from = format!("master.cf: {} -o {EXCEPTIONS}", self.name);
        } else if self.output.value(self.name, "mynetworks").is_some_and(|networks| networks == value) {
            from.push_str(", which is mynetworks");
        }
        let mut hosts = Hosts::new(self.daemon, Action::Allow, format!("Postfix: {from}"));
        for pattern in value.split([',', ' ', '\t']).filter(|pattern| !pattern.is_empty()) {
            if pattern.starts_with('!') {
                hosts.exception(pattern);
                continue;
            }
            let why = if let Some(network) = net::parse(pattern) {
                if net::is_without_host_bits(pattern) {
                    hosts.network(network);
                    continue;
                }
                "it has bits set after its prefix, so Postfix does not accept it as a network"
            } else if pattern.starts_with('/') || pattern.contains(':') {
                "the limiter does not read Postfix tables: add rules for the networks in it"
            } else {
                "the limiter matches addresses, not names: add rules for the networks of these hosts"
            };
            hosts.leave_out(pattern, why);
        }
    }

    /// Postscreen holds the connections of all clients in one process, and hands the good ones on.
    fn behind_postscreen(mut self, service: &mut Service) {
        let (limit, shown) = self.limit("postscreen_client_connection_count_limit");
        service.max_connections = Sourced::new(limit, format!("Postfix: {shown}"));
        if limit == Limit::None {
            service.max_connections.note("Postfix has no limit for one client.");
        }
        service.own = vec![OwnLimit::new("postscreen_client_connection_count_limit", limit, Scope::Source)];
        service.max_total.note("Postfix: postscreen holds the connections of all clients in one process.");
        for parameter in ["postscreen_pre_queue_limit", "postscreen_post_queue_limit"] {
            let (limit, shown) = self.limit(parameter);
            if limit != Limit::None {
                let why = "it limits connections that postscreen still holds, which the limiter cannot tell \
                           from the others: Postfix keeps it";
                self.daemon.leave_out(shown, why);
            }
        }
        for master in self.output.masters.iter().filter(|master| master.kind == "pass") {
            self.handed_on(master, limit);
        }
        self.proxy("postscreen_upstream_proxy_protocol");
    }

    /// What an smtpd limits of the connections that postscreen hands on.
    fn handed_on(&mut self, master: &Master, of_postscreen: Limit) {
        let Master { name, processes, command, .. } = master;
        self.daemon.leave_out(
            format!("master.cf: {name} pass {command}, maxproc {processes}"),
            "it limits connections that postscreen has passed on, which the limiter cannot tell from the others: Postfix keeps it",
        );
        let service_id = master.service_id();
        let mut handed_on = Of { output: self.output, name: &service_id, daemon: self.daemon };
        let parameters = ["smtpd_client_connection_count_limit", "smtpd_client_connection_rate_limit"];
        for parameter in parameters {
            let (limit, shown) = handed_on.limit(parameter);
            if limit != Limit::None && limit != of_postscreen {
                handed_on.daemon.leave_out(
                    shown,
                    "behind postscreen it counts only connections that postscreen has passed on: Postfix keeps \
                     it",
                );
            }
        }
    }

    fn proxy(&mut self, parameter: &str) {
        let proxy = self.output.value(self.name, parameter);
        if let Some(proxy) = proxy.filter(|proxy| !proxy.is_empty()) {
            let shown = self.shown(parameter, &proxy);
            self.daemon.is_behind_proxy(shown.clone());
            self.daemon.leave_out(shown, BEHIND_PROXY);
        }
    }
}

/// What is to be done about a proxy.
const BEHIND_PROXY: &str =
    "connections come from a proxy, which the limiter counts as the client: allow its address";

/// A time of Postfix in seconds.
fn seconds(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}
