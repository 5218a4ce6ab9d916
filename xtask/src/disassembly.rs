// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Checks the kernel programs for an atomic add that became a plain one.
//!
//! LLVM's BPF backend miscompiles a relaxed atomic add whose result is used: it selects the instruction
//! that returns nothing, `lock *(u64 *)(r1 + 0x0) += r2`, and goes on with `r2`, which holds the addend, as
//! if it were the old value. The right instruction is `r2 = atomic_fetch_add((u64 *)(r1 + 0x0), r2)`.
//!
//! So wherever the register of a plain atomic step may be read afterwards, on any path, the step is taken
//! for miscompiled. A compiler that merely kept the addend for later looks the same; then, too, the cure is
//! `SeqCst`, which is never compiled to the plain instruction.
//!
//! Instructions are read as RFC 9669 has them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind};

/// The register of what a function returns.
const RESULT: u8 = 0;

/// The registers of the arguments of a call.
const ARGUMENTS: std::ops::RangeInclusive<u8> = 1..=5;

/// Bytes of an instruction; a 64-bit constant takes two of them.
const SLOT: usize = 8;

/// What was found in an object file.
#[derive(Debug, Default)]
pub struct Report {
    /// Atomic adds that return the old value.
    pub fetch_adds: usize,
    /// Atomic compare-and-exchange steps.
    pub compare_exchanges: usize,
    /// Plain atomic steps that were likely to return something.
    pub miscompiled: Vec<Miscompiled>,
}

/// A plain atomic step whose register is read afterwards. `llvm-objdump -d` shows both.
#[derive(Debug, PartialEq, Eq)]
pub struct Miscompiled {
    /// The function it is in.
    pub function: String,
    /// The step, by its place in the function.
    pub step: usize,
    /// The instruction that takes the addend for the old value, likewise.
    pub reader: usize,
}

/// Checks all functions of an object file.
///
/// # Errors
///
/// When it is none, or has instructions that are in no function.
pub fn check(object: &[u8]) -> Result<Report> {
    let file = object::File::parse(object)?;
    let mut report = Report::default();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let code = section.data()?;
        let in_it = |symbol: &object::Symbol<'_, '_>| {
            symbol.kind() == SymbolKind::Text && symbol.section_index() == Some(section.index())
        };
        let mut covered = BTreeSet::new();
        for symbol in file.symbols().filter(in_it) {
            let bytes = symbol.address() as usize..(symbol.address() + symbol.size()) as usize;
            covered.extend(bytes.clone().step_by(SLOT));
            let code = code.get(bytes).unwrap_or_default();
            report.add(&Function::decode(symbol.name()?, code, file.endianness()));
        }
        ensure!(covered.len() * SLOT == code.len(), "{}: instructions in no function", section.name()?);
    }
    Ok(report)
}

impl Report {
    fn add(&mut self, function: &Function) {
        for (&at, instruction) in &function.instructions {
            match instruction.atomic() {
                Some(Atomic::Plain) => {
                    if let Some(reader) = function.first_reader(at + 1, instruction.source) {
                        let function = function.name.clone();
                        self.miscompiled.push(Miscompiled { function, step: at, reader });
                    }
                }
                Some(Atomic::FetchAdd) => self.fetch_adds += 1,
                Some(Atomic::CompareExchange) => self.compare_exchanges += 1,
                Some(Atomic::Fetch) | None => {}
            }
        }
    }
}

/// Instructions of one function by their place in it: a 64-bit constant takes two.
struct Function {
    name: String,
    instructions: BTreeMap<usize, Instruction>,
}

impl Function {
    fn decode(name: &str, code: &[u8], order: Endianness) -> Self {
        let mut instructions = BTreeMap::new();
        let mut slots = code.chunks_exact(SLOT).filter_map(|slot| slot.first_chunk()).enumerate();
        while let Some((at, slot)) = slots.next() {
            let instruction = Instruction::decode(*slot, order);
            if instruction.is_wide() {
                slots.next();
            }
            instructions.insert(at, instruction);
        }
        Self { name: name.to_owned(), instructions }
    }

    /// The first instruction, on any path from here, that may read the register before it is overwritten.
    fn first_reader(&self, from: usize, register: u8) -> Option<usize> {
        let mut seen = BTreeSet::new();
        let mut ahead = vec![from];
        while let Some(at) = ahead.pop() {
            let Some((&at, instruction)) = self.instructions.range(at..).next() else { continue };
            if !seen.insert(at) {
                continue;
            }
            if instruction.reads(register) {
                return Some(at);
            }
            if instruction.overwrites(register) {
                continue;
            }
            ahead.extend(instruction.jump(at));
            if instruction.falls_through() {
                ahead.push(at + 1);
            }
        }
        None
    }
}

/// An atomic step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Atomic {
    /// It returns nothing.
    Plain,
    /// It adds and returns the old value.
    FetchAdd,
    /// It does something else and returns the old value.
    Fetch,
    CompareExchange,
}

/// One instruction.
#[derive(Clone, Copy, Debug)]
struct Instruction {
    opcode: u8,
    destination: u8,
    source: u8,
    offset: i16,
    immediate: i32,
}

// Classes, the low three bits of an opcode.
const LD: u8 = 0;
const LDX: u8 = 1;
const ST: u8 = 2;
const STX: u8 = 3;
const ALU: u8 = 4;
const JMP: u8 = 5;
const JMP32: u8 = 6;
const ALU64: u8 = 7;

// Codes of arithmetic and jumps, the high four bits.
const MOV: u8 = 0xb0;
const END: u8 = 0xd0;
const JA: u8 = 0x00;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;

/// Of arithmetic and jumps: the second operand is a register.
const X: u8 = 0x08;
/// Mode of loads and stores, the high three bits: an atomic step.
const ATOMIC: u8 = 0xc0;
/// Of an atomic step's immediate: it returns the old value.
const FETCH: i32 = 1;
const COMPARE_EXCHANGE: i32 = 0xf0 | FETCH;
/// A 64-bit constant.
const WIDE: u8 = 0x18;

impl Instruction {
    fn decode([opcode, registers, o0, o1, i0, i1, i2, i3]: [u8; SLOT], order: Endianness) -> Self {
        let (low, high) = (registers & 0xf, registers >> 4);
        match order {
            Endianness::Little => Self {
                opcode,
                destination: low,
                source: high,
                offset: i16::from_le_bytes([o0, o1]),
                immediate: i32::from_le_bytes([i0, i1, i2, i3]),
            },
            Endianness::Big => Self {
                opcode,
                destination: high,
                source: low,
                offset: i16::from_be_bytes([o0, o1]),
                immediate: i32::from_be_bytes([i0, i1, i2, i3]),
            },
        }
    }

    const fn class(self) -> u8 {
        self.opcode & 7
    }

    const fn code(self) -> u8 {
        self.opcode & 0xf0
    }

    const fn is_wide(self) -> bool {
        self.opcode == WIDE
    }

    fn atomic(self) -> Option<Atomic> {
        if self.class() != STX || self.opcode & 0xe0 != ATOMIC {
            return None;
        }
        Some(match self.immediate {
            COMPARE_EXCHANGE => Atomic::CompareExchange,
            FETCH => Atomic::FetchAdd,
            other if other & FETCH != 0 => Atomic::Fetch,
            _ => Atomic::Plain,
        })
    }

    fn is_jump(self, code: u8) -> bool {
        matches!(self.class(), JMP | JMP32) && self.code() == code
    }

    fn is_call(self) -> bool {
        self.is_jump(CALL)
    }

    fn is_exit(self) -> bool {
        self.is_jump(EXIT)
    }

    /// Whether it may read the register. What is not known is taken to read all that it names.
    fn reads(self, register: u8) -> bool {
        let is_destination = register == self.destination;
        let is_source = register == self.source;
        match self.class() {
            // Those but the constant read packets, and nobody compiles to them.
            LD => !self.is_wide(),
            LDX => is_source,
            ST => is_destination,
            STX => {
                let implied = self.atomic() == Some(Atomic::CompareExchange) && register == RESULT;
                is_destination || is_source || implied
            }
            ALU | ALU64 => {
                let is_operand = self.opcode & X != 0 && self.code() != END && is_source;
                is_operand || (self.code() != MOV && is_destination)
            }
            _ if self.is_call() => ARGUMENTS.contains(&register) || (self.opcode & X != 0 && is_destination),
            _ if self.is_exit() => register == RESULT,
            _ if self.is_jump(JA) => false,
            _ => is_destination || (self.opcode & X != 0 && is_source),
        }
    }

    /// Whether the register certainly holds something else afterwards.
    fn overwrites(self, register: u8) -> bool {
        match self.class() {
            LD | LDX | ALU | ALU64 => register == self.destination,
            STX => match self.atomic() {
                Some(Atomic::CompareExchange) => register == RESULT,
                Some(Atomic::FetchAdd | Atomic::Fetch) => register == self.source,
                _ => false,
            },
            _ => self.is_call() && (register == RESULT || ARGUMENTS.contains(&register)),
        }
    }

    fn falls_through(self) -> bool {
        !self.is_exit() && !self.is_jump(JA)
    }

    /// Where it may jump to, from its own place.
    fn jump(self, at: usize) -> Option<usize> {
        if !matches!(self.class(), JMP | JMP32) || self.is_call() || self.is_exit() {
            return None;
        }
        // The jump of 32 bits (`gotol`) has its distance in the immediate.
        let is_long = self.class() == JMP32 && self.code() == JA;
        let distance = if is_long { self.immediate as isize } else { isize::from(self.offset) };
        (at + 1).checked_add_signed(distance)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::paths;

    /// An instruction of a little-endian machine.
    const fn op(opcode: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> [u8; SLOT] {
        let ([o0, o1], [i0, i1, i2, i3]) = (offset.to_le_bytes(), immediate.to_le_bytes());
        [opcode, source << 4 | destination, o0, o1, i0, i1, i2, i3]
    }

    /// `rD = I`
    const fn set(destination: u8, immediate: i32) -> [u8; SLOT] {
        op(ALU64 | MOV, destination, 0, 0, immediate)
    }

    /// `rD = rS`
    const fn copy(destination: u8, source: u8) -> [u8; SLOT] {
        op(ALU64 | MOV | X, destination, source, 0, 0)
    }

    /// `wD = wS`
    const fn copy_half(destination: u8, source: u8) -> [u8; SLOT] {
        op(ALU | MOV | X, destination, source, 0, 0)
    }

    /// `lock *(u64 *)(r1 + O) += rS`
    const fn add(offset: i16, source: u8) -> [u8; SLOT] {
        op(0xdb, 1, source, offset, 0)
    }

    /// `rS = atomic_fetch_add((u64 *)(r1 + 0x0), rS)`
    const fn fetch_add(source: u8) -> [u8; SLOT] {
        op(0xdb, 1, source, 0, FETCH)
    }

    /// `if rD > I goto +O`
    const fn if_greater(destination: u8, immediate: i32, offset: i16) -> [u8; SLOT] {
        op(0x25, destination, 0, offset, immediate)
    }

    /// `if rD == 0 goto +O`
    const fn if_zero(destination: u8, offset: i16) -> [u8; SLOT] {
        op(0x15, destination, 0, offset, 0)
    }

    /// `goto +O`
    const fn goto(offset: i16) -> [u8; SLOT] {
        op(0x05, 0, 0, offset, 0)
    }

    /// `call 0x5`
    const CALL_5: [u8; SLOT] = op(0x85, 0, 0, 0, 5);
    /// `exit`
    const EXITS: [u8; SLOT] = op(0x95, 0, 0, 0, 0);

    fn report(name: &str, code: &[[u8; SLOT]]) -> Report {
        let mut report = Report::default();
        report.add(&Function::decode(name, code.as_flattened(), Endianness::Little));
        report
    }

    /// Who reads what a plain add has left, in a function that begins with one of `r2`.
    fn reader_after_an_add(code: &[[u8; SLOT]]) -> Option<usize> {
        reader_of(&[&[add(0, 2)], code].concat())
    }

    fn reader_of(code: &[[u8; SLOT]]) -> Option<usize> {
        report("sample", code).miscompiled.pop().map(|found| found.reader)
    }

    /// What rustc 1.95 with LLVM 22 made of a relaxed `atomic_xadd(p, 1)` that is returned.
    #[test]
    fn a_relaxed_add_that_is_returned_is_found() {
        assert_eq!(
            report("relaxed", &[set(0, 1), add(0, 0), EXITS]).miscompiled,
            [Miscompiled { function: "relaxed".into(), step: 1, reader: 2 }]
        );
    }

    /// The same, compared.
    #[test]
    fn a_relaxed_add_that_is_compared_is_found() {
        let load = op(0x79, 0, 1, 0x18, 0);
        assert_eq!(reader_of(&[set(2, 1), add(0, 2), set(0, 7), if_greater(2, 7, 1), load, EXITS]), Some(3));
    }

    #[test]
    fn a_fetch_add_is_right_and_counted() {
        let report = report("good", &[set(0, 1), fetch_add(0), EXITS]);
        assert_eq!((report.fetch_adds, report.miscompiled), (1, vec![]));
    }

    #[test]
    fn a_compare_exchange_is_counted() {
        let code = [op(0xdb, 1, 3, 0, COMPARE_EXCHANGE), EXITS];
        assert_eq!(report("f", &code).compare_exchanges, 1);
    }

    /// Results that nobody uses, of a sequentially consistent and two relaxed adds.
    #[test]
    fn an_add_whose_result_nobody_uses_may_be_plain() {
        let code = [set(3, 1), fetch_add(3), set(3, 1), add(8, 3), add(0x10, 2), set(0, 1), EXITS];
        assert_eq!(report("unused", &code).miscompiled, []);
    }

    #[test]
    fn a_register_may_be_overwritten_and_then_read() {
        assert_eq!(reader_after_an_add(&[set(2, 7), copy(0, 2), EXITS]), None);
        let load_half = op(0x61, 2, 1, 8, 0);
        assert_eq!(reader_after_an_add(&[load_half, copy_half(0, 2), EXITS]), None);
        assert_eq!(reader_after_an_add(&[set(2, 7), fetch_add(2), copy(0, 2), EXITS]), None);
    }

    #[test]
    fn a_call_overwrites_the_result_and_may_read_the_arguments() {
        assert_eq!(reader_after_an_add(&[CALL_5, EXITS]), Some(1));
        assert_eq!(reader_of(&[add(0, 0), CALL_5, EXITS]), None);
    }

    #[test]
    fn a_store_an_add_and_the_lower_half_are_readers() {
        let store = op(0x7b, 1, 2, 0x20, 0);
        let sum = op(ALU64, 2, 0, 0, 1);
        let store_there = op(0x72, 2, 0, 0, 1);
        for reader in [store, sum, copy_half(0, 2), store_there, op(ALU64 | CALL, 2, 0, 0, 0), fetch_add(2)] {
            assert!(reader_after_an_add(&[reader, EXITS]).is_some(), "{reader:x?}");
        }
        let compare_exchange = op(0xdb, 1, 3, 0, COMPARE_EXCHANGE);
        assert_eq!(reader_of(&[add(0, 0), compare_exchange, EXITS]), Some(1));
    }

    #[test]
    fn both_ways_of_a_branch_are_followed() {
        assert_eq!(
            reader_after_an_add(&[if_zero(3, 2), set(0, 0), EXITS, copy(0, 2), EXITS]),
            Some(4),
            "r0 = r2"
        );
        assert_eq!(reader_after_an_add(&[if_zero(3, 2), copy(0, 2), EXITS, set(0, 0), EXITS]), Some(2));
    }

    #[test]
    fn a_loop_back_to_a_reader_is_followed_and_ends() {
        let back = op(0x55, 0, 0, -4, 0);
        assert_eq!(reader_of(&[copy(0, 2), set(2, 1), add(0, 2), back, goto(-1)]), Some(0));
        let back = op(0x06, 0, 0, 0, -4);
        assert_eq!(reader_of(&[copy(0, 2), set(2, 1), add(0, 2), back]), Some(0), "gotol");
    }

    #[test]
    fn a_jump_over_a_64_bit_constant_lands_where_it_says() {
        let constant = [op(WIDE, 4, 0, 0, 0), op(0, 0, 0, 0, 0)];
        let code = [&[if_zero(3, 3)][..], &constant, &[set(2, 0), copy(0, 2), EXITS]].concat();
        assert_eq!(reader_after_an_add(&code), Some(5), "r0 = r2");
    }

    #[test]
    fn the_kernel_programs_have_no_miscompiled_add() {
        let object = fs::read(paths::object()).expect("the kernel programs are built");
        let report = check(&object).expect("they are an object file");
        assert_eq!(report.miscompiled, [], "take SeqCst for these");
        assert!(
            report.fetch_adds > 0,
            "reservations are fetch-adds; are instructions as this check reads them?"
        );
        assert!(report.compare_exchanges > 0, "places are taken by compare-and-exchange; as above");
    }

    #[test]
    fn a_fetch_add_of_the_kernel_programs_that_became_plain_is_found() {
        let mut object = fs::read(paths::object()).expect("the kernel programs are built");
        let is_fetch_add = |slot: &[u8]| matches!(slot[0], 0xc3 | 0xdb) && slot[4..] == FETCH.to_ne_bytes();
        for slot in object.chunks_exact_mut(SLOT).filter(|slot| is_fetch_add(slot)) {
            slot[4..].fill(0);
        }
        let report = check(&object).expect("it is an object file still");
        assert_eq!(report.fetch_adds, 0);
        assert!(!report.miscompiled.is_empty(), "reservations use what they return");
    }
}
