// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The administrator's words: text with placeholders.

use std::fmt;

use limiter_common::Reason;

/// What stands for something that is known only when a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// The connections there are of what has reached its limit.
    Count,
    /// That limit.
    Limit,
    /// The client's address.
    Address,
    /// The service's name.
    Service,
    /// The greeter's name.
    Hostname,
    /// The reason's name.
    Reason,
    /// When it makes sense to come again.
    Retry,
    /// The administrator's URL.
    Url,
}

impl Placeholder {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::Count,
        Self::Limit,
        Self::Address,
        Self::Service,
        Self::Hostname,
        Self::Reason,
        Self::Retry,
        Self::Url,
    ];

    /// As it is written, without braces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Limit => "limit",
            Self::Address => "address",
            Self::Service => "service",
            Self::Hostname => "hostname",
            Self::Reason => "reason",
            Self::Retry => "retry",
            Self::Url => "url",
        }
    }

    /// Whether there is such a thing where a client is refused for `reason`: a rate counts no connections that are open.
    #[must_use]
    pub const fn is_known(self, reason: Reason) -> bool {
        match self {
            Self::Count | Self::Limit => {
                matches!(reason, Reason::Total | Reason::Network | Reason::Concurrency)
            }
            _ => true,
        }
    }
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is nothing in it.
    Empty,
    /// This character ends a line, or is not to be seen.
    Control(char),
    /// There is no placeholder of this name.
    Unknown(String),
    /// A brace without the other.
    Brace,
}

/// Text with placeholders, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Placeholder),
}

impl Template {
    /// Reads it: `{name}` is a placeholder, `{{` and `}}` are braces.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        if text.trim().is_empty() {
            return Err(Fault::Empty);
        }
        if let Some(control) = text.chars().find(|&char| breaks_a_line(char)) {
            return Err(Fault::Control(control));
        }
        let (mut parts, mut plain) = (Vec::new(), String::new());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
                plain.extend(from.chars().next());
                rest = after;
                continue;
            }
            let (name, after) =
                from.strip_prefix('{').and_then(|from| from.split_once('}')).ok_or(Fault::Brace)?;
            let known = Placeholder::ALL.into_iter().find(|placeholder| placeholder.name() == name);
            let value = known.ok_or_else(|| Fault::Unknown(name.to_owned()))?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Value(value));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts })
    }

    /// Whether it has this in it.
    #[must_use]
    pub fn has(&self, placeholder: Placeholder) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Value(value) if *value == placeholder))
    }

    /// The first character of its text that is not ASCII. Values always are.
    #[must_use]
    pub fn first_not_ascii(&self) -> Option<char> {
        self.text().find(|char| !char.is_ascii())
    }

    /// The characters between the placeholders.
    pub fn text<'a>(&'a self) -> impl Iterator<Item = char> + 'a {
        let text = |part: &'a Part| if let Part::Text(text) = part { text.as_str() } else { "" };
        self.parts.iter().flat_map(move |part| text(part).chars())
    }

    /// With what `write_value` writes for each placeholder.
    pub fn write(&self, out: &mut String, write_value: &dyn Fn(Placeholder, &mut String)) {
        for part in &self.parts {
            match part {
                Part::Text(plain) => out.push_str(plain),
                Part::Value(value) => write_value(*value, out),
            }
        }
    }
}

/// As it is written in the file.
impl fmt::Display for Template {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(plain) => out.write_str(&plain.replace('{', "{{").replace('}', "}}")),
            Part::Value(value) => write!(out, "{{{}}}", value.name()),
        })
    }
}

/// Whether it ends a line somewhere, or is a control character.
fn breaks_a_line(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn braces_are_written_twice_and_placeholders_known() {
        let parse = |text: &str| Template::parse(text).map(|template| template.to_string());
        for text in ["{count} of {limit}", "a {{b}} c", "}}{{", "{url}", "{{{address}}}"] {
            assert_eq!(parse(text).as_deref(), Ok(text));
        }
        assert_eq!(parse("{cuont}"), Err(Fault::Unknown("cuont".to_owned())));
        assert_eq!(parse("{}"), Err(Fault::Unknown(String::new())));
        assert_eq!(parse("{ count }"), Err(Fault::Unknown(" count ".to_owned())));
        for text in ["{", "}", "a {count", "count}", "{{}"] {
            assert_eq!(parse(text), Err(Fault::Brace), "{text}");
        }
        for text in ["", " ", "\t"] {
            assert_eq!(parse(text), Err(Fault::Empty), "{text:?}");
        }
        for char in ['\r', '\n', '\0', '\t', '\u{7f}', '\u{85}', '\u{2028}', '\u{2029}'] {
            let text = format!("a{char}b");
            assert_eq!(parse(&text), Err(Fault::Control(char)));
        }
    }

    proptest! {
        #[test]
        fn a_template_survives_being_written_and_read(text in "([a-zä ]|\\{\\{|\\}\\}|\\{count\\}|\\{url\\}){1,20}") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(template.to_string(), text);
                prop_assert_eq!(Template::parse(&template.to_string()), Ok(template));
            }
        }

        #[test]
        fn no_text_makes_it_panic_or_has_a_line_break(text in "\\PC{0,40}|.{0,40}|[{}a-z\r\n]{0,20}") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert!(!template.text().any(breaks_a_line));
            }
        }
    }
}
