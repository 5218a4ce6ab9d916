// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What `limiter allow`, `deny`, `limit` and `forget` make of the rule of a network. The file and the policy in force both
//! get their rules from here, so they cannot disagree.

use ipnet::IpNet;
use limiter_common::Action;

use super::{Limiting, Rule, SettingError, error::Complaint};

/// What is said of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling<'a> {
    /// Everything.
    Allow,
    /// Nothing.
    Deny,
    /// These limits for all services, or for this one.
    Limit(Limiting, Option<&'a str>),
    /// No rule.
    Forget,
}

impl Ruling<'_> {
    /// The rule of `network` after this, where `before` was its rule; `None`: it has none.
    ///
    /// An action replaces what the rule said, except its comment. Limits go beside other limits of the rule, and replace
    /// an action.
    ///
    /// # Errors
    /// When limits make no sense together, or there is none, as the file would refuse them.
    pub fn apply(self, network: IpNet, before: Option<Rule>) -> Result<Option<Rule>, SettingError> {
        let comment = before.as_ref().and_then(|rule| rule.comment.clone());
        let rule = match self {
            Ruling::Forget => return Ok(None),
            Ruling::Allow => Rule::new(network, Action::Allow),
            Ruling::Deny => Rule::new(network, Action::Deny),
            Ruling::Limit(limiting, service) => {
                let limited = before.filter(|rule| rule.action == Action::Limit);
                let mut rule = limited.unwrap_or_else(|| Rule::new(network, Action::Limit));
                limiting.change(&mut rule, service)?;
                if rule.is_empty() {
                    return Err(Complaint::RuleWithoutSay(network.to_string()).into());
                }
                rule
            }
        };
        Ok(Some(Rule { comment, ..rule }))
    }
}
