// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is said of a configuration that cannot be meant: one sentence, with the place and the remedy.

use std::io;

use limiter_common::{Protocol, Reason};

use super::keys::Number;
use crate::{
    trust::Distrust,
    wording::{MAX_LINE, Placeholder, title},
};

/// Longest piece of somebody's text repeated in an error, in characters.
const MAX_SHOWN: usize = 40;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is nothing at the path.
    #[error("{file}: no such file; create it, or name another")]
    Missing {
        /// The file's name.
        file: String,
    },
    /// The path is a directory.
    #[error("{file}: this is a directory; give the path of the configuration file in it")]
    Directory {
        /// The file's name.
        file: String,
    },
    /// The path is no file: what is read from it may never end.
    #[error("{file}: this is {what}, not a file; give the path of the configuration file")]
    NotAFile {
        /// The file's name.
        file: String,
        /// What it is.
        what: &'static str,
    },
    /// Symbolic links that lead nowhere.
    #[error("{file}: the symbolic links form a loop; give the path of the file itself")]
    Circle {
        /// The file's name.
        file: String,
    },
    /// Somebody else than root has a say in what the file says: the file's name is the second.
    #[error("{1}: {0}")]
    Distrusted(Distrust, String),
    /// The file could not be read.
    #[error("{file}: cannot be read ({error}); make it readable for limiter")]
    Unreadable {
        /// The file's name.
        file: String,
        /// What the system says.
        error: io::Error,
    },
    /// The file is larger than any configuration.
    #[error(
        "{file}: larger than 8 MiB, so this is not a configuration file; give the path of the right file"
    )]
    TooLarge {
        /// The file's name.
        file: String,
    },
    /// The file says something that cannot be meant.
    #[error("{file}:{line}:{column}: {complaint}")]
    Invalid {
        /// The file's name.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// What is wrong there.
        complaint: Box<Complaint>,
    },
}

/// What is wrong with one thing that was said. What somebody gave is held as [`shown`] shows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Complaint {
    /// The file breaks TOML's grammar.
    #[error("this is not valid TOML ({0}); correct it")]
    Syntax(String),
    /// The file is not text.
    #[error("this is not UTF-8; save the file as UTF-8 text")]
    NotUtf8,
    /// The file holds a NUL.
    #[error("there is a NUL character here; remove it")]
    Nul,
    /// A key nobody knows.
    #[error("unknown key {key} {section} (known: {known}); {advice}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it stands: `in [defaults]`.
        section: String,
        /// The keys known there.
        known: String,
        /// What to do.
        advice: String,
    },
    /// Something else where the table of this name belongs.
    #[error("{0} must be a table, not {1}; write [{0}] above its keys")]
    NotATable(String, String),
    /// Something else where the service of this name belongs.
    #[error("service {0} must be a table, not {1}; write [service.{0}] above its keys")]
    NotAService(String, String),
    /// A number out of range.
    #[error("{} must be between {} and {}, not {given}; {}", .of.key, .of.min, .of.max, .of.advice)]
    OutOfRange {
        /// What the number is.
        of: &'static Number,
        /// What was given.
        given: String,
    },
    /// Something else than a number.
    #[error("{} must be a whole number between {} and {}, not {given}; {}", .of.key, .of.min, .of.max, .of.advice)]
    NotANumber {
        /// What the number is.
        of: &'static Number,
        /// What was given.
        given: String,
    },
    /// A number in quotes.
    #[error("{} must be a whole number between {} and {}, not {given}; leave the quotes out", .of.key, .of.min, .of.max)]
    QuotedNumber {
        /// What the number is.
        of: &'static Number,
        /// What was given.
        given: String,
    },
    /// Something else than a protocol.
    #[error(
        "protocol must be \"smtp\", \"imap\", \"pop3\" or \"sieve\", not {0}; give the protocol of the service's clients"
    )]
    Protocol(String),
    /// Something else than a mode.
    #[error(
        "mode must be \"enforce\" or \"observe\", not {0}; choose whether to refuse connections or only to count refusals"
    )]
    Mode(String),
    /// Something else than a response.
    #[error("response must be \"reply\", \"reset\" or \"drop\", not {0}; choose how to answer a refusal")]
    Response(String),
    /// Something else than a rate.
    #[error(
        "rate must be a number of connections a second, minute or hour such as \"10/s\", \"60/min\" or \"600/h\", or \"none\", not {0}; choose how fast one source may connect"
    )]
    Rate(String),
    /// Something else than a time for keepalive.
    #[error(
        "keepalive must be a time between \"30s\" and \"24h\", or \"none\", not {0}; give the time after which a vanished client's connection ends"
    )]
    Keepalive(String),
    /// Something else than a time to wait.
    #[error(
        "wait must be a time in whole seconds between \"0s\" and \"60s\", not {0}; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once"
    )]
    Wait(String),
    /// Something else than a history.
    #[error("history must be a table, true or false, not {0}; write history = false to keep none")]
    History(String),
    /// Something else than whether users are kept.
    #[error("users must be true or false, not {0}; choose whether the history keeps the names of users")]
    HistoryUsers(String),
    /// Something else than interfaces.
    #[error(
        "interfaces must be \"auto\" or a list of names such as [\"eth0\"], not {0}; name the interfaces the shield attaches to, or [] for none"
    )]
    Interfaces(String),
    /// An interface named twice.
    #[error("the interface {0} is named twice; remove one")]
    InterfaceTwice(String),
    /// Something else than the length of a ban.
    #[error("{key} must be a time between \"1s\" and \"30days\", not {given}; give the length of a ban")]
    Ban {
        /// The key.
        key: &'static str,
        /// What was given.
        given: String,
    },
    /// A first ban that is longer than the longest.
    #[error("ban_max ({ban_max}) is shorter than ban ({ban}); raise ban_max, or lower ban")]
    BanAboveLongest {
        /// The first ban.
        ban: String,
        /// The longest.
        ban_max: String,
    },
    /// More refused handshakes than the replies let through.
    #[error(
        "ban_after = \"{ban_after}\" is never reached, because only refusals with a reply count and replies is \"{replies}\"; lower ban_after, or raise replies"
    )]
    BanNeverReached {
        /// `ban_after`.
        ban_after: String,
        /// `replies`.
        replies: String,
    },
    /// Something else than so many in a time.
    #[error(
        "ban_after must be a text such as \"100 in 10min\", or \"none\", not {0}; give the number of refused connections that leads to a ban, and their time"
    )]
    BanAfter(String),
    /// Something else than a rate of replies.
    #[error(
        "replies must be a text such as \"20/min\", per s, min or h, or \"none\", not {0}; give the number of replies a source gets before it gets resets"
    )]
    Replies(String),
    /// Something else than a network limit.
    #[error(
        "network must be a table or \"none\", not {0}; write for example network = {{ max_connections = 50 }}"
    )]
    NotANetwork(String),
    /// A network limit without its number.
    #[error("network has no max_connections; write for example network = {{ max_connections = 50 }}")]
    NetworkWithoutLimit,
    /// A burst where there is no rate.
    #[error("burst has no effect without a rate; add for example rate = \"60/min\", or remove it")]
    BurstWithoutRate,
    /// A reserve where there is no total.
    #[error("service {0} has a reserve but no max_total; add max_total, or set reserve to 0")]
    ReserveOfNothing(String),
    /// A total that one source could not use.
    #[error(
        "max_total {max_total} of service {service} is less than the {max_connections} connections one source may hold; raise it, or lower max_connections"
    )]
    TotalBelowSource {
        /// The service.
        service: String,
        /// Its total.
        max_total: u32,
        /// Its limit for one source.
        max_connections: u32,
    },
    /// A network limit that one source could not use.
    #[error(
        "a network may hold {network} connections to service {service}, less than the {max_connections} one source may hold; raise it, or lower max_connections"
    )]
    NetworkBelowSource {
        /// The service.
        service: String,
        /// Its limit for one network.
        network: u32,
        /// Its limit for one source.
        max_connections: u32,
    },
    /// A network smaller than a source.
    #[error(
        "the {family}_prefix {network} of a network is longer than the {family}_prefix {of_source} of a source at service {service}; give a shorter one"
    )]
    NetworkWithinSource {
        /// The service.
        service: String,
        /// `ipv4` or `ipv6`.
        family: &'static str,
        /// Prefix length of a network.
        network: u8,
        /// Prefix length of a source.
        of_source: u8,
    },
    /// Something else than a list of rules.
    #[error("rule must be a list of tables, not {0}; write [[rule]] above the keys of each")]
    NotRules(String),
    /// Something else than a network.
    #[error(
        "network must be an address or a network such as \"203.0.113.0/24\" or \"2001:db8::/48\", not {0}; give the network that the rule is for"
    )]
    Network(String),
    /// An IPv4 network written as IPv6.
    #[error("{0} is an IPv4-mapped IPv6 address; write it as IPv4")]
    MappedNetwork(String),
    /// A network with bits behind its prefix.
    #[error(
        "{given} has bits set after its prefix; write {meant} for the network, or the address without the prefix"
    )]
    HostBits {
        /// What was given.
        given: String,
        /// The network it is in.
        meant: String,
    },
    /// A rule for nobody.
    #[error("this rule has no network; add for example network = \"203.0.113.0/24\"")]
    RuleWithoutNetwork,
    /// A rule that says nothing.
    #[error(
        "the rule for {0} has no effect; add allow = true, deny = true, max_connections, rate, network_max_connections, or source_prefix"
    )]
    RuleWithoutSay(String),
    /// A rule that says more than one thing.
    #[error("the rule for {0} has more than one of allow, deny and limits; keep one of them")]
    RuleSaysTwo(String),
    /// A burst where the rule has no rate: the service's rate keeps the service's burst.
    #[error(
        "burst has no effect without a rate in the same rule; add for example rate = \"60/min\", or remove it"
    )]
    RuleBurstWithoutRate,
    /// A network limit that one source of the rule could not use.
    #[error(
        "the rule for {network} lets the network around a source hold {limit} connections, less than the {max_connections} the source itself may hold; raise network_max_connections, or lower max_connections"
    )]
    RuleNetworkBelowSource {
        /// The rule's network.
        network: String,
        /// Its limit for the network around a source.
        limit: u32,
        /// Its limit for one source.
        max_connections: u32,
    },
    /// What makes a source where none has a limit.
    #[error(
        "the rule for {0} has a source_prefix, but no source in it has a limit; remove source_prefix, or allow and deny"
    )]
    SourcePrefixWithoutLimit(String),
    /// What makes a source, of more bits than an address has.
    #[error("an address in {network} has fewer than {prefix} bits; give a source_prefix of 32 at most")]
    SourcePrefixTooLong {
        /// The rule's network.
        network: String,
        /// What was given.
        prefix: u8,
    },
    /// What makes a source, reaching beyond the network.
    #[error(
        "source_prefix {prefix} is shorter than the prefix of {network}; give a longer source_prefix, or a \
         larger network"
    )]
    SourceBeyondNetwork {
        /// The rule's network.
        network: String,
        /// What was given.
        prefix: u8,
    },
    /// What makes a source where that is known.
    #[error("limiter counts each address in {0} as its IPv4 host; remove source_prefix")]
    SourcePrefixOfTranslated(String),
    /// `allow` or `deny` that is not true.
    #[error("{0} can only be true; set it to true, or remove it")]
    NotTrue(String),
    /// A comment that is no text.
    #[error("comment must be text, not {0}; put it in quotes")]
    Comment(String),
    /// A second rule for a network.
    #[error("{network} already has a rule on line {line}; merge the two rules")]
    RuleTwice {
        /// The network.
        network: String,
        /// The line of the first.
        line: usize,
    },
    /// A limit for a service that is not there.
    #[error("unknown service {service} (known: {known}); name one of these")]
    NoSuchService {
        /// What was given.
        service: String,
        /// The services there are.
        known: String,
    },
    /// No name to be told to a client.
    #[error(
        "hostname must be 1 to 253 letters, digits, \".\" and \"-\", not {0}; give the name mail clients know"
    )]
    Hostname(String),
    /// No name for a service.
    #[error("a service name must be 1 to 15 of a-z, 0-9, \"-\" and \"_\", not \"{0}\"; give it another name")]
    ServiceName(String),
    /// Something else than a list of ports.
    #[error("{0} must be a list, not {1}; write for example {0} = [{example}]", example = if *.0 == "ports" { 25 } else { 465 })]
    NotAList(&'static str, String),
    /// A port of `tls_ports` that is not one of the service's.
    #[error(
        "port {port} of tls_ports is not a port of service {service}; add it to ports, or remove it here"
    )]
    TlsPortElsewhere {
        /// The port.
        port: u16,
        /// The service.
        service: String,
    },
    /// A port twice in `tls_ports` of the service of this name.
    #[error("port {0} is listed twice in tls_ports of service {1}; list it once")]
    TlsPortTwice(u16, String),
    /// Something else than certificates.
    #[error(
        "tls must be a table, a list of tables, or \"none\", not {0}; write for example tls = {{ certificate = \"/etc/ssl/mail.pem\", key = \"/etc/ssl/private/mail.key\" }}"
    )]
    NotTls(String),
    /// A certificate without its file, or its key's.
    #[error("tls has no {0}; add for example {0} = \"{example}\"", example = if *.0 == "key" { "/etc/ssl/private/mail.key" } else { "/etc/ssl/mail.pem" })]
    TlsWithout(&'static str),
    /// More certificates than a service takes.
    #[error("a service takes at most {0} certificates; use one certificate for several names")]
    TooManyCertificates(usize),
    /// No path that means the same everywhere.
    #[error(
        "{key} must be an absolute path such as \"/etc/ssl/mail.pem\", not {given}; give the path of a PEM file"
    )]
    NotAPath {
        /// The key.
        key: &'static str,
        /// What was given.
        given: String,
    },
    /// A port twice in the service of this name.
    #[error("port {0} is listed twice in service {1}; list it once")]
    PortTwice(u16, String),
    /// A port in two services, both in the file.
    #[error(
        "port {port} of service {service} already belongs to service {other} (line {line}); remove it from one of them"
    )]
    PortTaken {
        /// The port.
        port: u16,
        /// The service that lists it again.
        service: String,
        /// The service that listed it first.
        other: String,
        /// The line where it did.
        line: usize,
    },
    /// A port in a service of the file and in a built-in one.
    #[error(
        "port {port} of service {service} already belongs to the built-in service {other}; remove it there with [service.{other}] ports = {left:?}, or here"
    )]
    PortBuiltIn {
        /// The port.
        port: u16,
        /// The service of the file.
        service: String,
        /// The built-in service.
        other: String,
        /// What is left to the built-in service without it.
        left: Vec<u16>,
    },
    /// A new service without ports.
    #[error("service {0} is not built in and has no ports; add for example ports = [2525]")]
    NoPorts(String),
    /// A new service without a protocol.
    #[error("service {0} is not built in and has no protocol; add for example protocol = \"smtp\"")]
    NoProtocol(String),
    /// More services than the kernel's table holds.
    #[error("too many services: at most {0} are possible; put ports with the same limit into one service")]
    TooManyServices(u32),
    /// Something else than a message.
    #[error(
        "message must be text, or a table of texts by reason, or \"none\", not {0}; write for example message = {{ concurrency = \"Too many connections, close one\" }}"
    )]
    Message(String),
    /// A message with nothing in it.
    #[error("{0} has no text; write some, or \"none\" for the words of limiter")]
    NoMessage(&'static str),
    /// A message of more than one line, or with what is not to be seen.
    #[error("{0} has the control character {1}, which a reply cannot have; write it as one line of text")]
    MessageControl(&'static str, String),
    /// Half a placeholder.
    #[error("{0} has a brace without the other; close the placeholder, or write {{{{ or }}}} for a brace")]
    MessageBrace(&'static str),
    /// A placeholder nobody knows.
    #[error("{0} has the unknown placeholder {{{1}}} (known: {known}); {2}", known = placeholders())]
    MessagePlaceholder(&'static str, String, String),
    /// A message that nobody hears.
    #[error("nobody is told that it is {0}, because its packets are dropped; remove this message")]
    MessageNotTold(Reason),
    /// A placeholder that has no value.
    #[error("the message for {1} has {{{0}}}, but a refusal for {1} counts no connections; remove it")]
    MessageWithoutValue(&'static str, Reason),
    /// A place for a URL that is not there.
    #[error(
        "the message of service {service} for {reason} has {{url}}, but the service has no url; add url = \"https://…\", or remove it"
    )]
    MessageWithoutUrl {
        /// The service.
        service: String,
        /// The reason.
        reason: Reason,
    },
    /// Characters that the protocol does not have.
    #[error(
        "the message of service {service} has the character {char}, but a reply of {} has only ASCII; write it in ASCII", title(*.protocol)
    )]
    MessageNotAscii {
        /// The service.
        service: String,
        /// Its protocol.
        protocol: Protocol,
        /// The character.
        char: char,
    },
    /// More than a line.
    #[error(
        "the reply of service {service} for {reason} can be {bytes} bytes long, but at most {MAX_LINE} are possible; shorten message, url or hostname"
    )]
    MessageTooLong {
        /// The service.
        service: String,
        /// The reason.
        reason: Reason,
        /// How long it can get.
        bytes: usize,
    },
    /// Something else than a URL.
    #[error(
        "url must begin with https:// or http://, and be ASCII without spaces, quotes and <>, or \"none\", not {0}; give the address of a page"
    )]
    Url(String),
    /// A placeholder that no URL can have.
    #[error(
        "url cannot have {{{0}}}; use {{address}}, {{service}}, {{hostname}} or {{reason}}, or remove it"
    )]
    UrlWithout(&'static str),
    /// A key that `limiter set` is given twice.
    #[error("{0} is given twice; give it once")]
    SettingTwice(&'static str),
    /// A word of `limiter set` without `=`.
    #[error("\"{0}\" is not KEY=VALUE; write for example max_connections=20")]
    NotASetting(String),
}

/// The placeholders that a message can have.
fn placeholders() -> String {
    Placeholder::ALL.map(|placeholder| format!("{{{}}}", placeholder.name())).join(" ")
}

/// Somebody's text, made fit for one line.
pub fn shown(text: &str) -> String {
    let mut line: String = text.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        line.push('…');
    }
    line
}

/// A complaint and the byte of the text it is about.
#[derive(Debug)]
pub struct Located {
    /// Where.
    pub at: usize,
    /// What.
    pub complaint: Complaint,
}

impl Complaint {
    /// With its place.
    pub fn at(self, at: usize) -> Located {
        Located { at, complaint: self }
    }
}
