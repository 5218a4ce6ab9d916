// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is not as it should be, and what to do about it.

use std::{collections::BTreeSet, fmt, net::IpAddr, time::Duration};

use limiter_common::{Addr, Mode, rule::Network};

use serde::Serialize;

use super::service::Service;
use crate::{
    conntrack::{self, Translation},
    instance::{Daemon, Instance},
    kernel::environment,
    listeners::{self, Listener},
    policy, spans,
};

/// What a warning is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Programs that are attached to nothing.
    Attachment,
    /// The daemon, which does not run or does not answer.
    Daemon,
    /// A service that refuses nobody.
    Observing,
    /// Connections and handshakes for which there was no room or memory.
    Room,
    /// Counts that were wrong.
    Drift,
    /// Limits in another network namespace than the one that was named.
    Namespace,
    /// Where the shield is not, or is not known to be.
    Shield,
    /// The greeter, and its certificates.
    Greeter,
    /// The history, which is not written or not whole.
    History,
    /// The kernel.
    Kernel,
    /// The ledger, which is full.
    Ledger,
    /// Who listens: nobody, or nobody comes.
    Listeners,
    /// Who listens for Multipath TCP.
    Multipath,
    /// Who listens outside of the cgroup that is limited.
    Cgroup,
    /// Connections that a firewall sends elsewhere.
    Firewall,
}

/// What is not as it should be, and what to do about it. As a document it is its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Warning {
    /// What it is about.
    #[serde(skip)]
    pub about: About,
    /// A sentence.
    pub text: String,
}

impl Warning {
    /// With its sentence.
    pub fn new(about: About, text: impl Into<String>) -> Self {
        Self { about, text: text.into() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

/// So long nothing need come to a mail host.
const LONG: Duration = Duration::from_secs(10 * 60);

/// What the limiter knows of itself.
pub fn of_the_instance(
    instance: &Instance,
    detached: &[&str],
    daemon: &Daemon,
    services: &[Service],
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |about, text: String| warnings.push(Warning::new(about, text));
    let limiter = instance.program();
    if !detached.is_empty() {
        warn(
            About::Attachment,
            format!(
                "programs not attached: {}; the protected network namespace or cgroup no longer exists, or \
             somebody detached the programs: stop the daemon if it runs, and start `{limiter} run`; a daemon with --cgroup attaches them again when a cgroup exists at that path",
                detached.join(", ")
            ),
        );
    } else if let Daemon { running: true, answers: false, pid: Some(pid) } = daemon {
        warn(
            About::Daemon,
            format!(
                "the daemon (pid {pid}) does not answer, because it was stopped (SIGSTOP, or its cgroup is frozen) or \
             hangs: the limits are in force, but refused clients get a reset instead of a reason, and clients that \
             wait for a place get no answer; continue it with `kill -CONT {pid}` or by thawing its cgroup, or end it \
             with `kill -9 {pid}` and start `{limiter} run`"
            ),
        );
    } else if !daemon.running {
        warn(
            About::Daemon,
            format!(
                "the daemon is not running: the limits are in force, but refused clients get a reset instead of a \
             reason, and clients that wait for a place get no answer; start `{limiter} run`"
            ),
        );
    }
    for Service { name, mode, counters, .. } in services {
        if *mode == Mode::Observe {
            let would: Vec<String> = counters
                .would_refuse
                .iter()
                .filter(|(_, n)| **n > 0)
                .map(|(reason, n)| format!("{n} for {reason}"))
                .collect();
            let would = if would.is_empty() { "no connection so far".to_owned() } else { would.join(", ") };
            warn(
                About::Observing,
                format!(
                    "{name} is in observe mode and refuses nobody; it would have refused {would}: enforce its \
                 limits with `{limiter} set {name} mode=enforce`"
                ),
            );
        }
        if counters.uncounted > 0 {
            warn(
                About::Room,
                format!(
                    "{name}: {} connections were let through uncounted, because memory or room for connection \
                 records was short; they are counted as soon as there is room; if memory was not short, raise \
                 max_sources, stop the daemon, and start `{limiter} run`",
                    counters.uncounted
                ),
            );
        }
        if counters.unrecorded > 0 {
            warn(
                About::Room,
                format!(
                    "{name}: cannot record {} handshakes without a place, because room or memory was short: each \
                 waits until the kernel repeats its SYN-ACK, and gets no reason",
                    counters.unrecorded
                ),
            );
        }
        if counters.drift > 0 {
            warn(
                About::Drift,
                format!(
                    "{name}: corrected a count that was wrong by {} connections: please report this",
                    counters.drift
                ),
            );
        }
    }
    warnings
}

/// Of ports that a firewall translates to one that is not the service's, or hands on to another host, where `is_local` says
/// which addresses are this one's: nobody is limited there.
pub fn translated(
    instance: &Instance,
    services: &[Service],
    translations: &BTreeSet<Translation>,
    is_local: impl Fn(IpAddr) -> bool,
) -> Vec<String> {
    let warning = |Translation { asked, port, address }: &Translation| {
        let service = services.iter().find(|service| service.ports.contains(asked))?;
        let name = &service.name;
        match address {
            Some(address) if !is_local(*address) => Some(format!(
                "{name}: a firewall forwards connections from port {asked} to port {port} of {address}, which \
                 is not this host (a published container port, for example), so nothing limits them; protect \
                 the network namespace of the container with `limiter --instance {instance}-container run \
                 --netns /proc/PID/ns/net`, where PID is a process of the container"
            )),
            _ => (!service.ports.contains(port)).then(|| {
                format!(
                    "{name}: a firewall translates port {asked} to {port} before the limiter sees the packets, so \
                     these connections do not count as {name}: add {port} to its ports"
                )
            }),
        }
    };
    // The same sentence for whatever address of this host.
    translations.iter().filter_map(warning).collect::<BTreeSet<String>>().into_iter().collect()
}

/// Where there is nothing to limit: nobody listens, or nothing has come for as long as it has been `loaded`.
fn nothing_comes(
    instance: &Instance,
    services: &[Service],
    all: &[Listener],
    loaded: Option<Duration>,
) -> Option<String> {
    let elsewhere = format!(
        "if the mail daemon runs in a container with its own network, protect that with `limiter --instance \
         {instance}-container run --netns /proc/PID/ns/net`, where PID is a process of the container"
    );
    let is_listened_to = |service: &Service| ports(service, all, |_| true).is_some();
    if !services.iter().any(is_listened_to) {
        return Some(format!("no program listens on a port of any service: {elsewhere}"));
    }
    let has_come = |service: &Service| {
        let counters = &service.counters;
        let counted =
            [counters.accepted, counters.refused, counters.adopted, counters.held, counters.uncounted];
        counted.iter().sum::<u64>() + counters.would_refuse.values().sum::<u64>() > 0
    };
    let loaded = loaded.filter(|loaded| *loaded >= LONG && !services.iter().any(has_come))?;
    Some(format!(
        "no service has received a connection in the {} since loading: {elsewhere}",
        spans::time(loaded)
    ))
}

/// What only a look at the host itself tells, in the network namespace that is protected, of `cgroup`; where it was
/// `loaded` so long ago.
pub fn of_the_host(
    instance: &Instance,
    services: &[Service],
    cgroup: u64,
    loaded: Option<Duration>,
) -> Vec<Warning> {
    let listening = match listeners::all() {
        Ok(all) => [
            (About::Multipath, multipath(services, &all)),
            (About::Cgroup, outside(services, &all, cgroup)),
            (About::Listeners, nothing_comes(instance, services, &all, loaded).into_iter().collect()),
        ],
        Err(problem) => {
            let unknown = vec![format!("cannot list the listening sockets: {problem:#}")];
            [(About::Listeners, unknown), (About::Multipath, Vec::new()), (About::Cgroup, Vec::new())]
        }
    };
    // Without them, what goes to another address of this host is said to go elsewhere: a warning too many.
    let own = policy::addresses().unwrap_or_default();
    let is_local =
        |address: IpAddr| own.iter().any(|rule| rule.network.covers(&Network::of(Addr::from(address))));
    let translated = translated(instance, services, &conntrack::translations(), is_local);
    let all = listening.into_iter().chain([(About::Firewall, translated)]);
    all.flat_map(|(about, texts)| texts.into_iter().map(move |text| Warning::new(about, text))).collect()
}

/// Services with a listener outside of `cgroup`: one that was inherited, from systemd's socket activation perhaps, has
/// the cgroup of who has opened it.
fn outside(services: &[Service], all: &[Listener], cgroup: u64) -> Vec<String> {
    let Ok(Some(root)) = environment::tree() else { return Vec::new() };
    let Some(below) = listeners::cgroups_below(&root, cgroup) else { return Vec::new() };
    let is_outside = |listener: &Listener| listener.cgroup.is_some_and(|cgroup| !below.contains(&cgroup));
    let warning = |service: &Service| {
        let ports = ports(service, all, is_outside)?;
        Some(format!(
            "{}: the socket that listens on {ports} is outside the protected cgroup, so its connections are \
             not counted: a socket belongs to the cgroup of the process that opened it, which is systemd with \
             socket activation; protect that cgroup, or all (without --cgroup)",
            service.name
        ))
    };
    services.iter().filter_map(warning).collect()
}

/// The ports of a service at which there is a listener like that, in words.
fn ports(service: &Service, all: &[Listener], is_like_that: impl Fn(&Listener) -> bool) -> Option<String> {
    let is_found = |port: &&u16| all.iter().any(|listener| listener.port == **port && is_like_that(listener));
    let ports: Vec<String> = service.ports.iter().filter(is_found).map(u16::to_string).collect();
    match ports.as_slice() {
        [] => None,
        [port] => Some(format!("port {port}")),
        [ports @ .., last] => Some(format!("ports {} and {last}", ports.join(", "))),
    }
}

/// Services whose listeners speak Multipath TCP.
fn multipath(services: &[Service], all: &[Listener]) -> Vec<String> {
    let warning = |service: &Service| {
        let ports = ports(service, all, |listener| listener.is_mptcp)?;
        let name = &service.name;
        Some(format!(
            "{name}: the mail daemon listens for Multipath TCP on {ports}: a client can end the connection \
             that is counted and keep its session, so the limits do not hold; turn Multipath TCP off in the \
             mail daemon, or with `sysctl -w net.mptcp.enabled=0`, and restart the mail daemon"
        ))
    };
    services.iter().filter_map(warning).collect()
}
