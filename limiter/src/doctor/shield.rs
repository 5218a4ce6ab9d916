// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Where the shield is, and why not elsewhere.

use super::{Context, Grade, Outcome, instance::not_loaded, instance::warned};
use crate::{
    shield::{Attachment, Mode},
    status::About,
};

/// What the daemon says, corrected by what is so.
pub fn look(context: &Context) -> Vec<Outcome> {
    let Some(status) = context.status() else { return not_loaded() };
    let found: Vec<Outcome> = warned(context, About::Shield, Grade::Warning).collect();
    [found, judge(&status.shield)].concat()
}

/// What there is to say of it beside the warnings that `limiter status` has.
fn judge(shield: &[Attachment]) -> Vec<Outcome> {
    if shield.is_empty() {
        return vec![Outcome::good(
            "the configuration puts the shield on no interface, or there is none for it",
        )];
    }
    let there = shield.iter().filter(|attachment| !attachment.is_missing());
    there
        .map(|attachment| match attachment {
            Attachment { mode: Mode::Native, cost: None, .. } | Attachment { left_alone: true, .. } => {
                Outcome::good(attachment.to_string())
            }
            _ => Outcome::note(format!("the shield is on {attachment}")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(interface: &str, mode: Mode, why: Option<&str>, cost: Option<&str>) -> Attachment {
        Attachment {
            interface: interface.to_owned(),
            index: Some(2),
            mode,
            why: why.map(str::to_owned),
            left_alone: false,
            cost: cost.map(str::to_owned),
        }
    }

    #[test]
    fn the_reason_for_each_mode_is_said_and_a_cost_is_worth_a_note() {
        let said = judge(&[
            on("eth0", Mode::Native, None, None),
            on("eth1", Mode::Generic, Some("its driver has no native mode"), Some("copied")),
            Attachment { left_alone: true, ..on("eth2", Mode::None, Some("\"auto\" skips it"), None) },
            on("eth3", Mode::None, Some("another XDP program is attached"), None),
        ]);
        let said: Vec<(Grade, &str)> = said.iter().map(|one| (one.grade, one.sentence.as_str())).collect();
        assert_eq!(
            said,
            [
                (Grade::Good, "eth0: native"),
                (Grade::Note, "the shield is on eth1: generic (its driver has no native mode); copied"),
                (Grade::Good, "eth2: none (\"auto\" skips it)"),
            ],
            "what is missing is a warning of `limiter status`"
        );
        assert_eq!(judge(&[])[0].grade, Grade::Good);
    }
}
