// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What people give to `limiter explain`: an address in any spelling, a name, a line of a log, or the text of a refusal.
//! Pure, and never sure of more than stands there: a version or a time is no address.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config;

/// What was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meant {
    /// This address.
    Address(IpAddr),
    /// The host of this name.
    Name(String),
    /// A line.
    Line(Line),
}

/// A line of a log, or a text that a client was shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The client that it tells of.
    pub client: Option<IpAddr>,
    /// The server that refuses, where the line names it.
    pub server: Option<String>,
    /// The address of that server, where a sender's log names it.
    pub server_address: Option<IpAddr>,
    /// Whether it is a refusal for too many connections, or that a server refuses for now.
    pub is_refusal: bool,
    /// Who wrote it as a sender, where a sender did.
    pub sender: Option<Sender>,
}

/// A mail server that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Postfix's smtp(8).
    Postfix,
    /// Exim.
    Exim,
}

/// Longer texts are no line of a log.
const LONGEST: usize = 4096;

/// What a text means; none if it names nothing.
pub fn read(text: &str) -> Option<Meant> {
    let text = text.trim();
    if text.len() > LONGEST {
        return None;
    }
    if !text.contains(char::is_whitespace) {
        return match spelled(text) {
            Some(address) => Some(Meant::Address(address)),
            None => is_name(text).then(|| Meant::Name(text.trim_end_matches('.').to_ascii_lowercase())),
        };
    }
    let line = line(text);
    (line.client.is_some() || line.server.is_some() || line.is_refusal).then_some(Meant::Line(line))
}

/// Whether it may be the name of a host: letters in its last label, so that no part of an address is taken for one.
fn is_name(text: &str) -> bool {
    let text = text.trim_end_matches('.');
    let last = text.rsplit('.').next().unwrap_or("");
    last.starts_with(|first: char| first.is_ascii_alphabetic()) && config::is_hostname(text)
}

/// An address in any spelling: in brackets, with a zone, a port, a full prefix, the tag of SMTP, or IPv4 within IPv6.
fn spelled(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches(|around| matches!(around, '"' | '\'' | '<' | '>' | '(' | ')' | ',' | ';'));
    let bare = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, after) = rest.split_once(']')?;
            if !is_port(after) && !is_full(after) {
                return None;
            }
            inside
        }
        None => text,
    };
    let tag = bare.get(..5).filter(|tag| tag.eq_ignore_ascii_case("ipv6:"));
    let bare = if tag.is_some() { bare.get(5..)? } else { bare };
    let bare = bare.split_once('/').map_or(
        bare,
        |(address, bits)| {
            if is_full(&format!("/{bits}")) { address } else { bare }
        },
    );
    let bare = bare.split_once('%').map_or(bare, |(address, _zone)| address);
    if let Ok(address) = bare.parse::<Ipv6Addr>() {
        return Some(IpAddr::V6(address).to_canonical());
    }
    if let Ok(address) = bare.parse::<Ipv4Addr>() {
        return Some(address.into());
    }
    // With a port, which only IPv4 has without brackets.
    let (address, port) = bare.split_once(':')?;
    if is_port(&format!(":{port}")) { address.parse::<Ipv4Addr>().ok().map(IpAddr::from) } else { None }
}

/// Nothing, or `:` and a port.
fn is_port(after: &str) -> bool {
    after.is_empty() || after.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

/// The prefix of one address alone.
fn is_full(after: &str) -> bool {
    matches!(after, "/32" | "/128")
}

/// Words before an address that is a client's, as the logs have it.
const BEFORE_CLIENT: [&str; 10] =
    ["from", "client", "ip", "address", "host", "refused", "connection", "source", "rip", "ip:"];
/// Where one of these goes before such a word, a version follows.
const BEFORE_VERSION: [&str; 6] = ["upgraded", "updated", "version", "changed", "built", "downgraded"];

/// What a line tells.
fn line(text: &str) -> Line {
    let sender = sender(text);
    let (server, is_reply) = server_of_reply(text);
    let is_refusal = is_refusal(text) || is_reply;
    let mut line = Line { server, is_refusal, sender, ..Line::default() };
    if sender.is_some() {
        // `relay=` and `H=` name the server there, not a client.
        let (server, address) = refusing_server(text);
        line.server = server.or(line.server);
        line.server_address = address;
        // What the server says of us stands after its code.
        line.client = reply(text).and_then(client);
    } else {
        line.client = client(text);
    }
    line
}

/// Whether a sender wrote the line. Postfix's smtpd receives, and smtp sends.
fn sender(text: &str) -> Option<Sender> {
    if text.contains("postfix/smtp[") || text.contains("status=deferred") && text.contains("relay=") {
        return Some(Sender::Postfix);
    }
    let is_exim = text.contains(" T=remote_smtp") || text.contains("SMTP error from remote mail server");
    is_exim.then_some(Sender::Exim)
}

/// The server that a sender's line names: `host NAME[ADDRESS] refused to talk to me` and `H=NAME [ADDRESS]`.
fn refusing_server(text: &str) -> (Option<String>, Option<IpAddr>) {
    let after =
        ["(host ", "relay=", " H="].iter().find_map(|mark| text.split_once(mark).map(|(_, after)| after));
    let Some(after) = after else { return (None, None) };
    let name: String =
        after.chars().take_while(|char| char.is_ascii_alphanumeric() || matches!(char, '.' | '-')).collect();
    let address = after
        .get(name.len()..)
        .and_then(|rest| rest.trim_start().strip_prefix('['))
        .and_then(|rest| rest.split_once(']'))
        .and_then(|(address, _)| spelled(address));
    (Some(name).filter(|name| is_name(name)), address)
}

/// Replies that refuse for now or for ever at the beginning of a session, by their first words.
const REPLIES: [&str; 8] = ["421 ", "421-", "450 ", "451 ", "554 ", "* BYE ", "-ERR ", "BYE "];

/// The part of a line that is a server's reply.
fn reply(text: &str) -> Option<&str> {
    REPLIES.iter().filter_map(|code| find_word(text, code)).min_by_key(|part| std::cmp::Reverse(part.len()))
}

/// From where `code` stands as a word of its own.
fn find_word<'a>(text: &'a str, code: &str) -> Option<&'a str> {
    text.match_indices(code).find_map(|(at, _)| {
        let before = text.get(..at)?.chars().next_back();
        let begins = before.is_none_or(|before| !before.is_ascii_alphanumeric() && before != '.');
        if begins { text.get(at..) } else { None }
    })
}

/// The server's name in a reply of SMTP, behind the code and its enhanced form (RFC 5321, 4.2; RFC 3463); and whether
/// there is a reply that speaks of connections.
fn server_of_reply(text: &str) -> (Option<String>, bool) {
    let Some(reply) = reply(text) else { return (None, false) };
    let is_smtp = reply.starts_with(|first: char| first.is_ascii_digit());
    let is_enhanced = |word: &str| {
        let mut parts = word.split('.');
        let are_numbers =
            parts.clone().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
        are_numbers && parts.by_ref().count() == 3
    };
    let code_length = 4;
    let mut words = reply.get(code_length..).unwrap_or("").split_whitespace();
    let first = words.next().unwrap_or("");
    let named = if is_enhanced(first) { words.next().unwrap_or("") } else { first };
    let named = named.trim_end_matches([':', ',']);
    let is_host = is_smtp && named.contains('.') && is_name(named) && spelled(named).is_none();
    (is_host.then(|| named.to_ascii_lowercase()), is_refusal(reply))
}

/// Whether it says that there are too many connections, or that it was refused for their sake.
fn is_refusal(text: &str) -> bool {
    const SAYS: [&str; 7] = [
        "too many connections",
        "too many concurrent",
        "connection limit exceeded",
        "connection concurrency limit",
        "connection rate limit",
        "maximum number of connections",
        "too many new connections",
    ];
    let text = text.to_ascii_lowercase();
    SAYS.iter().any(|says| text.contains(says))
}

/// The client that a line names: by its key, in brackets behind its name, or behind a word that says so.
fn client(text: &str) -> Option<IpAddr> {
    let words: Vec<&str> = text.split_whitespace().collect();
    // Dovecot.
    let by_key = words.iter().find_map(|word| {
        let (key, value) = word.trim_start_matches('(').split_once('=')?;
        let is_client = matches!(key, "rip" | "client" | "source" | "remote_ip");
        is_client.then(|| in_brackets(value).or_else(|| plain(value)))?
    });
    by_key.or_else(|| words.iter().find_map(|word| in_brackets(word))).or_else(|| {
        words.windows(2).enumerate().find_map(|(at, two)| {
            let [before, word] = two else { return None };
            let before = before.trim_start_matches(['(', '[']).to_ascii_lowercase();
            let is_version = at.checked_sub(1).and_then(|at| words.get(at)).is_some_and(|first| {
                BEFORE_VERSION.iter().any(|version| first.eq_ignore_ascii_case(version))
            });
            let is_before = BEFORE_CLIENT.contains(&before.trim_end_matches(':')) && !is_version;
            if is_before { plain(word) } else { None }
        })
    })
}

/// The address in the last brackets of a word: `name[203.0.113.7]:25`, `[IPv6:2001:db8::5]`.
fn in_brackets(word: &str) -> Option<IpAddr> {
    let (_, rest) = word.rsplit_once('[')?;
    let (inside, _) = rest.split_once(']')?;
    // A process's number is no address, and `[::]` no client.
    spelled(inside).filter(|address| !address.is_unspecified())
}

/// A word that is an address, with what a sentence puts around it.
fn plain(word: &str) -> Option<IpAddr> {
    let word = word.trim_end_matches(['.', ',', ';', ')', '!', ']']).trim_start_matches(['(', '[']);
    // A colon ends a part of a sentence, unless it is of the address.
    spelled(word).or_else(|| spelled(word.strip_suffix(':')?)).filter(|address| !address.is_unspecified())
}
