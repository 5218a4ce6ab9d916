// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What there has to be before a workload.

use anyhow::Result;

use super::{
    hold::Held,
    hosts::Host,
    lab::{LIMIT, Lab, port},
    plan::{Contestant, Workload},
    server::Mode,
};

/// Brings a host to where the workload begins: what is to be held is held.
///
/// # Errors
///
/// When it cannot be.
pub fn prepare(lab: &Lab, host: &mut Host, workload: Workload) -> Result<Option<Held>> {
    let (port, held) = match workload {
        Workload::Held(held) => (port::ADMITS, held),
        // Where nobody listens, or everyone is refused.
        Workload::Reset | Workload::Reply if host.contestant == Contestant::Nothing => return Ok(None),
        Workload::Reset => (port::RESETS, LIMIT),
        Workload::Reply => (port::REPLIES, LIMIT),
        Workload::BulkMail | Workload::BulkOther => {
            host.set(Mode::Drain)?;
            return Ok(None);
        }
        Workload::Accept { .. }
        | Workload::Flood
        | Workload::Known
        | Workload::Reload
        | Workload::Takeover => return Ok(None),
    };
    host.set(Mode::Hold)?;
    let connections = Held::new(lab, host.place, port, held)?;
    if matches!(workload, Workload::Held(_)) {
        host.set(Mode::Keep)?;
    }
    Ok(Some(connections))
}
