# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Mail clients from Python's standard library, opened, used and closed on request.

Reads requests from standard input, one a line, and answers each with one line of JSON:

    open PROTOCOL SOURCE HOST    a session that has done some work: {"id": 0}, or {"error": "..."},
                                 which is the exception as Python itself writes it
    use ID                       some more work: {"said": "..."}
    close ID                     the protocol's own goodbye: {"said": "..."}
"""

import imaplib
import json
import poplib
import smtplib
import socket
import sys

TIMEOUT = 20
plain_create_connection = socket.create_connection


def open_from(source):
    """imaplib and poplib cannot be told a source address, but all three connect by this function."""

    def create_connection(address, timeout=TIMEOUT, source_address=None, **rest):
        return plain_create_connection(address, timeout, (source, 0), **rest)

    socket.create_connection = create_connection


class Smtp:
    def __init__(self, host):
        self.session = smtplib.SMTP(host, timeout=TIMEOUT)
        self.session.ehlo_or_helo_if_needed()

    def use(self):
        return self.session.noop()

    def close(self):
        return self.session.quit()


class Imap:
    def __init__(self, host):
        self.session = imaplib.IMAP4(host, timeout=TIMEOUT)
        self.session.login("user", "secret")
        self.session.select()

    def use(self):
        return self.session.noop()

    def close(self):
        return self.session.logout()


class Pop3:
    def __init__(self, host):
        self.session = poplib.POP3(host, timeout=TIMEOUT)
        self.session.user("user")
        self.session.pass_("secret")

    def use(self):
        return self.session.stat()

    def close(self):
        return self.session.quit()


PROTOCOLS = {"smtp": Smtp, "imap": Imap, "pop3": Pop3}
sessions = []

for line in sys.stdin:
    verb, *words = line.split()
    try:
        if verb == "open":
            protocol, source, host = words
            open_from(source)
            session = PROTOCOLS[protocol](host)
            session.use()
            sessions.append(session)
            answer = {"id": len(sessions) - 1}
        else:
            answer = {"said": repr(getattr(sessions[int(words[0])], verb)())}
    except Exception as error:
        answer = {"error": repr(error)}
    print(json.dumps(answer), flush=True)
