// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Releases of Debian's kernels, as `uname -r` says them: which ones there are to choose from, and which is
//! the newest.

/// The build for virtual machines: small, and with all that concerns us as in the others.
const FLAVOUR: &str = "-cloud-amd64";

/// Whether this is one release of the flavour: not a package that stands for the newest of a series.
pub fn is_release(name: &str) -> bool {
    name.strip_suffix(FLAVOUR).is_some_and(|version| numbers(version).len() > 2)
}

/// The newest release that is `wanted`, or begins with it.
pub fn newest_of(releases: impl IntoIterator<Item = String>, wanted: &str) -> Option<String> {
    let wanted = |release: &String| {
        let rest = release.strip_prefix(wanted);
        is_release(release) && rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
    };
    releases.into_iter().filter(wanted).max_by_key(|release| numbers(release))
}

/// The numbers in a release, in whose order releases come.
pub fn numbers(release: &str) -> Vec<u64> {
    let version = release.strip_suffix(FLAVOUR).unwrap_or(release);
    version.split(|other: char| !other.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series_is_found_by_its_numbers() {
        let names = [
            "6.1.0-9-cloud-amd64",
            "6.1.0-56-cloud-amd64",
            "6.12-cloud-amd64",
            "6.12.9+bpo-cloud-amd64",
            "6.12.117+deb12-cloud-amd64",
            "6.12.117+deb12-cloud-amd64-unsigned",
            "6.12.200+deb12-amd64",
            "7.3.4+deb13-cloud-amd64",
            "7.3.4+deb13-rt-amd64",
        ];
        let newest = |wanted| newest_of(names.map(str::to_owned), wanted);
        assert_eq!(newest("6.1").as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(newest("6.12").as_deref(), Some("6.12.117+deb12-cloud-amd64"));
        assert_eq!(newest("6.12.9").as_deref(), Some("6.12.9+bpo-cloud-amd64"));
        assert_eq!(newest("6.1.0-9").as_deref(), Some("6.1.0-9-cloud-amd64"));
        assert_eq!(newest("7.3").as_deref(), Some("7.3.4+deb13-cloud-amd64"));
        assert_eq!(newest("5"), None);
    }
}
