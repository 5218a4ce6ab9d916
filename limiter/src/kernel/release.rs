// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which kernel runs.

use std::fmt::{self, Display, Formatter};

/// A kernel, as uname(2) names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release(String);

impl Release {
    /// The running kernel's; one that is older than all where it is not known.
    pub fn running() -> Self {
        let uname = nix::sys::utsname::uname();
        Self(uname.map_or_else(|_| String::new(), |uname| uname.release().to_string_lossy().into_owned()))
    }

    /// Whether it is of this version or a later one.
    pub fn is_at_least(&self, version: (u32, u32)) -> bool {
        let numbers = self.0.split(|c: char| !c.is_ascii_digit());
        let mut numbers = numbers.map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= version
    }
}

impl From<&str> for Release {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl Display for Release {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_too_old_by_its_release() {
        let is_at_least = |release: &str| Release::from(release).is_at_least((5, 15));
        assert!(is_at_least("6.18.44-fc-v669") && is_at_least("5.15.0-1-amd64") && is_at_least("10.0"));
        assert!(!is_at_least("5.10.0-30-amd64") && !is_at_least("4.19") && !is_at_least(""));
    }
}
