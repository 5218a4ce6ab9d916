// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Every key of the file, table by table: the values it takes, and what it means.
//!
//! The parser knows the keys from here, and `docs/configuration.md` is made of the same tables. The ranges are those that
//! the checks use.

use std::ops::RangeInclusive;

use limiter_common::{Ladder, Mode, Protocol, Reason, Response};

use super::keys::{self, Number};
use crate::wording::TOLD;

/// One key.
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "all but the key is for docs/configuration.md, which a test makes")
)]
pub struct Field {
    /// Its name.
    pub key: &'static str,
    /// The values it takes.
    pub values: Values,
    /// What it means, in Markdown; empty for a table that has a section of its own.
    pub meaning: &'static str,
}

/// The values that a key takes.
#[cfg_attr(not(test), expect(dead_code, reason = "they are for docs/configuration.md, which a test makes"))]
pub enum Values {
    /// A whole number in a range.
    Number(&'static Number),
    /// The same, or "none".
    NumberOrNone(&'static Number),
    /// One of these words.
    Word(fn() -> Vec<&'static str>),
    /// A time in this range, in seconds.
    Time(RangeInclusive<u64>),
    /// The same, or "none".
    TimeOrNone(RangeInclusive<u64>),
    /// Something else: its type, and its form in Markdown.
    Form(&'static str, &'static str),
    /// Tables of their own.
    Table,
}

const fn field(key: &'static str, values: Values, meaning: &'static str) -> Field {
    Field { key, values, meaning }
}

/// Of a rate.
const RATE: Values =
    Values::Form("text", "`\"10/s\"`, `\"60/min\"`, `\"600/h\"`; 1 to 1,000,000; or `\"none\"`");

/// Longest ban, in seconds.
const BAN: RangeInclusive<u64> = 1..=Ladder::MAX_BAN_S as u64;

/// Above the first table.
pub static TOP: [Field; 11] = [
    field(
        "hostname",
        Values::Form("text", "1 to 253 letters, digits, `.` and `-`"),
        "The name that the greeter gives to SMTP clients",
    ),
    field(
        "max_sources",
        Values::Number(&keys::MAX_SOURCES),
        "How many sources the ledger holds, and how many connections the limiter can record at a time (262,144 at \
         least). Read when the daemon starts",
    ),
    field(
        "remember_seconds",
        Values::Number(&keys::REMEMBER_SECONDS),
        "How long a source without connections stays in `limiter list`, in seconds",
    ),
    field(
        "reconcile_seconds",
        Values::Number(&keys::RECONCILE_SECONDS),
        "How often the daemon compares the ledger with the kernel's socket table, in seconds",
    ),
    field(
        "mode",
        Values::Word(|| Mode::ALL.map(Mode::name).to_vec()),
        "`observe`: the limiter makes and counts verdicts, and refuses nobody",
    ),
    field(
        "interfaces",
        Values::Form("text or list", "`\"auto\"`, or names such as `[\"eth0\"]`; `[]` for none"),
        "Where the shield drops denied and banned sources. `auto`: interfaces with a default route or a public address \
         where that costs other traffic nothing (drivers i40e and ice)",
    ),
    field(
        "history",
        Values::Form("boolean or table", "`true`, `false`, or the keys [below](#history)"),
        "Whether the daemon keeps a [history](history.md) of who held how many connections and who was refused",
    ),
    field("defaults", Values::Table, ""),
    field("service", Values::Table, ""),
    field("ladder", Values::Table, ""),
    field("rule", Values::Table, ""),
];

/// In `[defaults]`, and in each service.
pub static LIMITS: [Field; 12] = [
    field(
        "max_connections",
        Values::Number(&keys::MAX_CONNECTIONS),
        "Connections that one source may hold at a time",
    ),
    field(
        "ipv4_prefix",
        Values::Number(&keys::IPV4_PREFIX),
        "Bits of an IPv4 address that make a source; 32 is each address for itself",
    ),
    field(
        "ipv6_prefix",
        Values::Number(&keys::IPV6_PREFIX),
        "Bits of an IPv6 address that make a source; 64 is one network of a customer",
    ),
    field(
        "response",
        Values::Word(|| Response::ALL.map(Response::name).to_vec()),
        "How a refusal is answered. `reply` says why in the client's protocol, `reset` closes at once, `drop` says nothing, \
         and the client waits for its time-out",
    ),
    field("rate", RATE, "Handshakes that one source may complete in a time"),
    field(
        "burst",
        Values::Number(&keys::BURST),
        "How many of these handshakes may come at once. Needs a `rate`",
    ),
    field(
        "network",
        Values::Form("table", "the keys [below](#network), or `\"none\"`"),
        "What all sources of one network may hold together, besides the limit of each",
    ),
    field(
        "keepalive",
        Values::TimeOrNone(keys::KEEPALIVE_SECONDS),
        "After how long the kernel ends a connection whose client has vanished; `none` leaves that to the mail daemon. A \
         silent client that is there keeps its connection",
    ),
    field(
        "wait",
        Values::Time(keys::WAIT_SECONDS),
        "How long a client that completed its handshake without a place waits for one, before it is told why. Whole \
         seconds; `\"0s\"` or 0 tells it at once",
    ),
    field(
        "tls",
        Values::Form("table or list", "the keys [below](#tls), a list of such tables, or `\"none\"`"),
        "The certificates with which the greeter says why inside TLS. With several it chooses by the name that the client \
         asks for (SNI), else the first. With none it refuses by a TLS alert",
    ),
    field(
        "message",
        Values::Form("text or table", "text with [placeholders](#message), a table by reason, or `\"none\"`"),
        "What a refused client is told instead of the limiter's words, behind the code of its protocol",
    ),
    field(
        "url",
        Values::Form("text", "`https://…` or `http://…`, or `\"none\"`"),
        "Where people find out more: appended to every message, or where a message has `{url}`",
    ),
];

/// In a service besides.
pub static SERVICE: [Field; 6] = [
    field(
        "ports",
        Values::Form("list", "ports, 1 to 65,535"),
        "The TCP ports of the service; they share its limits. No port can be in two services. `[]` leaves the service \
         unlimited",
    ),
    field(
        "tls_ports",
        Values::Form("list", "ports of the service; `[]` for none"),
        "The ports where TLS starts at once (implicit TLS)",
    ),
    field(
        "protocol",
        Values::Word(|| Protocol::ALL.map(Protocol::name).to_vec()),
        "The protocol in which the greeter speaks",
    ),
    field("mode", Values::Word(|| Mode::ALL.map(Mode::name).to_vec()), "As `mode` above, for this service"),
    field(
        "max_total",
        Values::NumberOrNone(&keys::MAX_TOTAL),
        "Connections that the whole service may hold. Set it a little below what the mail daemon can serve at once",
    ),
    field(
        "reserve",
        Values::Number(&keys::RESERVE),
        "Connections on top of `max_total` that only allowed sources may use, such as the host itself",
    ),
];

/// In a `network`.
pub static NETWORK: [Field; 3] = [
    field(
        "ipv4_prefix",
        Values::Number(&keys::NETWORK_IPV4_PREFIX),
        "Bits of an IPv4 address that make a network; no longer than those of a source",
    ),
    field(
        "ipv6_prefix",
        Values::Number(&keys::NETWORK_IPV6_PREFIX),
        "Bits of an IPv6 address that make a network; no longer than those of a source",
    ),
    field(
        "max_connections",
        Values::Number(&keys::NETWORK_MAX_CONNECTIONS),
        "Connections that one network may hold; no fewer than one source may",
    ),
];

/// In a `tls`.
pub static TLS: [Field; 2] = [
    field(
        "certificate",
        Values::Form("text", "an absolute path"),
        "A PEM file with the certificate and its chain, as the mail daemon has it; 64 KiB at most",
    ),
    field(
        "key",
        Values::Form("text", "an absolute path"),
        "A PEM file with its private key, without a passphrase; it can be the same file. Only root may be able to read it",
    ),
];

/// In `[ladder]`.
pub static LADDER: [Field; 5] = [
    field(
        "replies",
        RATE,
        "How often a source is told why, at each service. After that it gets resets until it has waited",
    ),
    field(
        "ban_after",
        Values::Form("text", "such as `\"100 in 10min\"`; 1 to 1,000,000 in 1s to 30days; or `\"none\"`"),
        "After how many refused handshakes in which time a source is banned from the service. Only completed handshakes \
         count, refused for `concurrency` or `rate`. No more of them come than `replies` lets through",
    ),
    field(
        "ban",
        Values::Time(BAN),
        "How long a first ban is. Each further one is twice as long; a source that stays quiet as long as its last ban was \
         counts one ban less",
    ),
    field("ban_max", Values::Time(BAN), "How long the longest ban of the ladder is; no shorter than `ban`"),
    field(
        "max_bans",
        Values::Number(&keys::MAX_BANS),
        "How many bans there can be, and how many refused sources the limiter remembers besides. Read when the daemon starts",
    ),
];

/// In `[history]`.
pub static HISTORY: [Field; 3] = [
    field(
        "users",
        Values::Form("boolean", "`true`, `false`"),
        "Whether the names of users are kept that were seen behind a source. With `false` only how many they were",
    ),
    field("days", Values::Number(&keys::HISTORY_DAYS), "After how many days everything is forgotten"),
    field(
        "max_mib",
        Values::Number(&keys::HISTORY_MIB),
        "How many MiB the database may take on disk. Where there is more, the least interesting goes first: sources that \
         were neither refused nor near their limit",
    ),
];

/// In a `[[rule]]`.
pub static RULE: [Field; 9] = [
    field(
        "network",
        Values::Form("text", "an address, or a network such as `\"203.0.113.0/24\"`"),
        "Whom the rule is for. Each network has one rule at most",
    ),
    field("allow", Values::Form("boolean", "`true`"), "No limits but the `max_total` of a service"),
    field("deny", Values::Form("boolean", "`true`"), "No connections"),
    field(
        "max_connections",
        Values::Number(&keys::MAX_CONNECTIONS),
        "Connections that each source in the network may hold",
    ),
    field("rate", RATE, "Handshakes that each source may complete in a time"),
    field(
        "burst",
        Values::Number(&keys::BURST),
        "How many of these may come at once. Needs a `rate` in the same rule",
    ),
    field(
        "network_max_connections",
        Values::NumberOrNone(&keys::RULE_NETWORK),
        "Connections that the network around a source may hold for the source to get in",
    ),
    field(
        "source_prefix",
        Values::Number(&keys::SOURCE_PREFIX),
        "Bits of an address that make a source in this network, instead of `ipv4_prefix` and `ipv6_prefix`; no fewer than \
         the network has: 128 behind a translator (NAT64), 48 for a customer whose whole /48 is one source",
    ),
    field("comment", Values::Form("text", "any"), "Your own words"),
];

/// A table of the file, by the keys it knows.
#[derive(Clone, Copy)]
pub enum Section<'a> {
    /// Above the first table.
    Top,
    /// `[defaults]`.
    Defaults,
    /// `[service.NAME]`.
    Service(&'a str),
    /// The network of one of these.
    Network(&'a Section<'a>),
    /// The tls of one of these.
    Tls(&'a Section<'a>),
    /// The message of one of these.
    Message(&'a Section<'a>),
    /// A `[[rule]]`.
    Rule,
    /// `[ladder]`.
    Ladder,
    /// `[history]`.
    History,
}

impl Section<'_> {
    /// The keys it takes.
    pub fn known(self) -> Vec<&'static str> {
        match self {
            Self::Top => names_of(&TOP),
            Self::Defaults => names_of(&LIMITS),
            Self::Service(_) => [names_of(&SERVICE), names_of(&LIMITS)].concat(),
            Self::Network(_) => names_of(&NETWORK),
            Self::Tls(_) => names_of(&TLS),
            Self::Message(_) => TOLD.map(Reason::name).to_vec(),
            Self::Ladder => names_of(&LADDER),
            Self::History => names_of(&HISTORY),
            Self::Rule => names_of(&RULE),
        }
    }

    /// For an error message.
    pub fn shown(self) -> String {
        match self {
            Self::Top => "at the top level".to_owned(),
            Self::Defaults => "in [defaults]".to_owned(),
            Self::Service(name) => format!("in [service.{name}]"),
            Self::Rule => "in [[rule]]".to_owned(),
            Self::Ladder => "in [ladder]".to_owned(),
            Self::History => "in [history]".to_owned(),
            Self::Tls(owner) => format!("in the tls of {}", owner.shown().trim_start_matches("in ")),
            Self::Message(owner) => {
                format!("in the message of {}", owner.shown().trim_start_matches("in "))
            }
            Self::Network(owner) => format!("in the network of {}", owner.shown().trim_start_matches("in ")),
        }
    }
}

/// The names of these keys.
fn names_of(fields: &'static [Field]) -> Vec<&'static str> {
    fields.iter().map(|field| field.key).collect()
}
