// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Takes from a text what says who somebody is: addresses, names of hosts and of users. The same one becomes the same word
//! within one bundle, so that a report can be understood; nobody can tell from the word what it was.
//!
//! What looks like an address or a host name is replaced whether or not it is known; what could be either is, too. Better
//! a word too many than one too few.

use std::{
    collections::{HashMap, HashSet},
    fmt::Display,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
};

/// Replaces.
pub struct Redactor {
    /// As random as the keys of hash tables, and kept nowhere else.
    key: RandomState,
    /// Names of this host and of its users, in lower case.
    names: HashSet<String>,
    /// What stands for what.
    words: HashMap<String, String>,
    taken: HashSet<String>,
}

/// Words that are no secret, whoever is called that.
const PLAIN: [&str; 24] = [
    "localhost",
    "limiter",
    "root",
    "mail",
    "smtp",
    "imap",
    "pop3",
    "sieve",
    "submission",
    "submissions",
    "mx",
    "host",
    "server",
    "daemon",
    "kernel",
    "linux",
    "debian",
    "ubuntu",
    "postfix",
    "dovecot",
    "exim",
    "exim4",
    "vmail",
    "nobody",
];

/// Endings of names of files and units. Not all of them: `cf`, `md`, `rs` or `so` are countries, too.
const ENDINGS: [&str; 21] = [
    "service", "socket", "scope", "slice", "timer", "mount", "conf", "toml", "json", "txt", "log", "pem",
    "key", "crt", "bans", "ko", "gz", "tar", "applied", "changes", "pid",
];

/// Where sysctls are; each name is one word more.
const SYSCTLS: [&str; 4] = ["net.core.", "net.ipv4.", "net.ipv6.", "net.mptcp."];

impl Redactor {
    /// For a host with these names of its own and of its users.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let names = names.into_iter().map(|name| name.to_lowercase());
        let names = names.filter(|name| !name.is_empty() && !PLAIN.contains(&name.as_str())).collect();
        Self { key: RandomState::new(), names, words: HashMap::new(), taken: HashSet::new() }
    }

    /// The text without them.
    pub fn text(&mut self, text: &str) -> String {
        let text = self.after(text, "changed by ", |rest| rest.find([' ', ':', ',']).unwrap_or(rest.len()));
        let text = self.after(&text, "/home/", |rest| {
            rest.find(|char: char| !(char.is_alphanumeric() || "._-".contains(char))).unwrap_or(rest.len())
        });
        let mut redacted = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let is_of_name = |char: char| char.is_alphanumeric() || "._-@%:+".contains(char);
            let run = rest.find(|char| !is_of_name(char)).unwrap_or(rest.len());
            let (name, behind) = rest.split_at(run);
            redacted.push_str(&self.run(name));
            let gap = behind.find(is_of_name).unwrap_or(behind.len());
            let (gap, behind) = behind.split_at(gap);
            redacted.push_str(gap);
            rest = behind;
        }
        redacted
    }

    /// Replaces the name that follows each `mark` and is as long as `len` says.
    fn after(&mut self, text: &str, mark: &str, len: fn(&str) -> usize) -> String {
        let mut parts = text.split(mark);
        let mut redacted = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (name, behind) = part.split_at(len(part));
            redacted.push_str(mark);
            if name.is_empty() || PLAIN.contains(&name) {
                redacted.push_str(name);
            } else {
                redacted.push_str(&self.word("name", &name.to_lowercase()));
            }
            redacted.push_str(behind);
        }
        redacted
    }

    /// What stands between blanks, brackets, quotes and the like.
    fn run(&mut self, run: &str) -> String {
        if run.is_empty() {
            return String::new();
        }
        if let Some((start, end, address)) = address(run) {
            let word = match address {
                Found::Address(address) => self.address(address),
                Found::Hardware(address) => self.word("mac", &address),
            };
            let (before, after) = (self.run(&run[..start]), self.run(&run[end..]));
            return format!("{before}{word}{after}");
        }
        let mut redacted = String::new();
        for part in run.split_inclusive([':', '%', '+']) {
            let name = part.trim_end_matches([':', '%', '+', '.', '-']);
            redacted.push_str(&self.name(name));
            redacted.push_str(&part[name.len()..]);
        }
        redacted
    }

    fn address(&mut self, address: IpAddr) -> String {
        if address.is_loopback() || address.is_unspecified() {
            return address.to_string();
        }
        let kind = match address {
            IpAddr::V4(v4) if v4.is_private() => "ipv4-private",
            IpAddr::V4(_) => "ipv4",
            IpAddr::V6(v6) if v6.is_unique_local() => "ipv6-private",
            IpAddr::V6(v6) if v6.is_unicast_link_local() => "ipv6-link-local",
            IpAddr::V6(_) => "ipv6",
        };
        self.word(kind, &address)
    }

    /// A name of a host, of a user, or none.
    fn name(&mut self, name: &str) -> String {
        let lower = name.to_lowercase();
        if self.names.contains(&lower) {
            return self.word("name", &lower);
        }
        if is_unit_or_file(&lower) {
            // `user@anna.service`: what is between is the name of somebody or something.
            return match name.split_once('@') {
                Some((unit, rest)) => {
                    let (of, ending) = rest.rsplit_once('.').unwrap_or((rest, ""));
                    let of = if of.chars().all(|char| char.is_ascii_digit() || char == '-') {
                        of.to_owned()
                    } else {
                        self.word("name", &of.to_lowercase())
                    };
                    format!("{unit}@{of}.{ending}")
                }
                None => name.to_owned(),
            };
        }
        if let Some((user, host)) =
            name.split_once('@').filter(|(user, host)| !user.is_empty() && !host.is_empty())
        {
            return format!(
                "{}@{}",
                self.word("name", &user.to_lowercase()),
                self.word("name", &host.to_lowercase())
            );
        }
        if is_host(&lower) { self.word("name", &lower) } else { name.to_owned() }
    }

    /// What stands for something: not to be told from the word, and another word for anything else.
    fn word(&mut self, kind: &str, what: &(impl Display + ?Sized)) -> String {
        let what = format!("{kind} {what}");
        if let Some(word) = self.words.get(&what) {
            return word.clone();
        }
        let words = (0_u32..).map(|nth| format!("{kind}-{:08x}", self.key.hash_one((&what, nth)) as u32));
        let word = words.into_iter().find(|word| !self.taken.contains(word)).unwrap_or_default();
        self.taken.insert(word.clone());
        self.words.insert(what, word.clone());
        word
    }
}

/// What was found in a run.
enum Found {
    Address(IpAddr),
    Hardware(String),
}

/// The first address in a run, with where it begins and ends.
fn address(run: &str) -> Option<(usize, usize, Found)> {
    let is_of_address = |char: char| char.is_ascii_hexdigit() || char == ':' || char == '.';
    let mut from = 0;
    while let Some(start) = run[from..].find(is_of_address).map(|at| from + at) {
        let end = run[start..].find(|char| !is_of_address(char)).map_or(run.len(), |at| start + at);
        let is_word = |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || char == '_');
        let (before, after) = (run[..start].chars().next_back(), run[end..].chars().next());
        // `IPv6:` is what SMTP has before a literal.
        let begins =
            if is_word(before) { run[start..end].find(':').map(|at| start + at + 1) } else { Some(start) };
        if let Some(start) = begins.filter(|_| !is_word(after))
            && let Some(found) = whole(run, start, end)
        {
            return Some(found);
        }
        from = end;
    }
    None
}

/// The address from `start` on, up to `end` or a little less: a colon or a full stop may follow it, and a port.
fn whole(run: &str, start: usize, end: usize) -> Option<(usize, usize, Found)> {
    let text = &run[start..end];
    let cut = text.trim_end_matches([':', '.']);
    // What was all colons is `::`.
    let cuts = [text, cut, cut.rsplit_once(':').map_or(cut, |(address, _)| address)];
    for text in cuts {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some((start, start + text.len(), Found::Address(address.to_canonical())));
        }
        let bytes: Vec<&str> = text.split(':').collect();
        if bytes.len() == 6 && bytes.iter().all(|byte| byte.len() == 2) {
            return Some((start, start + text.len(), Found::Hardware(text.to_lowercase())));
        }
    }
    None
}

/// Whether this is the name of a unit, of a file, or of a sysctl.
fn is_unit_or_file(name: &str) -> bool {
    let is_in = |dir: &&str| name.strip_prefix(*dir).is_some_and(|name| !name.contains('.'));
    SYSCTLS.iter().any(is_in) || name.rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.contains(&ending))
}

/// Whether this may be the name of a host: labels with dots between, the last of letters (RFC 1123, 2.1).
fn is_host(name: &str) -> bool {
    let mut labels = name.split('.');
    let last = labels.next_back().unwrap_or_default();
    let is_label = |label: &str| {
        !label.is_empty() && label.chars().all(|char| char.is_alphanumeric() || char == '-' || char == '_')
    };
    let is_top = last.len() >= 2 && (last.chars().all(char::is_alphabetic) || last.starts_with("xn--"));
    let rest: Vec<&str> = labels.collect();
    !rest.is_empty() && is_top && rest.iter().all(|label| is_label(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor() -> Redactor {
        Redactor::new(["anna", "Hostile-Mx", "mail"].map(str::to_owned))
    }

    /// Whether nothing is left of it.
    fn gone(what: &str) {
        let text = redactor().text(&format!("before {what} after"));
        assert!(text.starts_with("before ") && text.ends_with(" after"), "{text}");
        assert!(!text.to_lowercase().contains(&what.to_lowercase()), "{what}: {text}");
    }

    #[test]
    fn an_address_in_any_spelling_is_replaced_wherever_it_stands() {
        let secrets =
            ["198.51.100.7", "2001:db8:7::7", "2001:DB8:7:0::7", "fe80::1ff:fe23:4567:890a", "10.1.2.3"];
        for secret in secrets {
            gone(secret);
            let around = [
                "{}",
                "{}:25",
                "[{}]:143",
                "[IPv6:{}]",
                "{}/32",
                "\"{}\"",
                "{}: banned",
                "{}.",
                "({})",
                "::ffff:{}",
                "{}%eth0",
                "from={},",
                "<{}>",
                "{};",
                "source {}/64 at",
            ];
            for around in around {
                if around.starts_with("::ffff") && secret.contains(':') {
                    continue;
                }
                let text = redactor().text(&around.replace("{}", secret));
                assert!(!text.to_lowercase().contains(&secret.to_lowercase()), "{around}: {text}");
                assert!(text.contains("ipv4") || text.contains("ipv6"), "{around}: {text}");
            }
        }
        gone("02:00:00:aa:bb:01");
    }

    #[test]
    fn the_same_address_becomes_the_same_word_and_another_another() {
        let mut redactor = redactor();
        let mut word = |text: &str| redactor.text(text);
        let v4 = word("198.51.100.7");
        assert!(v4.starts_with("ipv4-") && v4.len() == "ipv4-01234567".len(), "{v4}");
        assert_eq!(word("::ffff:198.51.100.7"), v4);
        assert_eq!(word("198.51.100.7/32"), format!("{v4}/32"));
        assert_ne!(word("198.51.100.8"), v4);
        assert_eq!(word("2001:db8::7"), word("2001:DB8:0::7"));
        assert!(word("192.168.0.1").starts_with("ipv4-private-"));
        assert!(word("fd00::1").starts_with("ipv6-private-"));
        assert_ne!(word("anna"), self::redactor().text("anna"), "another bundle, another key");
    }

    #[test]
    fn names_of_hosts_and_users_are_replaced() {
        for secret in [
            "anna",
            "Anna",
            "hostile-mx",
            "mail.example.org",
            "xn--bcher-kva.example",
            "vm.example.org",
            "net.core.example.org",
            "www.example.cf",
            "bob@example.org",
            "host-198-51-100-7.isp.example.net",
            "/home/carol",
            "user@carol.service",
        ] {
            let text =
                redactor().text(&format!("by {secret}, and /etc/live/{secret}/key.pem (\"{secret}\")"));
            for part in ["anna", "hostile", "example", "bob", "carol", "bcher", "198-51"] {
                assert!(!text.to_lowercase().contains(part), "{secret}: {text}");
            }
            assert!(text.contains("/key.pem"), "{text}");
        }
        let text = redactor().text("changed by dora (bash, pid 7): `limiter ban 203.0.113.7`");
        assert!(
            text.starts_with("changed by name-") && text.contains(" (bash, pid 7): `limiter ban ipv4-"),
            "{text}"
        );
        assert!(!redactor().text("changed by dora, at 2026").contains("dora"));
    }

    #[test]
    fn what_says_nothing_of_anybody_stays() {
        for text in [
            "the mail daemon listens on port 25 (pid 4711, postfix@-.service), user@1000.service",
            "Linux 6.12.117+deb13-amd64, limiter 0.1.0, 2.4.1-4",
            "/sys/fs/bpf/limiter/link-gate, /run/limiter/limiter.pid, dovecot.service",
            "{\"worst\": \"good\", \"check\": \"bpf\", \"command\": null}",
            "sysctl -w net.core.bpf_jit_enable=1 net.mptcp.enabled=0",
            "127.0.0.1, ::1, 0.0.0.0:25, [::]:143",
            "2026-11-27T09:14:33.123456 limiter[7]: INFO limiter::daemon: SERVICE: refused 12 of 20",
            "max_connections 5 -> 7; 1.5 KiB; mode 0600; 3:2",
        ] {
            assert_eq!(redactor().text(text), text);
        }
    }

    #[test]
    fn a_text_is_only_words_for_whoever_has_no_key() {
        let text = "198.51.100.7 198.51.100.8 2001:db8::7 anna";
        assert_ne!(redactor().text(text), redactor().text(text));
    }
}
