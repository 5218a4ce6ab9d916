// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a refused client is told, whatever the protocol.

use std::{fmt::Write as _, net::IpAddr};

use limiter_common::Reason;

use super::{
    retry::Retry,
    template::{Placeholder, Template},
    words::Wording,
};

/// What a refusal tells.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// The greeter's name, one that [`crate::config::is_hostname`] accepts.
    pub hostname: &'a str,
    /// The name of the service.
    pub service: &'a str,
    /// Why it is refused.
    pub reason: Reason,
    /// The connections there are of what is over its limit.
    pub count: u32,
    /// That limit.
    pub limit: u32,
    /// The client; IPv4 where it is, never the mapped form.
    pub remote: IpAddr,
    /// When it makes sense to come again.
    pub retry: Retry,
    /// The administrator's words.
    pub wording: &'a Wording,
}

impl Text<'_> {
    /// Whether there is no use in trying again. A ban ends by itself.
    pub const fn is_final(&self) -> bool {
        matches!(self.reason, Reason::Denied)
    }

    /// The words, the same in every protocol but for SMTP's own form of addresses, whose `tag` ("IPv6:") goes before
    /// the address in the limiter's.
    pub fn words(&self, tag: &str) -> String {
        let (mut words, message) = (String::with_capacity(128), self.wording.message(self.reason));
        match message {
            Some(message) => self.write(message, &mut words),
            None => self.own(&mut words, tag),
        }
        if let Some(url) = &self.wording.url
            && !message.is_some_and(|message| message.has(Placeholder::Url))
        {
            words.push(' ');
            self.write(url, &mut words);
        }
        words
    }

    /// With the values of this refusal.
    fn write(&self, template: &Template, out: &mut String) {
        template.write(out, &|placeholder, out| {
            let _in_memory = match placeholder {
                Placeholder::Count => write!(out, "{}", self.count),
                Placeholder::Limit => write!(out, "{}", self.limit),
                Placeholder::Address => write!(out, "{}", self.remote),
                Placeholder::Service => out.write_str(self.service),
                Placeholder::Hostname => out.write_str(self.hostname),
                Placeholder::Reason => out.write_str(self.reason.name()),
                Placeholder::Retry => write!(out, "{}", self.retry),
                Placeholder::Url => {
                    // Which has none itself.
                    self.wording.url.iter().for_each(|url| self.write(url, out));
                    Ok(())
                }
            };
        });
    }

    /// The limiter's words. What went wrong comes first, because many clients show the beginning of a line only; "wait" is
    /// in all that will pass, because fetchmail shows its user a refusal by POP3 that has it, and takes others for a wrong
    /// password (docs/decisions/words-that-clients-show.md).
    fn own(&self, out: &mut String, tag: &str) {
        let Self { reason, count, limit, remote, .. } = self;
        let _in_memory = match reason {
            Reason::Denied => write!(out, "Access denied to this IP [{tag}{remote}]"),
            Reason::Banned => {
                write!(out, "Access denied to this IP [{tag}{remote}] for some time, wait and try again")
            }
            Reason::Concurrency => write!(
                out,
                "Too many connections ({count} of {limit}) from this IP [{tag}{remote}], close one or wait"
            ),
            Reason::Network => write!(
                out,
                "Too many connections ({count} of {limit}) from the network of this IP [{tag}{remote}], wait and \
                 try again"
            ),
            Reason::Rate => {
                write!(out, "Too many new connections from this IP [{tag}{remote}], wait and try again")
            }
            Reason::Total => {
                write!(out, "Too many connections ({count} of {limit}) to this service, wait and try again")
            }
        };
    }
}

#[cfg(test)]
pub const V4: Text<'_> = Text {
    hostname: "mail.example.org",
    service: "smtp",
    reason: Reason::Concurrency,
    count: 8,
    limit: 8,
    remote: IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7)),
    retry: Retry::Later,
    wording: &Wording::NONE,
};

#[cfg(test)]
pub const V6: Text<'_> =
    Text { remote: IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7)), ..V4 };
