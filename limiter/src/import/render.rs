// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The configuration as text: TOML, each key with where it came from above it.

use std::fmt::{self, Display};

use limiter_common::Protocol;

use super::{
    model::{Daemon, Import, Limit, Rule, Service, Sourced},
    words::one_line,
};
use crate::config::{self, CertificateFiles, is_hostname};

/// Longest line of a comment, in characters, if its words allow it.
const WIDTH: usize = 110;

impl fmt::Display for Import {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(out)?;
        for (index, (_, service)) in self.services.iter().enumerate() {
            // What the service is for the daemon, where the same name comes from two.
            write!(out, "{}{service}", if index == 0 { "" } else { "\n" })?;
        }
        self.moved(out)?;
        write_rules(out, &self.rules)?;
        let mut left_out = self.daemons.iter().flat_map(|daemon| &daemon.left_out).peekable();
        if left_out.peek().is_some() {
            writeln!(out)?;
            comment(out, "Not carried over:")?;
        }
        for daemon in &self.daemons {
            for item in &daemon.left_out {
                let setting = one_line(&item.setting);
                let from = format!("{}: ", daemon.name);
                let setting = setting.strip_prefix(&from).unwrap_or(&setting);
                bullet(out, &format!("{from}{setting}: {}", item.why))?;
            }
        }
        Ok(())
    }
}

impl Import {
    fn head(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self
            .daemons
            .iter()
            .map(|daemon| match &daemon.version {
                Some(version) => format!("{} {}", daemon.name, one_line(version)),
                None => daemon.name.to_owned(),
            })
            .collect();
        comment(out, &format!("limiter: imported from {} by `limiter import`.", names.join(" and ")))?;
        self.missing.iter().try_for_each(|missing| comment(out, missing))?;
        out.write_str("#\n")?;
        comment(
            out,
            "A comment above each value names its origin. No limit is stricter than the daemon's unless a \
             comment says so, with two differences: a client over max_total is refused, instead of waiting for \
             a free process; and an IPv6 source is a /64 by default, which is one customer, while the daemons \
             count each address (ipv6_prefix = 128 does that). A limit that import does not understand has no \
             number here. Services that are not listed here have the limiter's defaults.",
        )?;
        let mut hostnames = self.daemons.iter().filter_map(|daemon: &Daemon| daemon.hostname.as_ref());
        if let Some(hostname) = hostnames.find(|hostname| is_hostname(&hostname.value)) {
            writeln!(out)?;
            key(out, "hostname", &format!("\"{}\"", hostname.value), hostname)?;
        }
        writeln!(out)
    }

    /// The built-in services whose ports are in others now.
    fn moved(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for built_in in config::Config::default().services {
            if self.services.iter().any(|(_, service)| service.name == built_in.name) {
                continue;
            }
            let owner =
                |port: &u16| self.services.iter().find(|(_, service)| service.ports.value.contains(port));
            let left: Vec<u16> =
                built_in.ports.iter().copied().filter(|port| owner(port).is_none()).collect();
            if let Some((_, other)) = built_in.ports.iter().find_map(owner) {
                writeln!(out, "\n[service.{}]", built_in.name)?;
                comment(out, &format!("Moved to [service.{}].", other.name))?;
                writeln!(out, "ports = {left:?}")?;
            }
        }
        Ok(())
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
            rate,
            max_total,
            reserve,
            // What these are is said of max_connections and max_total.
            own: _,
        } = self;
        writeln!(out, "[service.{name}]")?;
        key(out, "ports", &format!("{:?}", ports.value), ports)?;
        if let Some(said) = tls_ports.as_ref().filter(|_| self.tls_ports() != self.default_tls_ports()) {
            key(out, "tls_ports", &format!("{:?}", self.tls_ports()), said)?;
        }
        if self.has_tls() {
            certificates(out, tls)?;
        }
        let protocol = match protocol {
            Protocol::Smtp => "smtp",
            Protocol::Imap => "imap",
            Protocol::Pop3 => "pop3",
            Protocol::Sieve => "sieve",
        };
        writeln!(out, "protocol = \"{protocol}\"")?;
        match max_connections.value {
            Limit::Of(number) => key(out, "max_connections", &number, max_connections)?,
            // `Service::fitted` has made a number of no limit.
            Limit::None | Limit::Unknown => {
                unknown(out, "max_connections", max_connections, |of| of.max_connections.to_string())?;
            }
        }
        for (name, prefix) in [("ipv4_prefix", ipv4_prefix), ("ipv6_prefix", ipv6_prefix)] {
            if let Some(prefix) = prefix {
                key(out, name, &prefix.value, prefix)?;
            }
        }
        if let Some(rate) = rate {
            key(out, "rate", &format!("\"{}/{}\"", rate.value.count, rate.value.unit), rate)?;
            writeln!(out, "burst = {}", rate.value.burst)?;
        }
        match max_total.value {
            Limit::Of(number) => key(out, "max_total", &number, max_total)?,
            Limit::None => key(out, "max_total", &"\"none\"", max_total)?,
            Limit::Unknown => unknown(out, "max_total", max_total, |_| "none".to_owned())?,
        }
        reserve.iter().try_for_each(|reserve| key(out, "reserve", &reserve.value, reserve))
    }
}

/// The one place where rules are written.
fn write_rules(out: &mut fmt::Formatter<'_>, rules: &[Rule]) -> fmt::Result {
    if rules.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    comment(
        out,
        "Networks that the daemons treat differently. A rule applies to all services, including those of the \
         other daemons; local addresses are allowed without a rule.",
    )?;
    for (index, Rule { network, action, source }) in rules.iter().enumerate() {
        let rule = config::Rule { comment: Some(one_line(source)), ..config::Rule::new(*network, *action) };
        write!(out, "{}{rule}", if index == 0 { "" } else { "\n" })?;
    }
    Ok(())
}

/// One certificate as a table, several as a list of tables.
fn certificates(out: &mut fmt::Formatter<'_>, tls: &[Sourced<CertificateFiles>]) -> fmt::Result {
    tls.iter().try_for_each(|files| sources(out, files))?;
    let files: Vec<String> = tls.iter().map(|files| files.value.to_string()).collect();
    match &files[..] {
        [] => Ok(()),
        [one] => writeln!(out, "tls = {one}"),
        several => writeln!(out, "tls = [{}]", several.join(", ")),
    }
}

fn key<T>(out: &mut fmt::Formatter<'_>, name: &str, value: &impl Display, from: &Sourced<T>) -> fmt::Result {
    sources(out, from)?;
    writeln!(out, "{name} = {value}")
}

/// A limit that the daemon has and that is not known: no number, and what holds instead.
fn unknown(
    out: &mut fmt::Formatter<'_>,
    name: &str,
    from: &Sourced<Limit>,
    default: impl Fn(&config::Service) -> String,
) -> fmt::Result {
    sources(out, from)?;
    let services = config::Config::default().services;
    let default = services.first().map(default).unwrap_or_default();
    comment(
        out,
        &format!(
            "Unknown, so there is no number here: set {name}. Until then the limiter's default applies: {default}."
        ),
    )
}

fn sources<T>(out: &mut fmt::Formatter<'_>, from: &Sourced<T>) -> fmt::Result {
    from.source.iter().filter(|line| !line.is_empty()).try_for_each(|line| comment(out, line))
}

/// A comment, over as many lines as it takes.
fn comment(out: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    wrapped(out, "# ", "# ", text)
}

/// A comment in a list.
fn bullet(out: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    wrapped(out, "# - ", "#   ", text)
}

fn wrapped(out: &mut fmt::Formatter<'_>, first: &str, others: &str, text: &str) -> fmt::Result {
    let mut line = first.to_owned();
    let words = text.split(|char: char| char.is_control() || char.is_whitespace());
    for word in words.filter(|word| !word.is_empty()) {
        let is_begun = line.len() > first.len();
        if is_begun && line.chars().count() + 1 + word.chars().count() > WIDTH {
            writeln!(out, "{line}")?;
            others.clone_into(&mut line);
        }
        if line.len() > first.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    writeln!(out, "{}", line.trim_end())
}
