// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The kernel's types, read where they stand (Documentation/bpf/btf.rst): 150,000 of them, of which a few are looked up.
//! As structures of their own they would take ten times the memory of the file.

use anyhow::{Context as _, Result, ensure};

/// `BTF_MAGIC`, and the kinds that matter (include/uapi/linux/btf.h).
const MAGIC: u16 = 0xeb9f;
const PTR: u32 = 2;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const TYPEDEF: u32 = 8;
const FUNC: u32 = 12;

/// The sizes of `struct btf_header`, `btf_type` and `btf_member`.
const HEADER: usize = 24;
const TYPE: usize = 12;
const MEMBER: usize = 12;

/// How deep structures without a name may stand in one another.
const DEPTH: u8 = 4;

/// All types of a kernel.
pub struct Types {
    bytes: Vec<u8>,
    /// Where each type stands, by its number; number 0 is `void`, and stands nowhere.
    at: Vec<u32>,
    /// Where the names begin.
    names: usize,
}

/// `struct btf_type`.
#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    info: u32,
}

impl Type {
    const fn kind(self) -> u32 {
        self.info >> 24 & 0x1f
    }

    const fn len(self) -> usize {
        (self.info & 0xffff) as usize
    }

    /// Whether the offsets of its members have the sizes of bit fields in their upper bits.
    const fn has_bit_fields(self) -> bool {
        self.info >> 31 != 0
    }

    const fn is_structure(self) -> bool {
        matches!(self.kind(), STRUCT | UNION)
    }

    /// What stands behind it, in bytes; none for a kind that is not known.
    const fn trailer(self) -> Option<usize> {
        match self.kind() {
            PTR | 7..=FUNC | 16 | 18 => Some(0),
            1 | 14 | 17 => Some(4),
            3 => Some(12),
            STRUCT | UNION | 15 | 19 => Some(MEMBER * self.len()),
            6 | 13 => Some(8 * self.len()),
            _ => None,
        }
    }
}

impl Types {
    /// Of a file in the byte order of this machine.
    pub fn parse(bytes: Vec<u8>) -> Result<Self> {
        let magic = bytes.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
        ensure!(magic == Some(MAGIC), "they are not in BTF format");
        let mut types = Self { bytes, at: vec![0], names: 0 };
        let field = |at| types.word(at).map(|word| word as usize).context("they end within the header");
        let (header, first, len, names) = (field(4)?, field(8)?, field(12)?, field(16)?);
        ensure!(header >= HEADER, "their header is too short");
        let (mut at, names) = (header.saturating_add(first), header.saturating_add(names));
        let end = at.saturating_add(len);
        types.names = names;
        while at < end {
            let found = types.read(at).context("they end within a type")?;
            let size = found.trailer().with_context(|| format!("unknown kind {}", found.kind()))?;
            types.at.push(u32::try_from(at)?);
            at += TYPE + size;
        }
        Ok(types)
    }

    fn word(&self, at: usize) -> Option<u32> {
        self.bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    fn read(&self, at: usize) -> Option<Type> {
        Some(Type { at, name: self.word(at)?, info: self.word(at + 4)? })
    }

    /// The type of this number.
    fn get(&self, id: u32) -> Option<Type> {
        if id == 0 { None } else { self.read(*self.at.get(id as usize)? as usize) }
    }

    fn is_named(&self, name: u32, wanted: &str) -> bool {
        let at = self.names.saturating_add(name as usize);
        self.bytes
            .get(at..)
            .and_then(|rest| rest.strip_prefix(wanted.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    /// The number of a function.
    pub fn function(&self, name: &str) -> Option<u32> {
        self.number(FUNC, name)
    }

    /// The number of a type that has got a name (`typedef`).
    pub fn named_type(&self, name: &str) -> Option<u32> {
        self.number(TYPEDEF, name)
    }

    fn number(&self, kind: u32, name: &str) -> Option<u32> {
        let is_it = |found: Type| found.kind() == kind && self.is_named(found.name, name);
        (1..).zip(self.at.iter().skip(1)).find_map(|(id, at)| is_it(self.read(*at as usize)?).then_some(id))
    }

    /// Whether there is a structure of this name.
    pub fn has_structure(&self, name: &str) -> bool {
        self.structures(name).next().is_some()
    }

    fn structures<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Type> + 'a {
        let all = self.at.iter().skip(1).filter_map(|at| self.read(*at as usize));
        all.filter(move |found| found.kind() == STRUCT && self.is_named(found.name, name))
    }

    /// Where a member of a structure is, in bits, also one inside a structure or union without a name.
    pub fn bit_offset(&self, structure: &str, member: &str) -> Option<u32> {
        self.structures(structure).find_map(|structure| self.find(structure, member, DEPTH))
    }

    fn find(&self, structure: Type, wanted: &str, depth: u8) -> Option<u32> {
        for nth in 0..structure.len() {
            let at = structure.at + TYPE + nth * MEMBER;
            let (name, id, offset) = (self.word(at)?, self.word(at + 4)?, self.word(at + 8)?);
            let offset = if structure.has_bit_fields() { offset & 0x00ff_ffff } else { offset };
            if self.is_named(name, wanted) {
                return Some(offset);
            }
            if self.is_named(name, "")
                && depth > 0
                && let Some(inner) = self.get(id).filter(|inner| inner.is_structure())
                && let Some(inside) = self.find(inner, wanted, depth - 1)
            {
                return Some(offset.saturating_add(inside));
            }
        }
        None
    }
}

/// BTF in which one function has its number, and nothing else is told: what aya looks up in all of the kernel's.
pub fn with_function(id: u32, name: &str) -> Vec<u8> {
    with_one(id, FUNC, name)
}

/// The same of a type that has got a name.
pub fn with_named_type(id: u32, name: &str) -> Vec<u8> {
    with_one(id, TYPEDEF, name)
}

fn with_one(id: u32, kind: u32, name: &str) -> Vec<u8> {
    let names = [&[0], name.as_bytes(), &[0]].concat();
    let types_len = id * TYPE as u32;
    let mut bytes = Vec::with_capacity(HEADER + types_len as usize + names.len());
    bytes.extend(MAGIC.to_ne_bytes());
    bytes.extend([1, 0]);
    for word in [HEADER as u32, 0, types_len, types_len, names.len() as u32] {
        bytes.extend(word.to_ne_bytes());
    }
    for other in 1..=id {
        let (name, kind) = if other == id { (1, kind) } else { (0, PTR) };
        for word in [name, kind << 24, 0] {
            bytes.extend(u32::to_ne_bytes(word));
        }
    }
    bytes.extend(names);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Types in BTF, each of words; then the names.
    fn file(types: &[&[u32]], names: &[u8]) -> Vec<u8> {
        let types: Vec<u8> =
            types.iter().flat_map(|words| words.iter().flat_map(|word| word.to_ne_bytes())).collect();
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend([1, 0]);
        for word in [HEADER as u32, 0, types.len() as u32, types.len() as u32, names.len() as u32] {
            bytes.extend(word.to_ne_bytes());
        }
        [bytes, types, names.to_vec()].concat()
    }

    #[test]
    fn members_are_found_also_inside_what_has_no_name_and_beside_bit_fields() {
        let structure = |name: u32, len: u32, bits: u32| [name, bits << 31 | STRUCT << 24 | len, 64];
        // \0 1:outer 7:a 9:b 11:flag 16:int
        let names = b"\0outer\0a\0b\0flag\0int\0";
        let types: &[&[u32]] = &[
            &[16, 1 << 24, 4, 32],
            &[structure(0, 1, 0).as_slice(), &[9, 1, 32]].concat(),
            &[structure(1, 3, 1).as_slice(), &[7, 1, 0], &[0, 2, 64], &[11, 1, 1 << 24 | 0x82]].concat(),
            &[7, FUNC << 24, 0],
        ];
        let types = Types::parse(file(types, names)).unwrap();
        assert_eq!(types.bit_offset("outer", "a"), Some(0));
        assert_eq!(types.bit_offset("outer", "b"), Some(96));
        assert_eq!(types.bit_offset("outer", "flag"), Some(130));
        assert_eq!((types.bit_offset("outer", "c"), types.bit_offset("inner", "a")), (None, None));
        assert_eq!((types.function("a"), types.function("b")), (Some(4), None));
        assert!(types.has_structure("outer") && !types.has_structure("oute"));
    }

    #[test]
    fn what_is_told_of_one_is_what_all_types_would_tell() {
        for id in [1, 2, 1000] {
            let types = Types::parse(with_function(id, "bpf_iter_tcp")).unwrap();
            assert_eq!((types.function("bpf_iter_tcp"), types.named_type("bpf_iter_tcp")), (Some(id), None));
            let types = Types::parse(with_named_type(id, "btf_trace_x")).unwrap();
            assert_eq!((types.function("btf_trace_x"), types.named_type("btf_trace_x")), (None, Some(id)));
        }
    }

    proptest! {
        #[test]
        fn no_file_makes_the_reader_panic(bytes: Vec<u8>, words: Vec<u32>, header: [u32; 4]) {
            let [a, b, c, d] = header;
            let whole = file(&[&words], b"\0a\0");
            let mut claimed = whole.clone();
            for (at, word) in [4, 8, 12, 16].into_iter().zip([a % 64, b % 64, c, d % 256]) {
                claimed[at..at + 4].copy_from_slice(&word.to_ne_bytes());
            }
            for bytes in [bytes, whole, claimed] {
                if let Ok(types) = Types::parse(bytes) {
                    let _ = (types.bit_offset("a", "a"), types.function("a"));
                }
            }
        }
    }
}
