// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Programs that do nothing, on the hooks of the limiter's; and one that drops one source, on that of the shield.

use std::fs::File;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, Program, SkLookup, SockOps, Xdp, XdpMode},
};

use super::Host;
use crate::{bench::flood::FLOODER, build};

/// Attaches them; they are there as long as what is returned.
pub fn attach(host: &Host) -> Result<Ebpf> {
    let object = build::empty_object();
    let mut ebpf = Ebpf::load_file(&object).with_context(|| format!("cannot load {}", object.display()))?;
    let (cgroup, netns) = (File::open(host.cgroup.path())?, File::open(host.netns.path())?);
    for (_, program) in ebpf.programs_mut() {
        match program {
            Program::SockOps(_) => {
                let program: &mut SockOps = program.try_into()?;
                program.load()?;
                program.attach(&cgroup, CgroupAttachMode::Single)?;
            }
            Program::CgroupSkb(_) => {
                let program: &mut CgroupSkb = program.try_into()?;
                program.load()?;
                program.attach(&cgroup, CgroupSkbAttachType::Ingress, CgroupAttachMode::Single)?;
            }
            Program::Xdp(_) => {}
            _ => {
                let program: &mut SkLookup = program.try_into()?;
                program.load()?;
                program.attach(&netns)?;
            }
        }
    }
    Ok(ebpf)
}

/// Attaches the one that drops the flooder, on the host's wire, in the mode that the limiter chooses there.
pub fn attach_shield(host: &Host) -> Result<Ebpf> {
    let object = build::empty_object();
    let mut ebpf = EbpfLoader::new()
        .override_global("DROPPED", &FLOODER.octets(), true)
        .load_file(&object)
        .with_context(|| format!("cannot load {}", object.display()))?;
    let program: &mut Xdp =
        ebpf.program_mut("shield").context("the object has no program shield")?.try_into()?;
    program.load()?;
    host.netns.run(|| program.attach(&host.place.wire(), XdpMode::Skb))?;
    Ok(ebpf)
}
