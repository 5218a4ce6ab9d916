//! The command that would let one more connection in.

use limiter_common::{Reason, Say, ServicePolicy, Standing};

use crate::config::{self, Setting};

/// What to say to `limiter` so that a source of this standing gets in, where that can be said: not beyond the
/// largest limit there is.
pub fn raise(
    address: &str,
    policy: &ServicePolicy,
    say: Say,
    standing: &Standing,
    reason: Reason,
) -> Option<String> {
    let service = policy.name();
    let one_more =
        |connections: u32| Some(connections + 1).filter(|&limit| limit <= ServicePolicy::MAX_LIMIT);
    let settings = match reason {
        Reason::Denied => return Some(format!("allow {address}")),
        Reason::Banned => return Some(format!("unban {address}")),
        Reason::Rate => vec![Setting::Rate(None)],
        Reason::Total => vec![Setting::MaxTotal(one_more(standing.total.connections()))],
        Reason::Network => vec![Setting::NetworkMaxConnections(one_more(standing.wide.connections()))],
        // A rule says how many: what the service says does not hold for it.
        Reason::Concurrency if say.max_connections != 0 => {
            let limit = one_more(standing.narrow.connections())?;
            return Some(format!("limit {address} {limit} --service {service}"));
        }
        Reason::Concurrency => {
            let limit = one_more(standing.narrow.connections())?;
            let mut settings = vec![Setting::MaxConnections(limit)];
            // Neither may be smaller than what one source may hold.
            if policy.has_network() && policy.network_max_connections < limit {
                settings.push(Setting::NetworkMaxConnections(Some(limit)));
            }
            if policy.max_total != 0 && policy.max_total < limit {
                settings.push(Setting::MaxTotal(Some(limit)));
            }
            settings
        }
    };
    let is_beyond =
        |setting: &Setting| matches!(setting, Setting::MaxTotal(None) | Setting::NetworkMaxConnections(None));
    if settings.iter().any(is_beyond) || config::apply(&settings, policy).is_err() {
        return None;
    }
    let words: Vec<String> = settings.iter().map(|setting| format!("{}={setting}", setting.key())).collect();
    Some(format!("set {service} {}", words.join(" ")))
}

#[cfg(test)]
mod tests {
    use limiter_common::{Limits, Places, service::Prefixes};
    use proptest::prelude::*;

    use super::*;
    use crate::config::parse_setting;

    fn policy(max_connections: u32, network: u32, max_total: u32) -> ServicePolicy {
        ServicePolicy {
            name: ServicePolicy::pack_name("smtp").unwrap(),
            max_connections,
            network_max_connections: network,
            narrow: Prefixes { ipv4: 32, ipv6: 64 },
            wide: if network == 0 { Prefixes::default() } else { Prefixes { ipv4: 24, ipv6: 48 } },
            max_total,
            ..ServicePolicy::default()
        }
    }

    fn holding(narrow: u32, wide: u32, total: u32) -> Standing {
        let [narrow, wide, total] = [narrow, wide, total].map(|count| Places(u64::from(count)));
        Standing { narrow, wide, total, ..Standing::default() }
    }

    #[test]
    fn what_else_would_be_too_small_is_raised_with_it() {
        let said = |policy: &ServicePolicy, say: Say, reason| {
            raise("192.0.2.7", policy, say, &holding(50, 50, 50), reason)
        };
        let nothing = Say::NOTHING;
        assert_eq!(
            said(&policy(50, 50, 50), nothing, Reason::Concurrency).unwrap(),
            "set smtp max_connections=51 network_max_connections=51 max_total=51"
        );
        assert_eq!(
            said(&policy(50, 0, 80), nothing, Reason::Concurrency).unwrap(),
            "set smtp max_connections=51"
        );
        let rule = Say { max_connections: 50, ..Say::NOTHING };
        assert_eq!(
            said(&policy(5, 0, 0), rule, Reason::Concurrency).unwrap(),
            "limit 192.0.2.7 51 --service smtp"
        );
        let largest = ServicePolicy::MAX_LIMIT;
        let full = holding(largest, largest, largest);
        for reason in [Reason::Total, Reason::Network, Reason::Concurrency] {
            assert_eq!(raise("192.0.2.7", &policy(largest, largest, largest), nothing, &full, reason), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_said_to_set_is_taken_and_lets_it_in(
            max_connections in 1u32..9, network in 0u32..9, max_total in 0u32..9,
            held in (0u32..9, 0u32..9, 0u32..9),
        ) {
            let policy = policy(
                max_connections,
                if network == 0 { 0 } else { network.max(max_connections) },
                if max_total == 0 { 0 } else { max_total.max(max_connections) },
            );
            let mut policy = policy;
            let standing = holding(held.0, held.1.max(held.0), held.2.max(held.1).max(held.0));
            // One reason after the other.
            for _ in 0..3 {
                let Some(reason) = standing.over(&Limits::of(&policy, &Say::NOTHING), 0) else { break };
                let said = raise("192.0.2.7", &policy, Say::NOTHING, &standing, reason).unwrap();
                let words = said.strip_prefix("set smtp ").unwrap().split(' ');
                let settings: Vec<_> = words.map(|word| parse_setting(word).unwrap()).collect();
                policy = config::apply(&settings, &policy).unwrap();
                prop_assert_ne!(standing.over(&Limits::of(&policy, &Say::NOTHING), 0), Some(reason));
            }
            prop_assert_eq!(standing.over(&Limits::of(&policy, &Say::NOTHING), 0), None);
        }
    }
}
