// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What may be said of each key: the ranges, the choices, and the advice given when it is not kept.
//!
//! Pure functions from a value to what it means or a [`Complaint`]; where the value stands is the
//! caller's to add.

use std::borrow::Cow;

use limiter_common::{Ladder, Mode, Protocol, Response, ServicePolicy};
use toml::de::DeValue;

use super::{
    error::{Complaint, shown},
    keys::{KEEPALIVE_SECONDS, Number, WAIT_SECONDS},
    rate_spec::RateSpec,
};

/// Longest host name (RFC 1035, 2.3.4: 255 octets on the wire, 253 characters in text).
const MAX_HOSTNAME: usize = 253;

/// A value as given, in the file or on the command line.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// A whole number, `None` if it is beyond all reason, and as it was written.
    Integer(Option<i128>, Cow<'a, str>),
    /// Text.
    Text(&'a str),
    /// Something no key takes, by what it is called.
    Other(&'static str),
}

impl<'a> Value<'a> {
    /// From the command line, where nothing is quoted.
    pub fn from_word(word: &'a str) -> Self {
        let digits = word.strip_prefix(['-', '+']).unwrap_or(word);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Self::Text(word);
        }
        Self::Integer(word.parse().ok(), Cow::Borrowed(word))
    }

    /// For an error message.
    pub fn shown(&self) -> String {
        match self {
            Self::Integer(_, written) => shown(written),
            Self::Text(text) => format!("\"{}\"", shown(text)),
            Self::Other(what) => (*what).to_owned(),
        }
    }
}

impl<'a> From<&'a DeValue<'_>> for Value<'a> {
    fn from(value: &'a DeValue<'_>) -> Self {
        match value {
            DeValue::Integer(integer) => {
                let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
                Self::Integer(number, Cow::Owned(integer.to_string()))
            }
            DeValue::String(text) => Self::Text(text),
            DeValue::Float(_) => Self::Other("a fraction"),
            DeValue::Boolean(_) => Self::Other("a boolean"),
            DeValue::Datetime(_) => Self::Other("a date"),
            DeValue::Array(_) => Self::Other("a list"),
            DeValue::Table(_) => Self::Other("a table"),
        }
    }
}

impl Number {
    /// The number, if `value` is one in range.
    pub fn check(&'static self, value: &Value<'_>) -> Result<u32, Complaint> {
        let (of, given) = (self, value.shown());
        match value {
            Value::Integer(number, _) => number
                .and_then(|number| u32::try_from(number).ok())
                .filter(|number| (self.min..=self.max).contains(number))
                .ok_or(Complaint::OutOfRange { of, given }),
            Value::Text(text) if matches!(Value::from_word(text), Value::Integer(..)) => {
                Err(Complaint::QuotedNumber { of, given })
            }
            _ => Err(Complaint::NotANumber { of, given }),
        }
    }

    /// The number, if `value` is one in range; `None` if it is [`NONE`].
    pub fn check_or_none(&'static self, value: &Value<'_>) -> Result<Option<u32>, Complaint> {
        if is_none(value) { Ok(None) } else { self.check(value).map(Some) }
    }
}

/// The protocol of that name.
pub fn protocol(value: &Value<'_>) -> Result<Protocol, Complaint> {
    choice(Protocol::from_name, value).ok_or_else(|| Complaint::Protocol(value.shown()))
}

/// The mode of that name.
pub fn mode(value: &Value<'_>) -> Result<Mode, Complaint> {
    choice(Mode::from_name, value).ok_or_else(|| Complaint::Mode(value.shown()))
}

/// The response of that name.
pub fn response(value: &Value<'_>) -> Result<Response, Complaint> {
    choice(Response::from_name, value).ok_or_else(|| Complaint::Response(value.shown()))
}

/// The protocol of this number, as the file names it.
#[must_use]
pub fn protocol_name(number: u8) -> &'static str {
    Protocol::from_u8(number).map_or("unknown", Protocol::name)
}

fn choice<T>(from_name: impl Fn(&str) -> Option<T>, value: &Value<'_>) -> Option<T> {
    let Value::Text(text) = value else { return None };
    from_name(text)
}

/// The word that takes a limit away.
pub const NONE: &str = "none";

/// Whether `value` is [`NONE`].
pub fn is_none(value: &Value<'_>) -> bool {
    matches!(value, Value::Text(text) if *text == NONE)
}

/// The rate, or `None` for "none".
pub fn rate(value: &Value<'_>) -> Result<Option<RateSpec>, Complaint> {
    let Value::Text(text) = value else { return Err(Complaint::Rate(value.shown())) };
    if *text == NONE {
        return Ok(None);
    }
    RateSpec::parse(text).map(Some).ok_or_else(|| Complaint::Rate(value.shown()))
}

/// Seconds of keepalive, or `None` for "none".
pub fn keepalive(value: &Value<'_>) -> Result<Option<u32>, Complaint> {
    let wrong = || Complaint::Keepalive(value.shown());
    let Value::Text(text) = value else { return Err(wrong()) };
    if *text == NONE {
        return Ok(None);
    }
    seconds(text, &KEEPALIVE_SECONDS).map(Some).ok_or_else(wrong)
}

/// Seconds that a handshake without a place waits. 0 needs no unit.
pub fn wait(value: &Value<'_>) -> Result<u8, Complaint> {
    let seconds = match value {
        Value::Integer(Some(0), _) => Some(0),
        Value::Text(text) => seconds(text, &WAIT_SECONDS),
        _ => None,
    };
    seconds.and_then(|seconds| u8::try_from(seconds).ok()).ok_or_else(|| Complaint::Wait(value.shown()))
}

/// The length of a ban, in seconds.
pub fn ban(key: &'static str, value: &Value<'_>) -> Result<u32, Complaint> {
    let seconds = match value {
        Value::Text(text) => seconds(text, &(1..=u64::from(Ladder::MAX_BAN_S))),
        _ => None,
    };
    seconds.ok_or_else(|| Complaint::Ban { key, given: value.shown() })
}

/// Whole seconds of a time as people write it, if they are in `range`.
pub fn seconds(text: &str, range: &std::ops::RangeInclusive<u64>) -> Option<u32> {
    let duration = humantime::parse_duration(text).ok()?;
    let seconds = duration.as_secs();
    let is_whole = duration.subsec_nanos() == 0 && range.contains(&seconds);
    if is_whole { u32::try_from(seconds).ok() } else { None }
}

/// Seconds as [`seconds`] reads them. Written here and not by the crate that reads them: the
/// fingerprint of a configuration hangs on it, and "24h" shall not become "1day".
pub fn shown_duration(seconds: u32) -> String {
    if seconds == 0 {
        return "0s".to_owned();
    }
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let parts = parts.iter().filter(|(number, _)| *number != 0);
    parts.map(|(number, unit)| format!("{number}{unit}")).collect::<Vec<_>>().join(" ")
}

/// Refuses limits of one service that make no sense together.
pub fn together(policy: &ServicePolicy) -> Result<(), Complaint> {
    let (service, max_connections) = (policy.name().to_owned(), policy.max_connections);
    if policy.has_network() {
        let (of_network, of_source) = (policy.network, policy.source);
        for (family, network, of_source) in
            [("ipv4", of_network.ipv4, of_source.ipv4), ("ipv6", of_network.ipv6, of_source.ipv6)]
        {
            if network > of_source {
                return Err(Complaint::NetworkWithinSource { service, family, network, of_source });
            }
        }
        if policy.network_max_connections < max_connections {
            let network = policy.network_max_connections;
            return Err(Complaint::NetworkBelowSource { service, network, max_connections });
        }
    }
    if policy.max_total == 0 {
        return if policy.reserve == 0 { Ok(()) } else { Err(Complaint::ReserveOfNothing(service)) };
    }
    if policy.max_total < max_connections {
        return Err(Complaint::TotalBelowSource { service, max_total: policy.max_total, max_connections });
    }
    Ok(())
}

/// The host name, if `value` is one.
pub fn hostname(value: &Value<'_>) -> Result<String, Complaint> {
    match value {
        Value::Text(text) if is_hostname(text) => Ok((*text).to_owned()),
        _ => Err(Complaint::Hostname(value.shown())),
    }
}

/// Whether `text` can be told to a mail client as a host name: 1 to 253 letters, digits, `.` and `-`.
#[must_use]
pub fn is_hostname(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
    (1..=MAX_HOSTNAME).contains(&text.len()) && text.bytes().all(plain)
}

/// Refuses a service name the kernel's table cannot hold.
pub fn service_name(name: &str) -> Result<(), Complaint> {
    match ServicePolicy::pack_name(name) {
        Some(_) => Ok(()),
        None => Err(Complaint::ServiceName(shown(name))),
    }
}
