// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The administrator's words, by reason.

use limiter_common::Reason;

use super::template::{Placeholder, Template};

/// The reasons that anyone is ever told: who is denied or banned gets silence.
pub const TOLD: [Reason; 4] = [Reason::Total, Reason::Network, Reason::Concurrency, Reason::Rate];

/// The administrator's words at one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wording {
    /// By the number of the reason; none: the limiter's words.
    messages: [Option<Template>; Reason::ALL.len()],
    /// What is appended, or stands where a message has `{url}`.
    pub url: Option<Template>,
}

impl Wording {
    /// All is the limiter's.
    pub const NONE: Self = Self { messages: [const { None }; Reason::ALL.len()], url: None };

    /// What is told for a reason, if the administrator says it.
    #[must_use]
    pub fn message(&self, reason: Reason) -> Option<&Template> {
        self.messages.get(reason as usize).and_then(Option::as_ref)
    }

    /// Says it.
    pub fn set(&mut self, reason: Reason, message: Option<Template>) {
        if let Some(place) = self.messages.get_mut(reason as usize) {
            *place = message;
        }
    }

    /// Whether what is told for a reason has this in it.
    #[must_use]
    pub fn has(&self, reason: Reason, placeholder: Placeholder) -> bool {
        let has = |template: &Template| template.has(placeholder);
        self.message(reason).is_some_and(has) || self.url.as_ref().is_some_and(has)
    }
}
