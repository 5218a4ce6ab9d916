// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Any configuration survives being written and read.

use limiter_common::{Mode, Protocol, Rate, Response, ServicePolicy};
use proptest::prelude::*;

use super::super::*;
use crate::wording::Wording;

prop_compose! {
    pub fn any_service()(
        name in "[a-z0-9_-]{1,15}",
        protocol in 0..Protocol::ALL.len(),
        max_connections in 1..=ServicePolicy::MAX_LIMIT,
        ipv4_prefix in 1u8..=32,
        ipv6_prefix in 1u8..=128,
        (reset, observe) in any::<(bool, bool)>(),
        rate in proptest::option::of((1..=Rate::MAX_COUNT, 0usize..3, 1..=Rate::MAX_COUNT)),
        network in proptest::option::of((1u8..=32, 1u8..=128, 0u32..1000)),
        total in proptest::option::of((0u32..1000, 0..=ServicePolicy::MAX_LIMIT)),
        keepalive in proptest::option::of(30u32..=86_400),
        wait in 0..=ServicePolicy::MAX_WAIT_S,
        tls in proptest::collection::vec(("/[a-zé \"\\\\'{}.]{0,9}", "/[a-z/]{1,9}"), 0..4),
    ) -> Service {
        let protocol = Protocol::ALL[protocol];
        let response = if reset { Response::Reset } else { Response::Reply };
        let above = |more: u32| (max_connections + more).min(ServicePolicy::MAX_LIMIT);
        Service {
            name,
            ports: Vec::new(),
            tls_ports: Vec::new(),
            tls: tls.into_iter().map(|(certificate, key)| {
                let [certificate, key] = [certificate, key].map(std::path::PathBuf::from);
                CertificateFiles { certificate, key }
            }).collect(),
            protocol,
            max_connections,
            ipv4_prefix,
            ipv6_prefix,
            response,
            rate: rate.map(|(count, unit, burst)| RateWithBurst {
                spec: RateSpec { count, period_s: [1, 60, 3600][unit] },
                burst,
            }),
            network: network.map(|(ipv4, ipv6, more)| Network {
                ipv4_prefix: ipv4.min(ipv4_prefix),
                ipv6_prefix: ipv6.min(ipv6_prefix),
                max_connections: above(more),
            }),
            mode: if observe { Mode::Observe } else { Mode::Enforce },
            max_total: total.map(|(more, _)| above(more)),
            reserve: total.map_or(0, |(_, reserve)| reserve),
            keepalive,
            wait,
            wording: Wording::default(),
        }
    }
}

/// For all services, for single ones, for both, or not said.
fn per_service<T: Clone + std::fmt::Debug + 'static>(
    one: impl Strategy<Value = T> + Clone + 'static,
) -> impl Strategy<Value = PerService<T>> {
    let services = proptest::collection::btree_map("imap|smtp|pop3", one.clone(), 0..3);
    (proptest::option::of(one), services).prop_map(|(all, services)| PerService { all, services })
}

type AnyLimits = (PerService<u32>, PerService<Option<RateWithBurst>>, PerService<Option<u32>>);

fn any_limits() -> impl Strategy<Value = AnyLimits> {
    let spec = (1u32..=Rate::MAX_COUNT, proptest::sample::select(&[1u32, 60, 3600]), 1u32..=Rate::MAX_COUNT);
    let rate =
        spec.prop_map(|(count, period_s, burst)| RateWithBurst { spec: RateSpec { count, period_s }, burst });
    let network = 10u32..=ServicePolicy::MAX_LIMIT;
    (
        per_service(1u32..=10),
        per_service(proptest::option::of(rate)),
        per_service(proptest::option::of(network)),
    )
}

proptest! {
    #[test]
    fn rules_survive_being_written_and_read(
        rules in proptest::collection::btree_map(
            any::<std::net::IpAddr>(), (0u8..=128, 0u8..4, ".{0,20}", any_limits()), 0..9,
        ),
    ) {
        let mut config = Config::default();
        for (address, (prefix, kind, comment, limits)) in rules {
            let prefix = if address.is_ipv4() { prefix.min(32) } else { prefix };
            let network = ipnet::IpNet::new(address, prefix).unwrap().trunc();
            let is_mapped = matches!(network, ipnet::IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some());
            let is_translated = limiter_common::Addr::from(network.addr()).is_translated();
            if is_mapped || config.rules.iter().any(|rule| rule.network == network) {
                continue;
            }
            let action = limiter_common::Action::from_u8(kind);
            let mut rule = Rule::new(network, action);
            rule.comment = (!comment.is_empty()).then_some(comment);
            if action == limiter_common::Action::Limit {
                let (max_connections, rate, network_max_connections) = limits;
                let given = !max_connections.is_empty() || !rate.is_empty() || !network_max_connections.is_empty();
                let has_prefix = prefix > 0 && !is_translated;
                if !given && !has_prefix {
                    continue;
                }
                rule.source_prefix = has_prefix.then_some(prefix);
                rule = Rule { max_connections, rate, network_max_connections, ..rule };
            }
            config.rules.push(rule);
        }
        config.rules.sort_by_key(|rule| rule.network);
        prop_assert_eq!(parse(&config.to_string(), "x").unwrap(), config);
    }

    #[test]
    fn a_configuration_survives_being_written_and_read(
        hostname in proptest::option::of("[a-z0-9.-]{1,20}"),
        max_sources in 1024u32..=16_777_216,
        remember_seconds in 1u32..=86_400,
        reconcile_seconds in 5u32..=86_400,
        history in proptest::option::of((any::<bool>(), 1u32..=3650, 8u32..=1_048_576)),
        services in proptest::collection::btree_map("[a-z0-9_-]{1,15}", any_service(), 0..9),
        ports in proptest::collection::btree_set(5000u16.., 0..20),
    ) {
        let mut config = Config {
            hostname, max_sources, remember_seconds, reconcile_seconds,
            history: history.map(|(users, days, max_mib)| HistoryConfig { users, days, max_mib }),
            ..Config::default()
        };
        for (name, service) in services {
            config.services.retain(|known| known.name != name);
            config.services.push(Service { name, ..service });
        }
        config.services.sort_by(|a, b| a.name.cmp(&b.name));
        let count = config.services.len();
        for (i, port) in ports.into_iter().enumerate() {
            config.services[i % count].ports.push(port);
        }
        for service in &mut config.services {
            service.ports.sort_unstable();
            service.tls_ports = service.ports.iter().copied().filter(|port| port % 3 == 0).collect();
        }
        prop_assert_eq!(parse(&config.to_string(), "x").unwrap(), config);
    }
}
