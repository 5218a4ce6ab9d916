// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Mail servers with a queue: what their administrator sees of a refusal in the log.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use limiter_lab::poll;

use super::{
    case::{Seen, Way},
    host::Full,
};
use crate::senders::{
    host::Host,
    mailer, mailers,
    plan::{Mta, Timers},
    setting::{PORT, TLS_PORT},
};

/// Within this they have tried.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether they have.
const INTERVAL: Duration = Duration::from_millis(100);

/// A mail server, and where it logs.
pub struct Sender {
    /// Its name.
    pub client: &'static str,
    /// How it connects.
    pub way: Way,
    mta: Mta,
    log: &'static str,
    /// What its words of a refusal begin with in the log; the last of these ends them.
    words: &'static [&'static str],
}

/// All of them.
pub const ALL: [Sender; 6] = [
    postfix(Way::Plain),
    exim(Way::Plain),
    postfix(Way::Tls),
    exim(Way::Tls),
    postfix(Way::TlsAlert),
    exim(Way::TlsAlert),
];

const fn postfix(way: Way) -> Sender {
    let words = &["SSL_connect error", "warning: TLS library problem", "status=deferred"];
    Sender { client: "Postfix", way, mta: Mta::Postfix, log: "log", words }
}

const fn exim(way: Way) -> Sender {
    let words: &[_] = match way {
        Way::Plain | Way::StartTls => &["SMTP error"],
        // Inside TLS it logs the end of a line before the reply.
        Way::Tls => &["SMTP error", ": 421 "],
        Way::TlsAlert => &["TLS session:"],
    };
    Sender { client: "Exim", way, mta: Mta::Exim, log: "mainlog", words }
}

impl Sender {
    /// Where it connects to.
    pub fn port(&self) -> u16 {
        if self.way.is_implicit() { TLS_PORT } else { PORT }
    }

    /// Its words of the first refusal; none if there is none yet.
    fn words(&self, log: &str) -> Option<Vec<String>> {
        let mut lines: Vec<String> = Vec::new();
        for line in log.lines() {
            let begin = self.words.iter().find_map(|words| Some((words, line.find(words)?)));
            let Some((words, begin)) = begin else { continue };
            let line = line.get(begin..)?.trim_end();
            if !lines.iter().any(|known| known == line) {
                lines.push(line.to_owned());
            }
            if Some(words) == self.words.last() {
                return Some(lines);
            }
        }
        None
    }
}

/// What one logs that has mail for a host that refuses it.
///
/// # Errors
///
/// When it does not start, or does not log a refusal.
pub fn see(name: &str, limiter: &Path, config: &str, sender: &Sender) -> Result<Seen> {
    let mut host = Host::new(&format!("{name}-{}", sender.client.to_lowercase()))?;
    let _full = Full::new(&host.netns, name, limiter, sender.way.has_certificate(), config)?;
    let mailer = mailers::of(sender.mta);
    mailer.queue(&mut host, sender.port(), Timers::Default, &mailer::message(1))?;
    mailer.release(&mut host, Timers::Default)?;
    let logged =
        poll::until(PATIENCE, INTERVAL, || Ok::<_, anyhow::Error>(sender.words(&host.log(sender.log))))?;
    let lines =
        logged.with_context(|| format!("{} logs no refusal:\n{}", sender.client, host.log(sender.log)))?;
    Ok(Seen { client: sender.client, port: sender.port(), way: sender.way, lines, code: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_refusal_end_with_those_of_the_first_one() {
        let log = "smtp[1]: SSL_connect error to h: -1\nqmgr[2]: A: from=<a>\nsmtp[3]: SSL_connect error to h: -1\n\
                   smtp[1]: A: to=<b>, status=deferred (c)\nsmtp[3]: B: to=<b>, status=deferred (d)\n";
        let words = ["SSL_connect error to h: -1", "status=deferred (c)"];
        assert_eq!(postfix(Way::TlsAlert).words(log), Some(words.map(str::to_owned).to_vec()));
        assert_eq!(postfix(Way::TlsAlert).words("smtp[1]: SSL_connect error to h: -1\n"), None);
    }

    #[test]
    fn a_reply_on_a_line_of_its_own_belongs_to_the_refusal() {
        let log = "A H=h [h]: SMTP error after \n: 421 no\nA == b defer (0) H=h [h]: SMTP error after \\n: 421 no\n";
        let words = ["SMTP error after", ": 421 no"];
        assert_eq!(exim(Way::Tls).words(log), Some(words.map(str::to_owned).to_vec()));
        assert_eq!(exim(Way::Tls).words("A H=h [h]: SMTP error after \n"), None);
    }
}
