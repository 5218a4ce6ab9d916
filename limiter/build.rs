// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Takes the kernel programs, which `cargo xtask build` made, to where the binary includes them from.

use std::{env, fs, path::PathBuf};

/// Names the kernel programs for a build that keeps them elsewhere.
const OBJECT: &str = "LIMITER_BPF_OBJECT";

/// Where `cargo xtask build` leaves them, from this crate.
const OBJECT_PATH: &str = "../target/bpf/limiter.bpf.o";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT}");
    let object = env::var_os(OBJECT).map_or_else(|| PathBuf::from(OBJECT_PATH), PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    let Some(out) = env::var_os("OUT_DIR") else {
        println!("cargo::error=OUT_DIR is not set; cargo sets it for a build script");
        return;
    };
    if let Err(error) = fs::copy(&object, PathBuf::from(out).join("limiter.bpf.o")) {
        println!(
            "cargo::error=the kernel programs are not built, run `cargo xtask build` ({}: {error})",
            object.display()
        );
    }
}
