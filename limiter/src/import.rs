// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The limits the mail daemons of a host have now, as a configuration of the limiter.
//!
//! From text to a [`model`] to TOML, all of it pure: one module a daemon reads what the daemon's own
//! program prints of its settings, [`render`] writes the configuration. Only [`gather`] runs anything.
//!
//! The configuration is no stricter than the daemons are. Where they have no limit, it is as wide as what
//! they can serve; where they count something else, it says so and leaves that to them. What is not
//! understood is said and has no number: it is never taken for "no limit". A text that shows that a part
//! of it is missing is refused.
//!
//! `docs/import.md` has every setting that limits connections, and what becomes of it; a test goes
//! through it.

mod dovecot;
mod exim;
pub mod gather;
mod hosts;
mod merge;
mod model;
mod net;
mod postfix;
mod render;
#[cfg(test)]
mod tests;
mod tls;
mod words;

#[cfg(test)]
pub use model::OwnLimit;
pub use model::{Daemon, Import, Limit, Scope, Service as ImportedService, Sourced, Unread};

/// What a daemon's settings are read by.
pub struct Reader {
    /// What the daemon is called.
    pub name: &'static str,
    /// Programs that print its settings; the first one found is used.
    pub programs: &'static [&'static str],
    /// Their arguments, one list for each run.
    pub runs: &'static [&'static [&'static str]],
    /// From what these printed so far to the arguments of runs that are needed, too.
    pub more: fn(&str) -> Vec<Vec<String>>,
    /// From all of what was printed to its limits.
    pub read: fn(&str) -> Result<Daemon, Unread>,
}

/// Postfix's settings.
pub static POSTFIX: Reader = Reader {
    name: "Postfix",
    programs: &["postconf"],
    runs: &[&["-x"], &["-M"], &["-P", "-x"]],
    more: |_| Vec::new(),
    read: postfix::read,
};

/// Exim's settings.
pub static EXIM: Reader = Reader {
    name: "Exim",
    programs: &["exim", "exim4"],
    runs: &[&["-bV"], &["-bP"]],
    more: exim::named_lists,
    read: exim::read,
};

/// Dovecot's settings.
pub static DOVECOT: Reader = Reader {
    name: "Dovecot",
    programs: &["doveconf"],
    runs: &[&[]],
    more: dovecot::hidden,
    read: dovecot::read,
};
