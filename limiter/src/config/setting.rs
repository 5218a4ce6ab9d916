//! One KEY=VALUE of `limiter set`: a change of a running service's policy.
//!
//! Only what the kernel can take over at once, without another count, is a setting; the other keys
//! need the file.

use limiter_common::{Response, ServicePolicy};

use super::{
    check::{self, Value},
    error::{Complaint, shown},
    written::similar,
};

const KEYS: [&str; 2] = ["max_connections", "response"];

/// A change of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `max_connections`: connections one source may hold.
    MaxConnections(u32),
    /// `response`: how a refusal is answered.
    Response(Response),
}

impl Setting {
    /// Makes the change in `policy`.
    pub fn apply(self, policy: &mut ServicePolicy) {
        match self {
            Self::MaxConnections(limit) => policy.max_connections = limit,
            Self::Response(response) => policy.response = response as u8,
        }
    }
}

/// Why a word of `limiter set` changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct SettingError(#[from] Complaint);

/// Reads `KEY=VALUE`, with the same bounds as the file.
///
/// # Errors
/// If it is not of that form, the key is none that can be set live, or the value cannot be meant.
pub fn parse_setting(text: &str) -> Result<Setting, SettingError> {
    let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
        return Err(Complaint::NotASetting(shown(text)).into());
    };
    let value = Value::from_word(value.trim());
    match key.trim() {
        "max_connections" => Ok(Setting::MaxConnections(check::MAX_CONNECTIONS.check(&value)?)),
        "response" => Ok(Setting::Response(check::response(&value)?)),
        key => {
            let advice = match similar(key, &KEYS) {
                Some(meant) => format!("did you mean {meant}?"),
                None => "other keys are changed in the file".to_owned(),
            };
            let (key, place) = (shown(key), "of a running service".to_owned());
            Err(Complaint::UnknownKey { key, place, known: KEYS.join(", "), advice }.into())
        }
    }
}
