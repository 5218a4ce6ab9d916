// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What it takes of memory to start, where a limit withholds it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use limiter_lab::command::Outcome;
use limiter_lab::{Lab, Limiter, Sink, V4, skip, sockets};

/// A cgroup whose memory is limited, in whichever tree has that here.
struct Limited {
    path: PathBuf,
    usage: &'static str,
}

impl Limited {
    /// None where neither tree can limit memory.
    fn new(name: &str, mib: u64) -> Option<Self> {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let v2 = limiter_lab::cgroup::root().unwrap();
        let controllers = fs::read_to_string(v2.join("cgroup.subtree_control")).unwrap_or_default();
        let (path, limit, usage) = if v1.join("memory.limit_in_bytes").exists() {
            (v1.join(name), "memory.limit_in_bytes", "memory.max_usage_in_bytes")
        } else if controllers.split_whitespace().any(|name| name == "memory") {
            (v2.join(name), "memory.max", "memory.peak")
        } else {
            skip("no tree of cgroups limits memory here");
            return None;
        };
        fs::create_dir(&path).expect("a cgroup");
        fs::write(path.join(limit), (mib << 20).to_string()).expect("it can be limited");
        Some(Self { path, usage })
    }

    /// What replaces itself by the words behind it, inside.
    fn wrapper(&self) -> [String; 3] {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", self.path.display());
        ["sh".to_owned(), "-c".to_owned(), enter]
    }

    /// The most that was taken, in MiB; not where the kernel does not tell (`memory.peak`: Linux 5.19).
    fn peak_mib(&self) -> Option<u64> {
        let bytes: u64 = fs::read_to_string(self.path.join(self.usage)).ok()?.trim().parse().ok()?;
        Some(bytes >> 20)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // A process that has just ended may still be in it; one that is left behind is swept by its name.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Starts, takes over and limits with so much memory, and says nothing of it.
fn starts_with(mib: u64, config: &str) {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let Some(cgroup) = Limited::new(&format!("{}-memory", lab.name), mib) else { return };
    let _sink = Sink::start(&lab, 25);
    let wrapper = cgroup.wrapper();
    let config = format!("{config}[defaults]\nmax_connections = 1\n");
    let mut limiter = Limiter::start_by(&lab, &config, &wrapper.each_ref().map(String::as_str));
    let held = lab.served(V4.source(), V4.port(25));
    sockets::agree(&lab.host, &limiter, ("smtp", 25), V4.source(), 1);
    // And taking over, with the maps there already.
    limiter.stop();
    limiter.run();
    sockets::agree(&lab.host, &limiter, ("smtp", 25), V4.source(), 1);
    assert!(!limiter.log().contains("MemoryMax="), "{}", limiter.log());
    eprintln!("peak: {:?} MiB", cgroup.peak_mib());
    drop(held);
    drop(limiter);
}

#[test]
fn it_starts_and_limits_with_60_mib_of_memory() {
    starts_with(60, "");
}

#[test]
fn it_starts_and_limits_with_50_mib_where_fewer_sources_are_to_be_known() {
    starts_with(50, "max_sources = 65536\n");
}

#[test]
fn a_limit_of_memory_is_told_from_max_sources_and_nothing_is_left_behind() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let Some(cgroup) = Limited::new(&format!("{}-memory", lab.name), 100) else { return };
    let config = tempfile::NamedTempFile::new().unwrap();
    fs::write(config.path(), "max_sources = 16777216\n").unwrap();
    let [shell, option, enter] = cgroup.wrapper();
    let mut command = Command::new(shell);
    command.args([&option, &enter, crate::BINARY, "--instance", &lab.name, "run", "--netns"]);
    command.arg(lab.host.path()).arg("--config").arg(config.path());
    let outcome = Outcome::of(command);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let said = format!(
        "{}-memory is 100 MiB: raise the memory limit (MemoryMax= of the unit), or lower max_sources",
        lab.name
    );
    assert!(
        outcome.stderr.contains("not enough memory for the kernel maps") && outcome.stderr.contains(&said),
        "{outcome:?}"
    );
    let pins = PathBuf::from("/sys/fs/bpf").join(&lab.name);
    assert!(!pins.exists(), "nothing is in force");
    let limiter = Limiter::start(&lab, 5, "reply");
    assert!(!Path::new(&format!("{}+new", pins.display())).exists());
    drop(limiter);
}
