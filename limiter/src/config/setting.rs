// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! One KEY=VALUE of `limiter set`: a change of a running service's policy.
//!
//! Only what the kernel can take over at once, without another count, is a setting; the other keys
//! need the file.

use std::fmt;

use limiter_common::{Keepalive, Mode, Rate, Response, ServicePolicy};

use super::{
    Network, RateSpec,
    check::{self, NONE, Value, shown_duration},
    error::{Complaint, shown},
    keys::{self, similar},
};

/// A change of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `max_connections`: connections one source may hold.
    MaxConnections(u32),
    /// `rate`: how fast one source may connect.
    Rate(Option<RateSpec>),
    /// `burst`: how many of these connections may come at once.
    Burst(u32),
    /// `network_max_connections`: connections one network may hold.
    NetworkMaxConnections(Option<u32>),
    /// `max_total`: connections the whole service may hold.
    MaxTotal(Option<u32>),
    /// `reserve`: connections on top of that for allowed sources.
    Reserve(u32),
    /// `keepalive`: seconds after which a vanished client's connection ends.
    Keepalive(Option<u32>),
    /// `wait`: seconds a handshake without a place waits for one.
    Wait(u8),
    /// `response`: how a refusal is answered.
    Response(Response),
    /// `mode`: whether verdicts are carried out.
    Mode(Mode),
}

impl Setting {
    /// Its key, as the file names it; but `max_connections` of a `network` has no table to stand in.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::MaxConnections(_) => "max_connections",
            Self::Rate(_) => "rate",
            Self::Burst(_) => "burst",
            Self::NetworkMaxConnections(_) => "network_max_connections",
            Self::MaxTotal(_) => "max_total",
            Self::Reserve(_) => "reserve",
            Self::Keepalive(_) => "keepalive",
            Self::Wait(_) => "wait",
            Self::Response(_) => "response",
            Self::Mode(_) => "mode",
        }
    }

    /// What `policy` holds, one for each key there is; a burst of 0 where there is no rate.
    fn all_of(policy: &ServicePolicy) -> [Self; 10] {
        let limit = |number: u32| (number != 0).then_some(number);
        [
            Self::MaxConnections(policy.max_connections),
            Self::Rate(RateSpec::of(&policy.rate)),
            Self::Burst(policy.rate.burst()),
            Self::NetworkMaxConnections(limit(policy.network_max_connections)),
            Self::MaxTotal(limit(policy.max_total)),
            Self::Reserve(policy.reserve),
            Self::Keepalive(limit(policy.keepalive.seconds())),
            Self::Wait(policy.wait_s),
            Self::Response(Response::from_u8(policy.response)),
            Self::Mode(Mode::from_u8(policy.mode)),
        ]
    }

    fn change(self, policy: &mut ServicePolicy) {
        match self {
            Self::MaxConnections(limit) => policy.max_connections = limit,
            Self::Rate(None) => policy.rate = Rate::default(),
            Self::Rate(Some(spec)) => policy.rate = spec.rate(spec.count),
            // After the rate: see `apply`.
            Self::Burst(burst) => policy.rate.tolerance_ns = u64::from(burst - 1) * policy.rate.interval_ns,
            Self::NetworkMaxConnections(None) => {
                policy.network_max_connections = 0;
                policy.network = Network::prefixes(policy.source.ipv4, policy.source.ipv6);
            }
            Self::NetworkMaxConnections(Some(limit)) => {
                if !policy.has_network() {
                    policy.network = Network::prefixes(policy.source.ipv4, policy.source.ipv6);
                }
                policy.network_max_connections = limit;
            }
            Self::MaxTotal(limit) => policy.max_total = limit.unwrap_or(0),
            Self::Reserve(reserve) => policy.reserve = reserve,
            Self::Keepalive(seconds) => {
                policy.keepalive = seconds.map_or_else(Keepalive::default, Keepalive::within);
            }
            Self::Wait(seconds) => policy.wait_s = seconds,
            Self::Response(response) => policy.response = response as u8,
            Self::Mode(mode) => policy.mode = mode as u8,
        }
    }
}

/// The value as the file writes it, without its quotes.
impl fmt::Display for Setting {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Rate(None)
            | Self::Burst(0)
            | Self::NetworkMaxConnections(None)
            | Self::MaxTotal(None)
            | Self::Keepalive(None) => out.write_str(NONE),
            Self::Rate(Some(spec)) => spec.fmt(out),
            Self::Keepalive(Some(seconds)) => out.write_str(&shown_duration(seconds)),
            Self::Wait(seconds) => out.write_str(&shown_duration(seconds.into())),
            Self::Response(response) => response.fmt(out),
            Self::Mode(mode) => mode.fmt(out),
            Self::MaxConnections(number)
            | Self::Burst(number)
            | Self::NetworkMaxConnections(Some(number))
            | Self::MaxTotal(Some(number))
            | Self::Reserve(number) => number.fmt(out),
        }
    }
}

/// What `policy` holds, one for each key there is.
#[must_use]
pub fn settings(policy: &ServicePolicy) -> [Setting; 10] {
    Setting::all_of(policy)
}

/// What is another in `after` than in `before`, and what `settings` asked for though it was so already:
/// each as it was and as it is. A new rate, for one, brings a new burst.
#[must_use]
pub fn changes(
    settings: &[Setting],
    before: &ServicePolicy,
    after: &ServicePolicy,
) -> Vec<(Setting, Setting)> {
    let same_rate = before.rate.interval_ns == after.rate.interval_ns;
    let is_change = |&(was, is): &(Setting, Setting)| match is {
        // The unit in which it is said is not held, and is no change.
        Setting::Rate(_) => !same_rate,
        _ => was != is,
    };
    let is_asked_for = |is: Setting| settings.iter().any(|setting| setting.key() == is.key());
    let pairs = Setting::all_of(before).into_iter().zip(Setting::all_of(after));
    pairs.filter(|pair| is_change(pair) || is_asked_for(pair.1)).collect()
}

/// `policy` with all of `settings`, in whatever order they are given.
///
/// # Errors
/// When a key is set twice, or what comes of it makes no sense, as the file would not make sense either.
pub fn apply(settings: &[Setting], policy: &ServicePolicy) -> Result<ServicePolicy, SettingError> {
    for (index, setting) in settings.iter().enumerate() {
        if settings[..index].iter().any(|other| other.key() == setting.key()) {
            return Err(Complaint::SettingTwice(setting.key()).into());
        }
    }
    let mut after = *policy;
    let (bursts, others): (Vec<Setting>, Vec<Setting>) =
        settings.iter().partition(|setting| matches!(setting, Setting::Burst(_)));
    for setting in others {
        setting.change(&mut after);
    }
    if !bursts.is_empty() && !after.rate.is_limited() {
        return Err(Complaint::BurstWithoutRate.into());
    }
    for setting in bursts {
        setting.change(&mut after);
    }
    check::together(&after)?;
    Ok(after)
}

/// Why a word of `limiter set` changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct SettingError(#[from] Complaint);

impl SettingError {
    /// There is no service of this name.
    pub fn no_such_service<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        Self(Complaint::NoSuchService { service: shown(name), known })
    }
}

/// Reads `KEY=VALUE`, with the same bounds as the file.
///
/// # Errors
/// If it is not of that form, the key is none that can be set live, or the value cannot be meant.
pub fn parse_setting(text: &str) -> Result<Setting, SettingError> {
    let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
        return Err(Complaint::NotASetting(shown(text)).into());
    };
    let value = Value::from_word(value.trim());
    let number = |of: &'static keys::Number| of.check(&value);
    Ok(match key.trim() {
        "max_connections" => Setting::MaxConnections(number(&keys::MAX_CONNECTIONS)?),
        "rate" => Setting::Rate(check::rate(&value)?),
        "burst" => Setting::Burst(number(&keys::BURST)?),
        "network_max_connections" => {
            Setting::NetworkMaxConnections(keys::NETWORK_MAX_CONNECTIONS.check_or_none(&value)?)
        }
        "max_total" => Setting::MaxTotal(keys::MAX_TOTAL.check_or_none(&value)?),
        "reserve" => Setting::Reserve(number(&keys::RESERVE)?),
        "keepalive" => Setting::Keepalive(check::keepalive(&value)?),
        "wait" => Setting::Wait(check::wait(&value)?),
        "response" => Setting::Response(check::response(&value)?),
        "mode" => Setting::Mode(check::mode(&value)?),
        key => {
            let known = Setting::all_of(&ServicePolicy::default()).map(Setting::key);
            let advice = match similar(key, &known) {
                Some(meant) => format!("did you mean {meant}?"),
                None => "change other keys in the file".to_owned(),
            };
            let (key, section) = (shown(key), "of a running service".to_owned());
            return Err(Complaint::UnknownKey { key, section, known: known.join(", "), advice }.into());
        }
    })
}
