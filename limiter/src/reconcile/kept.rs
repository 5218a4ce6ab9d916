// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is kept for sockets that are gone: dead connections that were in the queue of a listener when it was
//! closed. The kernel reports nothing of those.

use std::{collections::HashSet, path::Path};

use anyhow::Result;

use crate::kernel::{maintenance::Maintenance, sockets};

/// Gives back for them.
#[derive(Default)]
pub struct Departures {
    /// Cookies of sockets that were gone in the last look.
    gone: HashSet<u64>,
}

impl Departures {
    /// One look; gives back for the sockets that were gone in the last one already, and returns for how many.
    pub fn round(&mut self, dir: &Path, maintenance: &mut Maintenance) -> Result<u32> {
        let mut gone: HashSet<u64> =
            maintenance.tables.kept()?.into_iter().map(|(cookie, _)| cookie).collect();
        if gone.is_empty() {
            self.gone.clear();
            return Ok(0);
        }
        // Afterwards: what is kept has its mark as long as its socket is there.
        let Some(there) = sockets::take(dir)? else { return Ok(0) };
        gone.retain(|cookie| !there.contains(cookie));
        maintenance.give_back(self.twice(gone).into_iter())
    }

    /// Those of `gone` that were gone in the last look, too; the others are looked at again.
    fn twice(&mut self, gone: HashSet<u64>) -> HashSet<u64> {
        let (twice, once) = gone.into_iter().partition(|cookie| self.gone.contains(cookie));
        self.gone = once;
        twice
    }

    /// Whether another look has to confirm what the last one found.
    pub fn is_in_doubt(&self) -> bool {
        !self.gone.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_gone_in_two_looks_one_after_the_other_is_given_back() {
        let mut departures = Departures::default();
        let mut look = |gone: &[u64]| {
            let mut twice: Vec<u64> = departures.twice(gone.iter().copied().collect()).into_iter().collect();
            twice.sort_unstable();
            (twice, departures.is_in_doubt())
        };
        assert_eq!(look(&[1, 2, 3]), (vec![], true));
        assert_eq!(look(&[2, 3, 4]), (vec![2, 3], true));
        assert_eq!(look(&[1]), (vec![], true));
        assert_eq!(look(&[]), (vec![], false));
        assert_eq!(look(&[1]), (vec![], true));
    }
}
