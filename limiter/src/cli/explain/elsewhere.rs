// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A refusal by another server: what this host can do as a sender. Pure.

use std::net::IpAddr;

use serde::Serialize;

use super::{
    commands::commands,
    pasted::{Line, Sender},
};
use crate::{
    cli::output::{self, Screen},
    diagnose::Remedy,
};

/// A refusal by another server.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Elsewhere {
    /// The server that refuses.
    pub server: Option<String>,
    /// Its address.
    pub server_address: Option<String>,
    /// The address that it refuses.
    pub refused: Option<String>,
    /// Whether that is an address of this host; none if the text does not say whom it refuses.
    pub is_this_host: Option<bool>,
    /// What this host can do, where it is the sender.
    pub remedies: Vec<Remedy>,
}

impl Elsewhere {
    /// What a line tells of another server; none if it tells of this one, which `is_own` (a name) and `has` (an address)
    /// know.
    pub fn of(line: &Line, is_own: impl Fn(&str) -> bool, has: impl Fn(IpAddr) -> bool) -> Option<Self> {
        let Line { client, server, server_address, is_refusal, sender } = line;
        let names_another = server.as_ref().is_some_and(|server| !is_own(server))
            || server_address.is_some_and(|address| !has(address));
        let names_this = server.as_ref().is_some_and(|server| is_own(server));
        // A server refuses its own addresses seldom, and this one never does.
        let is_this_host = client.map(&has);
        let is_of_another = names_another || (!names_this && is_this_host == Some(true));
        if !is_of_another || (sender.is_none() && !is_refusal && server.is_none()) {
            return None;
        }
        let is_sender = sender.is_some() || is_this_host != Some(false);
        Some(Self {
            server: server.clone(),
            server_address: server_address.map(|address| address.to_string()),
            refused: client.map(|client| client.to_string()),
            is_this_host,
            remedies: if is_sender { remedies(server.as_deref(), *sender) } else { Vec::new() },
        })
    }
}

/// Fewer connections at a time, for the one server first.
fn remedies(server: Option<&str>, sender: Option<Sender>) -> Vec<Remedy> {
    let server = server.unwrap_or("THAT.SERVER");
    let postfix = [
        Remedy::shell(
            "postconf -M slow/unix='slow unix - - y - - smtp'",
            "Postfix: a transport of its own, for that server alone",
        ),
        Remedy::shell("postconf -e slow_destination_concurrency_limit=2", "two connections at a time by it"),
        Remedy::by_hand(
            format!(
                "give the domains behind {server} this transport in the table of transport_maps \
                 (`example.net slow:`), then `postmap` it and `postfix reload`"
            ),
            "Postfix looks up the domain of the recipient there, not the name of the server",
        ),
        Remedy::shell(
            "postconf -e smtp_destination_concurrency_limit=5 && postfix reload",
            "instead: five for every destination (without it 20)",
        ),
    ];
    let exim = [
        Remedy::by_hand(
            format!("add `serialize_hosts = {server}` to the transport remote_smtp, then reload Exim"),
            "Exim: one connection at a time to that server",
        ),
        Remedy::by_hand(
            "set `remote_max_parallel = 1` in the main part of Exim's configuration",
            "a message with several destinations goes to one after the other",
        ),
    ];
    match sender {
        Some(Sender::Postfix) => postfix.into(),
        Some(Sender::Exim) => exim.into(),
        None => postfix.into_iter().chain(exim).collect(),
    }
}

/// What is shown of it.
pub fn screen(elsewhere: &Elsewhere, width: output::Width) -> Screen {
    let Elsewhere { server, server_address, refused, is_this_host, remedies } = elsewhere;
    let mut screen = Screen::new(width);
    let server = match (server, server_address) {
        (Some(name), Some(address)) => format!("{name} ({address})"),
        (Some(name), None) => name.clone(),
        (None, Some(address)) => address.clone(),
        (None, None) => "another server".to_owned(),
    };
    let whom = match (refused, is_this_host) {
        (Some(address), Some(true)) => format!("It refuses {address}, which is an address of this host."),
        (Some(address), _) => format!("It refuses {address}, which is no address of this host."),
        (None, _) => "It does not say whom it refuses.".to_owned(),
    };
    screen.line(&format!("This is a refusal by {server}, not by this host. {whom}"));
    if remedies.is_empty() {
        screen.paragraph(["Nothing can be done here: ask the administrators of that server."]);
        return screen;
    }
    screen.paragraph(["As a sender, this host can open fewer connections at a time:"]);
    commands(&mut screen, "now", "limiter", remedies);
    screen
}

#[cfg(test)]
mod tests {
    use super::{
        super::pasted::{self, Meant},
        *,
    };

    fn of(text: &str) -> Option<Elsewhere> {
        let Some(Meant::Line(line)) = pasted::read(text) else { panic!("{text}") };
        let own: IpAddr = "198.51.100.7".parse().unwrap();
        Elsewhere::of(&line, |name| name == "mail.example.org", |address| address == own)
    }

    const OF_ANOTHER: &str = "421 4.7.0 mx.example.net Too many connections (8 of 8) from this IP";

    #[test]
    fn a_refusal_of_this_host_by_another_is_told_apart_from_one_by_this_host() {
        let ours =
            "421 4.7.0 mail.example.org Too many connections (8 of 8) from this IP [203.0.113.7], close one";
        assert!(of(ours).is_none());
        assert!(of("* BYE [UNAVAILABLE] Too many connections (8 of 8) from this IP [203.0.113.7]").is_none());
        assert!(of("postfix/smtpd[4]: connect from a.example[198.51.100.7]").is_none());
        let refused = of(&format!("{OF_ANOTHER} [198.51.100.7], close one")).unwrap();
        assert_eq!((refused.server.as_deref(), refused.is_this_host), (Some("mx.example.net"), Some(true)));
        assert!(!refused.remedies.is_empty());
        let no_name =
            of("* BYE [UNAVAILABLE] Too many connections (8 of 8) from this IP [198.51.100.7]").unwrap();
        assert_eq!((no_name.server, no_name.is_this_host), (None, Some(true)));
        let stranger = of(&format!("{OF_ANOTHER} [203.0.113.7], close one")).unwrap();
        assert_eq!((stranger.is_this_host, stranger.remedies.len()), (Some(false), 0));
        assert_eq!(of(OF_ANOTHER).unwrap().is_this_host, None);
    }

    #[test]
    fn the_sender_that_wrote_the_line_is_told_what_it_can_do() {
        let exim = "1xyz == u@example.net R=dnslookup T=remote_smtp defer (-45) H=mx.example.net [192.0.2.9]: SMTP error \
                    from remote mail server after initial connection: 421 mx.example.net: Too many concurrent SMTP \
                    connections from this IP address; please try again later.";
        let told = of(exim).unwrap();
        assert!(told.remedies.iter().any(|remedy| format!("{remedy:?}").contains("remote_max_parallel")));
        assert!(!told.remedies.iter().any(|remedy| format!("{remedy:?}").contains("postconf")));
        assert_eq!(told.server_address.as_deref(), Some("192.0.2.9"));
    }

    #[test]
    fn a_line_of_what_this_host_sent_without_a_refusal_is_of_no_other_server() {
        let line = "postfix/smtp[9]: connect to mail.example.org[198.51.100.7]:25: timed out";
        let Some(Meant::Line(line)) = pasted::read(line) else { return };
        assert!(Elsewhere::of(&line, |name| name == "mail.example.org", |_| true).is_none());
    }
}
