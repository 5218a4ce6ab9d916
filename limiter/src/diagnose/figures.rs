// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the rules calculate with: figures of a case, each made in one place. What nobody knows is none, never zero.

use std::time::Duration;

use limiter_common::{Protocol, Reason};

use crate::{
    evidence::{
        State,
        case::{AddressKind, Case, Session},
    },
    sock_diag::Waits,
};

/// A client that has sent nothing for so long is at rest: programs that fetch or send do so within seconds.
pub const AT_REST: Duration = Duration::from_secs(60);
/// A client that is there answers: three repetitions or probes without an answer, and nothing else for [`AT_REST`]. One or
/// two are lost in any radio cell.
const UNANSWERED: u8 = 3;
/// From a client that is there something comes within this time, even if nobody uses it: IMAP clients renew IDLE within 29
/// minutes (RFC 2177, 3), and servers end sessions of any of the protocols that say nothing for 30.
pub const SILENT: Duration = Duration::from_secs(31 * 60);
/// Connections that a program opens at its start, or after its network has come back, are this near to each other.
pub const BURST: Duration = Duration::from_secs(10);
/// What was longer ago says nothing of now.
const LATELY_S: u64 = 2 * 3600;
/// A watch shorter than this has seen too little to make a rate of it.
const SHORTEST_WATCH: Duration = Duration::from_secs(20);
/// Who was refused within this time still tries, or has just given up.
const A_MOMENT: Duration = Duration::from_secs(600);
/// A session that ends within this time was short.
pub const SHORT: Duration = Duration::from_secs(60);
/// A message that somebody sends has more bytes than the talk around it; without one there are a few hundred.
const MESSAGE_BYTES: u64 = 1024;

/// The figures of a case.
#[derive(Debug)]
pub struct Figures<'a> {
    /// What they are of.
    pub case: &'a Case,
    /// Connections: those that are counted, or those that were seen where these are more.
    pub connections: u32,
    /// Connections that were seen.
    pub seen: u32,
    /// Of these, those of which the kernel tells what went through them, or that they are dead.
    pub judged: u32,
    /// Of these, those whose client does not answer any more.
    pub gone: u32,
    /// Those from which nothing came for [`SILENT`], and that are not known to be gone.
    pub silent: u32,
    /// Those whose client answers, as far as is known, and has sent nothing for [`AT_REST`].
    pub resting: u32,
    /// Those whose client has closed its side, and the mail daemon has not.
    pub client_closed: u32,
    /// Those through which the client has sent a message's worth of bytes.
    pub sending: u32,
    /// Those of which nobody knows what went through them.
    pub blind: u32,
    /// How old the oldest is.
    pub oldest: Option<Duration>,
    /// The most that began within [`BURST`], and within which time they did.
    pub burst: Burst,
    /// Who uses them.
    pub users: Option<Users<'a>>,
    /// How often connections come and go.
    pub churn: Option<Churn>,
    /// Connections that nobody has touched since a minute after they began, where all began in even steps.
    pub left_behind: u32,
}

/// Connections that began together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Burst {
    /// How many.
    pub count: u32,
    /// Within which time.
    pub within: Duration,
}

/// The users of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Users<'a> {
    /// How many.
    pub count: u32,
    /// Sessions of all.
    pub sessions: u32,
    /// The one with most sessions.
    pub first: &'a str,
    /// How many it has.
    pub of_first: u32,
}

/// How often connections come and go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Churn {
    /// Over which time this was seen.
    pub over: Duration,
    /// Connections that began in it.
    pub begun: u64,
    /// A minute of it, in thousandths.
    pub per_minute_milli: u64,
    /// Of those that ended, how many were short, in hundredths; none if none ended.
    pub short_percent: Option<u32>,
    /// Whether they began in even steps: the mean distance, and none if they did not.
    pub every: Option<Duration>,
    /// How many more there were at the end, where none ended and they began one after the other, not all at a time.
    pub grown: u32,
    /// Whether somebody watched; else it is from the history.
    pub watched: bool,
}

impl<'a> Figures<'a> {
    /// Those of a case.
    pub fn of(case: &'a Case) -> Self {
        let count = |is: &dyn Fn(&Session) -> bool| {
            u32::try_from(case.sessions.iter().filter(|session| is(session)).count()).unwrap_or(u32::MAX)
        };
        let received_ago = |session: &Session| session.connection.tcp().map(|tcp| tcp.received_ago);
        let is_there = |session: &Session| !is_gone(session) && !is_silent(session);
        let seen = count(&|_| true);
        let has_even_steps = even(&begun(case)).is_some();
        Self {
            case,
            connections: case.connections.max(seen),
            seen,
            judged: count(&|one| one.connection.tcp().is_some() || one.connection.state == State::Dead),
            gone: count(&is_gone),
            silent: count(&|one| !is_gone(one) && is_silent(one)),
            resting: count(&|one| is_there(one) && received_ago(one).is_some_and(|ago| ago >= AT_REST)),
            client_closed: count(&|one| one.connection.state == State::ClientClosed),
            sending: count(&|one| one.connection.tcp().is_some_and(|tcp| tcp.received >= MESSAGE_BYTES)),
            blind: count(&|one| one.connection.tcp().is_none()),
            oldest: case.sessions.iter().filter_map(|one| one.connection.age).max(),
            burst: Burst::of(&begun(case)),
            users: Users::of(case),
            churn: Churn::of(case),
            left_behind: if has_even_steps { count(&|one| is_there(one) && is_untouched(one)) } else { 0 },
        }
    }

    /// Whether mail is read with it: sessions belong to users, and last.
    pub const fn is_of_readers(&self) -> bool {
        matches!(self.case.protocol, Protocol::Imap | Protocol::Pop3 | Protocol::Sieve)
    }

    /// Whether other hosts deliver here, rather than users submit: by the ports of the connections, and by the service's
    /// name where none is seen.
    pub fn is_of_hosts(&self) -> bool {
        if self.is_of_readers() {
            return false;
        }
        let mut ports =
            self.case.sessions.iter().filter_map(|one| one.connection.socket).map(|it| it.tuple.local.port());
        match ports.next() {
            Some(first) => !SUBMISSION.contains(&first) && ports.all(|port| !SUBMISSION.contains(&port)),
            None => !self.case.service.starts_with("submission"),
        }
    }

    /// Whether the address is none of the Internet's.
    pub const fn is_inside(&self) -> bool {
        matches!(self.case.kind, AddressKind::Private | AddressKind::Local)
    }

    /// How many hundredths of the service's connections are its own; none where the service has none.
    pub fn share_of_service(&self) -> Option<u32> {
        percent(self.connections.into(), self.case.whole.connections.max(self.connections).into())
    }

    /// Whether it is refused, or would be, for a limit of its own; or was a moment ago.
    pub fn is_at_its_limit(&self) -> bool {
        let case = self.case;
        let was = case.refused.keys().any(|reason| reason.is_of_source())
            && case.last_refused.is_some_and(|ago| ago <= A_MOMENT);
        case.reason.map_or(was, Reason::is_of_source)
    }

    /// Whether its rate is why it is refused, or was.
    pub fn is_held_by_rate(&self) -> bool {
        self.case.reason == Some(Reason::Rate) || self.case.refused.contains_key(&Reason::Rate)
    }

    /// So many of its connections, for people: "9 of 10", or "all 10".
    pub fn of_all(&self, count: u32) -> String {
        let all = self.connections;
        if count >= all && all > 1 { format!("all {all}") } else { format!("{count} of {all}") }
    }

    /// Connections that begin in a minute for each user, in thousandths; of all where users are not known.
    pub fn per_minute_milli_of_user(&self) -> Option<u64> {
        let users = self.users.map_or(1, |users| u64::from(users.count.max(1)));
        self.churn.map(|churn| churn.per_minute_milli / users)
    }
}

/// Where users submit (RFC 6409, RFC 8314).
const SUBMISSION: [u16; 2] = [465, 587];

/// Whether nobody is there any more at the other end of a session, as far as can be seen.
pub fn is_ghost(session: &Session) -> bool {
    is_gone(session) || is_silent(session)
}

/// Whether the client is gone: the connection is dead, or what was sent to it is not answered.
fn is_gone(session: &Session) -> bool {
    let connection = &session.connection;
    if connection.state == State::Dead {
        return true;
    }
    let Some(tcp) = connection.tcp() else { return false };
    let repeated = match connection.socket.and_then(|socket| socket.timer) {
        Some(Waits::Acknowledgement(times)) => times,
        _ => 0,
    };
    repeated.max(tcp.probes) >= UNANSWERED && connection.silent().is_some_and(|silent| silent >= AT_REST)
}

fn is_silent(session: &Session) -> bool {
    session.connection.silent().is_some_and(|silent| silent >= SILENT)
}

/// Whether nobody has sent anything through it since a minute after it began.
fn is_untouched(session: &Session) -> bool {
    let (age, tcp) = (session.connection.age, session.connection.tcp());
    age.zip(tcp).is_some_and(|(age, tcp)| age > AT_REST && tcp.received_ago.saturating_add(AT_REST) >= age)
}

/// How long ago each began, of which that is known: the oldest first.
fn begun(case: &Case) -> Vec<Duration> {
    let mut ages: Vec<Duration> = case.sessions.iter().filter_map(|one| one.connection.age).collect();
    ages.sort_unstable_by(|one, other| other.cmp(one));
    ages
}

/// The mean distance of moments that lie in even steps: five at least, and their distances differ from the mean by a third
/// of it, on the average, at most. One timer does that; people, and several timers, do not.
fn even(moments: &[Duration]) -> Option<Duration> {
    const FEWEST: usize = 5;
    if moments.len() < FEWEST {
        return None;
    }
    let steps: Vec<u128> =
        moments.windows(2).filter_map(|two| Some(two.first()?.abs_diff(*two.get(1)?).as_nanos())).collect();
    let sum = steps.iter().fold(0_u128, |sum, step| sum.saturating_add(*step));
    let mean = sum.checked_div(steps.len() as u128)?;
    let away = steps.iter().fold(0_u128, |away, step| away.saturating_add(step.abs_diff(mean)));
    let mean = Duration::from_nanos(u64::try_from(mean).ok()?);
    (mean >= Duration::from_secs(1) && away.saturating_mul(3) <= sum).then_some(mean)
}

/// How many hundredths one number is of another.
fn percent(part: u64, all: u64) -> Option<u32> {
    part.saturating_mul(100).checked_div(all).map(|percent| u32::try_from(percent).unwrap_or(u32::MAX))
}

impl Burst {
    /// The largest of connections of these ages, the oldest first.
    fn of(ages: &[Duration]) -> Self {
        let (mut most, mut end) = (Self::default(), 0);
        for (first, oldest) in ages.iter().enumerate() {
            while ages.get(end).is_some_and(|age| age.saturating_add(BURST) >= *oldest) {
                end += 1;
            }
            let count = u32::try_from(end - first).unwrap_or(u32::MAX);
            let youngest = end.checked_sub(1).and_then(|last| ages.get(last)).unwrap_or(oldest);
            if count > most.count {
                most = Self { count, within: oldest.saturating_sub(*youngest) };
            }
        }
        most
    }
}

impl<'a> Users<'a> {
    fn of(case: &'a Case) -> Option<Self> {
        let users = case.users.get()?;
        // Of equals the first by name, so that the same is said twice.
        let (first, of_first) = users.iter().rev().max_by_key(|(_, sessions)| **sessions)?;
        let sessions = users.values().fold(0, |sum: u32, one| sum.saturating_add(*one));
        let count = u32::try_from(users.len()).unwrap_or(u32::MAX);
        Some(Self { count, sessions, first, of_first: *of_first })
    }

    /// How many hundredths of the sessions the first has.
    pub fn percent_of_first(&self) -> u32 {
        percent(self.of_first.into(), self.sessions.into()).unwrap_or(0)
    }
}

impl Churn {
    fn of(case: &Case) -> Option<Self> {
        let watched = case.watched.as_ref().filter(|watched| watched.time >= SHORTEST_WATCH);
        match watched {
            Some(watched) => {
                let (before, after) = watched.connections;
                let ages = watched.ended.iter().filter_map(|(_, age)| *age);
                let known = ages.clone().count() as u64;
                let short = ages.filter(|age| *age <= SHORT).count() as u64;
                let begun = watched.begun.len() as u64;
                let mut moments = watched.begun.clone();
                moments.sort_unstable_by(|one, other| other.cmp(one));
                let is_spread = u64::from(Burst::of(&moments).count) * 2 <= begun;
                let grows = watched.ended.is_empty() && is_spread;
                Some(Self {
                    over: watched.time,
                    begun,
                    per_minute_milli: per_minute_milli(begun, watched.time),
                    short_percent: percent(short, known),
                    every: even(&watched.begun),
                    grown: if grows { after.saturating_sub(before) } else { 0 },
                    watched: true,
                })
            }
            None => Self::of_history(case),
        }
    }

    /// What the periods of the last two hours say: at least two of them, because one may be no more than a start of many
    /// programs at a time.
    fn of_history(case: &Case) -> Option<Self> {
        let since = case.now_s.saturating_sub(LATELY_S);
        let is_lately = |start: u64, seconds: u32| {
            let end = start.saturating_add(seconds.into());
            start >= since && end <= case.now_s.saturating_add(u64::from(seconds)) && seconds > 0
        };
        let history = case.history.get()?;
        let lately: Vec<_> = history.iter().filter(|one| is_lately(one.start_s, one.seconds)).collect();
        if lately.len() < 2 {
            return None;
        }
        let sum =
            |of: &dyn Fn(usize) -> u64| (0..lately.len()).fold(0_u64, |sum, at| sum.saturating_add(of(at)));
        let of = |at: usize, value: &dyn Fn(&crate::evidence::case::Period) -> u64| {
            lately.get(at).map_or(0, |period| value(period))
        };
        let over = Duration::from_secs(sum(&|at| of(at, &|one| one.seconds.into())));
        let begun = sum(&|at| of(at, &|one| one.accepted));
        let ended = sum(&|at| of(at, &|one| one.ended));
        let short = sum(&|at| of(at, &|one| one.ended_within_minute));
        let peaks: Vec<u32> = lately.iter().map(|one| one.peak).collect();
        let rises = peaks.windows(2).all(|two| two.first() <= two.get(1)) && peaks.len() >= 4;
        let is_kept = ended.saturating_mul(10) <= begun;
        let grown = peaks.last().copied().unwrap_or(0).saturating_sub(peaks.first().copied().unwrap_or(0));
        // Each quarter of an hour brings about as many as the others: within a third.
        let mean = begun / lately.len() as u64;
        let is_even = mean >= 3
            && lately.len() >= 3
            && lately.iter().all(|one| one.accepted.abs_diff(mean).saturating_mul(3) <= mean);
        Some(Self {
            over,
            begun,
            per_minute_milli: per_minute_milli(begun, over),
            short_percent: percent(short, ended),
            every: over.as_secs().checked_div(begun).filter(|_| is_even).map(Duration::from_secs),
            grown: if rises && is_kept { grown } else { 0 },
            watched: false,
        })
    }

    /// How often, for people.
    pub fn words(&self) -> String {
        rate(self.per_minute_milli)
    }

    /// Over which time that was seen, for people, in whole minutes from two on.
    pub fn seen(&self) -> String {
        let seconds = self.over.as_secs();
        let time = if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds / 60) };
        if self.watched { format!("watched for {time}") } else { format!("in the last {time}") }
    }
}

fn per_minute_milli(count: u64, time: Duration) -> u64 {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    count.saturating_mul(60_000_000).checked_div(milliseconds).unwrap_or(0)
}

/// Thousandths a minute, for people.
pub fn rate(per_minute_milli: u64) -> String {
    if per_minute_milli >= 10_000 {
        format!("{} a minute", per_minute_milli / 1000)
    } else {
        format!("{}.{} a minute", per_minute_milli / 1000, per_minute_milli % 1000 / 100)
    }
}
