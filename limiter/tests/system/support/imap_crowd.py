# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Many IMAP sessions of a few users, as programs keep them.

    imap_crowd.py hold HOST SOURCE USER...           a session for each, which waits in IDLE, until standard input ends
    imap_crowd.py leak HOST SOURCE EVERY USER        one more session after the other, and none ends, until standard input ends
    imap_crowd.py visit HOST SOURCE EVERY STAY USER...  one after the other logs in, stays, and logs out, until standard input ends

Says "ready" on standard output when the first round is done.
"""

import imaplib
import select
import socket
import sys
import time

TIMEOUT = 20
plain_create_connection = socket.create_connection
mode, host, source, *words = sys.argv[1:]


def create_connection(address, timeout=TIMEOUT, source_address=None, **rest):
    # imaplib cannot be told a source address, but connects by this function.
    return plain_create_connection(address, timeout, (source, 0), **rest)


socket.create_connection = create_connection


def login(user):
    session = imaplib.IMAP4(host, timeout=TIMEOUT)
    session.login(user, "secret")
    session.select()
    return session


def idle(session):
    session.send(b"idle IDLE\r\n")
    session.readline()
    return session


def is_over(seconds):
    """Whether standard input ends within so many seconds."""
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def ready():
    print("ready", flush=True)


if mode == "hold":
    sessions = [idle(login(user)) for user in words]
    ready()
    sys.stdin.read()
elif mode == "leak":
    every, user = float(words[0]), words[1]
    sessions = [login(user)]
    ready()
    while not is_over(every):
        try:
            sessions.append(idle(login(user)))
        except (OSError, imaplib.IMAP4.error):
            # Refused: it goes on trying.
            pass
else:
    every, stay, users = float(words[0]), float(words[1]), words[2:]
    turn = 0
    while True:
        begun = time.monotonic()
        try:
            session = login(users[turn % len(users)])
            if is_over(stay):
                break
            session.logout()
        except (OSError, imaplib.IMAP4.error):
            # Refused: a program comes again.
            pass
        turn += 1
        if turn == len(users):
            ready()
        if is_over(max(0.0, begun + every - time.monotonic())):
            break
