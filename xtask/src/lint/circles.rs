// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! No files of a crate import each other in a circle.
//!
//! A file imports another one if a path in it leads to an item that is defined there, through whatever re-exports; a
//! parent that only re-exports what its children define is in no circle with them. What is compiled for tests alone does
//! not count.

mod graph;
mod module;
mod paths;

use std::{
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Result, anyhow, bail};

/// Checks the crates whose sources are among these files.
///
/// # Errors
///
/// The shortest circle of each group of files that import each other, or why a source cannot be read.
pub fn check(files: &[PathBuf], root: &Path) -> Result<()> {
    let of_crate = |file: &Path| Ok(graph::circles(&module::Crate::read(file)?.imports(root)));
    // Reading takes most of the time, and no crate needs another.
    let circles: Vec<Result<Vec<String>>> = thread::scope(|scope| {
        let crates = files.iter().filter(|file| is_crate(file));
        let threads: Vec<_> = crates.map(|file| scope.spawn(|| of_crate(file))).collect();
        let failed = |_| Err(anyhow!("the reader of a crate has failed"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(failed)).collect()
    });
    let circles = circles.into_iter().collect::<Result<Vec<_>>>()?.concat();
    if circles.is_empty() {
        return Ok(());
    }
    bail!(
        "files import each other in a circle; move what is shared into a file that imports none of them:\n{}",
        circles.join("\n")
    )
}

/// Whether a crate begins with this file: where cargo looks for one, and in the folders of a workspace.
fn is_crate(file: &Path) -> bool {
    let (name, folder) = (file.file_name(), file.parent().unwrap_or(file));
    let is_root = name.is_some_and(|name| name == "main.rs" || name == "lib.rs");
    let is_in = |folder: Option<&Path>, name: &str| folder.is_some_and(|folder| folder.ends_with(name));
    is_root && (folder.ends_with("src") || is_in(folder.parent(), "tests"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What is said of a crate of these files.
    fn checked(sources: &[(&str, &str)]) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let mut files = Vec::new();
        for (name, text) in sources {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap())?;
            fs::write(&file, text)?;
            files.push(file);
        }
        check(&files, folder.path())
    }

    /// The circles of a crate of these files, a line each.
    fn circles(sources: &[(&str, &str)]) -> Vec<String> {
        match checked(sources) {
            Ok(()) => Vec::new(),
            Err(error) => error.to_string().lines().skip(1).map(str::to_owned).collect(),
        }
    }

    const ROOT: (&str, &str) = ("src/main.rs", "mod a;\nmod b;\n\nfn main() {\n    a::a();\n}\n");

    #[test]
    fn files_that_import_each_other_are_named_with_what_they_import() {
        let a =
            ("src/a.rs", "use crate::b::{b, helper as help};\npub struct A;\npub fn a() { b(); help(); }\n");
        let b = ("src/b.rs", "use std::fmt;\nuse super::a::A;\npub fn b() {}\npub fn helper() {}\n");
        let error = checked(&[ROOT, a, b]).unwrap_err().to_string();
        assert_eq!(
            error,
            "files import each other in a circle; move what is shared into a file that imports none of them:\n\
             src/a.rs -> src/b.rs (b, helper) -> src/a.rs (A)"
        );
        let one_way = ("src/b.rs", "pub fn b() {}\npub fn helper() {}\n");
        checked(&[ROOT, a, one_way]).unwrap();
    }

    #[test]
    fn a_circle_of_three_and_one_of_two_are_one_line_each() {
        let root = ("src/lib.rs", "mod a;\nmod b;\nmod c;\nmod d;\nmod e;\n");
        let a = ("src/a.rs", "use crate::b::B;\npub struct A(B);\n");
        let b = ("src/b.rs", "use crate::c::C;\npub struct B(C);\n");
        let c = ("src/c.rs", "pub struct C(Box<crate::a::A>);\n");
        let d = ("src/d.rs", "use crate::{a::A, e::E};\npub struct D(E, A);\n");
        let e = ("src/e.rs", "pub fn e(_: crate::d::D) {}\npub struct E;\n");
        assert_eq!(
            circles(&[root, a, b, c, d, e]),
            [
                "src/a.rs -> src/b.rs (B) -> src/c.rs (C) -> src/a.rs (A)",
                "src/d.rs -> src/e.rs (E) -> src/d.rs (D)"
            ]
        );
    }

    #[test]
    fn a_circle_is_found_through_what_is_re_exported() {
        let a =
            ("src/a.rs", "pub mod child;\npub use child::*;\nuse crate::b::Other;\npub fn a(_: Other) {}\n");
        let child = ("src/a/child.rs", "pub fn used() { super::a(crate::b::Other) }\n");
        let b = ("src/b.rs", "pub(crate) use self::inner::Inner as Other;\nmod inner;\n");
        let inner = ("src/b/inner.rs", "pub struct Inner;\nimpl Inner { fn f() { crate::a::used() } }\n");
        assert_eq!(
            circles(&[ROOT, a, child, b, inner]),
            ["src/a.rs -> src/b/inner.rs (Inner) -> src/a/child.rs (used) -> src/a.rs (a)"]
        );
    }

    #[test]
    fn a_parent_that_only_re_exports_its_children_is_in_no_circle() {
        let a = ("src/a.rs", "mod one;\nmod two;\npub use {one::One, two::*};\npub const LIMIT: u32 = 8;\n");
        let one = ("src/a/one.rs", "use super::{LIMIT, Two};\npub struct One(Two, [u8; LIMIT]);\n");
        let two = (
            "src/a/two.rs",
            "use super::LIMIT;\npub struct Two;\nfn f() { println!(\"{}\", super::LIMIT) }\n",
        );
        let b = ("src/b.rs", "use crate::a::{self, One};\nfn f() -> (One, u32) { (One::new(), a::LIMIT) }\n");
        assert_eq!(circles(&[ROOT, a, one, two, b]), [""; 0]);
        // One that uses them is.
        let a = ("src/a.rs", "mod one;\npub use one::One;\npub const LIMIT: u32 = 8;\npub fn a(_: One) {}\n");
        let one = ("src/a/one.rs", "pub struct One([u8; super::LIMIT]);\n");
        let b = ("src/b.rs", "");
        assert_eq!(circles(&[ROOT, a, one, b]), ["src/a.rs -> src/a/one.rs (One) -> src/a.rs (LIMIT)"]);
    }

    #[test]
    fn what_a_macro_or_an_attribute_is_given_counts() {
        let a = ("src/a.rs", "pub fn a() { assert!(true, \"{}\", vec![crate::b::LIMIT][0]) }\n");
        let b = ("src/b.rs", "pub const LIMIT: u32 = 8;\n#[arg(value_parser = crate::a::a)]\nstruct B;\n");
        assert_eq!(circles(&[ROOT, a, b]), ["src/a.rs -> src/b.rs (LIMIT) -> src/a.rs (a)"]);
        let a = ("src/a.rs", "macro_rules! known { () => { $crate::b::B } }\npub(crate) use known;\n");
        let b = ("src/b.rs", "pub struct B;\nfn f() { crate::a::known!() }\n");
        assert_eq!(circles(&[ROOT, a, b]), ["src/a.rs -> src/b.rs (B) -> src/a.rs (known)"]);
    }

    #[test]
    fn what_only_tests_import_does_not_count() {
        let tests = "#[cfg(test)]\nuse crate::b::B;\npub fn a() {}\n#[cfg(all(test, unix))]\nmod tests { use crate::b::B; }\n\
                     impl X { #[cfg(test)] fn f() -> B { crate::b::B } }\n#[cfg(test)]\nmod more;\n";
        let more = ("src/a/more.rs", "use crate::b::B;\n");
        let b = ("src/b.rs", "pub struct B;\nfn b() { crate::a::a() }\n");
        assert_eq!(circles(&[ROOT, ("src/a.rs", tests), more, b]), [""; 0]);
        for never in ["any(unix, test)", "not(test)"] {
            let text = format!("#[cfg({never})]\nuse crate::b::B;\npub fn a() {{}}\n");
            assert_eq!(circles(&[ROOT, ("src/a.rs", &text), b]).len(), 1, "{never}");
        }
    }

    #[test]
    fn modules_of_one_file_are_no_circle_and_mod_rs_and_tests_are_read() {
        let a = ("src/a.rs", "pub fn a() { inner::f() }\nmod inner { use super::a; pub fn f() { a() } }\n");
        let b = ("src/b/mod.rs", "mod one;\nmod inner { mod deep; }\nuse one::One;\npub struct B(One);\n");
        let one = ("src/b/one.rs", "pub struct One;\nfn f(_: super::B) {}\n");
        let deep = ("src/b/inner/deep.rs", "use super::super::B;\n");
        assert_eq!(
            circles(&[ROOT, a, b, one, deep]),
            ["src/b/mod.rs -> src/b/one.rs (One) -> src/b/one.rs (B)".replace("one.rs (B)", "mod.rs (B)")]
        );
        let root = ("tests/system/main.rs", "mod one;\nmod two;\n");
        let one = ("tests/system/one.rs", "#[test]\nfn t() { crate::two::two() }\npub fn one() {}\n");
        let two = ("tests/system/two.rs", "pub fn two() { crate::one::one() }\n");
        assert_eq!(
            circles(&[root, one, two]),
            ["tests/system/one.rs -> tests/system/two.rs (two) -> tests/system/one.rs (one)"]
        );
    }

    #[test]
    fn a_source_that_cannot_be_read_is_named() {
        let error = format!("{:#}", checked(&[("src/lib.rs", "mod gone;\n")]).unwrap_err());
        assert!(error.contains("src/gone.rs"), "{error}");
        let error = format!("{:#}", checked(&[("src/lib.rs", "fn f( {}\n")]).unwrap_err());
        assert!(error.contains("src/lib.rs"), "{error}");
    }
}
