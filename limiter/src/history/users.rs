// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who was seen behind an address, from whoever gathers that to the history.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// So many are kept between two looks; others are not counted.
const MOST: usize = 100_000;

/// Users that were seen since the last look. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Users(Arc<Mutex<BTreeSet<(String, IpAddr, String)>>>);

impl Users {
    /// A user was seen at a service, from an address.
    pub fn saw(&self, service: &str, address: IpAddr, user: &str) {
        let mut seen = self.lock();
        if seen.len() < MOST {
            seen.insert((service.to_owned(), address, user.to_owned()));
        }
    }

    /// Those that were seen since this was asked last: service, address and user.
    pub fn take(&self) -> BTreeSet<(String, IpAddr, String)> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(String, IpAddr, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
