// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The mail daemon's own limits, where they are nearer than the limiter's: then raising the limiter's does not help.

use crate::evidence::case::{Case, DaemonLimit, LimitScope};

/// Of its limit on the service a mail daemon has used this much, in hundredths, before that is told.
const NEARLY_USED: u64 = 80;

/// Those of its limits that refuse, or will refuse, before the limiter does.
pub fn nearer(case: &Case) -> Vec<&DaemonLimit> {
    let is_nearer = |limit: &&DaemonLimit| {
        let Some(value) = limit.value else { return false };
        match limit.scope {
            // Of a user at a source it is as near only where that source has few users.
            LimitScope::UserAtSource => {
                let few = case.users.get().is_none_or(|users| users.len() <= 1);
                few && case.limit.is_none_or(|ours| value < ours.into())
            }
            LimitScope::Source => case.limit.is_none_or(|ours| value < ours.into()),
            LimitScope::Service => {
                let used = u64::from(case.whole.connections).saturating_mul(100);
                let is_nearly_used = used >= value.saturating_mul(NEARLY_USED);
                case.whole.max_total.map_or(is_nearly_used, |ours| value < ours.into())
            }
        }
    };
    case.server.limits.iter().filter(is_nearer).collect()
}
