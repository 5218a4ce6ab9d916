//! The lines of `postconf`, `postconf -M` and `postconf -P`, which can be told apart.

use std::{cell::Cell, collections::BTreeMap};

/// What holds where a parameter is not said, as when only `postconf -n` was given.
const DEFAULTS: [(&str, &str); 11] = [
    ("anvil_rate_time_unit", "60s"),
    ("default_process_limit", "100"),
    ("mynetworks", ""),
    ("postscreen_client_connection_count_limit", "$smtpd_client_connection_count_limit"),
    ("smtpd_client_auth_rate_limit", "0"),
    ("smtpd_client_connection_count_limit", "50"),
    ("smtpd_client_connection_rate_limit", "0"),
    ("smtpd_client_event_limit_exceptions", "$mynetworks"),
    ("smtpd_client_message_rate_limit", "0"),
    ("smtpd_client_new_tls_session_rate_limit", "0"),
    ("smtpd_client_recipient_rate_limit", "0"),
];

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
    /// Whether it says `-o`.
    pub has_options: bool,
}

impl Master {
    /// The service that every Postfix has.
    pub fn smtp() -> Self {
        let [name, kind, processes, command] = ["smtp", "inet", "-", "smtpd"].map(str::to_owned);
        Self { name, kind, processes, command, has_options: false }
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
        Some(Self { name, kind, processes, command, has_options: fields.any(|word| word.starts_with("-o")) })
    }
}

/// All of it.
#[derive(Debug, Default)]
pub struct Output {
    /// By service (empty: main.cf) and name.
    parameters: BTreeMap<(String, String), String>,
    /// The lines of master.cf.
    pub masters: Vec<Master>,
}

impl Output {
    pub fn read(text: &str) -> Self {
        let mut output = Self::default();
        let mut last = None;
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            if line.starts_with([' ', '\t']) {
                output.continued(last.as_ref(), line.trim());
            } else if let Some(master) = Master::read(line) {
                output.masters.push(master);
                last = None;
            } else if let Some((key, value)) = line.split_once('=') {
                let key = key.trim();
                // SERVICE/TYPE/PARAMETER of -P, or PARAMETER.
                let mut parts = key.rsplitn(3, '/');
                let (name, kind, service) = (parts.next().unwrap_or(key), parts.next(), parts.next());
                let place = match (kind, service) {
                    (Some("inet"), Some(service)) => (service.to_owned(), name.to_owned()),
                    (None, None) => (String::new(), name.to_owned()),
                    // Of another type, which nobody connects to; but the service smtp is there twice.
                    _ => (key.to_owned(), name.to_owned()),
                };
                output.parameters.insert(place.clone(), value.trim().to_owned());
                last = Some(place);
            }
        }
        output
    }

    /// A folded line, of -f.
    fn continued(&mut self, last: Option<&(String, String)>, rest: &str) {
        match last.and_then(|place| self.parameters.get_mut(place)) {
            Some(value) => {
                value.push(' ');
                value.push_str(rest);
            }
            None => {
                if let Some(master) = self.masters.last_mut() {
                    master.has_options |= rest.starts_with("-o");
                }
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

    /// Whether -P says anything of this service.
    pub fn has_overrides(&self, service: &str) -> bool {
        self.parameters.keys().any(|(of, _)| of == service)
    }

    /// What the text says of a parameter in this service alone; "" is main.cf.
    pub fn given(&self, service: &str, name: &str) -> Option<&str> {
        self.parameters.get(&(service.to_owned(), name.to_owned())).map(String::as_str)
    }

    /// What holds for a parameter in this service, as it is written.
    pub fn raw(&self, service: &str, name: &str) -> Option<&str> {
        let by_default = || DEFAULTS.iter().find(|(known, _)| *known == name).map(|&(_, value)| value);
        let own = if service.is_empty() { None } else { self.given(service, name) };
        own.or_else(|| self.given("", name)).or_else(by_default)
    }

    /// What holds for a parameter, with the parameters in it expanded; `None` if it is not known, or too
    /// complicated.
    pub fn value(&self, service: Option<&str>, name: &str) -> Option<String> {
        let service = service.unwrap_or("");
        self.expand(
            service,
            self.raw(service, name)?,
            &Budget { depth: MAX_DEPTH, steps: &Cell::new(MAX_STEPS) },
        )
    }

    fn expand(&self, service: &str, text: &str, budget: &Budget<'_>) -> Option<String> {
        let budget = &Budget { depth: budget.depth.checked_sub(1)?, ..*budget };
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push_str(before);
            let end = |close| after.find(close);
            let (inner, left) = match after.chars().next()? {
                '$' => {
                    expanded.push('$');
                    rest = &after[1..];
                    continue;
                }
                '{' => (&after[1..end('}')?], &after[end('}')? + 1..]),
                '(' => (&after[1..end(')')?], &after[end(')')? + 1..]),
                _ => after.split_at(after.find(|char| !is_name(char)).unwrap_or(after.len())),
            };
            budget.steps.set(budget.steps.get().checked_sub(1)?);
            expanded.push_str(&self.one(service, inner, budget)?);
            rest = left;
        }
        expanded.push_str(rest);
        Some(expanded)
    }

    /// `name`, `name:if it is empty` or `name?if it is not`.
    fn one(&self, service: &str, inner: &str, budget: &Budget<'_>) -> Option<String> {
        let name_ends = inner.find(|char| !is_name(char)).unwrap_or(inner.len());
        let (name, rest) = inner.split_at(name_ends);
        if name.is_empty() {
            return None;
        }
        let value = match self.raw(service, name) {
            Some(raw) => self.expand(service, raw, budget)?,
            None => String::new(),
        };
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

/// What is left to be spent on one parameter.
#[derive(Clone, Copy)]
struct Budget<'a> {
    depth: u8,
    steps: &'a Cell<u32>,
}

fn is_name(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}
