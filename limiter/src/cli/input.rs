// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What people type: addresses, networks, numbers and times, in the forms they know from elsewhere. Whoever
//! gives something else is told the form that is wanted.

use std::time::Duration;

use ipnet::IpNet;
use limiter_common::{Ladder, ServicePolicy};

use crate::config;

/// A network, or a single address; without bits behind the prefix.
pub fn network(text: &str) -> Result<IpNet, String> {
    config::parse_network(&without_brackets(text))
        .map_err(|complaint| complaint.to_string().replace("; give the network that the rule is for", ""))
}

/// A word of `limiter limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Whom it is for.
    Network(IpNet),
    /// How many connections.
    Connections(u32),
}

/// A network, or how many connections: what has neither dots nor colons is no address.
pub fn limited(text: &str) -> Result<Limited, String> {
    if text.contains(['.', ':', '/', '[']) {
        network(text).map(Limited::Network)
    } else {
        connections(text).map(Limited::Connections)
    }
}

/// `[2001:db8::5]` and `[2001:db8::]/48` without their brackets.
fn without_brackets(text: &str) -> String {
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    match bare {
        Some((address, rest)) if rest.is_empty() || rest.starts_with('/') => format!("{address}{rest}"),
        _ => text.to_owned(),
    }
}

/// How many connections.
pub fn connections(text: &str) -> Result<u32, String> {
    let most = ServicePolicy::MAX_LIMIT;
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("give a whole number of connections, from 1 to {most}"))
}

/// More than this.
pub fn over(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "give a whole number of connections, such as 10".to_owned())
}

/// The length of a ban.
pub fn duration(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(u64::from(Ladder::MAX_BAN_S));
    let time = humantime::parse_duration(text).ok();
    time.filter(|time| (Duration::from_secs(1)..=longest).contains(time))
        .ok_or_else(|| "give a time from 1s to 30days, such as 10m, 2h or 7days".to_owned())
}

/// How far back.
pub fn since(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(3650 * 86_400);
    let time = humantime::parse_duration(text).ok();
    time.filter(|time| (Duration::from_secs(1)..=longest).contains(time))
        .ok_or_else(|| "give a time from 1s to 3650days, such as 90m, 24h or 7days".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_taken_in_every_form_that_people_know() {
        for (given, meant) in [
            ("203.0.113.7", "203.0.113.7/32"),
            ("203.0.113.0/24", "203.0.113.0/24"),
            ("[2001:db8::5]", "2001:db8::5/128"),
            ("[2001:db8::]/48", "2001:db8::/48"),
        ] {
            assert_eq!(network(given), Ok(meant.parse().unwrap()), "{given}");
        }
        let said = network("example.net").unwrap_err();
        assert!(said.contains("an address or a network such as \"203.0.113.0/24\""), "{said}");
        assert!(network("203.0.113.7/24").unwrap_err().contains("write 203.0.113.0/24 for the network"));
    }

    #[test]
    fn numbers_and_times_that_are_none_are_told_the_form_that_is_wanted() {
        assert_eq!(connections("40"), Ok(40));
        for wrong in ["", "0", "-1", "many", "1000001", "99999999999", "4.5"] {
            assert_eq!(
                connections(wrong).unwrap_err(),
                "give a whole number of connections, from 1 to 1000000",
                "{wrong}"
            );
        }
        assert_eq!(duration("2h 30m"), Ok(Duration::from_secs(9000)));
        for wrong in ["", "10", "0s", "31days", "2 fortnights", "-1h", "999ms", "99999999999999999999d"] {
            assert!(duration(wrong).unwrap_err().starts_with("give a time from 1s to 30days"), "{wrong}");
        }
        assert_eq!(since("7days"), Ok(Duration::from_secs(7 * 86_400)));
        assert!(since("yesterday").unwrap_err().starts_with("give a time from 1s to 3650days"));
        assert!(over("x").unwrap_err().starts_with("give a whole number"));
    }
}
