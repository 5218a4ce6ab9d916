// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The clients, and how each is made to read or to send.

use super::case::{Case, Way};

/// A protocol, the word for it in most programs, and its ports: the second one for implicit TLS.
struct Protocol {
    word: &'static str,
    plain: u16,
    tls: u16,
}

const SUBMISSION: Protocol = Protocol { word: "smtp", plain: 587, tls: 465 };
const IMAP: Protocol = Protocol { word: "imap", plain: 143, tls: 993 };
const POP3: Protocol = Protocol { word: "pop3", plain: 110, tls: 995 };

impl Protocol {
    fn port(&self, way: Way) -> u16 {
        if way.is_implicit() { self.tls } else { self.plain }
    }
}

/// All of them.
pub fn all() -> Vec<Case> {
    Way::ALL.into_iter().flat_map(|way| [smtp(way), imap(way), pop3(way)].into_iter().flatten()).collect()
}

/// Of a program that takes all it has to know from its command line.
fn case(client: &'static str, port: u16, way: Way, line: &str) -> Case {
    let (files, line) = (Vec::new(), line.to_owned());
    Case { client, port, way, files, line, draws: false, has_windows: false, only: &[], without: &[] }
}

/// Of a program with a file.
fn with_file(case: Case, name: &'static str, text: String) -> Case {
    Case { files: vec![(name, text)], ..case }
}

/// One of three words, by whether TLS starts at once, later, or never.
fn by(way: Way, implicit: &'static str, starttls: &'static str, plain: &'static str) -> &'static str {
    match way {
        Way::Tls | Way::TlsAlert => implicit,
        Way::StartTls => starttls,
        Way::Plain => plain,
    }
}

fn smtp(way: Way) -> Vec<Case> {
    let port = SUBMISSION.port(way);
    let of = |client, port, line: &str| case(client, port, way, line);
    let swaks = format!(
        "swaks --server {{host}} --port {{port}} --from a@example.org --to b@example.net --timeout 10 {}",
        by(way, "--tls-on-connect", "--tls", "")
    );
    let swaks = |port| Case { without: &["=== "], ..of("swaks", port, &swaks) };
    let curl = curl(&SUBMISSION, way, "--mail-from a@example.org --mail-rcpt b@example.net -T {dir}/message");
    let msmtp =
        format!("account default\nhost {{host}}\nport {{port}}\nfrom a@example.org\n{}\n", tls_of_msmtp(way));
    let message = ("message", "Subject: x\n\nx\n".to_owned());
    // On port 25 TLS never starts at once.
    let server = (!way.is_implicit()).then(|| swaks(25));
    let others = [
        swaks(port),
        Case { files: vec![message.clone()], ..curl },
        Case {
            files: vec![("msmtprc", msmtp), message],
            ..of("msmtp", port, "msmtp -C {dir}/msmtprc b@example.net < {dir}/message")
        },
        python(&SUBMISSION, way, "smtplib", ["SMTP_SSL", "SMTP"], "starttls"),
    ];
    server.into_iter().chain(others).chain(looked_at(&SUBMISSION, way)).collect()
}

fn imap(way: Way) -> Vec<Case> {
    let of = |client, line: &str| case(client, IMAP.port(way), way, line);
    let isync = format!(
        "IMAPAccount a\nHost {{host}}\nPort {{port}}\nUser u\nPass p\nSSLType {}\nAuthMechs LOGIN\n\
         CertificateFile {{ca}}\n\nIMAPStore r\nAccount a\n\nMaildirStore l\nPath {{dir}}/\nInbox {{dir}}/INBOX\n\n\
         Channel c\nFar :r:\nNear :l:\nPatterns INBOX\nCreate Near\n",
        by(way, "IMAPS", "STARTTLS", "None")
    );
    let offlineimap = format!(
        "[general]\naccounts = a\nui = basic\n[Account a]\nlocalrepository = l\nremoterepository = r\n\
         [Repository l]\ntype = Maildir\nlocalfolders = {{dir}}/mail\n[Repository r]\ntype = IMAP\n\
         remotehost = {{host}}\nremoteport = {{port}}\nremoteuser = u\nremotepass = p\n{}\nsslcacertfile = {{ca}}\n",
        by(way, "ssl = yes", "ssl = no\nstarttls = yes", "ssl = no\nstarttls = no")
    );
    let cases = [
        curl(&IMAP, way, "-u u:p"),
        with_file(of("isync", "mbsync -c {dir}/mbsyncrc c"), "mbsyncrc", isync),
        fetchmail(&IMAP, way),
        Case {
            only: &["unrecognised", "ERROR: ", "[SSL:"],
            without: &["raise ", "Licensed", "imaplib2 v"],
            ..with_file(
                of("offlineimap3", "offlineimap -c {dir}/offlineimaprc -o -1"),
                "offlineimaprc",
                offlineimap,
            )
        },
        thunderbird(&IMAP, way),
        neomutt(&IMAP, way, by(way, "imaps://u@{host}:{port}/INBOX", IMAP_MAILBOX, IMAP_MAILBOX)),
        alpine(&IMAP, way),
    ];
    let getmail = getmail(&IMAP, way, by(way, "SimpleIMAPSSLRetriever", "", "SimpleIMAPRetriever"));
    let python = python(&IMAP, way, "imaplib", ["IMAP4_SSL", "IMAP4"], "starttls");
    cases.into_iter().chain(getmail).chain([python]).chain(looked_at(&IMAP, way)).collect()
}

fn pop3(way: Way) -> Vec<Case> {
    let mpop = format!(
        "account default\nhost {{host}}\nport {{port}}\nuser u\npassword p\ndelivery mbox {{dir}}/mbox\n{}\n{}\n",
        tls_of_msmtp(way),
        by(way, "", "", "auth user")
    );
    let mpop = with_file(case("mpop", POP3.port(way), way, "mpop -C {dir}/mpoprc"), "mpoprc", mpop);
    let cases = [
        curl(&POP3, way, "-u u:p"),
        fetchmail(&POP3, way),
        mpop,
        thunderbird(&POP3, way),
        neomutt(&POP3, way, by(way, "pops://u@{host}:{port}/", POP3_MAILBOX, POP3_MAILBOX)),
        alpine(&POP3, way),
    ];
    let getmail = getmail(&POP3, way, by(way, "SimplePOP3SSLRetriever", "", "SimplePOP3Retriever"));
    let python = python(&POP3, way, "poplib", ["POP3_SSL", "POP3"], "stls");
    cases.into_iter().chain(getmail).chain([python]).chain(looked_at(&POP3, way)).collect()
}

const IMAP_MAILBOX: &str = "imap://u@{host}:{port}/INBOX";
const POP3_MAILBOX: &str = "pop://u@{host}:{port}/";

fn curl(protocol: &Protocol, way: Way, what: &str) -> Case {
    let (word, s) = (protocol.word, by(way, "s", "", ""));
    let path = if word == "imap" { "INBOX" } else { "" };
    let tls = by(way, "--cacert {ca}", "--ssl-reqd --cacert {ca}", "");
    let line = format!("curl -sS --max-time 20 {word}{s}://{{host}}:{{port}}/{path} {what} {tls}");
    case("curl", protocol.port(way), way, &line)
}

fn fetchmail(protocol: &Protocol, way: Way) -> Case {
    let file = format!(
        "poll {{host}} protocol {} port {{port}} user \"u\" password \"p\" {} mda \"/bin/true\"\n",
        protocol.word.to_uppercase(),
        by(way, "ssl sslcertck sslcertfile \"{ca}\"", "sslproto 'TLS1.2+' no sslcertck", "sslproto ''")
    );
    let line = "fetchmail --nodetach --nosyslog -f {dir}/fetchmailrc --pidfile {dir}/pid";
    Case {
        without: &["WARNING: Running as root"],
        ..with_file(case("fetchmail", protocol.port(way), way, line), "fetchmailrc", file)
    }
}

/// For msmtp, and for mpop, which has the same settings.
fn tls_of_msmtp(way: Way) -> &'static str {
    by(way, "tls on\ntls_starttls off\ntls_trust_file {ca}", "tls on\ntls_trust_file {ca}", "tls off")
}

/// It cannot STARTTLS.
fn getmail(protocol: &Protocol, way: Way, kind: &str) -> Option<Case> {
    let file = format!(
        "[retriever]\ntype = {kind}\nserver = {{host}}\nport = {{port}}\nusername = u\npassword = p\n{}\
         [destination]\ntype = MDA_external\npath = /bin/true\n",
        by(way, "ca_certs = {ca}\n", "", "")
    );
    let line = "getmail --getmaildir {dir} --rcfile getmailrc";
    let case = with_file(case("getmail6", protocol.port(way), way, line), "getmailrc", file);
    (way != Way::StartTls).then_some(Case { only: &["operation error", "socket error"], ..case })
}

/// Without a screen. It ends itself when it has shown what there is.
fn thunderbird(protocol: &Protocol, way: Way) -> Case {
    let line = format!("python3 {{dir}}/thunderbird.py {} {}", by(way, "3", "2", "0"), protocol.word);
    let program = include_str!("thunderbird.py").to_owned();
    let case = with_file(case("Thunderbird", protocol.port(way), way, &line), "thunderbird.py", program);
    Case { has_windows: true, ..case }
}

fn neomutt(protocol: &Protocol, way: Way, mailbox: &str) -> Case {
    let file = format!(
        "set ssl_starttls={0}\nset ssl_force_tls={0}\nset imap_user=u\nset imap_pass=p\nset pop_user=u\nset pop_pass=p\n\
         set certificate_file={{ca}}\nset folder={{dir}}\nset spoolfile={{dir}}/spool\nset connect_timeout=10\n",
        by(way, "yes", "yes", "no")
    );
    let line = format!("stty rows 24 cols 80; timeout -s KILL 6 neomutt -F {{dir}}/muttrc -f {mailbox}");
    let case = case("neomutt", protocol.port(way), way, &line);
    Case {
        files: vec![("muttrc", file), ("spool", String::new())],
        draws: true,
        only: &["[UNAVAILABLE]", "[SYS/", "Unable", "nable to", "alert", "Connection to"],
        ..case
    }
}

fn alpine(protocol: &Protocol, way: Way) -> Case {
    let file = "personal-name=x\nuser-id=u\nuser-domain=example.org\nlast-version-used=9.99\n\
                feature-list=disable-password-caching,quell-user-lookup-in-passwd-file\n";
    let line = format!(
        "stty rows 24 cols 80; timeout -s KILL 8 alpine -p {{dir}}/pinerc -i \
         -inbox-path='{{{{host}}:{{port}}/{}/user=u{}/novalidate-cert}}INBOX'",
        protocol.word,
        by(way, "/ssl", "/tls", "/notls")
    );
    let case = with_file(case("alpine", protocol.port(way), way, &line), "pinerc", file.to_owned());
    Case {
        draws: true,
        only: &[
            "[[",
            "[Unexpected",
            "[Connection",
            "[Can't",
            "SSL/TLS failure for",
            "negotiation failed",
            "You may want to add",
            "the option",
            "/notls",
        ],
        ..case
    }
}

/// What its users see is the last line of a trace. Of two classes, the first one is for implicit TLS.
fn python(protocol: &Protocol, way: Way, module: &str, classes: [&str; 2], starttls: &str) -> Case {
    let [implicit, plain] = classes;
    let program = match way {
        Way::Plain => format!("import {module}; {module}.{plain}('{{host}}', {{port}}, timeout=10)"),
        Way::StartTls => {
            format!("import {module}; {module}.{plain}('{{host}}', {{port}}, timeout=10).{starttls}()")
        }
        Way::Tls | Way::TlsAlert => {
            let context = if module == "imaplib" { "ssl_context" } else { "context" };
            format!(
                "import {module}, ssl; {module}.{implicit}('{{host}}', {{port}}, timeout=10, \
                 {context}=ssl.create_default_context(cafile='{{ca}}'))"
            )
        }
    };
    Case {
        without: &[
            "Traceback",
            "File \"",
            "^^^",
            "self.",
            "raise ",
            "(code,",
            "return ",
            "__init__(self",
            "IMAP4.open(",
        ],
        ..case("Python", protocol.port(way), way, &format!("python3 -c \"{program}\""))
    }
}

/// What administrators look with.
fn looked_at(protocol: &Protocol, way: Way) -> Vec<Case> {
    let only = &[
        "CONNECTED",
        "error:",
        "Didn't find",
        "no peer certificate",
        "421 ",
        "* BYE",
        "-ERR",
        "alert",
        "***",
        "Peer has closed",
    ];
    let of = |client, line: &str| Case { only, ..case(client, protocol.port(way), way, line) };
    // The errors of OpenSSL begin with the address of its thread.
    let shown = "> {dir}/out 2>&1; code=$?; sed 's/^[0-9A-F]*:error/error/' {dir}/out; exit $code";
    // As at a terminal where nothing is typed.
    let idle = "mkfifo {dir}/in; exec 0<>{dir}/in;";
    let openssl = "openssl s_client -connect {host}:{port}";
    match way {
        Way::Plain => Vec::new(),
        Way::StartTls => {
            let word = protocol.word;
            vec![of("openssl s_client", &format!("{openssl} -starttls {word} < /dev/null {shown}"))]
        }
        Way::Tls | Way::TlsAlert => vec![
            of("openssl s_client", &format!("{idle} {openssl} -CAfile {{ca}} {shown}")),
            of(
                "gnutls-cli",
                &format!("{idle} gnutls-cli --port {{port}} --x509cafile {{ca}} {{host}} {shown}"),
            ),
        ],
    }
}
