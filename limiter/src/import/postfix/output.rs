// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The lines of `postconf`, `postconf -M` and `postconf -P`, which can be told apart.

use std::{cell::Cell, collections::BTreeMap};

/// What holds where a parameter is not said, as when only `postconf -n` was given.
const DEFAULTS: [(&str, &str); 13] = [
    ("anvil_rate_time_unit", "60s"),
    ("default_process_limit", "100"),
    ("postscreen_client_connection_count_limit", "$smtpd_client_connection_count_limit"),
    ("postscreen_post_queue_limit", "$default_process_limit"),
    ("postscreen_pre_queue_limit", "$default_process_limit"),
    ("smtpd_client_auth_rate_limit", "0"),
    ("smtpd_client_connection_count_limit", "50"),
    ("smtpd_client_connection_limit_exceptions", ""),
    ("smtpd_client_connection_rate_limit", "0"),
    ("smtpd_client_event_limit_exceptions", "${smtpd_client_connection_limit_exceptions:$mynetworks}"),
    ("smtpd_client_message_rate_limit", "0"),
    ("smtpd_client_new_tls_session_rate_limit", "0"),
    ("smtpd_client_recipient_rate_limit", "0"),
];

/// What holds since 3.8, besides.
const DEFAULTS_SINCE_3_8: [(&str, &str); 2] =
    [("smtpd_client_ipv4_prefix_length", "32"), ("smtpd_client_ipv6_prefix_length", "84")];

/// What all of `postconf` has in every version.
const ALWAYS: [&str; 6] = [
    "anvil_rate_time_unit",
    "default_process_limit",
    "mynetworks",
    "smtpd_client_connection_count_limit",
    "smtpd_client_connection_rate_limit",
    "smtpd_client_event_limit_exceptions",
];

/// More parameters than anybody sets, and fewer than Postfix has.
const MANY: usize = 300;

/// More than anybody sets of only those whose names come late.
const MANY_LATE: usize = 20;

/// Parameters inside parameters inside parameters.
const MAX_DEPTH: u8 = 10;

/// Most parameters that are expanded for one.
const MAX_STEPS: u32 = 1000;

/// A line of master.cf.
#[derive(Clone, Debug)]
pub struct Master {
    /// Its service: a port, with or without a host before it.
    pub name: String,
    /// `inet`, `pass`, `unix`…
    pub kind: String,
    /// `maxproc`, or `-`.
    pub processes: String,
    /// The program.
    pub command: String,
    /// What follows the program.
    arguments: String,
}

impl Master {
    /// The service that every Postfix has.
    pub fn smtp() -> Self {
        let [name, kind, processes, command] = ["smtp", "inet", "-", "smtpd"].map(str::to_owned);
        Self { name, kind, processes, command, arguments: String::new() }
    }

    fn read(line: &str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let (name, kind) = (fields.next()?, fields.next()?);
        if !["inet", "unix", "unix-dgram", "fifo", "pass"].contains(&kind) {
            return None;
        }
        // private, unprivileged, chroot, wakeup
        let (processes, command) = (fields.nth(4)?, fields.next()?);
        let [name, kind, processes, command] = [name, kind, processes, command].map(str::to_owned);
        let arguments = fields.collect::<Vec<_>>().join(" ");
        Some(Self { name, kind, processes, command, arguments })
    }

    /// Under what its parameters are kept. The service `smtp` is there twice: to accept and to send.
    pub fn service_id(&self) -> String {
        service_id(&self.name, &self.kind)
    }

    /// What its `-o` say; `None` if something of it is not understood.
    fn options(&self) -> Option<Vec<(String, String)>> {
        let mut options = Vec::new();
        let mut rest = self.arguments.as_str();
        while !rest.is_empty() {
            let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
            let Some(attached) = word.strip_prefix("-o") else {
                // -v and -s are of no matter here.
                if !["-v", "-vv", "-s"].contains(&word) {
                    return None;
                }
                rest = after;
                continue;
            };
            let option = if attached.is_empty() { after } else { rest.strip_prefix("-o")? };
            let (option, after) = match option.strip_prefix('{') {
                Some(inner) => inner.split_at(balanced(inner)?),
                None => option.split_once(' ').unwrap_or((option, "")),
            };
            let (name, value) = option.split_once('=')?;
            let name = name.trim();
            if name.is_empty() || !name.chars().all(is_name) {
                return None;
            }
            options.push((name.to_owned(), value.trim().to_owned()));
            rest = after.trim_start_matches('}').trim_start();
        }
        Some(options)
    }
}

fn service_id(service: &str, kind: &str) -> String {
    if kind == "inet" { service.to_owned() } else { format!("{service}/{kind}") }
}

/// All of it.
#[derive(Debug, Default)]
pub struct Output {
    /// By service (empty: main.cf) and name.
    parameters: BTreeMap<(String, String), String>,
    /// The lines of master.cf.
    pub masters: Vec<Master>,
    /// The lines that are none of these.
    pub not_understood: Vec<String>,
    /// Services with options that are not understood, and that `postconf -P` says nothing of.
    pub without_options: Vec<String>,
    /// Where it shows that a part is missing.
    pub cut: Option<String>,
}

/// What the last line was, for one that goes on with it.
enum Last {
    Nothing,
    Master,
    Parameter((String, String)),
}

impl Output {
    pub fn read(text: &str) -> Self {
        let mut output = Self::default();
        let mut last = Last::Nothing;
        let lines = text.lines().enumerate();
        for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
            if line.starts_with([' ', '\t']) {
                if !output.continued(&last, line.trim()) {
                    output
                        .cut
                        .get_or_insert(format!("line {} continues on a line that is missing", index + 1));
                }
            } else if let Some(master) = Master::read(line) {
                output.masters.push(master);
                last = Last::Master;
            } else if let Some((service_id, value)) = parameter(line) {
                output.parameters.insert(service_id.clone(), value);
                last = Last::Parameter(service_id);
            } else {
                output.not_understood.push(format!("line {}: {line}", index + 1));
                // What goes on with it belongs to it.
                last = Last::Parameter((line.to_owned(), String::new()));
            }
        }
        output.take_options();
        if output.is_full()
            && let Some(missing) = ALWAYS.iter().find(|name| output.given("", name).is_none())
        {
            output.cut.get_or_insert(format!("it is the output of `postconf`, but {missing} is missing"));
        }
        if let Some(first) = output.begins_late()
            && output.of_main().count() > MANY_LATE
        {
            output
                .cut
                .get_or_insert(format!("`postconf` prints them in order, and none comes before {first}"));
        }
        output
    }

    /// A folded line, of -f; whether there is one that it goes on with.
    fn continued(&mut self, last: &Last, rest: &str) -> bool {
        match last {
            Last::Nothing => return false,
            Last::Master => {
                let words = rest.split_whitespace().collect::<Vec<_>>().join(" ");
                if let Some(master) = self.masters.last_mut() {
                    append(&mut master.arguments, &words);
                }
            }
            Last::Parameter(service_id) => {
                if let Some(value) = self.parameters.get_mut(service_id) {
                    append(value, rest);
                }
            }
        }
        true
    }

    /// What -o says in the lines of -M, where -P does not say it.
    fn take_options(&mut self) {
        for master in &self.masters {
            let service_id = master.service_id();
            match master.options() {
                Some(options) => {
                    for (name, value) in options {
                        self.parameters.entry((service_id.clone(), name)).or_insert(value);
                    }
                }
                None if self.parameters.keys().any(|(of, _)| *of == service_id) => {}
                None => self.without_options.push(service_id),
            }
        }
    }

    /// Whether it is one of Postfix at all.
    pub fn is_postfix(&self) -> bool {
        let known = [
            "mail_version",
            "myhostname",
            "mydestination",
            "mynetworks",
            "queue_directory",
            "compatibility_level",
        ];
        !self.masters.is_empty() || known.iter().any(|name| self.given("", name).is_some())
    }

    /// Whether there is anything of main.cf.
    pub fn has_main(&self) -> bool {
        self.of_main().next().is_some()
    }

    fn of_main(&self) -> impl Iterator<Item = &str> {
        self.parameters.keys().filter(|(of, _)| of.is_empty()).map(|(_, name)| name.as_str())
    }

    /// The first parameter, if the half of the alphabet before it is empty, as in a text without its front.
    pub fn begins_late(&self) -> Option<&str> {
        self.of_main().min().filter(|first| *first >= "n")
    }

    /// Whether it says that it is of 3.8 or later.
    fn is_since_3_8(&self) -> bool {
        let mut numbers = self.given("", "mail_version").unwrap_or_default().split(['.', '-']);
        let mut number = || numbers.next().and_then(|number| number.parse::<u32>().ok());
        (number(), number()) >= (Some(3), Some(8))
    }

    /// Whether it is what `postconf` prints without `-n`: it has what nobody sets.
    fn is_full(&self) -> bool {
        let services = self.of_main().filter(|name| name.ends_with("_service_name"));
        services.count() >= 4 || self.of_main().count() >= MANY
    }

    /// What the text says of a parameter in this service alone; "" is main.cf.
    pub fn given(&self, service: &str, name: &str) -> Option<&str> {
        self.parameters.get(&(service.to_owned(), name.to_owned())).map(String::as_str)
    }

    /// What holds for a parameter in this service, as it is written.
    pub fn raw(&self, service: &str, name: &str) -> Option<&str> {
        let by_default = || {
            let since_3_8 = DEFAULTS_SINCE_3_8.iter().filter(|_| self.is_since_3_8());
            DEFAULTS.iter().chain(since_3_8).find(|(known, _)| *known == name).map(|&(_, value)| value)
        };
        let own = if service.is_empty() { None } else { self.given(service, name) };
        own.or_else(|| self.given("", name)).or_else(|| by_default().filter(|_| self.has_main()))
    }

    /// What holds for a parameter, with the parameters in it expanded; `None` if it is not known, or too
    /// complicated.
    pub fn value(&self, service: &str, name: &str) -> Option<String> {
        let budget = Budget { depth: MAX_DEPTH, steps: &Cell::new(MAX_STEPS) };
        self.expand(service, self.raw(service, name)?, &budget)
    }

    fn expand(&self, service: &str, text: &str, budget: &Budget<'_>) -> Option<String> {
        let budget = &Budget { depth: budget.depth.checked_sub(1)?, ..*budget };
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push_str(before);
            let (inner, left) = match after.chars().next()? {
                '$' => {
                    expanded.push('$');
                    rest = &after[1..];
                    continue;
                }
                '{' => {
                    let end = 1 + balanced(&after[1..])?;
                    (&after[1..end], &after[end + 1..])
                }
                '(' => {
                    let end = after.find(')')?;
                    (&after[1..end], &after[end + 1..])
                }
                _ => after.split_at(after.find(|char| !is_name(char)).unwrap_or(after.len())),
            };
            budget.steps.set(budget.steps.get().checked_sub(1)?);
            expanded.push_str(&self.one(service, inner, budget)?);
            rest = left;
        }
        expanded.push_str(rest);
        Some(expanded)
    }

    /// `name`, `name:if it is empty` or `name?if it is not`. What the text does not say is not known: it
    /// may have a default, or be said by Postfix itself, as `stress` is.
    fn one(&self, service: &str, inner: &str, budget: &Budget<'_>) -> Option<String> {
        let name_ends = inner.find(|char| !is_name(char)).unwrap_or(inner.len());
        let (name, rest) = inner.split_at(name_ends);
        if name.is_empty() || name == STRESS {
            return None;
        }
        let value = self.expand(service, self.raw(service, name)?, budget)?;
        let mut rest = rest.chars();
        let choice = rest.next();
        let text = rest.as_str();
        let plain = !text.starts_with('{');
        match choice {
            None => Some(value),
            Some(':') if plain && value.is_empty() => self.expand(service, text, budget),
            Some('?') if plain && !value.is_empty() => self.expand(service, text, budget),
            Some(':' | '?') if plain => Some(String::new()),
            _ => None,
        }
    }
}

/// The parameter that Postfix sets for its processes while all of them are busy.
pub const STRESS: &str = "stress";

/// `SERVICE/TYPE/PARAMETER = VALUE` of -P, or `PARAMETER = VALUE`.
fn parameter(line: &str) -> Option<((String, String), String)> {
    let (key, value) = line.split_once('=')?;
    let mut parts = key.trim().rsplitn(3, '/');
    let (name, kind, service) = (parts.next()?, parts.next(), parts.next());
    // Those of a transport have its name in them.
    let is_parameter = |char: char| is_name(char) || char == '-' || char == '.';
    if name.is_empty() || !name.chars().all(is_parameter) {
        return None;
    }
    let service_id = match (kind, service) {
        (Some(kind), Some(service)) if !service.contains(char::is_whitespace) => service_id(service, kind),
        (None, None) => String::new(),
        _ => return None,
    };
    Some(((service_id, name.to_owned()), value.trim().to_owned()))
}

/// Words behind others.
fn append(to: &mut String, words: &str) {
    if !to.is_empty() {
        to.push(' ');
    }
    to.push_str(words);
}

/// Where the brace closes that is open before `text`.
fn balanced(text: &str) -> Option<usize> {
    let mut depth = 1_u32;
    for (index, char) in text.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 1 => return Some(index),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// What is left to be spent on one parameter.
#[derive(Clone, Copy)]
struct Budget<'a> {
    depth: u8,
    steps: &'a Cell<u32>,
}

fn is_name(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}
