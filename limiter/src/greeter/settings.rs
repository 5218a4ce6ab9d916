// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the greeter says, and where: set by those parts of the daemon that know, and passed on to the process.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mio::Waker;

use super::{
    refusal::Services,
    tls::{self, Usable},
    words::Words,
};

/// The settings; at first, nothing is said anywhere. Clones share them.
#[derive(Clone, Default)]
pub struct Settings(Arc<Shared>);

#[derive(Default)]
struct Shared {
    said: Mutex<Said>,
    /// Of the thread that passes them on, once there is one.
    waker: Mutex<Option<Arc<Waker>>>,
}

/// What is said.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Grows with each change.
    pub number: u64,
    /// What is served at which port.
    pub services: Services,
    /// With which words, and under which name.
    pub words: Words,
    /// Where TLS starts at once, and with which certificates.
    pub tls: Vec<tls::Set>,
    /// The same, before the last change: a handshake may have begun before.
    tls_before: Vec<tls::Set>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(out)
    }
}

impl Settings {
    /// From now on, changes wake this one.
    pub fn wake(&self, waker: Arc<Waker>) {
        *self.0.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
    }

    /// What is served at which port, and with which words.
    pub fn set_words(&self, services: Services, words: Words) {
        self.change(|said| (said.services, said.words) = (services, words));
    }

    /// Where TLS starts at once, and with which certificates; without any, an alert is sent.
    pub fn set_tls(&self, tls: Vec<tls::Set>) {
        self.change(|said| said.tls_before = std::mem::replace(&mut said.tls, tls));
    }

    fn change(&self, change: impl FnOnce(&mut Said)) {
        let mut said = self.get();
        change(&mut said);
        said.number += 1;
        drop(said);
        let waker = self.0.waker.lock().unwrap_or_else(PoisonError::into_inner);
        // An eventfd can always be written to.
        let _never_fails = waker.as_ref().map(|waker| waker.wake());
    }

    /// All of them, as they are now.
    pub fn get(&self) -> MutexGuard<'_, Said> {
        // Nothing in here panics half-way.
        self.0.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    /// The certificate of this number, if it is in use.
    pub fn certificate(&self, number: u64) -> Option<&Arc<Usable>> {
        let mut certificates = self.tls.iter().chain(&self.tls_before).flat_map(|(_, used)| used);
        certificates.find(|certificate| certificate.number == number)
    }
}
