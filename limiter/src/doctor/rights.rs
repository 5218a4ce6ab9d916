// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the limiter may do here: as this command, so as a daemon that is started in the same way.

use super::{Context, Outcome};
use crate::kernel::{environment, grace::Grace, privilege};

/// Whether this process may load kernel programs.
pub fn privileges(_: &Context) -> Vec<Outcome> {
    let missing = privilege::check_to_load(false).err().map(|problem| format!("{problem:#}"));
    vec![judge_privileges(nix::unistd::geteuid().is_root(), missing)]
}

fn judge_privileges(is_root: bool, missing: Option<String>) -> Outcome {
    match missing {
        Some(missing) if is_root => Outcome::bad(missing),
        _ if !is_root => {
            Outcome::bad("limiter needs root to load and read its kernel programs: run it with sudo")
                .mended_by("sudo limiter doctor")
        }
        _ => Outcome::good("this process may load kernel programs"),
    }
}

/// Whether the system call works, and waits for programs that run (the limiter needs no membarrier(2) for that).
pub fn bpf(_: &Context) -> Vec<Outcome> {
    vec![judge_bpf(Grace::prepare().map(|_| ()).map_err(|problem| format!("{problem:#}")))]
}

fn judge_bpf(tried: Result<(), String>) -> Outcome {
    match tried {
        Ok(()) => Outcome::good("bpf(2) makes maps, and waits for programs that run"),
        Err(problem) => Outcome::bad(problem),
    }
}

/// Where the limits are pinned.
pub fn bpffs(_: &Context) -> Vec<Outcome> {
    let is_missing = !environment::has_bpffs();
    vec![judge_bpffs(is_missing, environment::pins_warning())]
}

fn judge_bpffs(is_missing: bool, elsewhere: Option<&str>) -> Outcome {
    if is_missing {
        return Outcome::bad(
            "/sys/fs/bpf is not a BPF file system, so limits cannot be pinned (inside `ip netns exec` it is hidden: use \
             --netns instead)",
        )
        .mended_by("mount -t bpf bpf /sys/fs/bpf");
    }
    match elsewhere {
        Some(warning) => Outcome::warning(warning),
        None => Outcome::good("/sys/fs/bpf is the host's BPF file system"),
    }
}

/// The tree of cgroups whose sockets can be limited.
pub fn cgroup(_: &Context) -> Vec<Outcome> {
    let tree = environment::tree().map(|root| root.is_some()).map_err(|problem| format!("{problem:#}"));
    // As of a daemon that was started without --cgroup.
    let part = environment::cgroup_warning(None).map_err(|problem| format!("{problem:#}"));
    vec![judge_cgroup(tree, part)]
}

fn judge_cgroup(tree: Result<bool, String>, part: Result<Option<&str>, String>) -> Outcome {
    match (tree, part) {
        (_, Err(problem)) => Outcome::bad(problem),
        (_, Ok(Some(warning))) => Outcome::warning(warning),
        (Ok(true), Ok(None)) => Outcome::good("the cgroup v2 tree is mounted as a whole"),
        (Ok(false), Ok(None)) => Outcome::note(
            "the cgroup v2 tree is mounted nowhere; limiter mounts it for itself, and cannot tell the cgroups of \
             listeners",
        ),
        (Err(problem), Ok(None)) => Outcome::unknown(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    #[test]
    fn who_is_not_root_is_told_to_be() {
        let said = judge_privileges(false, None);
        assert_eq!((said.grade, said.command.as_deref()), (Grade::Bad, Some("sudo limiter doctor")));
        assert_eq!(judge_privileges(true, Some("lacks CAP_BPF".to_owned())).sentence, "lacks CAP_BPF");
        assert_eq!(judge_privileges(true, None).grade, Grade::Good);
    }

    #[test]
    fn pins_that_would_not_last_are_warned_of() {
        assert_eq!(judge_bpffs(true, None).command.as_deref(), Some("mount -t bpf bpf /sys/fs/bpf"));
        assert_eq!(judge_bpffs(false, Some("a container's")).grade, Grade::Warning);
        assert_eq!(judge_bpffs(false, None).grade, Grade::Good);
    }

    #[test]
    fn a_part_of_the_tree_is_a_warning_and_none_of_it_a_note() {
        assert_eq!(judge_cgroup(Ok(true), Ok(None)).grade, Grade::Good);
        assert_eq!(judge_cgroup(Ok(true), Ok(Some("a part"))).grade, Grade::Warning);
        assert_eq!(judge_cgroup(Ok(false), Ok(None)).grade, Grade::Note);
        assert_eq!(judge_cgroup(Ok(false), Err("none".to_owned())).grade, Grade::Bad);
        assert_eq!(judge_cgroup(Err("unreadable".to_owned()), Ok(None)).grade, Grade::Unknown);
    }

    #[test]
    fn a_system_call_that_fails_is_bad() {
        assert_eq!(judge_bpf(Ok(())).grade, Grade::Good);
        assert_eq!(judge_bpf(Err("a seccomp filter".to_owned())).grade, Grade::Bad);
    }
}
