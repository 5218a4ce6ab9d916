// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `message` and `url`: the administrator's words for refused clients.

use std::fmt;

use limiter_common::Reason;
use toml::{Spanned, de::DeValue};

use super::{
    check::{self, NONE, Value},
    error::{Complaint, Located, shown},
    fields::Section,
    keys::similar,
    reader::{Node, in_order, name, start, unknown},
    service::Service,
};
use crate::wording::{self, Fault, MAX_LINE, Placeholder, TOLD, Template, Wording};

/// What one table says of them: each with its place; none of a word that takes what is inherited away.
#[derive(Clone, Debug, Default)]
pub struct WordingSchema {
    /// `message`, by the number of the reason.
    messages: [Option<Spanned<Option<Template>>>; Reason::ALL.len()],
    /// `url`.
    url: Option<Spanned<Option<Template>>>,
}

impl WordingSchema {
    /// Takes `message`, which stands in `section`.
    pub fn read_message(&mut self, value: &Node<'_>, section: Section<'_>) -> Result<(), Located> {
        let DeValue::Table(table) = value.get_ref() else {
            let message = message(value)?;
            for reason in TOLD {
                // What counts connections says nothing to those who are refused for something else.
                if unknown_of(message.get_ref().as_ref(), reason).is_none() {
                    self.set(reason, message.clone());
                }
            }
            return Ok(());
        };
        for (key, value) in in_order(table) {
            let reason =
                Reason::from_name(name(key)).ok_or_else(|| unknown(key, Section::Message(&section)))?;
            if !TOLD.contains(&reason) {
                return Err(Complaint::MessageNotTold(reason).at(start(key)));
            }
            let message = message(value)?;
            if let Some(placeholder) = unknown_of(message.get_ref().as_ref(), reason) {
                return Err(Complaint::MessageWithoutValue(placeholder.name(), reason).at(start(value)));
            }
            self.set(reason, message);
        }
        Ok(())
    }

    fn set(&mut self, reason: Reason, message: Spanned<Option<Template>>) {
        if let Some(place) = self.messages.get_mut(reason as usize) {
            *place = Some(message);
        }
    }

    /// Takes `url`.
    pub fn read_url(&mut self, value: &Node<'_>) -> Result<(), Located> {
        let given = Value::from(value.get_ref());
        let wrong = || Complaint::Url(given.shown()).at(start(value));
        let Value::Text(text) = &given else { return Err(wrong()) };
        if check::is_none(&given) {
            self.url = Some(Spanned::new(value.span(), None));
            return Ok(());
        }
        let is_url = ["https://", "http://"]
            .iter()
            .any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
        let is_plain =
            text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'<' | b'>'));
        if !is_url || !is_plain {
            return Err(wrong());
        }
        let url = template("url", text).map_err(|complaint| complaint.at(start(value)))?;
        // It is appended to every message. `{retry}` has spaces.
        let unfit = [Placeholder::Count, Placeholder::Limit, Placeholder::Retry, Placeholder::Url];
        if let Some(unfit) = unfit.into_iter().find(|unfit| url.has(*unfit)) {
            return Err(Complaint::UrlWithout(unfit.name()).at(start(value)));
        }
        self.url = Some(Spanned::new(value.span(), Some(url)));
        Ok(())
    }

    /// What holds where this is said on top of `inherited`.
    pub fn over(&self, inherited: &Wording) -> Wording {
        let mut wording = inherited.clone();
        for (reason, message) in Reason::ALL.iter().zip(&self.messages) {
            if let Some(message) = message {
                wording.set(*reason, message.get_ref().clone());
            }
        }
        if let Some(url) = &self.url {
            wording.url.clone_from(url.get_ref());
        }
        wording
    }

    /// Where it says what a refusal for `reason` is told: its message, or else its URL.
    pub fn place(&self, reason: Reason) -> Option<usize> {
        let message = self.messages.get(reason as usize).and_then(Option::as_ref);
        message.or(self.url.as_ref()).map(start)
    }
}

/// The message that `value` is; none for "none".
fn message(value: &Node<'_>) -> Result<Spanned<Option<Template>>, Located> {
    let given = Value::from(value.get_ref());
    let Value::Text(text) = &given else { return Err(Complaint::Message(given.shown()).at(start(value))) };
    if check::is_none(&given) {
        return Ok(Spanned::new(value.span(), None));
    }
    let message = template("message", text).map_err(|complaint| complaint.at(start(value)))?;
    Ok(Spanned::new(value.span(), Some(message)))
}

fn template(key: &'static str, text: &str) -> Result<Template, Complaint> {
    Template::parse(text).map_err(|fault| match fault {
        Fault::Empty => Complaint::NoMessage(key),
        Fault::Control(control) => Complaint::MessageControl(key, control.escape_default().to_string()),
        Fault::Brace => Complaint::MessageBrace(key),
        Fault::Unknown(given) => {
            let advice = match similar(&given, &Placeholder::ALL.map(Placeholder::name)) {
                Some(meant) => format!("did you mean {{{meant}}}?"),
                None => "write one of these, or {{ for a brace".to_owned(),
            };
            Complaint::MessagePlaceholder(key, shown(&given), advice)
        }
    })
}

/// What a message has in it that there is none of, where a client is refused for `reason`.
fn unknown_of(message: Option<&Template>, reason: Reason) -> Option<Placeholder> {
    Placeholder::ALL.into_iter().find(|placeholder| {
        !placeholder.is_known(reason) && message.is_some_and(|message| message.has(*placeholder))
    })
}

/// Refuses words that the protocol of the service does not have, that ask for a URL where there is none, or that could
/// be too long for their line.
pub fn fits(service: &Service, hostname: Option<&str>) -> Result<(), (Complaint, Reason)> {
    let Service { name, protocol, wording, .. } = service;
    for reason in TOLD {
        let not_ascii = wording.message(reason).and_then(Template::first_not_ascii);
        if let Some(char) = not_ascii.filter(|_| wording::is_ascii(*protocol)) {
            return Err((
                Complaint::MessageNotAscii { service: name.clone(), protocol: *protocol, char },
                reason,
            ));
        }
        let asks_for_url = wording.message(reason).is_some_and(|message| message.has(Placeholder::Url));
        if asks_for_url && wording.url.is_none() {
            return Err((Complaint::MessageWithoutUrl { service: name.clone(), reason }, reason));
        }
        let bytes = wording::longest(wording, *protocol, name, reason, hostname);
        if bytes > MAX_LINE {
            return Err((Complaint::MessageTooLong { service: name.clone(), reason, bytes }, reason));
        }
    }
    Ok(())
}

impl Wording {
    /// What it says, by key; always the same keys, in the same order.
    #[must_use]
    pub fn keys(&self) -> [(&'static str, String); 2] {
        let messages: Vec<(Reason, &Template)> =
            Reason::ALL.into_iter().filter_map(|reason| Some((reason, self.message(reason)?))).collect();
        let message = match *messages.as_slice() {
            [] => NONE.to_owned(),
            // As one text, it is for the same reasons.
            [(_, one), ..]
                if TOLD.into_iter().all(|reason| {
                    self.message(reason) == Some(one).filter(|one| unknown_of(Some(one), reason).is_none())
                }) =>
            {
                quoted(&one.to_string())
            }
            _ => {
                let keys =
                    messages.iter().map(|(reason, text)| format!("{reason} = {}", quoted(&text.to_string())));
                format!("{{ {} }}", keys.collect::<Vec<_>>().join(", "))
            }
        };
        [
            ("message", message),
            ("url", self.url.as_ref().map_or_else(|| NONE.to_owned(), Template::to_string)),
        ]
    }
}

/// As the file has it.
impl fmt::Display for Wording {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [(_, message), (_, url)] = self.keys();
        let message = if message == NONE { quoted(NONE) } else { message };
        write!(out, "message = {message}\nurl = {}", quoted(&url))
    }
}

fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}
