// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is done to clients whose handshakes were held back: they are asked again, told, or reset.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use limiter_common::Grounds;
use tracing::warn;

use super::{held::Held, probe::Prober, repair::Takeover};
use crate::{
    greeter::{Teller, bear},
    kernel::waiting::Waiters,
    sock_diag::Diag,
};

/// After which a reset is sent once more: nobody repeats one that is lost.
const RESET_AGAIN: Duration = Duration::from_millis(500);
/// The least time between two warnings.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// `TCP_SYN_RECV`, `include/net/tcp_states.h`: a request.
const SYN_RECV: u8 = 3;

/// What the kernel has of a handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kernel {
    /// The request, with its cookie.
    Request([u32; 2]),
    /// A connection that it has become.
    Connection,
    /// Nothing: it has given up.
    Nothing,
    /// Nothing, and nobody listens any more where the client wanted to.
    NoListener,
}

/// The way to clients.
pub struct Clients {
    diag: Diag,
    prober: Prober,
    teller: Teller,
    /// Resets that are to be sent once more, and when; the next one first.
    resets: Vec<(Instant, Held)>,
    warned: Option<Instant>,
}

impl Clients {
    /// In the network namespace this thread is in.
    ///
    /// # Errors
    /// Where the kernel has not what it takes, or does not let this process have it.
    pub fn new(teller: Teller) -> Result<Self> {
        Ok(Self {
            diag: Diag::open().context("cannot query single sockets (CONFIG_INET_TCP_DIAG)")?,
            prober: Prober::open().context("cannot open raw sockets (CAP_NET_RAW)")?,
            teller,
            resets: Vec::new(),
            warned: None,
        })
    }

    /// What the kernel has of a handshake; `None` where it does not say.
    pub fn look(&mut self, held: &Held) -> Option<Kernel> {
        match self.find(held) {
            Ok(found) => Some(found),
            Err(error) => {
                self.warn(&format!("cannot find the handshake of {}: {error:#}", held.remote));
                None
            }
        }
    }

    fn find(&self, held: &Held) -> Result<Kernel> {
        Ok(match self.diag.find(&held.tuple())? {
            Some(found) if found.state == SYN_RECV => Kernel::Request(found.cookie),
            Some(_) => Kernel::Connection,
            None if self.diag.listens(&held.tuple())? => Kernel::Nothing,
            None => Kernel::NoListener,
        })
    }

    /// The same with the mark of its request, if that is there.
    fn marked(&self, held: &Held) -> Held {
        // Who cannot be found is probed and reset without: the answer may take the way all the same.
        let found = self.diag.find(&held.tuple()).ok().flatten();
        let mark = found.filter(|found| found.state == SYN_RECV).map_or(held.mark, |found| found.mark);
        Held { mark, ..*held }
    }

    /// Has a client send its ACK once more.
    pub fn ask_again(&mut self, held: &Held) {
        if let Err(error) = self.prober.probe(&self.marked(held)) {
            self.warn(&format!("cannot probe {} for its ACK: {error}", held.remote));
        }
    }

    /// Whether a client can be told anything where it has connected to.
    pub fn tells(&self, held: &Held) -> bool {
        self.teller.tells(held.local.port())
    }

    /// Notes for the log that one gets a reset.
    pub fn note_reset(&self, held: &Held, grounds: Grounds) {
        self.teller.note_reset(held.local.port(), held.remote.ip().to_canonical(), grounds);
    }

    /// Ends a handshake: with `grounds` told by the greeter, or by a reset. One that has become a connection
    /// goes on.
    pub fn end(&mut self, waiters: &mut Waiters, held: &Held, grounds: Option<Grounds>) {
        let held = self.marked(held);
        let ended = match grounds {
            Some(grounds) if self.tells(&held) => self.tell(waiters, &held, grounds),
            _ => self.remove(&held).map(|is_gone| if is_gone { Ended::Unheard } else { Ended::NotAtAll }),
        };
        match ended {
            Ok(Ended::Told | Ended::NotAtAll) => return,
            Ok(Ended::Unheard) => {}
            Err(error) => {
                self.warn(&format!(
                    "cannot send {} the reason of its refusal, so it gets a reset: {error:#}",
                    held.remote
                ));
            }
        }
        let _once_more_in_any_case = self.reset(&held);
        self.resets.push((Instant::now() + RESET_AGAIN, held));
    }

    /// Makes a connection of the handshake, and hands it to the greeter.
    fn tell(&self, waiters: &mut Waiters, held: &Held, grounds: Grounds) -> Result<Ended> {
        if !self.teller.is_there() {
            return Ok(if self.remove(held)? { Ended::Unheard } else { Ended::NotAtAll });
        }
        let takeover = Takeover::prepare(held)?;
        // As what the greeter accepts: it is not mail, and not counted.
        waiters.mark(&takeover)?;
        bear(&takeover, grounds).context("cannot set the socket options that hold the reason")?;
        if !self.remove(held)? {
            return Ok(Ended::NotAtAll);
        }
        self.teller.tell(&takeover.finish()?);
        Ok(Ended::Told)
    }

    /// Removes the request, if it is still there; `false` where it has become a connection.
    fn remove(&self, held: &Held) -> Result<bool> {
        match self.find(held)? {
            Kernel::Request(cookie) => {
                self.diag.destroy(&held.tuple(), cookie).context("cannot remove the handshake")?;
                Ok(true)
            }
            Kernel::Connection => Ok(false),
            Kernel::Nothing | Kernel::NoListener => Ok(true),
        }
    }

    /// When [`Self::repeat_resets`] has something to do next.
    pub fn next_reset(&self) -> Option<Instant> {
        self.resets.first().map(|(at, _)| *at)
    }

    /// Sends the resets once more that are due at `now`.
    pub fn repeat_resets(&mut self, now: Instant) {
        let due = self.resets.iter().take_while(|(at, _)| *at <= now).count();
        let resets: Vec<_> = self.resets.drain(..due).collect();
        for (_, held) in resets {
            if !self.reset(&held) {
                self.resets.push((now + RESET_AGAIN, held));
            }
        }
    }

    /// Sends a reset; `false` where there is no room for it at the moment: its client knows nothing yet.
    fn reset(&mut self, held: &Held) -> bool {
        match self.prober.reset(held) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => {
                self.warn(&format!("cannot reset {}: {error}", held.remote));
                true
            }
        }
    }

    fn warn(&mut self, message: &str) {
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            warn!("{message}");
            self.warned = Some(Instant::now());
        }
    }
}

/// How a handshake has ended.
enum Ended {
    /// The greeter tells the client why.
    Told,
    /// Its request is gone, and the client knows nothing yet.
    Unheard,
    /// It is a connection.
    NotAtAll,
}
