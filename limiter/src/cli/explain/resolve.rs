// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The addresses of a name, from the system's resolver, which may keep one waiting for a minute.

use std::{
    net::{IpAddr, ToSocketAddrs as _},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Result, bail};

/// So long it has.
const PATIENCE: Duration = Duration::from_secs(5);
/// More addresses of a name are not looked at.
const MOST: usize = 8;

/// The addresses of a name, each once, in the order in which the resolver has them.
///
/// # Errors
/// When there are none, or the resolver does not answer in time.
pub fn addresses(name: &str) -> Result<Vec<IpAddr>> {
    let (sender, receiver) = mpsc::channel();
    let asked = name.to_owned();
    // A thread that is not waited for: it ends with the resolver, or with this process.
    thread::spawn(move || {
        let found = (asked.as_str(), 0).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        let _nobody_waits_any_more = sender.send(found);
    });
    let found = match receiver.recv_timeout(PATIENCE) {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => bail!("{name} has no address ({error}): check the name, or give an address"),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => bail!(
            "the resolver did not answer for {name} within {} s: give an address, or try again",
            PATIENCE.as_secs()
        ),
    };
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.into_iter().map(|found| found.ip().to_canonical()) {
        if !addresses.contains(&address) && addresses.len() < MOST {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_addresses_and_one_that_is_none_is_said_to_have_none() {
        assert!(addresses("localhost").unwrap().iter().all(IpAddr::is_loopback));
        let said = addresses("no-such-name.invalid").unwrap_err().to_string();
        assert!(said.contains("no-such-name.invalid"), "{said}");
    }
}
