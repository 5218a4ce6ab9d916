// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The clients, and how each is made to read or to send.

use super::case::{Case, Way};

const SUBMISSION: u16 = 587;
const IMAP: u16 = 143;
const POP3: u16 = 110;

/// All of them.
pub fn all() -> Vec<Case> {
    [Way::Plain, Way::StartTls]
        .into_iter()
        .flat_map(|way| [smtp(way), imap(way), pop3(way)].into_iter().flatten())
        .collect()
}

/// Of a program that takes all it has to know from its command line.
fn case(client: &'static str, port: u16, way: Way, line: &str) -> Case {
    let (files, line) = (Vec::new(), line.to_owned());
    Case { client, port, way, files, line, draws: false, only: &[], without: &[] }
}

/// Of a program with a file.
fn with_file(case: Case, name: &'static str, text: String) -> Case {
    Case { files: vec![(name, text)], ..case }
}

/// One of two words, by whether it asks for TLS.
fn by(way: Way, starttls: &'static str, plain: &'static str) -> &'static str {
    if way == Way::StartTls { starttls } else { plain }
}

fn smtp(way: Way) -> Vec<Case> {
    let of = |client, port, line: &str| case(client, port, way, line);
    let swaks = format!(
        "swaks --server {{host}} --port {{port}} --from a@example.org --to b@example.net --timeout 10 {}",
        by(way, "--tls", "")
    );
    let curl = format!(
        "curl -sS --max-time 20 smtp://{{host}}:{{port}} --mail-from a@example.org --mail-rcpt b@example.net \
         -T {{dir}}/message {}",
        by(way, "--ssl-reqd", "")
    );
    let msmtp = format!(
        "account default\nhost {{host}}\nport {{port}}\nfrom a@example.org\ntls {}\n",
        by(way, "on\ntls_certcheck off", "off")
    );
    let mut cases = vec![
        Case { without: &["=== "], ..of("swaks", 25, &swaks) },
        Case { without: &["=== "], ..of("swaks", SUBMISSION, &swaks) },
        with_file(of("curl", SUBMISSION, &curl), "message", "Subject: x\n\nx\n".to_owned()),
        Case {
            files: vec![("msmtprc", msmtp), ("message", "Subject: x\n\nx\n".to_owned())],
            ..of("msmtp", SUBMISSION, "msmtp -C {dir}/msmtprc b@example.net < {dir}/message")
        },
    ];
    cases.extend(match way {
        Way::Plain => python(SUBMISSION, way, "import smtplib; smtplib.SMTP('{host}', {port}, timeout=10)"),
        Way::StartTls => {
            python(SUBMISSION, way, "import smtplib; smtplib.SMTP('{host}', {port}, timeout=10).starttls()")
        }
    });
    cases.extend(openssl(SUBMISSION, way, "smtp"));
    cases
}

fn imap(way: Way) -> Vec<Case> {
    let of = |client, line: &str| case(client, IMAP, way, line);
    let curl =
        format!("curl -sS --max-time 20 imap://{{host}}:{{port}}/INBOX -u u:p {}", by(way, "--ssl-reqd", ""));
    let isync = format!(
        "IMAPAccount a\nHost {{host}}\nPort {{port}}\nUser u\nPass p\nSSLType {}\nAuthMechs LOGIN\n\nIMAPStore r\n\
         Account a\n\nMaildirStore l\nPath {{dir}}/\nInbox {{dir}}/INBOX\n\nChannel c\nFar :r:\nNear :l:\n\
         Patterns INBOX\nCreate Near\n",
        by(way, "STARTTLS", "None")
    );
    let offlineimap = format!(
        "[general]\naccounts = a\nui = basic\n[Account a]\nlocalrepository = l\nremoterepository = r\n\
         [Repository l]\ntype = Maildir\nlocalfolders = {{dir}}/mail\n[Repository r]\ntype = IMAP\n\
         remotehost = {{host}}\nremoteport = {{port}}\nremoteuser = u\nremotepass = p\nssl = no\nstarttls = {}\n\
         sslcacertfile = /etc/ssl/certs/ca-certificates.crt\n",
        by(way, "yes", "no")
    );
    let mut cases = vec![
        of("curl", &curl),
        with_file(of("isync", "mbsync -c {dir}/mbsyncrc c"), "mbsyncrc", isync),
        fetchmail(IMAP, way, "IMAP"),
        Case {
            only: &["unrecognised", "ERROR: Exceptions"],
            without: &["raise "],
            ..with_file(
                of("offlineimap3", "offlineimap -c {dir}/offlineimaprc -o -1"),
                "offlineimaprc",
                offlineimap,
            )
        },
        neomutt(IMAP, way, "imap://u@{host}:{port}/INBOX"),
        alpine(IMAP, way, "imap"),
    ];
    cases.extend(match way {
        Way::Plain => [getmail(IMAP, "SimpleIMAPRetriever")]
            .into_iter()
            .chain(python(IMAP, way, "import imaplib; imaplib.IMAP4('{host}', {port}, timeout=10)"))
            .collect::<Vec<_>>(),
        Way::StartTls => {
            python(IMAP, way, "import imaplib; imaplib.IMAP4('{host}', {port}, timeout=10).starttls()")
        }
    });
    cases.extend(openssl(IMAP, way, "imap"));
    cases
}

fn pop3(way: Way) -> Vec<Case> {
    let of = |client, line: &str| case(client, POP3, way, line);
    let curl =
        format!("curl -sS --max-time 20 pop3://{{host}}:{{port}}/ -u u:p {}", by(way, "--ssl-reqd", ""));
    let mpop = format!(
        "account default\nhost {{host}}\nport {{port}}\nuser u\npassword p\ndelivery mbox {{dir}}/mbox\ntls {}\n",
        by(way, "on\ntls_certcheck off", "off\nauth user")
    );
    let mut cases = vec![
        of("curl", &curl),
        fetchmail(POP3, way, "POP3"),
        with_file(of("mpop", "mpop -C {dir}/mpoprc"), "mpoprc", mpop),
        neomutt(POP3, way, "pop://u@{host}:{port}/"),
        alpine(POP3, way, "pop3"),
    ];
    cases.extend(match way {
        Way::Plain => [getmail(POP3, "SimplePOP3Retriever")]
            .into_iter()
            .chain(python(POP3, way, "import poplib; poplib.POP3('{host}', {port}, timeout=10)"))
            .collect::<Vec<_>>(),
        Way::StartTls => python(POP3, way, "import poplib; poplib.POP3('{host}', {port}, timeout=10).stls()"),
    });
    cases.extend(openssl(POP3, way, "pop3"));
    cases
}

fn fetchmail(port: u16, way: Way, protocol: &str) -> Case {
    let file = format!(
        "poll {{host}} protocol {protocol} port {{port}} user \"u\" password \"p\" sslproto '{}' no sslcertck mda \
         \"/bin/true\"\n",
        by(way, "TLS1.2+", "")
    );
    let line = "fetchmail --nodetach --nosyslog -f {dir}/fetchmailrc --pidfile {dir}/pid";
    Case {
        without: &["WARNING: Running as root"],
        ..with_file(case("fetchmail", port, way, line), "fetchmailrc", file)
    }
}

fn getmail(port: u16, kind: &str) -> Case {
    let file = format!(
        "[retriever]\ntype = {kind}\nserver = {{host}}\nport = {{port}}\nusername = u\npassword = p\n[destination]\n\
         type = MDA_external\npath = /bin/true\n"
    );
    Case {
        only: &["operation error"],
        ..with_file(
            case("getmail6", port, Way::Plain, "getmail --getmaildir {dir} --rcfile getmailrc"),
            "getmailrc",
            file,
        )
    }
}

fn neomutt(port: u16, way: Way, mailbox: &str) -> Case {
    let file = format!(
        "set ssl_starttls={0}\nset ssl_force_tls={0}\nset imap_user=u\nset imap_pass=p\nset pop_user=u\nset pop_pass=p\n\
         set folder={{dir}}\nset spoolfile={{dir}}/spool\nset connect_timeout=10\n",
        by(way, "yes", "no")
    );
    let line = format!("stty rows 24 cols 80; timeout -s KILL 6 neomutt -F {{dir}}/muttrc -f {mailbox}");
    let case = case("neomutt", port, way, &line);
    Case {
        files: vec![("muttrc", file), ("spool", String::new())],
        draws: true,
        only: &["[UNAVAILABLE]", "[SYS/", "Unable", "nable to"],
        ..case
    }
}

fn alpine(port: u16, way: Way, protocol: &str) -> Case {
    let file = "personal-name=x\nuser-id=u\nuser-domain=example.org\nlast-version-used=9.99\n\
                feature-list=disable-password-caching,quell-user-lookup-in-passwd-file\n";
    let line = format!(
        "stty rows 24 cols 80; timeout -s KILL 8 alpine -p {{dir}}/pinerc -i \
         -inbox-path='{{{{host}}:{{port}}/{protocol}/user=u{}/novalidate-cert}}INBOX'",
        by(way, "/tls", "/notls")
    );
    let case = with_file(case("alpine", port, way, &line), "pinerc", file.to_owned());
    Case { draws: true, only: &["[[", "[Unexpected", "[Connection", "[Can't"], ..case }
}

/// What its users see is the last line of a trace.
fn python(port: u16, way: Way, program: &str) -> Vec<Case> {
    let line = format!("python3 -c \"{program}\"");
    vec![Case {
        without: &["Traceback", "File \"", "^^^", "self.", "raise ", "(code,", "return "],
        ..case("Python", port, way, &line)
    }]
}

fn openssl(port: u16, way: Way, protocol: &str) -> Option<Case> {
    // Its errors begin with the address of its thread.
    let line = format!(
        "openssl s_client -connect {{host}}:{{port}} -starttls {protocol} < /dev/null > {{dir}}/out 2>&1; code=$?; \
         sed 's/^[0-9A-F]*:error/error/' {{dir}}/out; exit $code"
    );
    let only = &["CONNECTED", "error:", "Didn't find", "no peer certificate"];
    (way == Way::StartTls).then(|| Case { only, ..case("openssl s_client", port, way, &line) })
}
