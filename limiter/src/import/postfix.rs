//! Postfix: what `postconf` (with or without `-x` or `-n`), `postconf -M` and `postconf -P` print, one
//! after the other.
//!
//! Postfix counts connections for each client and each service of master.cf (anvil's key is
//! `service:client`), which is what the limiter does.

mod output;

use limiter_common::{Protocol, rule::Action};

use self::output::{Master, Output};
use super::{
    model::{Daemon, Pace, Service, Sourced},
    net,
    words::{self, setting},
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

/// The limits in `text`; `None` if it holds no settings of Postfix.
pub fn read(text: &str) -> Option<Daemon> {
    let output = Output::read(text);
    if !output.is_postfix() {
        return None;
    }
    let mut daemon = Daemon::new(NAME);
    daemon.version = output.given("", "mail_version").map(str::to_owned);
    if let Some(name) = output.value(None, "myhostname") {
        daemon.hostname =
            Some(Sourced::new(name.clone(), format!("Postfix: {}", setting("myhostname", &name))));
    }
    let masters = if output.masters.is_empty() {
        daemon.leave_out(
            "master.cf",
            "the output of `postconf -M` is missing, so only the service smtp is taken for granted",
        );
        vec![Master::smtp()]
    } else {
        output.masters.clone()
    };
    for master in masters.iter().filter(|master| master.kind == "inet") {
        service(&output, master, &mut daemon);
    }
    if let Some(value) = output.value(None, "inet_interfaces").filter(|value| value == "loopback-only") {
        daemon.leave_out(
            setting("inet_interfaces", &value),
            "it listens on loopback only: only this host itself comes in, which is allowed anyway",
        );
    }
    Some(daemon)
}

/// One service of master.cf that clients connect to.
fn service(output: &Output, master: &Master, daemon: &mut Daemon) {
    let Master { name, command, .. } = master;
    let what = format!("master.cf: {name} inet {command}");
    let is_postscreen = command == "postscreen";
    if command != "smtpd" && !is_postscreen {
        return daemon
            .leave_out(what, "it is no mail service of Postfix itself: give it a [service] by hand");
    }
    let (host, port_name) = match name.rsplit_once(':') {
        Some((host, port)) => (Some(host), port),
        None => (None, name.as_str()),
    };
    if host.is_some_and(net::is_own_host) {
        return daemon.leave_out(what, "only this host itself reaches it, which is allowed anyway");
    }
    let Some(port) = words::port(port_name) else {
        return daemon.leave_out(what, format!("the port of {port_name} is not known here: give it by hand"));
    };
    if master.has_options && !output.has_overrides(name) {
        daemon.leave_out(
            format!("{what} -o …"),
            "the output of `postconf -P` is missing, which has what -o says",
        );
    }
    let mut service = Service {
        name: words::smtp_name(port),
        ports: Sourced::new(vec![port], format!("Postfix: {what}")),
        protocol: Protocol::Smtp,
        max_connections: Sourced::new(0, ""),
        ipv4_prefix: prefix(output, name, "smtpd_client_ipv4_prefix_length"),
        ipv6_prefix: prefix(output, name, "smtpd_client_ipv6_prefix_length"),
        rate: None,
        max_total: Sourced::new(0, ""),
        reserve: None,
    };
    let of = Of { output, name, daemon };
    if is_postscreen {
        of.behind_postscreen(&mut service);
    } else {
        of.smtpd(master, &mut service);
    }
    daemon.services.push(service);
}

fn prefix(output: &Output, name: &str, parameter: &str) -> Option<Sourced<u64>> {
    let value = output.value(Some(name), parameter)?;
    Some(Sourced::new(value.parse().ok()?, format!("Postfix: {}", shown(output, name, parameter, &value))))
}

/// A parameter, as master.cf or main.cf has it.
fn shown(output: &Output, name: &str, parameter: &str, value: &str) -> String {
    let setting = setting(parameter, value);
    match output.given(name, parameter) {
        Some(_) => format!("master.cf: {name} -o {setting}"),
        None if output.given("", parameter).is_some() => setting,
        None => format!("{setting} (its default)"),
    }
}

/// A service on its way into the model.
struct Of<'a> {
    output: &'a Output,
    name: &'a str,
    daemon: &'a mut Daemon,
}

impl Of<'_> {
    fn shown(&self, parameter: &str, value: &str) -> String {
        shown(self.output, self.name, parameter, value)
    }

    /// A number, and the setting it is; what is no number is left out, and 0.
    fn number(&mut self, parameter: &str) -> (u64, String) {
        let Some(value) = self.output.value(Some(self.name), parameter) else {
            let raw = self.output.raw(self.name, parameter).unwrap_or_default().to_owned();
            let shown = self.shown(parameter, &raw);
            self.daemon
                .leave_out(shown.clone(), "only Postfix can compute it: give the output of `postconf -x`");
            return (0, shown);
        };
        let shown = self.shown(parameter, &value);
        let number = value.parse().unwrap_or_else(|_| {
            self.daemon.leave_out(shown.clone(), "this is no number");
            0
        });
        (number, shown)
    }

    fn smtpd(mut self, master: &Master, service: &mut Service) {
        let (limit, shown) = self.number("smtpd_client_connection_count_limit");
        service.max_connections = Sourced::new(limit, format!("Postfix: {shown}"));
        if limit == 0 {
            service.max_connections.note("Postfix has no limit for one client.");
        }
        service.max_total = self.total(master);
        service.rate = self.rate();
        self.exceptions();
        for (parameter, what) in INSIDE {
            let (limit, shown) = self.number(parameter);
            if limit != 0 {
                let why = format!(
                    "it counts {what} inside a session, which the limiter does not see: Postfix keeps it"
                );
                self.daemon.leave_out(shown, why);
            }
        }
        let proxy = self.output.value(Some(self.name), "smtpd_upstream_proxy_protocol");
        if let Some(proxy) = proxy.filter(|proxy| !proxy.is_empty()) {
            let shown = self.shown("smtpd_upstream_proxy_protocol", &proxy);
            self.daemon.leave_out(shown, BEHIND_PROXY);
        }
    }

    /// Each process of smtpd serves one connection.
    fn total(&mut self, master: &Master) -> Sourced<u64> {
        let Master { name, processes, .. } = master;
        if processes == "-" {
            let (limit, shown) = self.number("default_process_limit");
            return Sourced::new(limit, format!("Postfix: {shown} (maxproc of {name} in master.cf is -)"));
        }
        let limit = processes.parse().unwrap_or(0);
        let mut total = Sourced::new(limit, format!("Postfix: master.cf: {name} has maxproc {processes}"));
        if limit == 0 {
            total.note("So there is no limit for all of the service.");
        }
        total
    }

    fn rate(&mut self) -> Option<Sourced<Pace>> {
        let (count, shown) = self.number("smtpd_client_connection_rate_limit");
        if count == 0 {
            return None;
        }
        let unit = self.output.value(Some(self.name), "anvil_rate_time_unit").unwrap_or_default();
        let time = setting("anvil_rate_time_unit", &unit);
        let Some(pace) = seconds(&unit).and_then(|seconds| Pace::of(count, seconds)) else {
            self.daemon.leave_out(format!("{shown}, {time}"), "this is no rate the limiter can hold");
            return None;
        };
        let mut rate = Sourced::new(pace, format!("Postfix: {shown}, {time}"));
        if !pace.exact {
            rate.note("There is no word for exactly this: it is the next higher rate.");
        }
        rate.note("Postfix starts to count anew after each such time; here places come back one by one.");
        Some(rate)
    }

    /// The clients whose connections are not limited.
    fn exceptions(&mut self) {
        let parameter = "smtpd_client_event_limit_exceptions";
        let Some(value) = self.output.value(Some(self.name), parameter) else {
            let raw = self.output.raw(self.name, parameter).unwrap_or_default().to_owned();
            let shown = self.shown(parameter, &raw);
            return self
                .daemon
                .leave_out(shown, "only Postfix can compute it: give the output of `postconf -x`");
        };
        let mut from = parameter.to_owned();
        if self.output.given(self.name, parameter).is_some() {
            from = format!("master.cf: {} -o {parameter}", self.name);
        } else if self.output.value(Some(self.name), "mynetworks").is_some_and(|networks| networks == value) {
            from.push_str(", which is mynetworks");
        }
        let from = format!("Postfix: {from}");
        for pattern in value.split([',', ' ', '\t']).filter(|pattern| !pattern.is_empty()) {
            if let Some(network) = net::parse(pattern) {
                self.daemon.rule(network, Action::Allow, &from);
                continue;
            }
            let why = if pattern.starts_with('!') {
                "an exception from the exceptions: give it a rule with the limits of the service by hand"
            } else if pattern.starts_with('/') || pattern.contains(':') {
                "the limiter reads no tables of Postfix: give the networks in it by hand"
            } else {
                "the limiter knows addresses, no names: give the networks of these hosts by hand"
            };
            self.daemon.leave_out(format!("{from}: {pattern}"), why);
        }
    }

    /// Postscreen holds the connections of all clients in one process, and hands the good ones on.
    fn behind_postscreen(mut self, service: &mut Service) {
        let (limit, shown) = self.number("postscreen_client_connection_count_limit");
        service.max_connections = Sourced::new(limit, format!("Postfix: {shown}"));
        for master in self.output.masters.iter().filter(|master| master.kind == "pass") {
            let Master { name, processes, command, .. } = master;
            self.daemon.leave_out(
                format!("master.cf: {name} pass {command}, maxproc {processes}"),
                "it limits what postscreen lets through, which the limiter cannot tell from the rest: Postfix keeps it",
            );
        }
        let (rate, shown) = self.number("smtpd_client_connection_rate_limit");
        if rate != 0 {
            self.daemon.leave_out(
                shown,
                "behind postscreen it counts only what postscreen lets through: Postfix keeps it",
            );
        }
        let parameter = "postscreen_upstream_proxy_protocol";
        if let Some(proxy) = self.output.value(Some(self.name), parameter).filter(|proxy| !proxy.is_empty()) {
            self.daemon.leave_out(setting(parameter, &proxy), BEHIND_PROXY);
        }
    }
}

/// What is to be done about a proxy.
const BEHIND_PROXY: &str =
    "connections come from a proxy, which the limiter takes for the client: allow its address";

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
