// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The policy in the kernel's maps: what a configuration makes of it, what a command changes of it, and what it contains.

mod apply;
mod caution;
mod change;
mod description;
mod local;
mod reload;
mod rules;
mod services;

pub use apply::{Applied, apply, of_config, reapply, set_local};
pub use caution::{Caution, of_ban, of_deny};
pub use change::{Planned, Saved, StaleFile, plan};
#[cfg(test)]
pub use description::differences;
pub use description::{Difference, describe, describe_limits, describe_service, ports_of};
pub use local::{addresses, built_in, built_in_rule};
pub use reload::{Changed, Later, Preview, Until, preview, reload};
pub use rules::{Lookup, admins_rule, admins_rules, covering, in_force, rule_match};
pub use services::{Selection, Services, UnknownService, by_id, by_name, name as service_name, select};
