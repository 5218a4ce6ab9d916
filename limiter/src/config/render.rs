// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The resolved configuration as text: TOML with every key, in one canonical form.
//!
//! Read again it yields the same configuration, so it can be shown to an administrator; and since
//! the same configuration always gives the same text, its fingerprint tells one from another.

use std::fmt;

use super::{
    Config, Network, RateWithBurst, Service,
    certificate_files::shown,
    check::{NONE, shown_duration},
};

impl fmt::Display for Config {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(hostname) = &self.hostname {
            writeln!(out, "hostname = \"{hostname}\"")?;
        }
        writeln!(out, "max_sources = {}", self.max_sources)?;
        writeln!(out, "remember_seconds = {}", self.remember_seconds)?;
        writeln!(out, "reconcile_seconds = {}", self.reconcile_seconds)?;
        writeln!(out, "interfaces = {}", self.interfaces)?;
        match &self.history {
            Some(history) => write!(out, "\n{history}")?,
            None => writeln!(out, "history = false")?,
        }
        write!(out, "\n{}", self.ladder)?;
        self.services.iter().try_for_each(|service| write!(out, "\n{service}"))?;
        self.rules.iter().try_for_each(|rule| write!(out, "\n{rule}"))
    }
}

impl fmt::Display for Service {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            ports,
            tls_ports,
            tls,
            protocol,
            max_connections,
            ipv4_prefix,
            ipv6_prefix,
            response,
            rate,
            network,
            max_total,
            reserve,
            keepalive,
            wait,
            mode,
            wording,
        } = self;
        writeln!(out, "[service.{name}]")?;
        writeln!(out, "ports = {ports:?}")?;
        writeln!(out, "tls_ports = {tls_ports:?}")?;
        writeln!(out, "tls = {}", shown(tls))?;
        writeln!(out, "protocol = \"{protocol}\"")?;
        writeln!(out, "mode = \"{mode}\"")?;
        writeln!(out, "max_connections = {max_connections}")?;
        writeln!(out, "ipv4_prefix = {ipv4_prefix}")?;
        writeln!(out, "ipv6_prefix = {ipv6_prefix}")?;
        writeln!(out, "response = \"{response}\"")?;
        match rate {
            Some(RateWithBurst { spec, burst }) => writeln!(out, "rate = \"{spec}\"\nburst = {burst}")?,
            None => writeln!(out, "rate = \"{NONE}\"")?,
        }
        match network {
            Some(network) => writeln!(out, "network = {network}")?,
            None => writeln!(out, "network = \"{NONE}\"")?,
        }
        if let Some(max_total) = max_total {
            writeln!(out, "max_total = {max_total}\nreserve = {reserve}")?;
        }
        let keepalive = keepalive.map_or_else(|| NONE.to_owned(), shown_duration);
        writeln!(out, "keepalive = \"{keepalive}\"")?;
        writeln!(out, "wait = \"{}\"", shown_duration((*wait).into()))?;
        writeln!(out, "{wording}")
    }
}

impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ipv4_prefix, ipv6_prefix, max_connections } = self;
        write!(
            out,
            "{{ ipv4_prefix = {ipv4_prefix}, ipv6_prefix = {ipv6_prefix}, max_connections = {max_connections} }}"
        )
    }
}

impl Config {
    /// What is neither a service nor a rule, by key; always the same keys, in the same order.
    #[must_use]
    pub fn rest(&self) -> Vec<(&'static str, String)> {
        let mut rest = vec![
            ("hostname", self.hostname.clone().unwrap_or_else(|| "the system's".to_owned())),
            ("max_sources", self.max_sources.to_string()),
            ("remember_seconds", self.remember_seconds.to_string()),
            ("reconcile_seconds", self.reconcile_seconds.to_string()),
            ("interfaces", self.interfaces.to_string()),
        ];
        rest.extend(self.ladder.keys());
        rest.extend(tls(&self.services));
        rest
    }

    /// A number that tells this configuration from another: FNV-1a, 64 bits, of its text.
    ///
    /// The same in every run and every build, until the limiter learns another key; so it can be
    /// stored with what was applied. Comments and layout of the file do not change it.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        // Offset basis and prime: draft-eastlake-fnv, "The FNV Non-Cryptographic Hash Algorithm".
        self.to_string().bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

/// What is said of TLS in all services, in two lines: of ports, and of certificates.
fn tls(services: &[Service]) -> [(&'static str, String); 2] {
    let of = |say: fn(&Service) -> Option<String>| {
        let said: Vec<String> = services
            .iter()
            .filter_map(|service| say(service).map(|what| format!("{} {what}", service.name)))
            .collect();
        if said.is_empty() { NONE.to_owned() } else { said.join(", ") }
    };
    let ports = |service: &Service| {
        let ports: Vec<String> = service.tls_ports.iter().map(u16::to_string).collect();
        (!ports.is_empty()).then(|| ports.join(" "))
    };
    let certificates = |service: &Service| {
        let files = service
            .tls
            .iter()
            .map(|files| format!("{} with {}", files.certificate.display(), files.key.display()));
        // Elsewhere it is not used.
        (!service.tls.is_empty() && !service.tls_ports.is_empty())
            .then(|| files.collect::<Vec<_>>().join(" and "))
    };
    [("tls_ports", of(ports)), ("tls", of(certificates))]
}
