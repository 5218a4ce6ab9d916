//! Checks the kernel programs for an atomic add that became a plain one.
//!
//! LLVM's BPF backend miscompiles a relaxed atomic add whose result is used: it selects the instruction
//! that returns nothing, `lock *(u64 *)(r1 + 0x0) += r2`, and goes on with `r2`, which holds the addend, as
//! if it were the old value. The right instruction is `r2 = atomic_fetch_add((u64 *)(r1 + 0x0), r2)`.
//!
//! So wherever the register of a plain atomic step may be read afterwards, on any path, the step is taken
//! for miscompiled. A compiler that merely kept the addend for later looks the same; then, too, the cure is
//! `SeqCst`, which is never compiled to the plain instruction.

use std::collections::{BTreeMap, BTreeSet};

/// The register of what a function returns.
const RESULT: Register = Register(0);

/// The registers of the arguments of a call.
const ARGUMENTS: [Register; 5] = [Register(1), Register(2), Register(3), Register(4), Register(5)];

/// r0 to r10; w0 to w10 are their lower halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Register(u8);

/// What was found in a listing.
#[derive(Debug, Default)]
pub struct Report {
    /// Atomic adds that return the old value.
    pub fetch_adds: usize,
    /// Atomic compare-and-exchange steps.
    pub compare_exchanges: usize,
    /// Plain atomic steps that were likely to return something.
    pub miscompiled: Vec<Miscompiled>,
}

/// A plain atomic step whose register is read afterwards.
#[derive(Debug, PartialEq, Eq)]
pub struct Miscompiled {
    /// The function it is in.
    pub function: String,
    /// The step, as listed.
    pub step: String,
    /// The instruction that takes the addend for the old value, as listed.
    pub reader: String,
}

/// Reads a listing of `llvm-objdump -d --no-show-raw-insn`.
pub fn check(listing: &str) -> Report {
    let mut report = Report::default();
    for function in functions(listing) {
        for (&at, instruction) in &function.instructions {
            report.fetch_adds += usize::from(instruction.text.contains("= atomic_fetch_add("));
            report.compare_exchanges += usize::from(instruction.text.contains("= cmpxchg"));
            if let Some(register) = instruction.plain_atomic()
                && let Some(reader) = function.first_reader(at + 1, register)
            {
                report.miscompiled.push(Miscompiled {
                    function: function.name.clone(),
                    step: format!("{at}: {}", instruction.text),
                    reader: format!("{reader}: {}", function.instructions[&reader].text),
                });
            }
        }
    }
    report
}

/// Instructions of one function by their place in the section: a 64-bit constant takes two.
struct Function {
    name: String,
    instructions: BTreeMap<usize, Instruction>,
}

impl Function {
    /// The first instruction, on any path from here, that may read the register before it is overwritten.
    fn first_reader(&self, from: usize, register: Register) -> Option<usize> {
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

/// One instruction, as listed, without names of places.
struct Instruction {
    text: String,
}

impl Instruction {
    /// The register of an atomic step that returns nothing: `lock *(u64 *)(r1 + 0x0) += r2`.
    fn plain_atomic(&self) -> Option<Register> {
        let step = self.text.strip_prefix("lock ")?;
        registers(step.rsplit_once("= ")?.1).next()
    }

    /// What is assigned, and from what: not for `+=` and its like, which read what they assign.
    fn assignment(&self) -> Option<(Register, &str)> {
        let (target, value) = self.text.split_once(" = ")?;
        Some((register(target)?, value))
    }

    fn is_call(&self) -> bool {
        self.text.starts_with("call")
    }

    fn is_exit(&self) -> bool {
        self.text == "exit"
    }

    /// Whether it may read the register. What is not known is taken to read all that it names.
    fn reads(&self, register: Register) -> bool {
        let read = self.assignment().map_or(self.text.as_str(), |(_, value)| value);
        let implied =
            (self.is_exit() && register == RESULT) || (self.is_call() && ARGUMENTS.contains(&register));
        implied || registers(read).any(|read| read == register)
    }

    /// Whether the register certainly holds something else afterwards.
    fn overwrites(&self, register: Register) -> bool {
        let clobbered = self.is_call() && (register == RESULT || ARGUMENTS.contains(&register));
        clobbered || self.assignment().is_some_and(|(target, _)| target == register)
    }

    fn falls_through(&self) -> bool {
        !self.is_exit() && !self.text.starts_with("goto")
    }

    /// Where it may jump to, from its own place: `if r1 > 0x7 goto +0x2`.
    fn jump(&self, at: usize) -> Option<usize> {
        let (_, distance) = self.text.split_once("goto")?;
        let (_, distance) = distance.split_once(' ')?;
        let (sign, distance) = distance.split_at_checked(1)?;
        let distance = usize::from_str_radix(distance.trim().strip_prefix("0x")?, 16).ok()?;
        match sign {
            "+" => Some(at + 1 + distance),
            "-" => (at + 1).checked_sub(distance),
            _ => None,
        }
    }
}

/// The functions of a listing: `0000000000000000 <gate>:`, then a line an instruction.
fn functions(listing: &str) -> Vec<Function> {
    let mut functions: Vec<Function> = Vec::new();
    for line in listing.lines() {
        if let Some(name) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
            functions.push(Function { name: name.1.to_owned(), instructions: BTreeMap::new() });
        } else if let Some((at, text)) = line.split_once(':')
            && let Ok(at) = at.trim().parse()
            && let Some(function) = functions.last_mut()
        {
            let text = text.split(" <").next().unwrap_or_default().trim().to_owned();
            function.instructions.insert(at, Instruction { text });
        }
    }
    functions
}

/// A register, if that is all there is.
fn register(word: &str) -> Option<Register> {
    let number = word.strip_prefix(['r', 'w'])?.parse().ok()?;
    (number <= 10).then_some(Register(number))
}

/// The registers that are named.
fn registers(text: &str) -> impl Iterator<Item = Register> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter_map(register)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
        process::Command,
    };

    use super::*;
    use crate::{command, packages, paths};

    /// What rustc 1.95 with LLVM 22 made of a relaxed `atomic_xadd(p, 1)` that is returned.
    const RETURNED: &str = "
Disassembly of section cgroup_skb/ingress:

0000000000000000 <relaxed>:
       0:	r0 = 0x1
       1:	lock *(u64 *)(r1 + 0x0) += r0
       2:	exit
";

    /// The same, compared.
    const COMPARED: &str = "
0000000000000000 <relaxed_cmp>:
       0:	r2 = 0x1
       1:	lock *(u64 *)(r1 + 0x0) += r2
       2:	r0 = 0x7
       3:	if r2 > 0x7 goto +0x1 <relaxed_cmp+0x28>
       4:	r0 = *(u64 *)(r1 + 0x18)
       5:	exit
";

    /// `SeqCst`, returned.
    const RIGHT: &str = "
0000000000000000 <good>:
       0:	r0 = 0x1
       1:	r0 = atomic_fetch_add((u64 *)(r1 + 0x0), r0)
       2:	exit
";

    /// Results that nobody uses, of a sequentially consistent and two relaxed adds.
    const UNUSED: &str = "
0000000000000000 <unused>:
       0:	r3 = 0x1
       1:	r3 = atomic_fetch_add((u64 *)(r1 + 0x0), r3)
       2:	r3 = 0x1
       3:	lock *(u64 *)(r1 + 0x8) += r3
       4:	lock *(u64 *)(r1 + 0x10) += r2
       5:	r0 = 0x1
       6:	exit
";

    /// A function of these instructions, after a plain add of `r2`.
    fn after_an_add(instructions: &[&str]) -> String {
        let instructions = ["lock *(u64 *)(r1 + 0x0) += r2"].iter().chain(instructions).enumerate();
        let lines = instructions.map(|(at, text)| format!("{at:8}:\t{text}\n"));
        std::iter::once("0000000000000000 <sample>:\n".to_owned()).chain(lines).collect()
    }

    #[track_caller]
    fn reader_of(listing: &str) -> Option<String> {
        check(listing).miscompiled.pop().map(|found| found.reader)
    }

    #[test]
    fn a_relaxed_add_that_is_returned_is_found() {
        assert_eq!(
            check(RETURNED).miscompiled,
            [Miscompiled {
                function: "relaxed".into(),
                step: "1: lock *(u64 *)(r1 + 0x0) += r0".into(),
                reader: "2: exit".into(),
            }]
        );
    }

    #[test]
    fn a_relaxed_add_that_is_compared_is_found() {
        assert_eq!(reader_of(COMPARED).as_deref(), Some("3: if r2 > 0x7 goto +0x1"));
    }

    #[test]
    fn a_fetch_add_is_right_and_counted() {
        let report = check(RIGHT);
        assert_eq!((report.fetch_adds, report.miscompiled), (1, vec![]));
    }

    #[test]
    fn a_compare_exchange_is_counted() {
        let listing = "0000000000000000 <f>:\n  0:\tr0 = cmpxchg_64(r1 + 0x0, r0, r3)\n  1:\texit\n";
        assert_eq!(check(listing).compare_exchanges, 1);
    }

    #[test]
    fn an_add_whose_result_nobody_uses_may_be_plain() {
        assert_eq!(check(UNUSED).miscompiled, []);
    }

    #[test]
    fn a_register_may_be_overwritten_and_then_read() {
        assert_eq!(reader_of(&after_an_add(&["r2 = 0x7", "r0 = r2", "exit"])), None);
        assert_eq!(reader_of(&after_an_add(&["w2 = *(u32 *)(r1 + 0x8)", "w0 = w2", "exit"])), None);
    }

    #[test]
    fn a_call_overwrites_the_result_and_may_read_the_arguments() {
        assert_eq!(reader_of(&after_an_add(&["call 0x5", "exit"])).as_deref(), Some("1: call 0x5"));
        let add_of_r0 = after_an_add(&["call 0x5", "exit"]).replace("+= r2", "+= r0");
        assert_eq!(reader_of(&add_of_r0), None);
    }

    #[test]
    fn a_store_an_add_and_the_lower_half_are_readers() {
        for reader in ["*(u64 *)(r1 + 0x20) = r2", "r2 += 0x1", "w0 = w2", "*(u8 *)(r2 + 0x0) = 0x1"] {
            assert!(reader_of(&after_an_add(&[reader, "exit"])).is_some(), "{reader}");
        }
    }

    #[test]
    fn both_ways_of_a_branch_are_followed() {
        let listing = after_an_add(&["if r3 == 0x0 goto +0x2 <x>", "r0 = 0x0", "exit", "r0 = r2", "exit"]);
        assert_eq!(reader_of(&listing).as_deref(), Some("4: r0 = r2"));
        let listing = after_an_add(&["if r3 == 0x0 goto +0x2 <x>", "r0 = r2", "exit", "r0 = 0x0", "exit"]);
        assert_eq!(reader_of(&listing).as_deref(), Some("2: r0 = r2"));
    }

    #[test]
    fn a_loop_back_to_a_reader_is_followed_and_ends() {
        let listing = "
0000000000000000 <f>:
       0:	r0 = r2
       1:	r2 = 0x1
       2:	lock *(u64 *)(r1 + 0x0) += r2
       3:	if r0 != 0x0 goto -0x4 <f>
       4:	goto -0x1 <f+0x20>
";
        assert_eq!(reader_of(listing).as_deref(), Some("0: r0 = r2"));
    }

    #[test]
    fn a_jump_over_a_64_bit_constant_lands_where_it_says() {
        let listing = "
0000000000000000 <f>:
       0:	lock *(u64 *)(r1 + 0x0) += r2
       1:	if r3 == 0x0 goto +0x3 <f>
       2:	r4 = 0x0 ll
       4:	r2 = 0x0
       5:	r0 = r2
       6:	exit
";
        assert_eq!(reader_of(listing).as_deref(), Some("5: r0 = r2"));
    }

    /// The newest llvm-objdump: an old one does not know all instructions.
    fn llvm_objdump() -> Option<PathBuf> {
        let folders = fs::read_dir("/usr/lib").ok()?.flatten();
        let version = |path: &Path| path.file_name()?.to_str()?.strip_prefix("llvm-")?.parse::<u32>().ok();
        let versions = folders.filter_map(|folder| {
            let objdump = folder.path().join("bin/llvm-objdump");
            objdump.exists().then_some((version(&folder.path())?, objdump))
        });
        versions.max().map(|(_, objdump)| objdump).or_else(|| packages::program("llvm-objdump"))
    }

    #[test]
    fn the_kernel_programs_have_no_miscompiled_add() {
        let objdump = llvm_objdump().expect("llvm-objdump is there: `cargo xtask test` installs it");
        let mut objdump = Command::new(objdump);
        objdump.args(["-d", "--no-show-raw-insn"]).arg(paths::object());
        let listing = command::output(&mut objdump).expect("the kernel programs are built");
        let report = check(&listing);
        assert_eq!(report.miscompiled, [], "take SeqCst for these");
        assert!(report.fetch_adds > 0, "reservations are fetch-adds; is the listing as this check reads it?");
        assert!(report.compare_exchanges > 0, "places are taken by compare-and-exchange; as above");
    }
}
