// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Many callers at one address.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::{Caller, Segment, Wire};
use limiter_lab::{Lab, SOON, deadline};

/// Callers by port, and the wire they share.
pub struct Crowd {
    pub callers: BTreeMap<u16, Caller>,
    pub wire: Wire,
}

impl Crowd {
    /// A caller at each of `ports` of `address`.
    pub fn new(lab: &Lab, address: IpAddr, ports: RangeInclusive<u16>, to: SocketAddr) -> Self {
        let caller = |port: u16| {
            (port, Caller::new(SocketAddr::new(address, port), to, 0x1234_0000 + u32::from(port)))
        };
        Self { callers: ports.map(caller).collect(), wire: Wire::at(lab, address) }
    }

    /// All send their SYN at once, and wait until each has its SYN-ACK.
    #[track_caller]
    pub fn call(&mut self) {
        let deadline = deadline(SOON);
        loop {
            let unanswered: Vec<Segment> = self.unanswered().map(Caller::syn).collect();
            if unanswered.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{} SYNs are not answered", unanswered.len());
            self.wire.send_all(&unanswered);
            // One lost on the way is sent again, as TCP does.
            let patience = Instant::now() + Duration::from_millis(500);
            while self.unanswered().next().is_some() && Instant::now() < patience {
                self.listen(patience);
            }
        }
    }

    /// Those who have not heard from the mail host.
    pub fn unanswered(&self) -> impl Iterator<Item = &Caller> {
        self.callers.values().filter(|caller| caller.expected.is_none() && !caller.reset)
    }

    /// All send the ACK that completes their handshake, at once.
    pub fn complete(&self) {
        let acks: Vec<Segment> = self.callers.values().map(Caller::ack).collect();
        self.wire.send_all(&acks);
    }

    /// Hears what has arrived, waiting until `deadline` for something, and answers nothing.
    pub fn listen(&mut self, deadline: Instant) -> Vec<Segment> {
        let heard = self.wire.receive(deadline);
        let of_ours = |segment: &Segment, callers: &mut BTreeMap<u16, Caller>| {
            callers.get_mut(&segment.to.port()).is_some_and(|caller| caller.hears(segment))
        };
        heard.into_iter().filter(|segment| of_ours(segment, &mut self.callers)).collect()
    }

    /// Does what TCP has to: acknowledges SYN-ACKs, data and FINs until `deadline`, or until `done`.
    pub fn answer(&mut self, deadline: Instant, mut done: impl FnMut(&Self) -> bool) -> bool {
        loop {
            if done(self) {
                return true;
            }
            let now = Instant::now();
            if now >= deadline {
                return false;
            }
            let heard = self.listen(deadline.min(now + Duration::from_millis(10)));
            let acks: Vec<Segment> =
                heard.iter().map(|segment| self.callers[&segment.to.port()].ack()).collect();
            self.wire.send_all(&acks);
        }
    }

    /// Does what TCP has to until `check` is satisfied; fails with its last complaint.
    #[track_caller]
    pub fn answer_until<T>(&mut self, what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
        let deadline = deadline(SOON);
        loop {
            match check() {
                Ok(found) => return found,
                Err(complaint) => {
                    assert!(Instant::now() < deadline, "not within {SOON:?}: {what}\n{complaint}");
                }
            }
            self.answer(Instant::now() + Duration::from_millis(10), |_| false);
        }
    }

    /// All give up, whatever they had.
    pub fn hang_up(&self) {
        let resets: Vec<Segment> =
            self.callers.values().filter(|caller| caller.expected.is_some()).map(Caller::rst).collect();
        self.wire.send_all(&resets);
    }
}
