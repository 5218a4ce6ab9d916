// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A list of hosts in which the first match counts, with exceptions in it: Postfix's and Exim's.

use ipnet::IpNet;
use limiter_common::rule::Action;

use super::{
    model::Daemon,
    net,
    words::{list_item, one_line},
};

/// What is said of an exception.
const EXCEPTION: &str =
    "an exception in the list: later items that overlap it are left out, too; add rules for both";

/// A list on its way into rules.
pub struct Hosts<'a> {
    daemon: &'a mut Daemon,
    action: Action,
    /// The daemon, and the setting.
    from: String,
    /// The exceptions so far.
    exceptions: Vec<IpNet>,
    /// An exception that is no network.
    other_exception: Option<String>,
}

impl<'a> Hosts<'a> {
    /// An empty list.
    pub fn new(daemon: &'a mut Daemon, action: Action, from: String) -> Self {
        Self { daemon, action, from, exceptions: Vec::new(), other_exception: None }
    }

    /// The next item is a network.
    pub fn network(&mut self, network: IpNet) {
        let shown = net::shown(&network);
        if let Some(exception) = &self.other_exception {
            let why = format!("it comes after {exception}, which may overlap it: add a rule for it");
            return self.leave_out(&shown, &why);
        }
        let meets = |exception: &&IpNet| exception.contains(&network) || network.contains(*exception);
        if let Some(exception) = self.exceptions.iter().find(meets) {
            let why = format!("!{} excludes all or a part of it: add a rule for it", net::shown(exception));
            return self.leave_out(&shown, &why);
        }
        self.daemon.rule(network, self.action, &self.from);
    }

    /// The next item is an exception, with its `!`.
    pub fn exception(&mut self, item: &str) {
        match net::parse(item.trim_start_matches('!').trim()) {
            Some(network) => self.exceptions.push(network),
            None => self.other_exception = Some(one_line(item)),
        }
        self.leave_out(item, EXCEPTION);
    }

    /// The next item becomes no rule.
    pub fn leave_out(&mut self, item: &str, why: &str) {
        self.daemon.leave_out(list_item(&self.from, item), why);
    }
}
