//! Programs that do nothing, on the hooks of the limiter's.

use std::fs::File;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, Program, SkLookup, SockOps},
};

use super::Host;
use crate::build;

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
            _ => {
                let program: &mut SkLookup = program.try_into()?;
                program.load()?;
                program.attach(&netns)?;
            }
        }
    }
    Ok(ebpf)
}
