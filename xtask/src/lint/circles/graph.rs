// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which files import which, and the circles among them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The files that each file imports, with the names of what it imports.
pub type Imports = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// The shortest circle through the first file of each group of files that reach each other.
pub fn circles(imports: &Imports) -> Vec<String> {
    let mut told: BTreeSet<&str> = BTreeSet::new();
    let mut circles = Vec::new();
    for file in imports.keys() {
        if told.contains(file.as_str()) {
            continue;
        }
        let Some(shortest) = shortest(imports, file) else { continue };
        let ahead = reached(imports, file);
        told.extend(ahead.into_iter().filter(|other| reached(imports, other).contains(file.as_str())));
        circles.push(line(imports, &shortest));
    }
    circles
}

/// Every file that one imports, directly or by others.
fn reached<'a>(imports: &'a Imports, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut left = vec![from];
    while let Some(file) = left.pop() {
        for next in imports.get(file).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(next.as_str()) {
                left.push(next);
            }
        }
    }
    reached
}

/// The shortest way from a file back to itself, which is at both ends of it.
fn shortest<'a>(imports: &'a Imports, start: &'a str) -> Option<Vec<&'a str>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut left = VecDeque::from([start]);
    while let Some(file) = left.pop_front() {
        for next in imports.get(file)?.keys().map(String::as_str) {
            if next == start {
                let mut circle = vec![start, file];
                while let Some(before) = came_from.get(circle[circle.len() - 1]) {
                    circle.push(before);
                }
                circle.reverse();
                return Some(circle);
            }
            if !came_from.contains_key(next) {
                came_from.insert(next, file);
                left.push_back(next);
            }
        }
    }
    None
}

/// Each file with what the one before it imports of it.
fn line(imports: &Imports, circle: &[&str]) -> String {
    let others = circle.windows(2).map(|pair| {
        let items = imports[pair[0]][pair[1]].iter().map(String::as_str).collect::<Vec<_>>();
        format!(" -> {} ({})", pair[1], items.join(", "))
    });
    circle.first().map(|&file| file.to_owned()).into_iter().chain(others).collect()
}
