//! What the daemon does about bans, once a second or so.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use limiter_common::{Key, Rung, ladder::cause};
use tracing::{info, warn};

use super::state;
use crate::{instance::Instance, kernel::Tables, ledger};

/// Says who was banned, forgets who need not be remembered, and writes the state file.
#[derive(Default)]
pub struct Upkeep {
    /// When each source's ban ends, as it was seen last.
    known: HashMap<Key, u64>,
    /// Looking through a million bans takes a while; that shall not be all the thread does.
    next: Option<Instant>,
}

impl Upkeep {
    /// Knows the bans there are: they were said when they were made.
    pub fn knowing(tables: &Tables) -> Result<Self> {
        let known = tables.rungs()?.into_iter().filter(|(_, rung)| rung.banned_until_ns != 0);
        Ok(Self { known: known.map(|(key, rung)| (key, rung.banned_until_ns)).collect(), next: None })
    }

    /// One round.
    pub fn round(&mut self, instance: &Instance, tables: &mut Tables, remember: Duration) -> Result<()> {
        let began = Instant::now();
        if self.next.is_some_and(|next| began < next) {
            return Ok(());
        }
        let _bans = instance.lock_bans()?;
        let (now_ns, ladder) = (ledger::now_ns()?, tables.policy.ladder()?);
        let services = tables.policy.services()?;
        let mut known = HashMap::new();
        let mut rungs = tables.rungs()?;
        let remember_ns = u64::try_from(remember.as_nanos()).unwrap_or(u64::MAX);
        let is_forgotten =
            |rung: &Rung| rung.is_forgotten(&ladder, now_ns) && !rung.was_refused(remember_ns, now_ns);
        let forgotten = rungs.extract_if(.., |(_, rung)| is_forgotten(rung));
        let mut gone: Vec<_> = forgotten.map(|(key, _)| key).collect();
        // The kernel makes room for those that are only refused by itself, but more bans than there may be.
        let max = tables.max_bans()? as usize;
        let given_up = super::beyond(&rungs, max, usize::MAX, &ladder, now_ns);
        if !given_up.is_empty() {
            let over = given_up.len();
            warn!(
                "more than {max} sources are banned: the {over} oldest bans that the ladder made are given up; raise \
                 max_bans in [ladder], and start the daemon anew"
            );
            rungs.retain(|(key, _)| !given_up.contains(key));
        }
        gone.extend(given_up);
        if !gone.is_empty() {
            super::unban(tables, &gone)?;
        }
        for (key, rung) in rungs.iter().filter(|(_, rung)| rung.banned_until_ns != 0) {
            let is_new = self.known.get(key) != Some(&rung.banned_until_ns) && rung.is_banned(now_ns);
            if is_new && rung.cause == cause::LADDER {
                let name =
                    services.iter().find(|(id, _)| id.0 == key.service).map(|(_, policy)| policy.name());
                info!(
                    "{}: {} went on for too long, and is banned for {} (ban {} in a row)",
                    name.unwrap_or("(removed)"),
                    ledger::network(key),
                    humantime::format_duration(Duration::from_secs(
                        (rung.banned_until_ns - rung.banned_at_ns) / 1_000_000_000
                    )),
                    rung.bans
                );
            }
            known.insert(*key, rung.banned_until_ns);
        }
        if known != self.known {
            state::save(instance, tables)?;
            self.known = known;
        }
        self.next = Some(Instant::now() + 20 * began.elapsed());
        Ok(())
    }
}
