// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! XDP programs of a few instructions, to compare the shield with, and the maps they use.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::libc;

use crate::program::Program;
use limiter_lab::xdp::bpf;

/// `enum xdp_action`, include/uapi/linux/bpf.h.
pub const DROP: u32 = 1;
pub const PASS: u32 = 2;

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;

/// Opcodes (Documentation/bpf/standardization/instruction-set.rst).
const LOAD_U8: u8 = 0x71;
const LOAD_U16: u8 = 0x69;
const LOAD_U32: u8 = 0x61;
const STORE_U16: u8 = 0x6b;
const STORE_U32: u8 = 0x63;
const LOAD_MAP: u8 = 0x18;
const MOVE: u8 = 0xbf;
const MOVE_NUMBER: u8 = 0xb7;
const ADD_NUMBER: u8 = 0x07;
const AND_NUMBER: u8 = 0x57;
const TO_BIG_ENDIAN: u8 = 0xdc;
const UNLESS_EQUAL: u8 = 0x55;
const IF_EQUAL: u8 = 0x15;
const IF_GREATER: u8 = 0x2d;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// `enum bpf_func_id`.
const MAP_LOOKUP: i32 = 1;
const TAIL_CALL: i32 = 12;

/// Where things are in a frame of IPv4 without options.
const ETHER_TYPE: i16 = 12;
const PROTOCOL: i16 = 14 + 9;
const SOURCE: i16 = 14 + 12;
const PORT: i16 = 14 + 20 + 2;
const FLAGS: i16 = 14 + 20 + 13;
const WHOLE: i32 = 14 + 20 + 20;

/// Destination, source, offset, number.
fn op(code: u8, to: u8, from: u8, offset: i16, number: i32) -> u64 {
    u64::from(code)
        | u64::from(to | from << 4) << 8
        | u64::from(offset as u16) << 16
        | u64::from(number as u32) << 32
}

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// Loads a program.
fn load(instructions: &[u64]) -> Program {
    const XDP: u32 = 6;
    const ATTACH_XDP: u32 = 37;
    const HAS_FRAGS: u32 = 1 << 5;
    let mut load = Load {
        prog_type: XDP,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        // As the shield, or it could not be called by the same program.
        prog_flags: HAS_FRAGS,
        expected_attach_type: ATTACH_XDP,
        ..Load::default()
    };
    Program::of(descriptor(bpf(PROG_LOAD, &mut load)))
}

fn descriptor(answer: i64) -> OwnedFd {
    assert!(answer >= 0, "the kernel takes it: {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made it for us.
    unsafe { OwnedFd::from_raw_fd(answer as i32) }
}

/// A map of one kind, with keys of 4 bytes.
fn map(kind: u32, value_size: u32, max_entries: u32) -> OwnedFd {
    descriptor(bpf(MAP_CREATE, &mut [kind, 4, value_size, max_entries]))
}

fn update(map: &OwnedFd, key: u32, value: &[u8]) {
    let mut attr = [map.as_raw_fd() as u64, (&raw const key) as u64, value.as_ptr() as u64, 0];
    assert_eq!(bpf(MAP_UPDATE, &mut attr), 0, "{}", std::io::Error::last_os_error());
}

/// The address of a map in two instructions.
fn load_map(to: u8, map: &OwnedFd) -> [u64; 2] {
    const IS_A_MAP: u8 = 1;
    [op(LOAD_MAP, to, IS_A_MAP, 0, map.as_raw_fd()), 0]
}

/// Has the frame's start in register 2, and skips so many instructions if the frame is shorter than the headers.
fn if_whole(skipped: i16) -> [u64; 5] {
    [
        op(LOAD_U32, 2, 1, 0, 0),
        op(LOAD_U32, 3, 1, 4, 0),
        op(MOVE, 4, 2, 0, 0),
        op(ADD_NUMBER, 4, 0, 0, WHOLE),
        op(IF_GREATER, 4, 3, skipped, 0),
    ]
}

/// Drops everything.
pub fn drops_without_a_look() -> Program {
    load(&[op(MOVE_NUMBER, 0, 0, 0, DROP as i32), op(EXIT, 0, 0, 0, 0)])
}

/// Drops the SYNs to port 25 of a source that is in a hash: what any program costs at least that looks who it is.
pub fn drops_after_one_look(source: Ipv4Addr) -> Program {
    const HASH: u32 = 1;
    let sources = map(HASH, 8, 1024);
    update(&sources, u32::from_ne_bytes(source.octets()), &[0; 8]);
    // Each to the end, where everything passes.
    let checks = [
        (LOAD_U16, ETHER_TYPE, 0xffff, 0x0800_u16.to_be().into()),
        (LOAD_U8, PROTOCOL, 0xff, 6),
        (LOAD_U16, PORT, 0xffff, 25_u16.to_be().into()),
        (LOAD_U8, FLAGS, 0x12, 0x02),
    ];
    let mut program = if_whole(22).to_vec();
    for (index, (code, offset, mask, wanted)) in checks.into_iter().enumerate() {
        program.extend([
            op(code, 5, 2, offset, 0),
            op(AND_NUMBER, 5, 0, 0, mask),
            op(UNLESS_EQUAL, 5, 0, 19 - 3 * index as i16, wanted),
        ]);
    }
    program.extend([op(LOAD_U32, 5, 2, SOURCE, 0), op(STORE_U32, 10, 5, -4, 0)]);
    program.extend(load_map(1, &sources));
    program.extend([
        op(MOVE, 2, 10, 0, 0),
        op(ADD_NUMBER, 2, 0, 0, -4),
        op(CALL, 0, 0, 0, MAP_LOOKUP),
        op(IF_EQUAL, 0, 0, 2, 0),
        op(MOVE_NUMBER, 0, 0, 0, DROP as i32),
        op(EXIT, 0, 0, 0, 0),
        op(MOVE_NUMBER, 0, 0, 0, PASS as i32),
        op(EXIT, 0, 0, 0, 0),
    ]);
    load(&program)
}

/// Lets another program judge the frame as if it came from the next source: those with the same first 16 bits of
/// their address by turns.
pub fn by_turns(judge: &Program) -> Program {
    const PROG_ARRAY: u32 = 3;
    let judges = map(PROG_ARRAY, 4, 1);
    update(&judges, 0, &judge.0.as_raw_fd().to_ne_bytes());
    let mut program = if_whole(9).to_vec();
    program.extend([
        op(LOAD_U16, 5, 2, SOURCE + 2, 0),
        op(TO_BIG_ENDIAN, 5, 0, 0, 16),
        op(ADD_NUMBER, 5, 0, 0, 1),
        op(TO_BIG_ENDIAN, 5, 0, 0, 16),
        op(STORE_U16, 2, 5, SOURCE + 2, 0),
    ]);
    program.extend(load_map(2, &judges));
    program.extend([
        op(MOVE_NUMBER, 3, 0, 0, 0),
        op(CALL, 0, 0, 0, TAIL_CALL),
        op(MOVE_NUMBER, 0, 0, 0, PASS as i32),
        op(EXIT, 0, 0, 0, 0),
    ]);
    let mut program = load(&program);
    program.keep(judges);
    program
}
