// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The thread that sees to it that there is a greeter: starts the process, tells it what to say, answers what it asks,
//! hears whom it has refused, and starts another one when it has ended.
//!
//! The process alone has the listener. When it ends, however that happens, the kernel closes the listener and resets
//! everybody in its queue, and admission answers with a reset from then on, as there is nowhere to lead anyone to. So
//! nobody is left without an answer, whether or not this thread, or the daemon, is there to see it. The next process
//! gets a listener of its own, and nobody is led there before it serves.

use std::{
    fmt,
    io::{self, ErrorKind},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};
use rustix::net::RecvFlags;
use tracing::{Level, debug, enabled, info, warn};

use super::{
    launch::{Ends, Launch, Launched},
    line::Line,
};
use crate::greeter::{
    bounds::Bounds,
    channel::{self, Reader},
    health::Health,
    listener::Listener,
    log::{RefusalLog, Refused},
    messages::{Answer, Noted, Notice, Order, Question},
    settings::Settings,
    setup::Setup,
    tls::{Asker, Unsigned},
    totals::Totals,
    words::{Dues, NAMELESS},
};

/// How long a process may take to serve.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How often processes are started, at most.
const START_EVERY: Duration = Duration::from_secs(1);
/// How often the process is asked whether it lives.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How often in a row it may not answer before it is ended.
const SILENT: u32 = 5;
/// After how long settings are sent again that the process had no room for.
const AGAIN: Duration = Duration::from_millis(100);
/// How many messages a second the process may send: far more than it ever does.
const MESSAGES: u32 = 50_000;
/// The least time between two warnings that processes end, or that one cannot accept.
const WARN_EVERY: Duration = Duration::from_secs(10);

const WAKER: Token = Token(0);
const ORDERS: Token = Token(1);
const QUESTIONS: Token = Token(2);

/// Has refused clients led to a listener.
pub type Steer = Box<dyn Fn(&Listener) -> Result<()> + Send>;

/// What others in the daemon share with the thread.
pub struct Parts {
    /// What is said.
    pub settings: Settings,
    /// When rates allow more.
    pub dues: Box<dyn Dues>,
    /// Leads clients to the listener of a process.
    pub steer: Steer,
    /// Starts processes.
    pub launch: Box<dyn Launch>,
    pub bounds: Bounds,
    pub log: RefusalLog,
    pub totals: Totals,
    pub line: Line,
    pub health: Health,
}

impl fmt::Debug for Parts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Parts").field("launch", &self.launch).finish_non_exhaustive()
    }
}

/// Ends the thread.
#[derive(Clone, Debug)]
pub struct Control {
    stops: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Control {
    /// Has the process close its listener and end when everyone has heard, and the thread with it.
    pub fn stop(&self) {
        self.stops.store(true, Relaxed);
        // An eventfd can always be written to.
        let _never_fails = self.waker.wake();
    }
}

/// The thread's state.
#[derive(Debug)]
pub struct Supervisor {
    poll: Poll,
    control: Control,
    parts: Parts,
    /// Of the first process, to which clients are led already.
    listener: Option<Listener>,
    running: Option<Running>,
    reader: Reader,
    /// When the next process may be started.
    start_at: Instant,
    /// Whether there ever was one.
    has_started: bool,
    /// When its end was warned of, and how many ended since.
    warned: Option<Instant>,
    ended: u32,
    warned_of_accept: Option<Instant>,
}

/// A process.
#[derive(Debug)]
struct Running {
    launched: Box<dyn Launched>,
    orders: Arc<OwnedFd>,
    questions: OwnedFd,
    /// Until it serves, its listener.
    listener: Option<Listener>,
    /// By when it has to serve, or, when it was told to stop, to have ended.
    until: Option<Instant>,
    stops: bool,
    /// Which settings it has.
    settings: u64,
    /// When something is to be sent to it next.
    send_at: Instant,
    /// How often it was asked whether it lives since it has said so.
    asked: u32,
    /// Since when its messages are counted, and how many there were.
    messages: (Instant, u32),
    /// What it says it ends of.
    problem: Option<String>,
}

/// What comes of what a process has sent.
enum Heard {
    /// That is all for now.
    All,
    /// It has ended, or has to; because of that, if it has not said why.
    Ends(&'static str),
}

impl Supervisor {
    /// One that will start its first process with this listener. Its poll wakes up for `waker`.
    pub fn new(poll: Poll, waker: Arc<Waker>, listener: Listener, parts: Parts) -> Self {
        Self {
            poll,
            control: Control { stops: Arc::default(), waker },
            parts,
            listener: Some(listener),
            running: None,
            reader: Reader::new(),
            start_at: Instant::now(),
            has_started: false,
            warned: None,
            ended: 0,
            warned_of_accept: None,
        }
    }

    /// What wakes such a thread up.
    ///
    /// # Errors
    /// For want of a descriptor.
    pub fn poll() -> io::Result<(Poll, Arc<Waker>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok((poll, waker))
    }

    /// What ends it.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// What it shares.
    pub const fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Goes on until it is told to stop. On a thread that lives as long as the daemon: the kernel ends the process with
    /// the thread that has started it.
    ///
    /// # Errors
    /// If the kernel does not tell any more of what happens.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(8);
        loop {
            let now = Instant::now();
            self.attend(now);
            let Some(wake_at) = self.next(now) else { return Ok(()) };
            match self.poll.poll(&mut events, wake_at.map(|at| at.saturating_duration_since(now))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            let tokens: Vec<Token> = events.iter().map(mio::event::Event::token).collect();
            for token in tokens {
                let heard = match token {
                    ORDERS => self.hear_notices(),
                    QUESTIONS => self.hear_questions(),
                    _ => Heard::All,
                };
                if let Heard::Ends(why) = heard {
                    self.end(why);
                }
            }
        }
    }

    /// When there is something to do; `None` at the end.
    #[expect(clippy::option_option, reason = "the end, and no time at all, are two things")]
    fn next(&self, now: Instant) -> Option<Option<Instant>> {
        match &self.running {
            Some(running) => Some(running.until.into_iter().chain([running.send_at]).min()),
            None if self.control.stops.load(Relaxed) => None,
            None => Some(Some(self.start_at.max(now))),
        }
    }

    /// Does what time demands.
    fn attend(&mut self, now: Instant) {
        let stops = self.control.stops.load(Relaxed);
        if self.running.is_none() && !stops && self.start_at <= now {
            self.start_at = now + START_EVERY;
            if let Err(problem) = self.start(now) {
                self.is_down(&format!("{problem:#}"));
            }
        }
        let Some(running) = &mut self.running else { return };
        if running.until.is_some_and(|until| until <= now) {
            let why = if running.stops { "it does not stop" } else { "it does not begin to serve" };
            return self.end(why);
        }
        if stops && !running.stops {
            running.stops = true;
            running.until = Some(now + 2 * self.parts.bounds.time + START_EVERY);
            self.parts.line.set(None);
            if running.order(&Order::Stop, &[]).is_err() {
                return self.end("it does not take orders");
            }
        }
        if running.asked > SILENT {
            return self.end("it does not answer");
        }
        let number = self.parts.settings.get().number;
        if running.settings != number {
            match running.say(&self.parts, None) {
                Ok(()) => running.settings = number,
                Err(_) => running.send_at = now + AGAIN,
            }
        }
        if running.send_at <= now {
            running.send_at = now + ASK_EVERY;
            // One that has no room for it has not read the last, either.
            let _unheard = running.order(&Order::Live, &[]);
            running.asked += 1;
        }
    }

    /// Starts a process.
    fn start(&mut self, now: Instant) -> Result<()> {
        if std::mem::replace(&mut self.has_started, true) {
            self.parts.health.restarts();
        }
        let listener = match self.listener.take() {
            Some(listener) => listener,
            None => Listener::bind().context("cannot open its listener")?,
        };
        let (orders, their_orders) = channel::pair().context("cannot open a socket to it")?;
        let (questions, their_questions) = channel::pair().context("cannot open a socket to it")?;
        Asker::prepare(&their_questions)?;
        let ends = Ends {
            listener: listener.as_fd().try_clone_to_owned()?.into(),
            orders: their_orders,
            questions: their_questions,
        };
        let registry = self.poll.registry();
        registry.register(&mut SourceFd(&orders.as_raw_fd()), ORDERS, Interest::READABLE)?;
        registry.register(&mut SourceFd(&questions.as_raw_fd()), QUESTIONS, Interest::READABLE)?;
        let settings = self.parts.settings.get().number;
        let launched = self.parts.launch.launch(ends)?;
        let running = Running {
            launched,
            orders: Arc::new(orders),
            questions,
            listener: Some(listener),
            until: Some(now + READY_WITHIN),
            stops: false,
            settings,
            send_at: now + ASK_EVERY,
            asked: 0,
            messages: (now, 0),
            problem: None,
        };
        let said = running.say(&self.parts, Some(self.parts.totals.as_fd()));
        self.running = Some(running);
        said.context("cannot tell it what to say")
    }

    /// Hears what the process tells.
    fn hear_notices(&mut self) -> Heard {
        loop {
            let Some(running) = &mut self.running else { return Heard::All };
            let notice = self.reader.receive::<Notice>(&*running.orders, RecvFlags::DONTWAIT);
            let notice = match running.take(notice) {
                Ok(notice) => notice,
                Err(heard) => return heard,
            };
            match notice {
                Notice::Ready { landlock } => {
                    if let Heard::Ends(why) = self.is_ready(landlock) {
                        return Heard::Ends(why);
                    }
                }
                Notice::Alive => running.asked = 0,
                Notice::Failed(problem) => running.problem = Some(shown(&problem)),
                Notice::Refused(noted) => {
                    let now = Instant::now();
                    for noted in noted {
                        let refused = self.checked(&noted);
                        self.parts.log.note(refused, noted.times, now);
                    }
                }
                Notice::Others(others) => self.parts.log.note_others(others),
                Notice::Each { port, noted } => {
                    let Refused { remote, reason, answer, .. } = self.checked(&noted);
                    debug!(
                        target: "limiter::greeter",
                        "refused {remote} at port {port}: {}, {}", reason.name(), answer.name()
                    );
                }
                Notice::CannotAccept { waits, errno } => self.warn_of_accept(waits, errno),
            }
        }
    }

    /// What the process says of a refusal, as far as it can be true.
    fn checked(&self, noted: &Noted) -> Refused {
        let mut refused = noted.last();
        if !self.parts.settings.get().words.has(&refused.service) {
            refused.service = NAMELESS.into();
        }
        refused
    }

    /// The process serves: clients are led to it from now on.
    fn is_ready(&mut self, landlock: bool) -> Heard {
        let Some(running) = &mut self.running else { return Heard::All };
        // Once only, and the daemon's own copy of the listener is closed: then the process alone has it.
        let Some(listener) = running.listener.take() else { return Heard::All };
        if let Err(problem) = (self.parts.steer)(&listener) {
            running.problem = Some(format!("{problem:#}"));
            return Heard::Ends("no client can be led to it");
        }
        if !running.stops {
            running.until = None;
            self.parts.line.set(Some(Arc::clone(&running.orders)));
        }
        let pid = running.launched.pid();
        self.parts.health.serves(pid, landlock);
        if !landlock {
            info!(
                "this kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, lsm=): the greeter is confined by its user, \
                 without capabilities, and by seccomp"
            );
        }
        debug!("the greeter serves, pid {}", pid.unwrap_or_default());
        Heard::All
    }

    /// Answers what the process asks.
    fn hear_questions(&mut self) -> Heard {
        loop {
            let Some(running) = &mut self.running else { return Heard::All };
            let question = self.reader.receive::<(u64, Question)>(&running.questions, RecvFlags::DONTWAIT);
            // The other socket tells when it ends, after what it still has to tell.
            if matches!(question, Ok(None)) {
                return Heard::All;
            }
            let (number, question) = match running.take(question) {
                Ok(question) => question,
                Err(heard) => return heard,
            };
            let answer = match question {
                Question::Sign { key, scheme, message } => {
                    // The lock is not held while it is signed.
                    let certificate = self.parts.settings.get().certificate(key).cloned();
                    Answer::Signature(match certificate {
                        Some(certificate) => certificate.key.sign(scheme.into(), &message),
                        None => Err(Unsigned::Unknown),
                    })
                }
                Question::Due { port, remote } => Answer::Due(self.parts.dues.due(port, remote)),
            };
            // One that does not read its answers does without.
            let _unheard = channel::send(&running.questions, &(number, answer), &[]);
        }
    }

    /// Ends the process, if it has not ended, and says so.
    fn end(&mut self, why: &'static str) {
        self.parts.line.set(None);
        let Some(running) = self.running.take() else { return };
        let Running { launched, listener, stops, problem, .. } = running;
        let pid = launched.pid().unwrap_or_default();
        let status = launched.end();
        if stops {
            return;
        }
        let problem = problem.unwrap_or_else(|| why.to_owned());
        if listener.is_some() {
            return self.is_down(&format!("it cannot start ({problem}; {status})"));
        }
        let problem = format!("the last one, pid {pid}, has ended ({problem}; {status})");
        self.ended += 1;
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            let more = match self.ended {
                1 => String::new(),
                ended => format!("; {ended} since the last such line"),
            };
            warn!(
                "the greeter, pid {pid}, has ended unexpectedly ({}; {status}{more}): refused clients get a reset \
                 until another one serves, which is started now",
                why
            );
            (self.warned, self.ended) = (Some(Instant::now()), 0);
        }
        self.is_down(&problem);
    }

    fn is_down(&self, problem: &str) {
        debug!("the greeter is not running: {problem}");
        self.parts.health.is_down(problem.to_owned());
    }

    fn warn_of_accept(&mut self, waits: bool, errno: i32) {
        if self.warned_of_accept.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            let (what, error) =
                (if waits { "wait" } else { "get a reset" }, io::Error::from_raw_os_error(errno));
            warn!("the greeter cannot accept connections, so refused clients {what}: {error}");
            self.warned_of_accept = Some(Instant::now());
        }
    }
}

impl Running {
    fn order(&self, order: &Order, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        channel::send(&*self.orders, order, files)
    }

    /// Tells what to say; at first, where to count.
    fn say(&self, parts: &Parts, totals: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let tells_each = enabled!(target: "limiter::greeter", Level::DEBUG);
        let setup = Setup::of(&parts.settings.get(), parts.bounds, tells_each).write()?;
        let files: Vec<BorrowedFd<'_>> = [setup.as_fd()].into_iter().chain(totals).collect();
        self.order(&Order::Say, &files)
    }

    /// What was received, counted, if it can be understood.
    fn take<T>(&mut self, received: io::Result<Option<(T, Vec<OwnedFd>)>>) -> Result<T, Heard> {
        match received {
            // Files are none of what it may send; they are closed here.
            Ok(Some((message, files))) if files.is_empty() => {
                let (since, count) = &mut self.messages;
                if since.elapsed() >= Duration::from_secs(1) {
                    (*since, *count) = (Instant::now(), 0);
                }
                *count += 1;
                if *count > MESSAGES { Err(Heard::Ends("it sends too much")) } else { Ok(message) }
            }
            Ok(None) => Err(Heard::Ends("it has closed its socket")),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(Heard::All),
            Ok(Some(_)) | Err(_) => Err(Heard::Ends("it sends what it never would")),
        }
    }
}

/// What the process says, for people to read: short, and on one line.
fn shown(problem: &str) -> String {
    problem.chars().filter(|char| !char.is_control()).take(300).collect()
}
