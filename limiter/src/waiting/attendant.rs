// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The thread that serves those that wait.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd as _, AsRawFd as _},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use limiter_common::{
    Grounds, Key, Limits, Response, ServiceId, ServicePolicy, Waiter,
    waiting::{self, Flow, State, UsherRequest, event, usher_request},
};
use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};

use super::{
    clients::{Clients, Kernel},
    held::Held,
    line::{Act, Among, Asked, Free, Line, Places},
};
use crate::{
    greeter::Teller,
    kernel::{Tables, waiting::Waiters},
    ledger,
};

/// How often the kernel is told that the daemon is there, and the records are looked through.
const ROUND: Duration = Duration::from_secs(1);
/// For how long that holds: as long as the kernel keeps free what those wait for that nobody serves any more.
const ATTENDED_NS: u64 = 3_000_000_000;
/// How often it is looked for free places of which nobody has told: a limit that was raised, a rate that allows
/// one more.
const LOOK: Duration = Duration::from_millis(100);
/// How often in a row it is looked what is due.
const MOST_ROUNDS: usize = 64;
const EVENTS: Token = Token(0);
const STOP: Token = Token(1);

/// Serves those that wait.
pub struct Attendant {
    poll: Poll,
    _waker: Arc<Waker>,
    waiters: Waiters,
    tables: Tables,
    line: Line,
    clients: Clients,
    /// The services in force, as of the last look.
    services: HashMap<ServiceId, ServicePolicy>,
    /// Records that a program had in hand when they were looked through last.
    held: HashMap<Flow, u64>,
    /// When the kernel was told last that somebody is there.
    attended: Instant,
}

/// Ends an [`Attendant`] when it is dropped. Shared with it: closed before it has looked, it would wake nobody.
pub struct Stop(Arc<Waker>);

impl Drop for Stop {
    fn drop(&mut self) {
        // An eventfd can always be written to.
        let _never_fails = self.0.wake();
    }
}

/// Tells the kernel that those that wait are served.
pub fn attend(waiters: &mut Waiters) -> Result<()> {
    waiters.attend(ledger::monotonic_ns()? + ATTENDED_NS)
}

impl Attendant {
    /// One that goes on where another has left off.
    ///
    /// # Errors
    /// Where the kernel has not what it takes, or does not let this process have it.
    pub fn new(waiters: Waiters, tables: Tables, teller: Teller) -> Result<(Self, Stop)> {
        let poll = Poll::new().context("cannot open an epoll descriptor")?;
        poll.registry()
            .register(&mut SourceFd(&waiters.as_fd().as_raw_fd()), EVENTS, Interest::READABLE)
            .context("cannot wait for events of the kernel programs")?;
        let waker = Waker::new(poll.registry(), STOP).context("cannot open an event descriptor")?;
        let waker = Arc::new(waker);
        let attendant = Self {
            poll,
            _waker: Arc::clone(&waker),
            waiters,
            tables,
            line: Line::default(),
            clients: Clients::new(teller)?,
            services: HashMap::new(),
            held: HashMap::new(),
            attended: Instant::now(),
        };
        Ok((attendant, Stop(waker)))
    }

    /// Serves until its [`Stop`] is dropped. From then on the kernel does without it.
    ///
    /// # Errors
    /// Where it cannot go on.
    pub fn run(mut self) -> Result<()> {
        let mut events = Events::with_capacity(8);
        let (mut round, mut look) = (Instant::now(), Instant::now());
        self.round()?;
        loop {
            let mut wake_at = round + ROUND;
            if !self.line.is_empty() {
                wake_at = wake_at.min(look + LOOK).min(self.next_due()?);
            }
            if let Some(at) = self.clients.next_reset() {
                wake_at = wake_at.min(at);
            }
            match self.poll.poll(&mut events, Some(wake_at.saturating_duration_since(Instant::now()))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled.context("cannot wait for events of the kernel programs")?,
            }
            if events.iter().any(|event| event.token() == STOP) {
                return self.waiters.attend(0);
            }
            self.hear()?;
            let now = Instant::now();
            if now >= round + ROUND {
                round = now;
                self.round()?;
            }
            if now >= look + LOOK && !self.line.is_empty() {
                look = now;
                self.refresh()?;
                self.grant(Among::All)?;
            }
            self.act()?;
            self.clients.repeat_resets(now);
        }
    }

    /// Tells the kernel that somebody is there, and looks at every record: of what was told there may have been no
    /// room for more.
    fn round(&mut self) -> Result<()> {
        attend(&mut self.waiters)?;
        self.attended = Instant::now();
        self.refresh()?;
        let waiters: HashMap<Flow, Waiter> = self.tables.waiters()?.into_iter().collect();
        let now_ns = ledger::monotonic_ns()?;
        self.line.retain(|flow| waiters.contains_key(flow));
        for (flow, waiter) in &waiters {
            let is_left =
                waiting::state(waiter.word) == Some(State::Told) && self.line.number(flow).is_none();
            self.line.update(flow, waiter, now_ns);
            if is_left {
                // Another daemon was about to tell it.
                self.tell(flow)?;
            }
        }
        self.clear(&waiters)?;
        let waiting: Vec<Flow> = self.line.waiting().copied().collect();
        for flow in waiting {
            if let Some(waiter) = waiters.get(&flow) {
                self.check(&flow, waiter)?;
            }
        }
        Ok(())
    }

    /// Tells the kernel in between, where there is much to do.
    fn still_attend(&mut self) -> Result<()> {
        if self.attended.elapsed() >= ROUND {
            attend(&mut self.waiters)?;
            self.attended = Instant::now();
        }
        Ok(())
    }

    /// Removes the records that were in a program's hand in the last round already: no program runs that long.
    fn clear(&mut self, waiters: &HashMap<Flow, Waiter>) -> Result<()> {
        let held: HashMap<Flow, u64> = waiters
            .iter()
            .filter(|(_, waiter)| waiting::state(waiter.word) == Some(State::InHand))
            .map(|(flow, waiter)| (*flow, waiter.word))
            .collect();
        for (flow, word) in held.iter().filter(|(flow, word)| self.held.get(flow) == Some(word)) {
            let number = waiting::number(*word);
            self.waiters.ask(UsherRequest {
                kind: usher_request::CLEAR,
                number,
                flow: *flow,
                ..UsherRequest::default()
            })?;
        }
        self.held = held;
        Ok(())
    }

    /// Reads the services in force.
    fn refresh(&mut self) -> Result<()> {
        self.services = self.tables.policy.services()?.into_iter().collect();
        Ok(())
    }

    /// Looks whether the kernel has given up the request of one that waits, or made a connection of it.
    fn check(&mut self, flow: &Flow, waiter: &Waiter) -> Result<()> {
        match self.clients.look(&self.held(flow, waiter)) {
            Some(Kernel::Nothing | Kernel::NoListener) => self.tell(flow),
            Some(Kernel::Connection) => self.forget(flow),
            Some(Kernel::Request(_)) | None => Ok(()),
        }
    }

    /// Hears what the programs tell.
    fn hear(&mut self) -> Result<()> {
        let now_ns = ledger::monotonic_ns()?;
        let mut freed = Vec::new();
        let mut has_changed = false;
        while let Some(event) = self.waiters.event() {
            match event.kind {
                event::CHANGED => {
                    match self.waiters.waiter(&event.flow)? {
                        Some(waiter) => self.line.update(&event.flow, &waiter, now_ns),
                        None => self.line.remove(&event.flow),
                    }
                    has_changed = true;
                }
                event::FREED => {
                    let among = Among::Freed(ServiceId(event.service as u8), event.flow.remote);
                    if !freed.contains(&among) {
                        freed.push(among);
                    }
                }
                _ => {
                    self.line.remove(&event.flow);
                    has_changed = true;
                }
            }
        }
        if has_changed {
            // Who has left may have kept others waiting, and who comes may have missed what came free.
            return self.grant(Among::All);
        }
        for among in freed {
            self.grant(among)?;
        }
        Ok(())
    }

    /// Gives everyone their turn whose it is.
    fn grant(&mut self, among: Among) -> Result<()> {
        // Nobody is told of a place that came free before the one who waits for it was marked there.
        let has_moved = self.give_turns(among)?;
        if has_moved {
            self.give_turns(among)?;
        }
        Ok(())
    }

    /// The same, as things stand; whether somebody was found to wait for something else.
    fn give_turns(&mut self, among: Among) -> Result<bool> {
        let mut known = HashMap::new();
        let (tables, services) = (&self.tables, &self.services);
        let now_ns = ledger::monotonic_ns()?;
        let turns = self.line.turns(
            among,
            now_ns,
            |service| wait_ns(services, service),
            |asked| {
                let policy = services.get(&asked.count_keys.service())?;
                // The same for all of one address.
                let key = (asked.count_keys.service(), asked.flow.remote);
                *known.entry(key).or_insert_with(|| free(tables, policy, asked).ok())
            },
        );
        let mut has_moved = false;
        for (flow, act) in turns {
            if act == Act::Tell {
                self.tell(&flow)?;
                continue;
            }
            // Where it cannot be marked it waits all the same, and may be overtaken.
            let is_done = self.ask(&flow, act)?.done != 0;
            has_moved |= is_done && act != Act::Grant;
            if !is_done || act != Act::Grant {
                continue;
            }
            let Some(waiter) = self.waiters.waiter(&flow)? else { continue };
            let held = self.held(&flow, &waiter);
            self.clients.ask_again(&held);
        }
        Ok(has_moved)
    }

    /// Does what time asks for, until it asks for nothing more.
    fn act(&mut self) -> Result<()> {
        // Each of them leads to another one at most: who is told makes room, who loses its turn gives it to the next.
        for _ in 0..MOST_ROUNDS {
            let services = &self.services;
            let acts = self.line.due(ledger::monotonic_ns()?, |service| wait_ns(services, service));
            if acts.is_empty() {
                return Ok(());
            }
            let mut lost_turn = false;
            for (flow, act) in acts {
                if act == Act::Tell {
                    self.tell(&flow)?;
                    continue;
                }
                let is_done = self.ask(&flow, act)?.done != 0;
                match act {
                    Act::Admit if !is_done => {
                        // Who came first is known by now, or will be at the next try.
                        self.line.was_not_admitted(&flow);
                        self.hear()?;
                    }
                    Act::Revoke => lost_turn = true,
                    _ => {}
                }
            }
            if lost_turn {
                self.grant(Among::All)?;
            }
        }
        Ok(())
    }

    fn next_due(&self) -> Result<Instant> {
        let now_ns = ledger::monotonic_ns()?;
        let due = self.line.next_due_ns(|service| wait_ns(&self.services, service));
        let left_ns = due.map_or(ROUND.as_nanos() as u64, |due| due.saturating_sub(now_ns));
        Ok(Instant::now() + Duration::from_nanos(left_ns))
    }

    /// Asks the usher; the line knows what became of it.
    fn ask(&mut self, flow: &Flow, act: Act) -> Result<UsherRequest> {
        let kind = match act {
            Act::Grant => usher_request::GRANT,
            Act::Revoke => usher_request::REVOKE,
            Act::Admit => usher_request::ADMIT,
            Act::WaitOn(..) => usher_request::WAIT_ON,
            Act::Tell => usher_request::TELL,
        };
        let (reason, marks) = match act {
            Act::WaitOn(reason, marks) => (reason as u16, marks.0.into()),
            _ => (0, 0),
        };
        let number = self.line.number(flow).unwrap_or_default();
        let answer = self.waiters.ask(UsherRequest {
            kind,
            number,
            flow: *flow,
            reason,
            marks,
            ..UsherRequest::default()
        })?;
        let now_ns = ledger::monotonic_ns()?;
        if answer.done != 0 {
            self.line.done(flow, act, now_ns);
        }
        // Where it is marked is the kernel's to say.
        let is_known = answer.done != 0 && !matches!(act, Act::Admit | Act::WaitOn(..));
        if is_known {
            return Ok(answer);
        }
        if let Some(waiter) = self.waiters.waiter(flow)? {
            self.line.update(flow, &waiter, now_ns);
        } else {
            self.line.remove(flow);
        }
        Ok(answer)
    }

    /// Tells one why it is refused, and forgets it.
    fn tell(&mut self, flow: &Flow) -> Result<()> {
        self.still_attend()?;
        let Some(waiter) = self.waiters.waiter(flow)? else {
            self.line.remove(flow);
            return Ok(());
        };
        let held = self.held(flow, &waiter);
        let age_ns = ledger::monotonic_ns()?.saturating_sub(waiter.since_ns);
        let is_refused = match self.clients.look(&held) {
            Some(Kernel::Connection) => return self.forget(flow),
            // Whoever listened there has gone. Behind a TPROXY rule nobody ever did.
            Some(Kernel::NoListener) if waiter.elsewhere == 0 => false,
            // Nobody was here to refuse it at its time; if that is long ago it is not refused today.
            Some(Kernel::Nothing | Kernel::NoListener) => age_ns <= ledger::LONGEST_WAIT_NS,
            Some(Kernel::Request(_)) | None => true,
        };
        if !is_refused {
            self.clients.end(&mut self.waiters, &held, None);
            return self.forget(flow);
        }
        let answer = self.ask(flow, Act::Tell)?;
        if answer.done != 0 {
            let told = grounds(&answer).filter(|_| self.clients.tells(&held));
            // Without grounds it was not refused, but has gone itself.
            if told.is_none() && answer.grounds != 0 {
                self.clients.note_reset(&held, Grounds::unpack(answer.grounds));
            }
            self.clients.end(&mut self.waiters, &held, told);
            self.forget(flow)?;
        }
        Ok(())
    }

    /// Takes the record away.
    fn forget(&mut self, flow: &Flow) -> Result<()> {
        let number = self.line.number(flow).unwrap_or_default();
        let request =
            UsherRequest { kind: usher_request::FORGET, number, flow: *flow, ..UsherRequest::default() };
        let _gone_already = self.waiters.ask(request)?;
        self.line.remove(flow);
        Ok(())
    }

    /// The handshake as the kernel knew it.
    fn held(&self, flow: &Flow, waiter: &Waiter) -> Held {
        let bits = |lowest: u32, mask: u16| waiter.options >> lowest & mask;
        let address = |address: IpAddr, port| match address {
            IpAddr::V4(v4) => SocketAddr::V4(SocketAddrV4::new(v4, port)),
            IpAddr::V6(v6) => {
                let scope = if v6.is_unicast_link_local() { waiter.ifindex } else { 0 };
                SocketAddr::V6(SocketAddrV6::new(v6, port, 0, scope))
            }
        };
        // Both are of the clock of timestamps, in microseconds.
        let sent_us = (waiter.since_ns / 1000).wrapping_sub(u64::from(waiter.rtt_us));
        Held {
            remote: address(flow.remote.to_ip(), flow.remote_port),
            local: address(flow.local.to_ip(), flow.local_port),
            snt_isn: waiter.snt_isn,
            rcv_isn: waiter.rcv_isn,
            ts_off: waiter.ts_off,
            snt_tsval: ((sent_us / 1000) as u32).wrapping_add(waiter.ts_off),
            ts_recent: waiter.ts_recent,
            mss: waiter.mss,
            window: waiter.window,
            rcv_wnd: waiter.rcv_wnd,
            snd_wscale: bits(self.waiters.bits.snd_wscale, 0xf) as u8,
            rcv_wscale: bits(self.waiters.bits.rcv_wscale, 0xf) as u8,
            wscale_ok: bits(self.waiters.bits.wscale_ok, 1) != 0,
            sack_ok: bits(self.waiters.bits.sack_ok, 1) != 0,
            tstamp_ok: bits(self.waiters.bits.tstamp_ok, 1) != 0,
            bound_ifindex: waiter.bound_ifindex,
            mark: 0,
        }
    }
}

/// What one is told whom the usher has refused, if it is told anything.
fn grounds(answer: &UsherRequest) -> Option<Grounds> {
    let is_told = Response::from_u8(answer.response as u8) == Response::Reply;
    is_told.then(|| Grounds::unpack(answer.grounds))
}

/// How long one may wait at a service; not at all at one that is there no more.
fn wait_ns(services: &HashMap<ServiceId, ServicePolicy>, service: ServiceId) -> u64 {
    services.get(&service).map_or(0, |policy| u64::from(policy.wait_s) * 1_000_000_000)
}

/// What is free for one that waits.
fn free(tables: &Tables, policy: &ServicePolicy, asked: &Asked<'_>) -> Result<Free> {
    let service = asked.count_keys.service();
    let rule_match = tables.policy.rule_match(&asked.flow.remote, service)?;
    let limits = Limits::of(policy, &rule_match).within(&asked.count_keys);
    let source = Key::source(service, policy, rule_match.source_prefix, &asked.flow.remote);
    let usage = ledger::usage(tables, &source, &asked.count_keys)?;
    let now_ns = ledger::now_ns()?;
    Ok(Free {
        source: u64::from(limits.source).saturating_sub(usage.source.taken()),
        network: Places::of(limits.network, usage.network),
        total: Places::of(limits.total, usage.total),
        rate: limits.rate.left(usage.due_ns, now_ns),
        is_refused: limits.denied || limits.bannable && now_ns < usage.banned_until_ns,
    })
}
