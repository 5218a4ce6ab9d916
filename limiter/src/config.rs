// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The configuration: what the file says, resolved to what the limiter does.
//!
//! Two steps and two types. [`schema`] reads the file as its author wrote it, refuses what cannot be
//! meant, and remembers where each thing stands; [`resolve`] lays that over the design's services and
//! defaults and yields [`Config`], in which nothing is left open. No file is needed:
//! `Config::default()` is what an empty one means.
//!
//! [`check`] holds what may be said of each key. The file and `limiter set` ([`setting`]) both go
//! through it, so the two cannot disagree. Every refusal is a [`ConfigError`] or a [`SettingError`]:
//! one sentence with what is wrong, where, and what to do.

mod certificate_files;
mod check;
mod edit;
mod error;
mod fields;
mod file;
mod history;
mod interfaces;
mod keys;
mod ladder;
mod limiting;
mod load;
mod rate_spec;
mod reader;
mod render;
mod resolve;
mod resolved;
mod rules;
mod ruling;
mod schema;
mod service;
mod setting;
#[cfg(test)]
mod tests;
mod tls;
mod wording;

pub use certificate_files::{CertificateFiles, IMPLICIT_TLS, is_path as is_certificate_path};
pub use check::{is_hostname, protocol_name};
pub use edit::{Change, EditError, Edited, edit};
pub use error::ConfigError;
pub use file::StagedConfig;
pub use history::HistoryConfig;
pub use interfaces::Interfaces;
pub use ladder::LadderConfig;
pub use limiting::Limiting;
pub use load::{DEFAULT_PATH, load, parse, read};
pub use rate_spec::RateSpec;
pub use resolve::WAIT_SECONDS;
pub use resolved::Config;
pub use rules::{PerService, Rule, bits, ip_net, network, parse_network, prefix_len};
pub use ruling::Ruling;
pub use schema::OrNone;
pub use service::{Network, RateWithBurst, Service};
pub use setting::{Setting, SettingError, apply, changes, parse_setting, settings};
