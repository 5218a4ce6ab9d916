// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `--force`: what is seldom meant takes it. Who is logged in from where is found out here, where the command was typed.

use std::{env, fs, net::IpAddr, os::unix::ffi::OsStrExt as _};

use anyhow::Result;

use super::exit::WrongUsage;
use crate::policy::Caution;

#[derive(clap::Args)]
pub struct Force {
    /// Do it even for this host, for most of the Internet, or for the address you are logged in from
    #[arg(long)]
    force: bool,
}

impl Force {
    /// Refuses what is seldom meant, unless it is.
    ///
    /// # Errors
    /// With what it would do, and how to do it all the same.
    pub fn allows(&self, caution: Option<Caution>) -> Result<()> {
        match caution {
            Some(caution) if !self.force => {
                Err(WrongUsage(format!("{}; use --force to do it anyway", sentence(caution))).into())
            }
            _ => Ok(()),
        }
    }
}

fn sentence(caution: Caution) -> String {
    match caution {
        Caution::Wide(network) => {
            format!("{network} covers much of the Internet: no client in it could connect to a mail port")
        }
        Caution::Local(network) => format!(
            "{network} is a local address of this host: programs on it, such as webmail, could no longer connect to a mail port"
        ),
        Caution::Login(address) => {
            format!("you are logged in from {address}, which could no longer connect to a mail port")
        }
    }
}

/// The address that whoever types this is logged in from by SSH. sudo and su take the variable away, so it is looked for
/// in what the processes above this one were started with.
pub fn login() -> Option<IpAddr> {
    let mine = ["SSH_CONNECTION", "SSH_CLIENT"].iter().find_map(|name| client(env::var_os(name)?.as_bytes()));
    mine.or_else(|| {
        let mut pid = std::process::id();
        // Deeper than any shell is nested; a ring cannot be, but a process may have ended meanwhile.
        for _ in 0..64 {
            pid = parent(pid).filter(|&pid| pid > 1)?;
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let mut variables = environment.split(|&byte| byte == 0);
            let found = variables.find_map(|variable| {
                let value = variable.strip_prefix(b"SSH_CONNECTION=");
                client(value.or_else(|| variable.strip_prefix(b"SSH_CLIENT="))?)
            });
            if found.is_some() {
                return found;
            }
        }
        None
    })
}

/// The first word of `SSH_CONNECTION` and `SSH_CLIENT` (ssh(1)), without the link of a link-local address.
fn client(value: &[u8]) -> Option<IpAddr> {
    let word = std::str::from_utf8(value).ok()?.split_ascii_whitespace().next()?;
    let address: IpAddr = word.split('%').next()?.parse().ok()?;
    Some(address.to_canonical())
}

/// The process above (`/proc/PID/stat`, proc(5)); the name in brackets may hold anything.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caution_says_who_could_no_longer_connect() {
        let said = |caution: Caution| sentence(caution);
        let network = "192.0.2.1/32".parse().unwrap();
        assert!(said(Caution::Wide(network)).contains("192.0.2.1/32 covers much of the Internet"));
        assert!(said(Caution::Local(network)).contains("192.0.2.1/32 is a local address of this host"));
        let login = Caution::Login("198.51.100.7".parse().unwrap());
        assert!(said(login).contains("logged in from 198.51.100.7"));
    }

    #[test]
    fn the_address_of_a_login_is_the_first_word() {
        assert_eq!(client(b"198.51.100.7 50022 192.0.2.1 22"), "198.51.100.7".parse().ok());
        assert_eq!(client(b"fe80::7%eth0 50022 22"), "fe80::7".parse().ok());
        assert_eq!(client(b"::ffff:198.51.100.7 50022 22"), "198.51.100.7".parse().ok());
        for wrong in [&b""[..], b"UNKNOWN 65535 22", b"\xff"] {
            assert_eq!(client(wrong), None);
        }
    }

    #[test]
    fn every_process_has_one_above_it() {
        let above = parent(std::process::id());
        assert_eq!(above, u32::try_from(nix::unistd::getppid().as_raw()).ok());
    }
}
