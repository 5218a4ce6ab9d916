// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! An instance with sources of every standing, and its shield.

use std::net::IpAddr;

use crate::program::Program;
use limiter_lab::{Lab, Limiter, SOON, Sink, V4, V6, eventually, same};

/// What becomes of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Drop,
    Pass,
}

/// Sources of one family, by what is said of them.
#[derive(Clone, Copy)]
pub struct Sources {
    pub host: IpAddr,
    pub ordinary: IpAddr,
    pub denied: IpAddr,
    /// In a network that is denied, by a longer prefix.
    pub allowed: IpAddr,
    /// From smtp.
    pub banned: IpAddr,
    /// From smtp, and it is over.
    pub was_banned: IpAddr,
    /// From imap.
    pub banned_elsewhere: IpAddr,
    /// From smtp, and allowed since.
    pub banned_and_allowed: IpAddr,
}

impl Sources {
    pub fn of_both() -> [Self; 2] {
        let address = |text: &str| text.parse().expect("an address");
        [
            Self {
                host: V4.host,
                ordinary: address("203.0.113.200"),
                denied: address("198.51.100.7"),
                allowed: address("198.51.100.8"),
                banned: address("203.0.113.7"),
                was_banned: address("203.0.113.8"),
                banned_elsewhere: address("203.0.113.9"),
                banned_and_allowed: address("203.0.113.10"),
            },
            Self {
                host: V6.host,
                ordinary: address("2001:db8:f::1"),
                denied: address("2001:db8:7::7"),
                allowed: address("2001:db8:7:8::7"),
                banned: address("2001:db8:9::7"),
                was_banned: address("2001:db8:a::7"),
                banned_elsewhere: address("2001:db8:b::7"),
                banned_and_allowed: address("2001:db8:c::7"),
            },
        ]
    }
}

/// Denies and allows; `pop3` only observes.
pub const CONFIG: &str = "
interfaces = []
[service.pop3]
mode = \"observe\"
[[rule]]
network = \"198.51.100.0/24\"
deny = true
[[rule]]
network = \"198.51.100.8\"
allow = true
[[rule]]
network = \"2001:db8:7::/48\"
deny = true
[[rule]]
network = \"2001:db8:7:8::/64\"
allow = true
";

/// Where frames are tried.
pub struct Setup {
    pub limiter: Limiter,
    pub lab: Lab,
    _sink: Sink,
    shield: Program,
}

impl Setup {
    pub fn new() -> Option<Self> {
        let lab = Lab::new(crate::BINARY)?;
        let sink = Sink::start(&lab, 25);
        let limiter = Limiter::start_with(&lab, CONFIG);
        for sources in Sources::of_both() {
            let ban = |source: IpAddr, service: &str, time: &str| {
                limiter.ok(&["ban", &source.to_string(), "--service", service, "--for", time]);
            };
            ban(sources.was_banned, "smtp", "1s");
            ban(sources.banned, "smtp", "1h");
            ban(sources.banned_elsewhere, "imap", "1h");
            ban(sources.banned_and_allowed, "smtp", "1h");
            limiter.ok(&["allow", &sources.banned_and_allowed.to_string()]);
        }
        eventually("the short bans are over", SOON, || {
            let bans = limiter.json(&["bans"]);
            // That of the allowed IPv4 address does not hold, and is listed apart; of the /64 only one address is.
            same("bans", &bans["bans"].as_array().expect("a list").len(), &5).map_err(|_| bans.to_string())
        });
        let shield = Program::open(&limiter.pins().join("shield"));
        Some(Self { limiter, lab, _sink: sink, shield })
    }

    /// Ends the daemon, and starts another one, with programs of its own.
    pub fn replace_daemon(&mut self) {
        self.limiter.kill();
        self.limiter.run();
        self.shield = Program::open(&self.limiter.pins().join("shield"));
    }

    /// The shield's verdict on a frame for the mail host.
    pub fn verdict(&self, frame: &[u8]) -> Verdict {
        const DROP: u32 = 1;
        const PASS: u32 = 2;
        // Connections are looked up where the thread is that asks.
        match self.lab.host.run(|| self.shield.run(frame, 1).action) {
            DROP => Verdict::Drop,
            PASS => Verdict::Pass,
            other => panic!("neither dropped nor passed: {other}"),
        }
    }

    /// Frames dropped so far.
    pub fn dropped(&self) -> u64 {
        ["smtp", "imap", "pop3"].iter().map(|service| self.limiter.counter(service, "dropped")).sum()
    }
}
