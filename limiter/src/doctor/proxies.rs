// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Connections that come for others: through a proxy, which then is what the limiter counts.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;
use limiter_common::{Action, Key, ServiceId};

use super::{Context, Outcome, instance::not_loaded, outcome::or_good};
use crate::{config, evidence::Listening, evidence::Running, instance::Instance, kernel::Tables, policy};

/// The PROXY protocol, by which a proxy says who the client is.
pub fn protocol(context: &Context) -> Vec<Outcome> {
    if !context.sees_network {
        return vec![Outcome::unknown(context.not_seen())];
    }
    let tables = context.tables().and_then(Result::ok);
    let is_allowed = |network: &IpNet| {
        tables
            .as_ref()
            .is_some_and(|tables| tables.policy.is_allowed(&config::network(network)).unwrap_or_default())
    };
    judge_protocol(&context.instance, context.mail(), is_allowed)
}

fn judge_protocol(
    instance: &Instance,
    running: &[Running],
    is_allowed: impl Fn(&IpNet) -> bool,
) -> Vec<Outcome> {
    let mut found = Vec::new();
    for Running { name, settings, .. } in running {
        let Ok(settings) = settings else { continue };
        if settings.proxied.is_empty() {
            continue;
        }
        let rules = settings.rules.iter().filter(|rule| rule.action == Action::Allow);
        let proxies: Vec<IpNet> =
            rules.filter(|rule| rule.source.contains("prox")).map(|rule| rule.network).collect();
        let sentence = format!(
            "{name} learns the clients from a proxy ({}), and limiter does not: it counts the proxy as one client; allow \
             the proxy, and limit its clients there",
            settings.proxied.join("; ")
        );
        found.push(match proxies.as_slice() {
            [] => Outcome::warning(sentence),
            proxies if proxies.iter().all(&is_allowed) => Outcome::note(format!("{sentence}; it is allowed")),
            proxies => {
                let proxies: Vec<String> = proxies.iter().map(ToString::to_string).collect();
                let allow = format!("{} allow {} --save", instance.program(), proxies.join(" "));
                Outcome::warning(sentence).mended_by(allow)
            }
        });
    }
    let unknown = running.iter().filter(|running| running.settings.is_err()).count();
    or_good(
        found,
        if unknown == 0 {
            "no mail daemon that listens speaks the PROXY protocol".to_owned()
        } else {
            "no mail daemon whose settings are known speaks the PROXY protocol".to_owned()
        },
    )
}

/// The connections of a service, and of the source that holds most of them.
#[derive(Debug)]
struct Share {
    service: String,
    total: u64,
    /// The source, and how many it holds.
    top: (Key, u64),
    /// Whether a rule allows it, so that it is expected.
    is_allowed: bool,
    /// The process of a proxy for containers that listens there.
    userland: Option<String>,
}

/// Below so many connections nothing is said.
const FEW: u64 = 10;

/// Processes that take connections for containers, and hand them on under an address of their own.
const USERLAND: [&str; 5] = ["docker-proxy", "rootlessport", "slirp4netns", "pasta", "pasta.avx2"];

/// One address with most connections.
pub fn sources(context: &Context) -> Vec<Outcome> {
    let Some(tables) = context.tables() else { return not_loaded() };
    match tables.and_then(|tables| shares(context, &tables).map_err(|problem| format!("{problem:#}"))) {
        Ok(shares) => judge_sources(&context.instance, &shares),
        Err(problem) => vec![Outcome::unknown(problem)],
    }
}

fn shares(context: &Context, tables: &Tables) -> anyhow::Result<Vec<Share>> {
    let mut of_services: HashMap<u8, (u64, Option<(Key, u64)>)> = HashMap::new();
    tables.each_source(|key, entry| {
        let connections = u64::from(entry.count.connections());
        if key.is_network() || connections == 0 {
            return;
        }
        let (total, top) = of_services.entry(key.service).or_default();
        *total += connections;
        if top.is_none_or(|(_, most)| connections > most) {
            *top = Some((key, connections));
        }
    })?;
    let services = tables.policy.services()?;
    let listening = context.listening().unwrap_or_default();
    let mut found = Vec::new();
    for (id, (total, top)) in of_services {
        let Some(top) = top else { continue };
        let service = policy::service_name(&services, ServiceId(id));
        let rule = tables.policy.rule_match(&top.0.addr, ServiceId(id))?;
        let ports = context.services.iter().find(|known| known.name == service).map(|known| &known.ports);
        let is_there = |one: &&Listening| ports.is_some_and(|ports| ports.contains(&one.listener.port));
        let processes = listening.iter().filter(is_there).filter_map(|one| one.process.as_ref());
        let userland =
            processes.map(|process| process.name.clone()).find(|name| USERLAND.contains(&name.as_str()));
        found.push(Share { service, total, top, is_allowed: rule.action == Action::Allow, userland });
    }
    found.sort_by(|a, b| a.service.cmp(&b.service));
    Ok(found)
}

/// What an address says of who has it.
fn kind(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) if v4.is_private() => Some("a private address (RFC 1918)"),
        // RFC 6598.
        IpAddr::V4(v4) if v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64 => {
            Some("an address of a carrier's translator (RFC 6598)")
        }
        // RFC 8215: a network may choose any prefix in it for its translator.
        IpAddr::V6(v6) if v6.segments()[..3] == [0x64, 0xff9b, 1] => {
            Some("IPv4 clients behind a translator (NAT64, RFC 8215)")
        }
        IpAddr::V6(v6) if v6.is_unique_local() => Some("a private address (RFC 4193)"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

fn judge_sources(instance: &Instance, shares: &[Share]) -> Vec<Outcome> {
    let found: Vec<Outcome> = shares.iter().filter_map(|share| judge_share(instance, share)).collect();
    or_good(found, "no source holds most connections of a service")
}

fn judge_share(instance: &Instance, share: &Share) -> Option<Outcome> {
    let Share { service, total, top: (key, connections), is_allowed, userland } = share;
    let address = key.addr.to_ip();
    if *total < FEW || connections * 2 <= *total || *is_allowed || address.is_loopback() {
        return None;
    }
    let source = key.addresses();
    let most = format!("{service}: {connections} of {total} connections come from {source}");
    let allow = format!("{} allow {address} --save", instance.program());
    Some(match (userland, kind(address)) {
        (Some(proxy), _) => Outcome::warning(format!(
            "{most}, and {proxy} listens there: it hides the clients of a container, so all of them are one source; \
             switch it off (Docker: \"userland-proxy\": false in /etc/docker/daemon.json), or protect the network \
             namespace of the container"
        )),
        (None, Some("IPv4 clients behind a translator (NAT64, RFC 8215)")) => Outcome::warning(format!(
            "{most}: IPv4 clients behind a translator (NAT64, RFC 8215), which count as one source; a rule for its \
             prefix with source_prefix = 128 in the configuration file makes each client one"
        )),
        (None, Some(kind)) => Outcome::warning(format!(
            "{most}, {kind}: a proxy, a gateway, webmail or a container bridge in front of many people counts as one \
             source; allow it if it is yours"
        ))
        .mended_by(allow),
        (None, None) => Outcome::note(format!("{most}: many people behind one address, or one client in a loop"))
            .mended_by(format!("{} explain {address}", instance.program())),
    })
}

#[cfg(test)]
mod tests {
    use limiter_common::{Addr, CountKeys, Scope};

    use super::*;
    use crate::{config::Config, doctor::Grade, import::Daemon};

    fn instance() -> Instance {
        "mail".parse().unwrap()
    }

    fn share(address: &str, connections: u64, total: u64) -> Share {
        let address = Addr::from(address.parse::<IpAddr>().unwrap());
        let policy = Config::default().services[0].policy();
        let key = CountKeys::new(ServiceId(1), &policy, Scope::SERVICES, &address).source;
        Share {
            service: "imap".to_owned(),
            total,
            top: (key, connections),
            is_allowed: false,
            userland: None,
        }
    }

    #[test]
    fn a_source_with_most_connections_is_judged_by_its_address() {
        let grade = |share: Share| judge_sources(&instance(), &[share])[0].grade;
        assert_eq!(grade(share("203.0.113.7", 9, 9)), Grade::Good, "few");
        assert_eq!(grade(share("203.0.113.7", 10, 20)), Grade::Good, "half");
        assert_eq!(grade(share("203.0.113.7", 11, 20)), Grade::Note);
        for private in ["10.0.0.5", "172.17.0.1", "100.64.0.1", "fd00::5", "64:ff9b:1::c633:6407"] {
            assert_eq!(grade(share(private, 11, 20)), Grade::Warning, "{private}");
        }
        assert_eq!(grade(Share { is_allowed: true, ..share("10.0.0.5", 11, 20) }), Grade::Good);
        assert_eq!(grade(share("127.0.0.1", 11, 20)), Grade::Good);
    }

    #[test]
    fn what_it_may_be_is_said_with_what_mends_it() {
        let said = |share: Share| judge_sources(&instance(), &[share]).remove(0);
        let private = said(share("10.0.0.5", 11, 20));
        assert!(private.sentence.starts_with("imap: 11 of 20 connections come from 10.0.0.5"), "{private:?}");
        assert_eq!(private.command.as_deref(), Some("limiter --instance mail allow 10.0.0.5 --save"));
        let docker = said(Share { userland: Some("docker-proxy".to_owned()), ..share("172.17.0.1", 11, 20) });
        assert!(docker.sentence.contains("docker-proxy") && docker.command.is_none(), "{docker:?}");
        let nat64 = said(share("64:ff9b:1::c633:6407", 11, 20));
        assert!(nat64.sentence.contains("source_prefix = 128"), "{nat64:?}");
    }

    #[test]
    fn a_proxy_that_says_who_the_client_is_is_to_be_allowed() {
        let judged = |settings, is_allowed| {
            let running = Running { name: "Dovecot", ports: vec![143], settings };
            judge_protocol(&instance(), &[running], |_| is_allowed)
        };
        let mut settings = Daemon::new("Dovecot");
        let said = judged(Ok(settings.clone()), false);
        assert_eq!(said[0].grade, Grade::Good);
        settings.is_behind_proxy("haproxy = yes");
        let said = judged(Ok(settings.clone()), false);
        assert_eq!((said[0].grade, said[0].command.as_deref()), (Grade::Warning, None));
        settings.rule("192.0.2.9/32".parse().unwrap(), Action::Allow, "Dovecot: haproxy_trusted_networks");
        settings.rule("192.0.2.8/32".parse().unwrap(), Action::Allow, "Dovecot: login_trusted_networks");
        let said = judged(Ok(settings.clone()), false);
        assert_eq!(said[0].command.as_deref(), Some("limiter --instance mail allow 192.0.2.9/32 --save"));
        assert_eq!(judged(Ok(settings), true)[0].grade, Grade::Note);
        let said = judged(Err("not known".to_owned()), false);
        assert!(said[0].sentence.contains("whose settings are known"), "{said:?}");
    }
}
