// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! One client at one port.

use std::fmt;

/// How it connects, and to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In plain text.
    Plain,
    /// It asks for TLS after the greeting.
    StartTls,
    /// TLS starts at once, and the limiter has a certificate.
    Tls,
    /// TLS starts at once, and the limiter has no certificate.
    TlsAlert,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Plain, Self::StartTls, Self::Tls, Self::TlsAlert];

    /// Whether TLS starts at once.
    pub fn is_implicit(self) -> bool {
        matches!(self, Self::Tls | Self::TlsAlert)
    }

    /// Whether the limiter has a certificate.
    pub fn has_certificate(self) -> bool {
        self != Self::TlsAlert
    }
}

impl fmt::Display for Way {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Plain => "Plain",
            Self::StartTls => "STARTTLS",
            Self::Tls => "Implicit TLS with a certificate",
            Self::TlsAlert => "Implicit TLS without a certificate",
        })
    }
}

/// One client at one port.
pub struct Case {
    /// Its name.
    pub client: &'static str,
    /// Where it connects to.
    pub port: u16,
    /// How.
    pub way: Way,
    /// Its files, by their names, in which `{host}`, `{port}`, `{dir}` and `{ca}` (what the server's certificate
    /// can be checked with) stand for what they are called.
    pub files: Vec<(&'static str, String)>,
    /// A line for the shell, likewise.
    pub line: String,
    /// Whether it draws on a terminal.
    pub draws: bool,
    /// Whether it is a program with windows, which ends when its user ends it.
    pub has_windows: bool,
    /// What its user has to see is in lines that have one of these; none: in all lines.
    pub only: &'static [&'static str],
    /// Lines that have one of these are of no use.
    pub without: &'static [&'static str],
}

/// What its user saw.
pub struct Seen {
    /// The client.
    pub client: &'static str,
    /// Where it connected to.
    pub port: u16,
    /// How.
    pub way: Way,
    /// Each line, as it was.
    pub lines: Vec<String>,
    /// With which code it ended; none if it had to be ended, or says nothing by it.
    pub code: Option<i32>,
}

impl Case {
    /// What is left of what it said.
    pub fn kept(&self, said: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for line in said.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let has = |words: &[&str]| words.iter().any(|words| line.contains(words));
            let is_kept = (self.only.is_empty() || has(self.only)) && !has(self.without);
            // A screen is drawn more than once.
            if is_kept && !lines.iter().any(|known| known == line) {
                lines.push(line.to_owned());
            }
        }
        lines
    }
}
