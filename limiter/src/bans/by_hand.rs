// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Bans that the admin makes and ends: which sources are meant, and the step from the kernel to the
//! [file](super::journal). All of it under the lock of the bans.

use std::{collections::HashSet, net::IpAddr, time::Duration};

use anyhow::Result;
use ipnet::IpNet;
use limiter_common::{Action, Addr, Key, ServiceId, ServicePolicy, rule::Network};

use super::state;
use crate::{
    config,
    instance::Instance,
    kernel::Tables,
    ledger,
    policy::{self, Services},
};

/// What became of sources.
pub struct Outcome {
    /// Each source, and for how long it was banned yet before; none if it was not.
    pub sources: Vec<(Key, Option<Duration>)>,
    /// Whether it is written down. If not, it is so all the same, until the host restarts.
    pub written: Result<()>,
}

/// Why an address cannot be banned.
#[derive(Debug, thiserror::Error)]
pub enum NotBannable {
    /// It is a network of many sources, and a ban is of one.
    #[error(
        "{network} contains many sources, because {service} counts each /{prefix_len} separately, and a ban applies to one source: deny the whole network with `{limiter} deny {network}`, until `{limiter} forget {network}`",
        limiter = .instance.program()
    )]
    ManySources {
        /// The network.
        network: IpNet,
        /// What makes a source in it.
        prefix_len: u8,
        /// Where.
        service: String,
        /// Of which limiter.
        instance: Instance,
    },
    /// A rule of the admin's allows it (law 4).
    #[error(
        "cannot ban {address} from {service}: it is allowed by the rule for {rule}; remove that rule first with `{limiter} forget {rule}`",
        limiter = .instance.program()
    )]
    Allowed {
        /// The address.
        address: IpAddr,
        /// Where.
        service: String,
        /// The network of the rule.
        rule: IpNet,
        /// Of which limiter.
        instance: Instance,
    },
    /// It is the host's.
    #[error(
        "cannot ban {address} from {service}: it is a local address of this host; check which program connects from it"
    )]
    Local {
        /// The address.
        address: IpAddr,
        /// Where.
        service: String,
    },
}

/// The sources that `networks` are at each of `services`, each once.
///
/// # Errors
/// With [`NotBannable`] if one of them cannot be banned.
pub fn bannable(
    instance: &Instance,
    tables: &Tables,
    services: &Services,
    networks: &[IpNet],
) -> Result<Vec<Key>> {
    let (mut keys, mut seen) = (Vec::new(), HashSet::new());
    for (id, policy) in services {
        for network in networks {
            let address = Addr::from(network.addr());
            let key = tables.policy.source(*id, policy, &address)?;
            // Of a translated address the host is meant, which is no network.
            if network.prefix_len() < key.prefix_len() && network.addr() == address.to_ip() {
                return Err(NotBannable::ManySources {
                    network: *network,
                    prefix_len: key.prefix_len(),
                    service: policy.name().to_owned(),
                    instance: instance.clone(),
                }
                .into());
            }
            if tables.policy.rule_match(&address, *id)?.action == Action::Allow {
                return Err(allowed(instance, tables, network.addr(), policy.name())?.into());
            }
            if seen.insert(key) {
                keys.push(key);
            }
        }
    }
    Ok(keys)
}

/// Who allows an address.
fn allowed(instance: &Instance, tables: &Tables, address: IpAddr, service: &str) -> Result<NotBannable> {
    let (rules, service) = (tables.policy.rules()?, service.to_owned());
    Ok(match policy::covering(&rules, &Addr::from(address)) {
        Some(rule) if !rule.built_in => NotBannable::Allowed {
            address,
            service,
            rule: config::ip_net(&rule.network),
            instance: instance.clone(),
        },
        _ => NotBannable::Local { address, service },
    })
}

/// Bans the sources of `keys` for `time`.
///
/// # Errors
/// When that fails; then nothing has changed.
pub fn ban(instance: &Instance, tables: &mut Tables, keys: &[Key], time: Duration) -> Result<Outcome> {
    let now_ns = ledger::now_ns()?;
    let sources = with_time_left(tables, keys, now_ns)?;
    super::ban(tables, keys, now_ns + time.as_nanos() as u64)?;
    Ok(Outcome { sources, written: state::note(instance, tables, keys) })
}

/// Ends every ban at `services` that covers one of `networks`, or is of a part of it, and forgets that their sources were
/// ever refused. Of what is not banned the source, or else the network, is said to be that.
///
/// # Errors
/// When that fails; then nothing has changed.
pub fn unban(
    instance: &Instance,
    tables: &mut Tables,
    services: &Services,
    networks: &[IpNet],
) -> Result<Outcome> {
    let all = super::banned(tables)?;
    let (mut keys, mut seen) = (Vec::new(), HashSet::new());
    for (id, policy) in services {
        for network in networks {
            let banned = meant(tables, &all, (*id, policy), network)?;
            keys.extend(banned.into_iter().filter(|key| seen.insert(*key)));
        }
    }
    let sources = with_time_left(tables, &keys, ledger::now_ns()?)?;
    // What is remembered of the source that each is now goes as well.
    let mut forgotten = keys.clone();
    for (id, policy) in services {
        for network in networks {
            let source = tables.policy.source(*id, policy, &Addr::from(network.addr()))?;
            forgotten.extend(Some(source).filter(|key| seen.insert(*key)));
        }
    }
    super::unban(tables, &forgotten)?;
    keys.retain(|key| all.contains(key));
    let written = if keys.is_empty() { Ok(()) } else { state::note(instance, tables, &keys) };
    Ok(Outcome { sources, written })
}

/// Of the `banned` those that `network` means at a service; if there are none, what is not banned.
fn meant(
    tables: &Tables,
    banned: &HashSet<Key>,
    (id, policy): (ServiceId, &ServicePolicy),
    network: &IpNet,
) -> Result<Vec<Key>> {
    let (address, meant) = (Addr::from(network.addr()), config::network(network));
    let source = tables.policy.source(id, policy, &address)?;
    let mut keys = super::covering(banned, id, policy, &address);
    if meant.prefix < u32::from(source.prefix) {
        let within = banned.iter().filter(|key| {
            key.service == id.0 && meant.covers(&Network { prefix: key.prefix.into(), addr: key.addr })
        });
        keys.extend(within);
        keys.sort_by_key(|key| (key.addr.to_ip(), key.prefix));
    }
    if keys.is_empty() {
        // Of a network it is the network that nobody of is banned.
        let prefix = source.prefix.min(meant.prefix as u8);
        keys.push(Key { prefix, addr: source.addr.cut(prefix), ..source });
    }
    Ok(keys)
}

/// Each source, and for how long it is banned yet, if it is.
fn with_time_left(tables: &Tables, keys: &[Key], now_ns: u64) -> Result<Vec<(Key, Option<Duration>)>> {
    let left = |key: &Key| -> Result<Option<Duration>> {
        let penalty = tables.penalty(key)?.filter(|penalty| penalty.is_banned(now_ns));
        Ok(penalty.map(|penalty| Duration::from_nanos(penalty.banned_until_ns - now_ns)))
    };
    keys.iter().map(|key| Ok((*key, left(key)?))).collect()
}
