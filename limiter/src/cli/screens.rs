// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What `status`, `list`, `rules`, `bans`, `explain` and `doctor` show in each state, at 80 and at 60 columns, against the files in
//! `screens`. A screen is a function of what is known, so none of it takes root; what is known is made here as the kernel
//! would have it, from a configuration and who holds what.
//!
//! `LIMITER_SCREENS=renew cargo test -p limiter screens` writes the files anew; `git diff` shows what has become of them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    fs,
    net::IpAddr,
    path::PathBuf,
};

use limiter_common::{
    Addr, Cause, Count, CountKeys, Counters, Entry, Key, Ladder, Penalty, Reason, RuleMatch, ServiceId,
    ServicePolicy, Usage,
};

use super::{
    advise, bans, check, doctor, explain, history, list,
    loaded::nothing_loaded,
    output::{Screen, Width},
    rules, schemas, status,
};
use crate::{
    bans::{Ban, Bans},
    config::{self, Config},
    greeter::{Process, Snapshot, tls},
    instance::{Daemon, Instance},
    kernel::sets::PolicySet,
    ledger::{Refusals, Source, Waiting},
    policy::{self, Lookup},
    shield::{Attachment, Mode},
    standing::{Facts, Now, Standing},
    status::{About, Service, Status, Warning, of_the_instance},
};

/// A moment of every clock: seconds, and nanoseconds.
const NOW_S: u32 = 100_000;
const NOW_NS: u64 = NOW_S as u64 * 1_000_000_000;
const WIDTHS: [usize; 2] = [80, 60];

const V4: &str = "198.51.100.7";
const V6: &str = "2001:db8:1234:5678::7";

/// What is known of a host.
struct World {
    policy: PolicySet,
    ladder: Ladder,
    /// Whom `explain` is asked for.
    asked: &'static str,
    runs: bool,
    answers: bool,
    detached: Vec<&'static str>,
    ledger: HashMap<Key, Entry>,
    penalties: HashMap<Key, Penalty>,
    waiting: HashMap<Key, Waiting>,
    counters: BTreeMap<u8, Counters>,
    shield: Vec<Attachment>,
    greeter: Option<tls::Report>,
}

impl World {
    /// With a configuration, and nobody there.
    fn new(text: &str) -> Self {
        let config: Config = config::parse(text, "a file").expect("a configuration that is none");
        let own = ["127.0.0.0/8", "::1", "192.0.2.25", "2001:db8::25"];
        let rule = |own: &str| format!("[[rule]]\nnetwork = \"{own}\"\nallow = true\n");
        let rules = own.map(rule).concat();
        let own =
            policy::of_config(&config::parse(&rules, "").expect("rules"), &HashMap::new(), Vec::new()).rules;
        let built_in: Vec<_> = own
            .into_iter()
            .map(|rule| crate::kernel::sets::RuleEntry { built_in: true, is_local: true, ..rule })
            .collect();
        let policy = policy::of_config(&config, &HashMap::new(), built_in);
        Self {
            ladder: policy.ladder,
            policy,
            asked: V4,
            runs: true,
            answers: true,
            detached: Vec::new(),
            ledger: HashMap::new(),
            penalties: HashMap::new(),
            waiting: HashMap::new(),
            counters: BTreeMap::new(),
            shield: Vec::new(),
            greeter: None,
        }
    }

    fn service(&self, name: &str) -> (ServiceId, ServicePolicy) {
        let (id, policy) = policy::by_name(&self.policy.services, name).expect("no such service");
        (id, *policy)
    }

    fn count_keys(&self, service: &str, address: &str) -> CountKeys {
        let (id, policy) = self.service(service);
        CountKeys::new(id, &policy, limiter_common::Scope::SERVICES, &addr(address))
    }

    fn count(&mut self, service: &str, change: impl FnOnce(&mut Counters)) {
        let (id, _) = self.service(service);
        change(self.counters.entry(id.0).or_default());
    }

    /// So many connections are there.
    fn holds(mut self, service: &str, address: &str, connections: u32) -> Self {
        let count_keys = self.count_keys(service, address);
        let of_network = count_keys.has_network().then_some(count_keys.network);
        for key in [Some(count_keys.source), of_network].into_iter().flatten() {
            let entry = self.ledger.entry(key).or_default();
            entry.count.0 += u64::from(connections);
            entry.accepted += connections * 3;
            entry.peak = entry.count.connections() + 1;
            entry.last_seen_s = NOW_S - 95;
        }
        self.count(service, |counters| counters.accepted += u64::from(connections) * 3);
        self
    }

    /// It was refused for `reason`, so often; it has connected before.
    fn refused(mut self, service: &str, address: &str, reason: Reason, times: u64) -> Self {
        let of_source = self.count_keys(service, address).source;
        let interval_ns = self.ladder.replies.interval_ns;
        if let Some(entry) = self.ledger.get_mut(&of_source) {
            entry.refused += times as u32;
        }
        let penalty = self.penalties.entry(of_source).or_default();
        if !matches!(reason, Reason::Denied | Reason::Banned) {
            penalty.replies_due_ns = NOW_NS + times * interval_ns;
        }
        penalty.refused[reason as usize] += times as u32;
        (penalty.refused_ns, penalty.refused_for) = (NOW_NS - 95_000_000_000, reason as u32);
        self.count(service, |counters| {
            counters.refused[reason as usize] += times;
            counters.replied += times;
        });
        self
    }

    fn banned(mut self, service: &str, address: &str, seconds: u64, by: Cause) -> Self {
        let of_source = self.count_keys(service, address).source;
        let penalty = self.penalties.entry(of_source).or_default();
        *penalty = Penalty {
            banned_until_ns: NOW_NS + seconds * 1_000_000_000,
            banned_at_ns: NOW_NS - 30_000_000_000,
            dropped: 1234,
            bans: u32::from(by == Cause::Ladder) * 2,
            cause: by as u32,
            ..*penalty
        };
        self
    }

    fn waits(mut self, service: &str, address: &str, count: u32) -> Self {
        let (count_keys, since_ns) = (self.count_keys(service, address), NOW_NS - 1_300_000_000);
        for key in [count_keys.source, Key::total(count_keys.service())] {
            self.waiting.insert(key, Waiting::new(count, since_ns));
        }
        self.ledger.entry(count_keys.source).or_default().count.0 += u64::from(count) << 48;
        self.count(service, |counters| {
            counters.held += 7;
            counters.let_in += 4;
        });
        self
    }

    fn of(&self, key: &Key) -> Entry {
        self.ledger.get(key).copied().unwrap_or_default()
    }

    /// All connections of a service.
    fn total(&self, id: ServiceId) -> Count {
        let of_service = self.ledger.iter().filter(|(key, _)| key.service == id.0 && !key.is_network());
        Count(of_service.map(|(_, entry)| u64::from(entry.count.connections())).sum())
    }

    fn status(&self, width: Width) -> Screen {
        status::screen(&self.look(), width)
    }

    fn look(&self) -> Status {
        let mut services: Vec<Service> = self
            .policy
            .services
            .iter()
            .map(|(id, policy)| {
                let of_service = (0_u16..=u16::MAX).zip(&self.policy.ports).filter(|(_, of)| **of == id.0);
                let those = self.waiting.get(&Key::total(*id)).copied().unwrap_or_default();
                Service::new(
                    policy,
                    of_service.map(|(port, _)| port).collect(),
                    self.total(*id).connections(),
                    those.count,
                    those.seconds(NOW_NS),
                    self.counters.get(&id.0).copied().unwrap_or_default(),
                )
            })
            .collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        let daemon = Daemon { running: self.runs, answers: self.answers, pid: self.runs.then_some(4711) };
        let mut warnings = of_the_instance(&instance(), &self.detached, &daemon, &services);
        let said = self.greeter.iter().flat_map(|report| report.warnings.clone());
        warnings.extend(said.map(|text| Warning::new(About::Greeter, text)));
        Status {
            instance: "limiter".to_owned(),
            in_force: self.detached.is_empty(),
            warnings,
            daemon,
            shield: self.shield.clone(),
            greeter: self.greeter.as_ref().map(|report| report.greeter.clone()),
            certificates: self.greeter.iter().flat_map(|report| report.certificates.clone()).collect(),
            bans: self.bans().bans.len(),
            verified: None,
            services,
        }
    }

    fn list(&self, width: Width) -> Screen {
        let rules = Lookup::new(&self.policy.rules);
        let mut entries: Vec<_> = self.ledger.iter().collect();
        entries.sort_by_key(|(key, _)| (key.service, key.addr.to_ip(), key.tier));
        let sources: Vec<Source> = entries
            .into_iter()
            .map(|(key, entry)| {
                let policy = policy::by_id(&self.policy.services, ServiceId(key.service));
                let those = self.waiting.get(key).copied().unwrap_or_default();
                Source {
                    waiting: those.count,
                    waiting_seconds: those.seconds(NOW_NS),
                    ..Source::new(
                        key,
                        entry,
                        Refusals::of(&self.penalties.get(key).copied().unwrap_or_default(), NOW_NS),
                        policy,
                        &rules,
                        NOW_S,
                    )
                }
            })
            .collect();
        list::screen(&sources, false, width)
    }

    fn bans(&self) -> Bans {
        let banned = self.penalties.iter().filter(|(_, penalty)| penalty.is_banned(NOW_NS));
        let mut bans: Vec<Ban> = banned
            .map(|(key, penalty)| Ban {
                service: policy::service_name(&self.policy.services, ServiceId(key.service)),
                source: key.addresses().to_string(),
                left_seconds: (penalty.banned_until_ns - NOW_NS).div_ceil(1_000_000_000),
                since_seconds: 30,
                reason: Cause::from_u32(penalty.cause),
                bans: penalty.bans,
                dropped: penalty.dropped,
            })
            .collect();
        bans.sort_by_key(|ban| ban.left_seconds);
        Bans { bans, not_in_force: Vec::new() }
    }

    fn explain(&self, width: Width) -> Screen {
        let address = addr(self.asked);
        let facts: Vec<Facts> = self
            .policy
            .services
            .iter()
            .map(|(id, policy)| {
                let count_keys = CountKeys::new(*id, policy, limiter_common::Scope::SERVICES, &address);
                let (of_source, penalty) =
                    (self.of(&count_keys.source), self.penalties.get(&count_keys.source).copied());
                let penalty = penalty.unwrap_or_default();
                let rule = policy::covering(&self.policy.rules, &address);
                Facts {
                    policy: *policy,
                    count_keys,
                    rule_match: rule.map_or(RuleMatch::NONE, |rule| policy::rule_match(rule, *id)),
                    otherwise: None,
                    usage: Usage {
                        source: of_source.count,
                        network: if count_keys.has_network() {
                            self.of(&count_keys.network).count
                        } else {
                            Count(0)
                        },
                        total: self.total(*id),
                        due_ns: of_source.due_ns,
                        banned_until_ns: penalty.banned_until_ns,
                        replies_due_ns: penalty.replies_due_ns,
                    },
                    beyond: limiter_common::verdict::Beyond {
                        source: of_source.beyond,
                        network: self.of(&count_keys.network).beyond,
                        total: self.ledger.values().map(|entry| entry.beyond).sum(),
                    },
                    entry: of_source,
                    penalty,
                    waiting: self.waiting.get(&count_keys.source).copied().unwrap_or_default(),
                }
            })
            .collect();
        let rule = policy::covering(&self.policy.rules, &address);
        let now = Now { boot_ns: NOW_NS, monotonic_ns: NOW_NS };
        let standing = Standing::of(address, rule, &self.ladder, facts, now, self.answers);
        explain::screen(&instance(), &explain::Explanation::of(&standing), width)
    }
}

fn instance() -> Instance {
    "limiter".parse().expect("a name")
}

fn addr(text: &str) -> Addr {
    Addr::from(text.parse::<IpAddr>().expect("an address"))
}

/// Each state that a host can be in.
fn states() -> Vec<(&'static str, World)> {
    let both = |text: &str| World::new(text).holds("smtp", V4, 4).holds("smtp", V6, 2).holds("imap", V4, 7);
    let mut no_daemon = both("");
    (no_daemon.runs, no_daemon.answers) = (false, false);
    // Refused without a word, and once with one before the daemon ended.
    let unheard = |text: &str| {
        let mut world = both(text).refused("smtp", V4, Reason::Concurrency, 1);
        let of_source = world.count_keys("smtp", V4).source;
        world.ledger.entry(of_source).or_default().refused = 9;
        world
    };
    let mut refused_no_daemon = unheard("[service.smtp]\nmax_connections = 4\n");
    (refused_no_daemon.runs, refused_no_daemon.answers) = (false, false);
    let mut stopped = both("");
    stopped.answers = false;
    let mut not_in_force = both("");
    not_in_force.detached = vec!["gate", "ledger"];
    let mut observing = both("[service.smtp]\nmode = \"observe\"\nmax_connections = 4\n");
    observing.count("smtp", |counters| counters.would_refuse[Reason::Concurrency as usize] = 3);
    let of_source = observing.count_keys("smtp", V4).source;
    let entry = observing.ledger.entry(of_source).or_default();
    (entry.beyond, entry.would_refuse) = (2, 3);
    entry.count.0 += 2;
    let mut rate = both("[service.smtp]\nrate = \"6/min\"\nburst = 2\n");
    let of_source = rate.count_keys("smtp", V4).source;
    rate.ledger.entry(of_source).or_default().due_ns = NOW_NS + 19_977_000_000;
    let mut rule = both(
        "[service.smtp]\nmax_connections = 20\n\
         [[rule]]\nnetwork = \"198.51.100.0/24\"\nmax_connections = { smtp = 40, imap = 200, \"*\" = 30 }\n\
         [[rule]]\nnetwork = \"2001:db8:1234:5678::25\"\nmax_connections = 5\n\
         [[rule]]\nnetwork = \"203.0.113.0/24\"\nallow = true\n\
         [[rule]]\nnetwork = \"9.0.0.0/8\"\ndeny = true\n",
    )
    .holds("smtp", "203.0.113.9", 31)
    .holds("smtp", "9.9.9.9", 1);
    rule.asked = "198.51.100.7";
    let mut network = World::new("[service.smtp]\nmax_connections = 4\nnetwork = { max_connections = 6 }\n")
        .holds("smtp", "2001:db8:1234:5678::9", 2)
        .holds("smtp", "2001:db8:1234:9::9", 4)
        .refused("smtp", "2001:db8:1234:5678::9", Reason::Network, 3);
    network.asked = "2001:db8:1234:5678::9";
    let denied = "[[rule]]\nnetwork = \"198.51.100.0/24\"\ndeny = true\n";
    vec![
        ("quiet", World::new("")),
        ("refused-no-daemon", refused_no_daemon),
        ("refused-by-reset", unheard("[service.smtp]\nmax_connections = 4\nresponse = \"reset\"\n")),
        ("no-daemon", no_daemon),
        ("daemon-stopped", stopped),
        ("not-in-force", not_in_force),
        ("observing", observing),
        ("refused-denied", both(denied).refused("smtp", V4, Reason::Denied, 12)),
        (
            "refused-banned",
            both("")
                .banned("smtp", V4, 7000, Cause::Ladder)
                .banned("imap", V4, 86_400, Cause::Admin)
                .banned("smtp", V6, 90, Cause::Admin)
                .refused("smtp", V4, Reason::Banned, 12),
        ),
        (
            "refused-total",
            both("[service.smtp]\nmax_connections = 4\nmax_total = 6\nreserve = 2\n").refused(
                "smtp",
                V4,
                Reason::Total,
                3,
            ),
        ),
        (
            "refused-network",
            World::new("[service.smtp]\nmax_connections = 6\nnetwork = { max_connections = 8 }\n")
                .holds("smtp", V4, 3)
                .holds("smtp", "198.51.100.99", 5)
                .refused("smtp", V4, Reason::Network, 3),
        ),
        (
            "refused-concurrency",
            both("[service.smtp]\nmax_connections = 4\n").refused("smtp", V4, Reason::Concurrency, 13),
        ),
        ("refused-rate", rate.refused("smtp", V4, Reason::Rate, 1)),
        ("waiting", both("[service.smtp]\nmax_connections = 4\nwait = \"10s\"\n").waits("smtp", V4, 2)),
        ("rule", rule),
        ("network", network),
        ("busy", busy()),
        ("tls", inside_tls()),
    ]
}

/// Long names, long addresses and large numbers.
fn busy() -> World {
    let mut world = World::new(
        "[defaults]\nmax_connections = 1000\nrate = \"600/min\"\nkeepalive = \"10m\"\n\
         network = { max_connections = 5000 }\n\
         [service.fifteen-letters]\nports = [2525, 2526, 10025]\nprotocol = \"smtp\"\nmax_total = 100000\n\
         reserve = 500\n\
         [ladder]\nban_after = \"100 in 10min\"\n",
    )
    .holds("submissions", "2001:db8:aaaa:bbbb::1", 999)
    .holds("fifteen-letters", "2001:db8:cccc:dddd::1", 23_456)
    .banned("fifteen-letters", "2001:db8:cccc:dddd::1", 2_592_000, Cause::Ladder);
    world.asked = "2001:db8:cccc:dddd::1";
    world.count("fifteen-letters", |counters| {
        counters.accepted = 1_234_567_890;
        counters.refused[Reason::Concurrency as usize] = 98_765_432;
        counters.replied = 123_456;
        counters.held = 4_567_890;
    });
    let attachment = |interface: &str, mode, why: Option<&str>| Attachment {
        interface: interface.to_owned(),
        index: Some(2),
        mode,
        why: why.map(str::to_owned),
        left_alone: why.is_some(),
        cost: None,
    };
    world.shield = vec![
        attachment("enp3s0f1", Mode::Native, None),
        attachment(
            "eth0",
            Mode::None,
            Some("\"auto\" skips the driver virtio_net, because it would turn its offloads off"),
        ),
    ];
    world
}

/// One certificate in use, and one that cannot be used.
fn inside_tls() -> World {
    let certificate = |services: &[&str], name: &str, expires: Option<&str>| tls::Certificate {
        services: services.iter().map(ToString::to_string).collect(),
        certificate: format!("/etc/letsencrypt/live/{name}/fullchain.pem").into(),
        key: format!("/etc/letsencrypt/live/{name}/privkey.pem").into(),
        names: expires.iter().map(|_| name.to_owned()).collect(),
        expires: expires.map(str::to_owned),
        problem: None,
    };
    let mut world = World::new("");
    world.greeter = Some(tls::Report {
        greeter: tls::State {
            process: Process { pid: Some(4712), restarts: 2, landlock: Some(true), problem: None },
            totals: Snapshot {
            greeted: 1200,
            greeted_by_tls: 1100,
            alerts: 12,
            over_budget: 3,
            failed_handshakes: 40,
            reset: 9,
            unexplained: 2,
            dropped_full: 172,
            accept_errors: 5,
        },
        },
        certificates: vec![
            certificate(&["imap", "pop3"], "mail.example.org", Some("2027-01-31 12:00:00 UTC")),
            certificate(&["submissions"], "smtp.example.org", None),
        ],
        warnings: vec![
            "submissions: the key in /etc/letsencrypt/live/smtp.example.org/privkey.pem does not belong to the \
             certificate in /etc/letsencrypt/live/smtp.example.org/fullchain.pem; give the files of one pair; until \
             then, its refused clients get a TLS alert instead of a reason"
                .to_owned(),
        ],
    });
    world
}

fn file(state: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/cli/screens").join(format!("{state}.txt"))
}

/// Whether a line is as wide as that, or one word: a command is not broken.
fn fits(line: &str, width: usize) -> bool {
    let is_one_word = !line.trim().contains(' ') || (line.starts_with('`') && line.matches('`').count() == 2);
    line.chars().count() <= width || is_one_word
}

/// What a command shows.
type Show = fn(&World, Width) -> Screen;

/// Adds what a command shows at each width, which has to be enough.
fn at_each_width(text: &mut String, state: &str, command: &str, show: impl Fn(Width) -> Screen) {
    for width in WIDTHS {
        let screen = show(Some(width)).text();
        for line in screen.lines() {
            assert!(fits(line, width), "{state}, {command}: {width} columns are not enough for {line:?}");
        }
        write!(text, "$ limiter {command}    # {width} columns\n{screen}\n").expect("memory");
    }
}

/// Those of a file that has no mistakes, against what is in force.
fn check_screens() -> String {
    let mut text = String::new();
    for (state, document) in check::example::states() {
        writeln!(text, "# {state}").expect("memory");
        at_each_width(&mut text, state, "check", |width| document.screen(width));
        schemas::check("check", &serde_json::to_value(&document).expect("a document"));
    }
    text
}

/// Those of the history, which is no matter of a host's state.
fn history_screens() -> String {
    let mut text = String::new();
    for (command, show) in history::STATES {
        at_each_width(&mut text, "history", command, show);
    }
    text
}

#[test]
fn every_screen_in_every_state_is_as_it_was_and_fits() {
    let renew = std::env::var("LIMITER_SCREENS").is_ok_and(|word| word == "renew");
    let nothing =
        format!("$ limiter status, list, rules, bans, explain\nlimiter: {}\n", nothing_loaded(&instance()));
    let mut texts = vec![("nothing-loaded", nothing)];
    for (state, world) in states() {
        let mut text = String::new();
        let explain = format!("explain {}", world.asked);
        let bans: Show = |world, width| bans::screen(&world.bans(), width);
        let rules: Show = |world, width| rules::screen(&rules::rules(&world.policy), width);
        let commands: [(&str, Show); 5] = [
            ("status", World::status),
            ("list", World::list),
            ("rules", rules),
            ("bans", bans),
            (&explain, World::explain),
        ];
        for (command, show) in commands {
            at_each_width(&mut text, state, command, |width| show(&world, width));
        }
        let (line, code) = status::brief_line(&world.look());
        writeln!(text, "$ limiter status --brief    # exit code {code}\n{line}").expect("memory");
        texts.push((state, text));
    }
    texts.push(("history", history_screens()));
    texts.push(("check", check_screens()));
    for (state, report, all) in doctor::example::states() {
        let mut text = String::new();
        let command = if all { "doctor --all" } else { "doctor" };
        at_each_width(&mut text, state, command, |width| doctor::screen(&report, all, width));
        schemas::check("doctor", &serde_json::to_value(&report).expect("a document"));
        texts.push((state, text));
    }
    for (state, advice, applies) in advise::example::states() {
        let mut text = String::new();
        let command = if applies { "advise --apply" } else { "advise" };
        at_each_width(&mut text, state, command, |width| {
            advise::screen(&instance(), &advice, applies, width)
        });
        let document = advise::Document { instance: instance().to_string(), services: advice, applied: None };
        schemas::check("advise", &serde_json::to_value(&document).expect("a document"));
        texts.push((state, text));
    }
    let dir = file("").parent().expect("a directory").to_owned();
    if renew {
        fs::create_dir_all(&dir).expect("a directory");
        for (state, text) in &texts {
            fs::write(file(state), text).expect("space for a file");
        }
    }
    for (state, text) in &texts {
        let before = fs::read_to_string(file(state)).unwrap_or_default();
        assert!(before == *text, "{state}: LIMITER_SCREENS=renew writes it anew; it would be\n{text}");
    }
    for left in fs::read_dir(dir).expect("the screens").flatten() {
        let name = left.file_name();
        let is_known = texts.iter().any(|(state, _)| name.to_str() == Some(&format!("{state}.txt")));
        assert!(is_known, "{} is of no state any more: remove it", left.path().display());
    }
}
