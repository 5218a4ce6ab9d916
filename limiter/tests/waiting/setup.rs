// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A lab with its server, its limiter and its link; and how to leave it.

use std::net::IpAddr;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use serde_json::Value;

use crate::crowd::Record;
use crate::figures::{ms, percentile};
use crate::freed::Freed;
use crate::server::Server;
use limiter_lab::link::{Link, Loss};
use limiter_lab::poll::patience;
use limiter_lab::sock_diag::{SYN_RECV, Sockets};
use limiter_lab::watch::Watch;
use limiter_lab::{Answer, Lab, Limiter, SOON, eventually, sockets};

/// How long the limiter lets a handshake wait, where the configuration does not say.
pub const WAIT: Duration = Duration::from_secs(5);
/// What a server's queues hold.
pub const BACKLOG: i32 = 100;
pub const SMTP: u16 = 25;
/// Between two looks at the socket table: a connection lasts for longer.
const PAUSE: Duration = Duration::from_millis(2);

/// What this machine may add, busy with other things as it is.
pub fn slack() -> Duration {
    Duration::from_millis(500) * patience()
}

/// How late a place may be used because of this machine. Far from the second after which the kernel itself would ask
/// again: how fast it is, the figures say.
fn late() -> Duration {
    Duration::from_millis(250) * patience()
}

/// Tests that leave the machine time to be measured on run side by side; who takes all of it runs alone.
static MACHINE: RwLock<()> = RwLock::new(());

/// The test shares the machine with others that do.
pub fn gently() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// The test has the machine for itself.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Two hosts, a server, and a limiter.
///
/// What depends on the others goes first.
pub struct Setup {
    pub watch: Watch,
    pub limiter: Limiter,
    pub server: Server,
    /// None where the hosts are next to each other.
    pub link: Option<Link>,
    pub lab: Lab,
    limit: usize,
}

impl Setup {
    /// Far from each other, with a limit of `limit` to each source, and refusals answered with `response`. `None`
    /// without the privileges it takes.
    pub fn far(limit: u32, response: &str, rtt: Duration, loss: Loss) -> Option<Self> {
        let lab = Lab::new(crate::BINARY)?;
        let link = Some(Link::lay(&lab, rtt, loss).unwrap());
        Some(Self::with(lab, link, limit, response, BACKLOG))
    }

    /// Next to each other, with a limit of `limit` to each source.
    pub fn near(limit: u32) -> Option<Self> {
        Some(Self::with(Lab::new(crate::BINARY)?, None, limit, "reply", BACKLOG))
    }

    /// Next to each other, or with a link between them, where clients may connect thousands of times a second.
    pub fn busy(limit: u32, backlog: i32, rtt: Option<Duration>) -> Option<Self> {
        let lab = Lab::new(crate::BINARY)?;
        let link = rtt.map(|rtt| Link::lay(&lab, rtt, Loss::NONE).unwrap());
        lab.client.sysctl("ipv4/ip_local_port_range", "1024 65535").unwrap();
        // Whoever closes first keeps the port for a minute otherwise.
        lab.client.sysctl("ipv4/tcp_tw_reuse", "1").unwrap();
        Some(Self::with(lab, link, limit, "reply", backlog))
    }

    fn with(lab: Lab, link: Option<Link>, limit: u32, response: &str, backlog: i32) -> Self {
        let server = Server::start(&lab, SMTP, backlog);
        let limiter = Limiter::start(&lab, limit, response);
        let watch = Watch::every(PAUSE, &lab.host, SMTP, limit as usize);
        Self { watch, limiter, server, link, lab, limit: limit as usize }
    }

    /// There and back, without the hosts.
    pub fn rtt(&self) -> Duration {
        self.link.as_ref().map_or(Duration::ZERO, Link::rtt)
    }

    /// The longest that a client may hear nothing.
    pub fn patience(&self) -> Duration {
        WAIT + 2 * self.rtt() + slack()
    }

    /// How long this machine, busy with other things, is known to have kept something waiting.
    pub fn noise(&self) -> Duration {
        let link = self.link.as_ref().map_or(Duration::ZERO, Link::late);
        link.max(self.watch.stall())
    }

    /// What is wrong with what these clients heard, or did not hear. Each segment of one that was lost may cost
    /// it a repetition: three seconds for the handshake's (RFC 6298, 5.7), else one.
    pub fn silences(&self, records: &[Record]) -> Vec<String> {
        let lost = self.link.as_ref().map(Link::lost).unwrap_or_default();
        let allowed = |record: &Record| {
            let of_this = lost.iter().filter(|segment| segment.client == record.local);
            let repetitions: u64 = of_this.map(|segment| if segment.syn { 3 } else { 1 }).sum();
            self.patience() + self.noise() + Duration::from_secs(repetitions)
        };
        let silent =
            |record: &&Record| record.answer == Answer::Silence || record.silence() > allowed(record);
        let too_long = records.iter().filter(silent);
        too_long
            .map(|record| {
                format!("{} heard nothing for {:?}, then {:?}", record.local, record.silence(), record.answer)
            })
            .collect()
    }

    /// What is wrong with how many connections `source` had at one time, by the kernel's table.
    pub fn excess(&self, source: IpAddr) -> Option<String> {
        let (accepted, limit) = (self.server.cookies(), self.limit);
        let peak = self.watch.peak_of(source, |cookie| accepted.contains(cookie));
        (peak != limit).then(|| format!("{source} had {peak} connections at one time, the limit is {limit}"))
    }

    /// How long places of `sources` stayed free while somebody waited, in a line; what is wrong with that goes to
    /// `complaints`. The machine may add [`late`], and its [`Self::noise`].
    pub fn places(&self, sources: &[IpAddr], records: &[Record], complaints: &mut Vec<String>) -> String {
        let noise = self.noise();
        let (mut used_after, mut unused_for) = (Vec::new(), Vec::new());
        for source in sources {
            let freed = Freed::of(*source, self.limit, &self.server.visits(), records, self.rtt(), noise);
            used_after.extend(freed.used_after);
            unused_for.extend(freed.unused_for);
        }
        let allowed = 2 * self.rtt() + late() + noise;
        let [median, p99] = [50, 99].map(|percent| percentile(&used_after, percent));
        if p99 > allowed {
            complaints.push(format!("a place was free for {} while somebody waited", ms(p99)));
        }
        // What the link and this machine make of a round trip, in the same run: from SYN to SYN-ACK.
        let handshakes: Vec<Duration> = records
            .iter()
            .filter_map(|record| Some(record.connected?.duration_since(record.called)))
            .collect();
        let [trip, trip_p99] = [50, 99].map(|percent| percentile(&handshakes, percent));
        let in_vain = unused_for.iter().filter(|unused| **unused > allowed).count();
        if in_vain > 0 {
            complaints.push(format!("{in_vain} waited beside a free place, and did not get it"));
        }
        format!(
            "{} places that somebody waited for used after {} (median), {} (p99); a round trip took {}, {}; \
             noise of the machine {}",
            used_after.len(),
            ms(median),
            ms(p99),
            ms(trip),
            ms(trip_p99),
            ms(noise)
        )
    }
}

/// What `limiter list --json` has of all sources: connections, reservations, waiters.
pub fn listed(limiter: &Limiter) -> [u64; 3] {
    let list = limiter.json(&["list"]);
    let sources = list["sources"].as_array().expect("a list of sources");
    let sum = |key: &str| sources.iter().filter_map(|source: &Value| source[key].as_u64()).sum();
    ["connections", "reserved", "waiting"].map(sum)
}

/// Waits until nothing is left of what clients did: no connection, no handshake, no count, no note.
#[track_caller]
pub fn nothing_is_left(lab: &Lab, limiter: &Limiter, within: Duration) {
    let mut sockets = Sockets::of(&lab.host);
    eventually("nothing is left, by limiter list and by the kernel", within, || {
        let half_open = sockets.connections(SMTP, &[SYN_RECV]).len();
        let listed = listed(limiter);
        if listed == [0; 3] && half_open == 0 {
            return Ok(());
        }
        Err(format!("connections, reserved, waiting: {listed:?}; SYN-RECV: {half_open}"))
    });
    sockets::settled(&lab.host, limiter, SMTP);
}

/// Fails with what is wrong, and what there was to be seen.
#[track_caller]
pub fn all_is_well(complaints: &[String], summary: &str) {
    const ENOUGH: usize = 8;
    let some = complaints.iter().take(ENOUGH).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(complaints.is_empty(), "{summary}\n{some}\n({} complaints)", complaints.len());
}

/// The time after which, at the latest, nothing is left of clients that are gone.
pub const TIDY: Duration = SOON;
