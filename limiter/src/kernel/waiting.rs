// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The daemon's side of waiting: the records of handshakes that were held back, what the programs tell
//! of them, and what is asked of the usher.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, TestRun as _, TestRunOptions,
    maps::{Array, HashMap, Map, MapData, ProgramArray, RingBuf, SkStorage},
    programs::{CgroupSkb, CgroupSkbAttachType, ProgramFd},
};
use limiter_common::waiting::{Event, Flow, UsherRequest, Waiter};

use super::{
    btf::RequestBits,
    map::{found, open},
    pins,
};
use crate::instance::Instance;

/// The map of the global that says until when the daemon serves those that wait.
const ATTENDED: &str = ".bss.attended";
/// The programs that gate and ledger go on in, by the map in which they find them, in its order.
const STAGES: [(&str, &[&str]); 2] = [
    ("STAGES", &["hold", "again", "make_room", "newcomer", "fast_open"]),
    ("LEDGER_STAGES", &["ended", "replied", "rejudged"]),
];

/// The hold on the programs and records of those that wait.
pub struct Waiters {
    /// Where the kernel keeps what a handshake has agreed upon.
    pub bits: RequestBits,
    usher: CgroupSkb,
    request: Array<MapData, UsherRequest>,
    attended: Array<MapData, u64>,
    events: RingBuf<MapData>,
    waiters: HashMap<MapData, Flow, Waiter>,
    greeter_sockets: SkStorage<MapData, u32>,
}

/// Puts the programs that gate and ledger go on in where they find them.
pub(super) fn set_stages(ebpf: &mut Ebpf) -> Result<()> {
    for (map, programs) in STAGES {
        let fd = |name: &str| -> Result<ProgramFd> {
            let program = ebpf.program(name).ok_or_else(|| anyhow!("the object has no program {name}"))?;
            Ok(program.fd()?.try_clone()?)
        };
        let fds = programs.iter().map(|name| fd(name)).collect::<Result<Vec<ProgramFd>>>()?;
        let stages = ebpf.map_mut(map).ok_or_else(|| anyhow!("the object has no map {map}"))?;
        let mut stages: ProgramArray<&mut MapData> = stages.try_into()?;
        for (index, fd) in (0..).zip(&fds) {
            stages.set(index, fd, 0).with_context(|| format!("cannot fill the map {map}"))?;
        }
    }
    Ok(())
}

impl Waiters {
    /// Takes what belongs to the waiters out of `ebpf`; the records are those pinned for `instance`.
    pub(super) fn take(ebpf: &mut Ebpf, instance: &Instance, bits: RequestBits) -> Result<Self> {
        let mut map = |name: &str| ebpf.take_map(name).ok_or_else(|| anyhow!("the object has no map {name}"));
        let (request, attended, events) = (map("USHER_REQUEST")?, map(ATTENDED)?, map("EVENTS")?);
        let waiters = open(&instance.pins(), "WAITERS")?;
        let usher = instance.pins().join(pins::USHER);
        Ok(Self {
            usher: CgroupSkb::from_pin(&usher, CgroupSkbAttachType::Ingress)
                .with_context(|| format!("cannot open the program {}", usher.display()))?,
            bits,
            request: request.try_into()?,
            attended: attended.try_into()?,
            events: events.try_into()?,
            waiters: Map::HashMap(waiters).try_into()?,
            greeter_sockets: Map::SkStorage(open(&instance.pins(), "GREETER_SOCKETS")?).try_into()?,
        })
    }

    /// Says that those that wait are served until `until_ns` of `CLOCK_MONOTONIC`.
    pub fn attend(&mut self, until_ns: u64) -> Result<()> {
        self.attended.set(0, until_ns, 0).context("cannot tell the kernel programs that the daemon runs")
    }

    /// Marks a socket as the greeter's, which is not counted.
    pub fn mark(&mut self, socket: &impl AsFd) -> Result<()> {
        self.greeter_sockets
            .insert(&socket.as_fd().as_raw_fd(), 1, 0)
            .context("cannot mark a connection of the greeter's")
    }

    /// What the programs tell next, if they do.
    pub fn event(&mut self) -> Option<Event> {
        let event = self.events.next()?;
        (event.len() == size_of::<Event>()).then(|| bytemuck::pod_read_unaligned(&event))
    }

    /// The record of a handshake.
    pub fn waiter(&self, flow: &Flow) -> Result<Option<Waiter>> {
        found(self.waiters.get(flow, 0)).context("cannot read the waiting handshakes")
    }

    /// Has the usher do what is asked; what became of it.
    pub fn ask(&mut self, request: UsherRequest) -> Result<UsherRequest> {
        self.request.set(0, request, 0)?;
        // The kernel takes no packet shorter than an Ethernet header (bpf_prog_test_run_skb).
        let options = TestRunOptions { data_in: Some(&[0; 64]), ..TestRunOptions::new() };
        self.usher.test_run(options).context("the usher program did not run")?;
        Ok(self.request.get(&0, 0)?)
    }
}

impl AsFd for Waiters {
    /// Readable when the programs have something to tell.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}
