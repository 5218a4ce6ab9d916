// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Why a source holds so many connections, or is refused: from a case to findings. Pure: nobody is asked anything here.
//!
//! Each cause is a file in `causes`, with its rule, its thresholds and what speaks against it, and a line in [`RULES`].
//! A rule sees the figures of the case and nothing of the other rules. What is not known is never taken for zero: a rule
//! that needs it says nothing, or is less sure. The rules in prose: docs/explain.md.

mod causes;
mod figures;
mod finding;
mod nearer;
#[cfg(test)]
pub mod tests;

use self::{
    causes::{
        checks_too_often, full_around, ghosts, in_front, limit_too_low, looping, many_users, one_user,
        overloaded, sender,
    },
    figures::Figures,
    finding::Judgement,
};
pub use self::{
    finding::{Cause, Command, Confidence, Diagnosis, Excluded, Paragraph, Remedy, Unknown},
    nearer::nearer,
};
use crate::evidence::case::{Case, Known};

/// A rule: what the figures say of one cause.
type Rule = fn(&Figures<'_>) -> Judgement;

/// Each cause with its rule.
const RULES: [(Cause, Rule); 10] = [
    (Cause::FullAround, full_around::judge),
    (Cause::Overloaded, overloaded::judge),
    (Cause::InFront, in_front::judge),
    (Cause::Ghosts, ghosts::judge),
    (Cause::Looping, looping::judge),
    (Cause::ChecksTooOften, checks_too_often::judge),
    (Cause::ManyUsers, many_users::judge),
    (Cause::OneUser, one_user::judge),
    (Cause::Sender, sender::judge),
    (Cause::LimitTooLow, limit_too_low::judge),
];

/// What is likely of a case, what is not, and what is not known.
pub fn diagnose(case: &Case) -> Diagnosis {
    let figures = Figures::of(case);
    let mut diagnosis = Diagnosis::default();
    for (cause, rule) in RULES {
        match rule(&figures) {
            Judgement::Found(finding) => diagnosis.findings.push(finding),
            Judgement::Not(why) => diagnosis.excluded.push(Excluded { cause, why }),
            Judgement::Nothing => {}
        }
    }
    // The surest first; of equally sure ones what is around the source, which it can do nothing about, then what explains
    // most of its connections, then the order of the table.
    diagnosis.findings.sort_by_key(|finding| {
        let is_around = finding.cause == Cause::FullAround;
        (std::cmp::Reverse((finding.confidence, is_around, finding.explains)), finding.cause)
    });
    diagnosis.unknown = unknown(&figures, &diagnosis);
    diagnosis
}

/// What is not known, and would make a difference.
fn unknown(figures: &Figures<'_>, diagnosis: &Diagnosis) -> Vec<Unknown> {
    let case = figures.case;
    let is_sure = diagnosis.first().is_some_and(|first| first.confidence == Confidence::High);
    let mut unknown = Vec::new();
    if is_sure || figures.connections == 0 {
        return unknown;
    }
    if let Known::Not(why) = &case.users
        && figures.is_of_readers()
    {
        unknown.push(Unknown {
            what: format!("whose sessions these are is not known: {why}"),
            would_tell: None,
        });
    }
    if figures.churn.is_none() {
        let what = match &case.history {
            Known::Not(why) => format!("how its connections come and go is not known: {why}"),
            Known::Is(_) => "how its connections come and go is not known".to_owned(),
        };
        let command = format!("explain {} --service {} --watch 60s", case.address, case.service);
        unknown.push(Unknown { what, would_tell: Some(command) });
    }
    if figures.judged < figures.connections {
        let blind = figures.connections - figures.judged;
        unknown.push(Unknown {
            what: format!("of {} it is not known what goes through them", figures.of_all(blind)),
            would_tell: None,
        });
    }
    unknown
}
