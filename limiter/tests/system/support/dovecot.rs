// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Dovecot on ports 143, 110 and 4190 of a lab's mail host, apart from any Dovecot of the machine.

use std::path::Path;

use super::mail_daemon::{Files, MailDaemon};
use limiter_lab::{Lab, cgroup::Cgroup};

/// Everyone may log in with the password `secret`. Its own limit is so high that it never refuses.
const CONFIG: &str = "
instance_name = {dir}
base_dir = {dir}/run
state_dir = {dir}/run
log_path = {dir}/log
protocols = imap pop3 sieve
listen = *, ::
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
mail_max_userip_connections = 10000
mail_location = maildir:~/mail
first_valid_uid = 1
first_valid_gid = 1
passdb {
  driver = static
  args = password=secret
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home={dir}/home/%u
}
service imap-login {
  service_count = 0
  inet_listener imaps {
    port = 0
  }
}
service pop3-login {
  service_count = 0
  inet_listener pop3s {
    port = 0
  }
}
service managesieve-login {
  service_count = 0
}
";

/// Starts it, and waits until it listens on both families.
pub fn start(lab: &Lab) -> MailDaemon {
    start_with(lab, "")
}

/// The same with these lines behind all others.
pub fn start_with(lab: &Lab, more: &str) -> MailDaemon {
    let files = Files::new();
    files.dir("home");
    files.give("home", "nobody");
    files.write("dovecot.conf", &format!("{CONFIG}{more}"));
    let mut command = lab.host.command("dovecot");
    command.args(["-F", "-c"]).arg(files.path("dovecot.conf"));
    MailDaemon::start(lab, "Dovecot", files, command, &[110, 143, 4190])
}

/// Inside TLS alone, at these ports, with `certificate.pem` and `key.pem` of a directory; in a cgroup. One user may have one
/// connection from an address. One process has all who have not logged in yet.
pub fn start_with_tls(lab: &Lab, group: &Cgroup, keys: &Path, ports: [u16; 2]) -> MailDaemon {
    let files = Files::new();
    files.dir("home");
    files.give("home", "nobody");
    let [one, other] = ports;
    let keys = keys.display();
    // What comes later counts.
    let tls = format!(
        "protocols = imap\nssl = required\nssl_cert = <{keys}/certificate.pem\nssl_key = <{keys}/key.pem\n\
         mail_max_userip_connections = 1\n\
         service imap-login {{\n  process_limit = 1\n  inet_listener imap {{\n    port = 0\n  }}\n\
         inet_listener imaps {{\n    port = {one}\n    ssl = yes\n  }}\n\
         inet_listener other {{\n    port = {other}\n    ssl = yes\n  }}\n}}\n"
    );
    files.write("dovecot.conf", &format!("{CONFIG}{tls}"));
    let mut command = group.command(&lab.host, "dovecot");
    command.args(["-F", "-c"]).arg(files.path("dovecot.conf"));
    MailDaemon::start(lab, "Dovecot", files, command, &ports)
}
