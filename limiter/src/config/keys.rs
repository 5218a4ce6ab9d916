// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The ranges of the keys, and what to do where one is not kept. Which table takes which key is of `fields`.

use limiter_common::{Rate, ServicePolicy};

/// A key that takes a whole number.
#[derive(Debug, PartialEq, Eq)]
pub struct Number {
    /// The key, or what the number is.
    pub key: &'static str,
    /// Smallest value.
    pub min: u32,
    /// Largest value.
    pub max: u32,
    /// What to do, after the semicolon.
    pub advice: &'static str,
}

/// `max_connections`.
pub static MAX_CONNECTIONS: Number = Number {
    key: "max_connections",
    min: 1,
    max: ServicePolicy::MAX_LIMIT,
    advice: "give the number of connections one source may hold",
};

/// `ipv4_prefix`; 0 would make the whole world one source.
pub static IPV4_PREFIX: Number = Number {
    key: "ipv4_prefix",
    min: 1,
    max: 32,
    advice: "give the bits of an IPv4 address that make a source, 32 for single addresses",
};

/// `ipv6_prefix`; 0 would make the whole world one source.
pub static IPV6_PREFIX: Number = Number {
    key: "ipv6_prefix",
    min: 1,
    max: 128,
    advice: "give the bits of an IPv6 address that make a source, 64 for one network",
};

/// `max_sources`.
pub static MAX_SOURCES: Number = Number {
    key: "max_sources",
    min: 1024,
    max: 16_777_216,
    advice: "give the number of sources the ledger can hold",
};

/// `remember_seconds`.
pub static REMEMBER_SECONDS: Number = Number {
    key: "remember_seconds",
    min: 1,
    max: 86_400,
    advice: "give the seconds after which a source without connections is forgotten",
};

/// `max_connections` of a `network`.
pub static NETWORK_MAX_CONNECTIONS: Number = Number {
    key: "max_connections of a network",
    min: 1,
    max: ServicePolicy::MAX_LIMIT,
    advice: "give the number of connections one network may hold",
};

/// `network_max_connections` of a rule.
pub static RULE_NETWORK: Number = Number {
    key: "network_max_connections",
    min: 1,
    max: ServicePolicy::MAX_LIMIT,
    advice: "give the number of connections the network around a source may hold, or \"none\"",
};

/// `source_prefix` of a rule.
pub static SOURCE_PREFIX: Number = Number {
    key: "source_prefix",
    min: 1,
    max: 128,
    advice: "give the bits of an address that make a source in the network, 128 for single addresses of IPv6",
};

/// `ipv4_prefix` of a `network`.
pub static NETWORK_IPV4_PREFIX: Number = Number {
    key: "ipv4_prefix of a network",
    min: 1,
    max: 32,
    advice: "give the bits of an IPv4 address that make a network, 24 for example",
};

/// `ipv6_prefix` of a `network`.
pub static NETWORK_IPV6_PREFIX: Number = Number {
    key: "ipv6_prefix of a network",
    min: 1,
    max: 128,
    advice: "give the bits of an IPv6 address that make a network, 48 for example",
};

/// `max_total`.
pub static MAX_TOTAL: Number = Number {
    key: "max_total",
    min: 1,
    max: ServicePolicy::MAX_LIMIT,
    advice: "give the number of connections the whole service may hold, or \"none\"",
};

/// `reserve`.
pub static RESERVE: Number = Number {
    key: "reserve",
    min: 0,
    max: ServicePolicy::MAX_LIMIT,
    advice: "give the number of connections on top of max_total that only allowed sources may use",
};

/// `burst`.
pub static BURST: Number = Number {
    key: "burst",
    min: 1,
    max: Rate::MAX_COUNT,
    advice: "give the number of connections a source may make at once",
};

/// `reconcile_seconds`.
pub static RECONCILE_SECONDS: Number = Number {
    key: "reconcile_seconds",
    min: 5,
    max: 86_400,
    advice: "give the seconds between two comparisons of the ledger with the kernel's socket table",
};

/// `max_bans`.
pub static MAX_BANS: Number = Number {
    key: "max_bans",
    min: 1024,
    max: 4_194_304,
    advice: "give the number of refused and banned sources to remember",
};

/// `days` of the history.
pub static HISTORY_DAYS: Number = Number {
    key: "days of [history]",
    min: 1,
    max: 3650,
    advice: "give the days after which the history forgets",
};

/// `max_mib` of the history.
pub static HISTORY_MIB: Number = Number {
    key: "max_mib of [history]",
    min: 8,
    max: 1_048_576,
    advice: "give the MiB that the history may take on disk",
};

/// Shortest and longest `keepalive`, in seconds.
pub const KEEPALIVE_SECONDS: std::ops::RangeInclusive<u64> = 30..=86_400;

/// Shortest and longest `wait`, in seconds.
pub const WAIT_SECONDS: std::ops::RangeInclusive<u64> = 0..=ServicePolicy::MAX_WAIT_S as u64;

/// One element of `ports`.
pub static PORT: Number =
    Number { key: "a port", min: 1, max: 65535, advice: "give the TCP port the service listens on" };

/// The known key that `key` is a slip of, or a part of, or that is a part of it, if there is one.
pub fn similar<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    // Comparing is quadratic, and nobody means a key of the length of a page.
    if key.len() > 40 {
        return None;
    }
    let distance = |known: &str| strsim::damerau_levenshtein(key, known);
    known
        .iter()
        .copied()
        .filter(|known| distance(known) <= 1 + known.len() / 5)
        .min_by_key(|known| distance(known))
        .or_else(|| {
            // Shorter words begin and end too many.
            let is_part = |part: &str, whole: &str| {
                part.len() >= 3 && (whole.starts_with(part) || whole.ends_with(part))
            };
            let mut parts = known.iter().copied().filter(|known| is_part(key, known) || is_part(known, key));
            parts.next().filter(|_| parts.next().is_none())
        })
}
