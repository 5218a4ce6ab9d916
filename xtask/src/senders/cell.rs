// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! One turn: two hosts, a limit between them, and a queue that has to get across.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use limiter_lab::{
    daemon::Daemon,
    interrupt,
    lab::WIRE,
    link::{Link, Loss},
};
use serde_json::Value;

use super::{
    host::Host,
    mailers,
    plan::{Cell, Limit, Timers},
    setting::{CLIENT, DOMAIN, HOST, LIMIT, MESSAGES, PORT, SCALED},
    watch::{Seen, Watch},
};

/// How often it is looked how many have arrived. That exact are the times.
const POLL: Duration = Duration::from_millis(100);

/// How long nobody else may begin once a queue is released: what a sender does first depends on the processors, and
/// to start mail servers and to queue takes all of them.
const ALONE: Duration = Duration::from_secs(5);

/// What all turns have in common.
pub struct Course<'a> {
    /// What the names of everything start with.
    pub name: &'a str,
    /// The limiter.
    pub limiter: &'a Path,
    /// More of its configuration for the service, a line for each key.
    pub settings: &'a str,
    /// The text of each message.
    pub message: &'a str,
    /// After this it is given up.
    pub patience: Duration,
    /// Held by who begins.
    pub turn: Mutex<()>,
}

/// What a turn showed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Messages that arrived.
    pub arrived: usize,
    /// When the last of them did, from the release of the queue.
    pub last: Duration,
    /// How many times the sender put a message off.
    pub put_off: usize,
    /// What it saw on the wire.
    pub seen: Seen,
    /// What the limiter has counted of the service, if there was one: each counter that is not 0.
    pub counted: String,
}

impl Course<'_> {
    /// Takes the turn with this number.
    ///
    /// # Errors
    ///
    /// When a part of it does not start, or we are interrupted.
    pub fn take(&self, number: usize, cell: Cell) -> Result<Outcome> {
        let mut turn = Some(self.turn.lock().unwrap_or_else(PoisonError::into_inner));
        interrupt::check()?;
        let name = format!("{}-{number}", self.name);
        let (from, to) = (mailers::of(cell.sender), mailers::of(cell.receiver));
        let mut sender = Host::new(&format!("{name}-from"))?;
        let mut receiver = Host::new(&format!("{name}-to"))?;
        let _link = match cell.way.delay() {
            Some(delay) => Some(Link::between(&sender.netns, &receiver.netns, WIRE, 2 * delay, Loss::NONE)?),
            None => sender.netns.veth_to(&receiver.netns, WIRE).map(|()| None)?,
        };
        sender.netns.connect(WIRE, CLIENT.into(), HOST.into())?;
        receiver.netns.connect(WIRE, HOST.into(), CLIENT.into())?;

        let own = (cell.limit == Limit::Own).then_some(LIMIT);
        to.receive(&mut receiver, own).with_context(|| format!("{} does not receive", cell.receiver))?;
        let limiter = match cell.limit {
            Limit::Own => None,
            Limit::Limiter => Some(self.limit(&name, &receiver)?),
        };
        from.queue(&mut sender, PORT, cell.timers, self.message)
            .with_context(|| format!("{} does not queue", cell.sender))?;

        let watch = Watch::begin(&sender.netns, (HOST, PORT).into())?;
        let begin = Instant::now();
        from.release(&mut sender, cell.timers)?;
        let (arrived, last) = self.wait(cell, begin, &mut sender, &receiver, &mut turn)?;
        let counted = limiter.as_ref().map(counted).transpose()?.unwrap_or_default();
        Ok(Outcome { arrived, last, put_off: from.put_off(&sender), seen: watch.seen(), counted })
    }

    /// Waits until all have arrived, or too long.
    fn wait(
        &self,
        cell: Cell,
        begin: Instant,
        sender: &mut Host,
        receiver: &Host,
        turn: &mut Option<MutexGuard<'_, ()>>,
    ) -> Result<(usize, Duration)> {
        let (from, to) = (mailers::of(cell.sender), mailers::of(cell.receiver));
        let (mut arrived, mut last, mut nudged) = (0, Duration::ZERO, Duration::ZERO);
        loop {
            let (now, found) = (begin.elapsed(), to.received(receiver));
            if found > arrived {
                (arrived, last) = (found, now);
            }
            if arrived >= MESSAGES || now > self.patience {
                return Ok((arrived, last));
            }
            if now > ALONE {
                *turn = None;
            }
            if cell.timers == Timers::Scaled && now > nudged + SCALED {
                nudged = now;
                from.nudge(sender)?;
            }
            interrupt::check()?;
            thread::sleep(POLL);
        }
    }

    /// Starts the limiter in front of the receiver.
    fn limit(&self, name: &str, receiver: &Host) -> Result<Daemon> {
        // The addresses are those of documentation; a shield would not look at them.
        let config = format!(
            "hostname = \"{}\"\ninterfaces = []\n[service.smtp]\nmax_connections = {LIMIT}\n{}",
            DOMAIN, self.settings
        );
        receiver.write("limiter.toml", &config)?;
        let launch = receiver.command(self.limiter);
        let (netns, file) = (receiver.netns.path(), receiver.path("limiter.toml"));
        let arguments = ["--netns".as_ref(), netns.as_os_str(), "--config".as_ref(), file.as_os_str()];
        Daemon::start(self.limiter, launch, name, &arguments, receiver.path("limiter.log"))
    }
}

/// The counters of the service, as `limiter status` tells them.
fn counted(limiter: &Daemon) -> Result<String> {
    let status: Value = serde_json::from_str(&limiter.ask(&["status", "--json"])?)?;
    let services = status["services"].as_array().into_iter().flatten();
    let counters =
        services.filter(|service| service["name"] == "smtp").filter_map(|it| it["counters"].as_object());
    let counters = counters.flatten().filter(|(_, count)| count.as_u64().is_some_and(|count| count > 0));
    Ok(counters.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", "))
}
