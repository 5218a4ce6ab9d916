// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The greeter's questions to the daemon: the process has no private key and no map, so it asks for each signature, and
//! when a rate allows the next connection.
//!
//! The TLS library and the words want their answer at once, so the process waits for it, not for long. A daemon that
//! does not answer is not asked again for a while: what needs no answer goes on.

use std::{
    fmt,
    io::{self, ErrorKind},
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::net::{
    RecvFlags,
    sockopt::{Timeout, set_socket_timeout},
};
use rustls::{
    Error, SignatureAlgorithm, SignatureScheme,
    sign::{self, SigningKey},
};

use super::{bucket::Bucket, cpu, signer::Unsigned};
use crate::greeter::{
    channel::{self, Reader},
    messages::{Answer, Question},
    words::Dues,
};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long a daemon is not asked that did not answer.
const REST: Duration = Duration::from_secs(1);
/// How many clients a second are told when their rate allows the next connection.
const DUES: u32 = 500;

/// Asks the daemon. Clones share the socket.
#[derive(Clone, Debug)]
pub struct Asker(Arc<Mutex<Asking>>);

struct Asking {
    socket: OwnedFd,
    reader: Reader,
    /// Of the last question.
    number: u64,
    /// Until when there is no answer.
    rests_until: Option<Instant>,
    dues: Bucket,
}

impl fmt::Debug for Asking {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Asking").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Asking {
    fn ask(&mut self, question: &Question, now: Instant) -> Option<Answer> {
        if self.rests_until.is_some_and(|until| now < until) {
            return None;
        }
        self.number += 1;
        let answer = self.exchange(question);
        self.rests_until = if answer.is_ok() { None } else { Some(Instant::now() + REST) };
        answer.ok()
    }

    fn exchange(&mut self, question: &Question) -> io::Result<Answer> {
        channel::send(&self.socket, &(self.number, question), &[])?;
        loop {
            match self.reader.receive::<(u64, Answer)>(&self.socket, RecvFlags::empty()) {
                Ok(Some(((number, answer), _))) if number == self.number => return Ok(answer),
                // Too late for the question that it is for.
                Ok(Some(_)) => {}
                Ok(None) => return Err(ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Asker {
    /// By this socket.
    pub fn new(socket: OwnedFd) -> Self {
        let (reader, dues) = (Reader::new(), Bucket::new(DUES, DUES, Instant::now()));
        Self(Arc::new(Mutex::new(Asking { socket, reader, number: 0, rests_until: None, dues })))
    }

    /// Has the end of a socket that will ask wait no longer than it may. The process itself may not say so.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn prepare(socket: impl AsFd) -> io::Result<()> {
        Ok(set_socket_timeout(socket, Timeout::Recv, Some(PATIENCE))?)
    }

    /// Nobody panics while it is held.
    fn lock(&self) -> MutexGuard<'_, Asking> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sign(&self, key: u64, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, Unsigned> {
        let question = Question::Sign { key, scheme: scheme.into(), message: message.to_vec() };
        match self.lock().ask(&question, Instant::now()) {
            Some(Answer::Signature(signed)) => {
                let (signature, took) = signed?;
                cpu::charge(took);
                Ok(signature)
            }
            _ => Err(Unsigned::Silent),
        }
    }
}

impl Dues for Asker {
    fn due(&self, port: u16, remote: IpAddr) -> Option<Duration> {
        let now = Instant::now();
        let mut asking = self.lock();
        if !asking.dues.take(now) {
            return None;
        }
        match asking.ask(&Question::Due { port, remote }, now)? {
            Answer::Due(due) => due,
            Answer::Signature(_) => None,
        }
    }
}

/// A key as the TLS library has it: what is public of it, and whom to ask.
#[derive(Clone, Debug)]
pub struct AskingKey {
    pub asker: Asker,
    /// The number of its certificate.
    pub key: u64,
    pub algorithm: SignatureAlgorithm,
    pub schemes: Vec<SignatureScheme>,
}

impl SigningKey for AskingKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn sign::Signer>> {
        let scheme = *self.schemes.iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(AskingSigner { asker: self.asker.clone(), key: self.key, scheme }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }
}

/// One signature that is asked for.
#[derive(Debug)]
struct AskingSigner {
    asker: Asker,
    key: u64,
    scheme: SignatureScheme,
}

impl sign::Signer for AskingSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.asker.sign(self.key, self.scheme, message).map_err(|why| Error::General(why.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_does_not_answer_is_waited_for_once_a_second_and_a_late_answer_is_nobodys() {
        let (ours, theirs) = channel::pair().unwrap();
        Asker::prepare(&theirs).unwrap();
        let asker = Asker::new(theirs);
        let remote = IpAddr::from([192, 0, 2, 1]);
        let begun = Instant::now();
        for _ in 0..100 {
            assert_eq!(asker.due(25, remote), None);
        }
        let took = begun.elapsed();
        assert!(took >= PATIENCE && took < REST, "{took:?}");
        let mut reader = Reader::new();
        let mut next = || reader.receive::<(u64, Question)>(&ours, RecvFlags::empty()).unwrap().unwrap().0;
        assert_eq!(next(), (1, Question::Due { port: 25, remote }));
        channel::send(&ours, &(1_u64, Answer::Due(Some(REST))), &[]).unwrap();
        channel::send(&ours, &(2_u64, Answer::Due(Some(PATIENCE))), &[]).unwrap();
        asker.lock().rests_until = None;
        assert_eq!(asker.due(25, remote), Some(PATIENCE));
        assert_eq!(next().0, 2);
        drop(ours);
        assert_eq!(asker.due(25, remote), None);
    }
}
