// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The mass of the connections.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::churn::Churn;
use crate::ending::Ending;
use crate::ends::end;
use crate::lab::{ChurnLab, Client, Door, Pair};
use limiter_lab::client::reset;
use limiter_lab::poll;
use limiter_lab::random::Random;

/// Connections a worker holds.
const LIVE: usize = 160;
/// How long a server waits for a client that is gone to say so.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it looks, at the end, for those who were held and get in after all.
const AFTERMATH: Duration = Duration::from_secs(4);

/// The door, and the client's address, which may be the same at another door.
type Call = (usize, SocketAddr);

struct Worker<'churn> {
    churn: &'churn Churn,
    random: Random,
    doors: [Door; 2],
    live: Vec<(Pair, Ending)>,
    /// Those who called and were not accepted yet, and how long they are patient.
    callers: HashMap<Call, (Client, Ending, Instant)>,
    /// The same, in the order in which to ask them how they are.
    line: VecDeque<Call>,
    /// Accepted when the client was gone, and when.
    late: VecDeque<(Socket, Instant)>,
}

/// Opens and ends connections until it is over.
pub fn run(lab: &ChurnLab, churn: &Churn, seat: u16) {
    lab.client.enter();
    let mut worker = Worker {
        churn,
        random: Random::new(u64::from(seat) + 1),
        doors: lab.doors(seat, 1024),
        live: Vec::new(),
        callers: HashMap::new(),
        line: VecDeque::new(),
        late: VecDeque::new(),
    };
    while !churn.is_over() {
        worker.call();
        worker.ask();
        worker.ask();
        worker.listen();
        worker.leave(LIVE);
    }
    worker.finish();
}

impl Worker<'_> {
    fn call(&mut self) {
        let ending = Ending::throw(&mut self.random);
        let door = self.random.index(self.doors.len());
        if matches!(ending, Ending::ClosedInQueue | Ending::ResetInQueue) {
            let calls = 1 + self.random.below(8);
            let clients: Vec<Client> = (0..calls).map(|_| self.doors[door].call(&mut self.random)).collect();
            for client in clients {
                if ending == Ending::ResetInQueue {
                    reset(client.socket);
                }
            }
        } else {
            let client = self.doors[door].call(&mut self.random);
            let patience =
                if self.random.chance(5) { 1200 + self.random.below(2000) } else { self.random.below(30) };
            let until = Instant::now() + Duration::from_millis(patience);
            self.line.push_back((door, client.address));
            self.callers.insert((door, client.address), (client, ending, until));
        }
        self.accept(door);
    }

    fn accept(&mut self, door: usize) {
        while let Some((server, remote)) = self.doors[door].accept() {
            match self.callers.remove(&(door, remote)) {
                Some((client, ending, _)) => self.live.push((Pair { client: client.socket, server }, ending)),
                None => self.late.push_back((server, Instant::now())),
            }
        }
    }

    /// Asks the first in line what became of its call.
    fn ask(&mut self) {
        let Some(call) = self.line.pop_front() else { return };
        let Some((client, ..)) = self.callers.get(&call) else { return };
        let became = match (&client.socket).read(&mut [0; 256]).map_err(|error| error.kind()) {
            // A greeter that is killed between its accept and its words closes without any.
            Ok(_) => Ending::ToldWhy,
            Err(ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) => Ending::Refused,
            Err(ErrorKind::WouldBlock) => Ending::GaveUp,
            Err(kind) => panic!("the caller of {call:?} does not know what became of its call: {kind}"),
        };
        if became == Ending::GaveUp && self.callers[&call].2 > Instant::now() {
            self.line.push_back(call);
            return;
        }
        let Some((client, ..)) = self.callers.remove(&call) else { return };
        self.churn.ended(became, 1);
        if became == Ending::GaveUp && self.random.chance(50) {
            reset(client.socket);
        }
    }

    /// Listens to the first of those whose client is gone: how did it go? Of one who gave up while it was held
    /// the goodbye may be lost, and its host tires of repeating it; then the server has to make an end.
    fn listen(&mut self) {
        let Some((server, since)) = self.late.pop_front() else { return };
        let ending = match (&server).read(&mut [0; 64]).map_err(|error| error.kind()) {
            Ok(0) => Ending::ClosedInQueue,
            Err(ErrorKind::ConnectionReset) => Ending::ResetInQueue,
            Err(ErrorKind::WouldBlock) if since.elapsed() < PATIENCE => {
                return self.late.push_back((server, since));
            }
            Err(ErrorKind::WouldBlock) => Ending::NeverAcknowledged,
            outcome => panic!("nobody is there, and reading gave {outcome:?}"),
        };
        self.churn.ended(ending, 1);
    }

    /// Ends connections until `left` are left.
    fn leave(&mut self, left: usize) {
        while self.live.len() > left {
            let one = self.random.index(self.live.len());
            let (pair, ending) = self.live.swap_remove(one);
            end(pair, ending);
            self.churn.ended(ending, 1);
        }
    }

    /// Ends what there is, and what comes of what was under way.
    fn finish(mut self) {
        self.leave(0);
        for (_, (client, ..)) in self.callers.drain() {
            reset(client.socket);
        }
        // Nobody knows who of them still gets in: it is looked all the time.
        let _none = poll::until(AFTERMATH, Duration::from_millis(20), || {
            (0..self.doors.len()).for_each(|door| self.accept(door));
            (0..self.late.len()).for_each(|_| self.listen());
            Ok(None::<()>)
        });
    }
}
