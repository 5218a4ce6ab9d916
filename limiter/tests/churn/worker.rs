// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The mass of the connections.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::churn::Churn;
use crate::dice::Dice;
use crate::ends::{end, reset};
use crate::ground::{Client, Door, Ground, Pair};
use crate::ways::Way;

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
    dice: Dice,
    doors: [Door; 2],
    live: Vec<(Pair, Way)>,
    /// Those who called and were not accepted yet, and how long they are patient.
    callers: HashMap<Call, (Client, Way, Instant)>,
    /// The same, in the order in which to ask them how they are.
    line: VecDeque<Call>,
    /// Accepted when the client was gone, and when.
    late: VecDeque<(Socket, Instant)>,
}

/// Opens and ends connections until it is over.
pub fn run(ground: &Ground, churn: &Churn, seat: u16) {
    ground.client.enter();
    let mut worker = Worker {
        churn,
        dice: Dice::new(u64::from(seat) + 1),
        doors: ground.doors(seat, 1024),
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
        let way = Way::throw(&mut self.dice);
        let door = self.dice.index(self.doors.len());
        if matches!(way, Way::ClosedInQueue | Way::ResetInQueue) {
            let calls = 1 + self.dice.below(8);
            let clients: Vec<Client> = (0..calls).map(|_| self.doors[door].call(&mut self.dice)).collect();
            for client in clients {
                if way == Way::ResetInQueue {
                    reset(client.socket);
                }
            }
        } else {
            let client = self.doors[door].call(&mut self.dice);
            let patience =
                if self.dice.chance(5) { 1200 + self.dice.below(2000) } else { self.dice.below(30) };
            let until = Instant::now() + Duration::from_millis(patience);
            self.line.push_back((door, client.address));
            self.callers.insert((door, client.address), (client, way, until));
        }
        self.accept(door);
    }

    fn accept(&mut self, door: usize) {
        while let Some((server, remote)) = self.doors[door].accept() {
            match self.callers.remove(&(door, remote)) {
                Some((client, way, _)) => self.live.push((Pair { client: client.socket, server }, way)),
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
            Ok(_) => Way::ToldWhy,
            Err(ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) => Way::Refused,
            Err(ErrorKind::WouldBlock) => Way::GaveUp,
            Err(kind) => panic!("the caller of {call:?} does not know what became of its call: {kind}"),
        };
        if became == Way::GaveUp && self.callers[&call].2 > Instant::now() {
            self.line.push_back(call);
            return;
        }
        let Some((client, ..)) = self.callers.remove(&call) else { return };
        self.churn.ended(became, 1);
        if became == Way::GaveUp && self.dice.chance(50) {
            reset(client.socket);
        }
    }

    /// Listens to the first of those whose client is gone: how did it go? Of one who gave up while it was held
    /// the goodbye may be lost, and its host tires of repeating it; then the server has to make an end.
    fn listen(&mut self) {
        let Some((server, since)) = self.late.pop_front() else { return };
        let way = match (&server).read(&mut [0; 64]).map_err(|error| error.kind()) {
            Ok(0) => Way::ClosedInQueue,
            Err(ErrorKind::ConnectionReset) => Way::ResetInQueue,
            Err(ErrorKind::WouldBlock) if since.elapsed() < PATIENCE => {
                return self.late.push_back((server, since));
            }
            Err(ErrorKind::WouldBlock) => Way::NeverAcknowledged,
            outcome => panic!("nobody is there, and reading gave {outcome:?}"),
        };
        self.churn.ended(way, 1);
    }

    /// Ends connections until `left` are left.
    fn leave(&mut self, left: usize) {
        while self.live.len() > left {
            let one = self.dice.index(self.live.len());
            let (pair, way) = self.live.swap_remove(one);
            end(pair, way);
            self.churn.ended(way, 1);
        }
    }

    /// Ends what there is, and what comes of what was under way.
    fn finish(mut self) {
        self.leave(0);
        for (_, (client, ..)) in self.callers.drain() {
            reset(client.socket);
        }
        let until = Instant::now() + AFTERMATH;
        while Instant::now() < until {
            (0..self.doors.len()).for_each(|door| self.accept(door));
            (0..self.late.len()).for_each(|_| self.listen());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
