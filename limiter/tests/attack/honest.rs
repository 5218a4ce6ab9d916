// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! An honest client: it connects, is greeted, stays a while and leaves, over and over.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use limiter_lab::client::{ask, first_line};
use limiter_lab::{Answer, SOON, answer};

/// What became of its connections.
#[derive(Debug, Default, Clone)]
pub struct Work {
    pub served: u32,
    /// What it got instead of a greeting.
    pub refusals: Vec<Answer>,
    /// From the SYN to the greeting.
    pub slowest: Duration,
    pub lasted: Duration,
}

impl Work {
    /// Connections a second.
    pub fn pace(&self) -> f64 {
        f64::from(self.served) / self.lasted.as_secs_f64()
    }
}

/// Connects from `source` until `stop`, holding up to `at_most` connections, each given up when it is the
/// oldest; runs in the calling thread's network namespace. What it holds in the end stays open.
pub fn work(
    source: IpAddr,
    to: SocketAddr,
    at_most: usize,
    stop: &AtomicBool,
) -> (Work, VecDeque<TcpStream>) {
    let (mut work, mut held) = (Work::default(), VecDeque::new());
    let began = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if held.len() == at_most
            && let Some(oldest) = held.pop_front()
        {
            leave(&oldest);
        }
        let called = Instant::now();
        match answer(source, to, SOON) {
            (Some(stream), answer) if answer.is_service() => {
                work.served += 1;
                held.push_back(stream);
            }
            (_, answer) => work.refusals.push(answer),
        }
        work.slowest = work.slowest.max(called.elapsed());
    }
    work.lasted = began.elapsed();
    (work, held)
}

/// Says goodbye, and waits until the server has closed: then it has let go of the connection.
fn leave(stream: &TcpStream) {
    let goodbye = ask(stream, "QUIT", SOON);
    assert_eq!(goodbye, Answer::Line("221 2.0.0 Bye".to_owned()));
    assert_eq!(first_line(stream, SOON), Answer::Closed);
}

/// Ends the work of others when it goes, however that comes about.
pub struct EndOf<'a>(pub &'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
