# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""What the user of Thunderbird sees, in words: it runs without a screen, and tells by Marionette what it alerts to.

Its profile has one account, whose server may be sent five connections at a time, and a password that is known."""

import json
import os
import socket
import subprocess
import sys
import time

HOST, PORT, FOLDER, CERTIFICATE = "{host}", {port}, "{dir}", "{ca}"
# 0: plain text, 2: STARTTLS, 3: TLS from the start (nsMsgSocketType); imap or pop3.
SOCKET, KIND = int(sys.argv[1]), sys.argv[2]

PREFERENCES = {
    "mail.accountmanager.accounts": "account1",
    "mail.accountmanager.defaultaccount": "account1",
    "mail.account.account1.server": "server1",
    "mail.account.account1.identities": "id1",
    "mail.identity.id1.useremail": "u@example.org",
    "mail.identity.id1.fullName": "U",
    "mail.identity.id1.valid": True,
    "mail.server.server1.type": KIND,
    "mail.server.server1.hostname": HOST,
    "mail.server.server1.port": PORT,
    "mail.server.server1.socketType": SOCKET,
    "mail.server.server1.userName": "u",
    "mail.server.server1.name": "u@example.org",
    "mail.server.server1.authMethod": 3,
    "mail.server.server1.login_at_startup": False,
    "mail.server.server1.max_cached_connections": 5,
    # The network of a namespace looks like none.
    "network.manage-offline-status": False,
    "offline.autoDetect": False,
    "marionette.port": 2828,
    "datareporting.policy.dataSubmissionEnabled": False,
    "mail.rights.version": 1,
    "mailnews.start_page.enabled": False,
}

# Runs inside Thunderbird. What it would show in a window of its own goes to a listener instead, which has the same text.
SCRIPT = """
const [certificate, host, port] = arguments;
const done = arguments[arguments.length - 1];
const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
const LATE = "(nothing within 20 seconds)";
const seen = [];
MailServices.mailSession.addUserFeedbackListener({
  QueryInterface: ChromeUtils.generateQI(["nsIMsgUserFeedbackListener"]),
  onAlert(message) { seen.push(message); return true; },
  onCertError(info, url) { seen.push("certificate error: " + (info?.errorCodeString ?? url?.spec)); },
});
// As a user who has looked at the certificate and trusts it.
const database = Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB);
const overrides = Cc["@mozilla.org/security/certoverride;1"].getService(Ci.nsICertOverrideService);
overrides.rememberValidityOverride(host, port, {}, database.constructX509FromBase64(certificate), true);
const server = MailServices.accounts.allServers.find(server => server.type != "none");
server.password = "p";
const window = Services.wm.getMostRecentWindow("mail:3pane");
const inbox = server.rootFolder.getFolderWithFlags(Ci.nsMsgFolderFlags.Inbox);
const asked = (folder, ask) => new Promise(resolve => ask(folder, {
  QueryInterface: ChromeUtils.generateQI(["nsIUrlListener"]),
  onStartRunningUrl() {},
  onStopRunningUrl(url, code) { resolve(code); },
}));
// "Get Messages".
const late = new Promise(resolve => window.setTimeout(resolve, 20000, LATE));
const get = asked(inbox, (folder, listener) => server.type == "pop3"
  ? MailServices.pop3.GetNewMail(window.msgWindow, listener, folder, server)
  : folder.getNewMessages(window.msgWindow, listener));
Promise.race([get, late]).then(async end => {
  // Other connections of the account, and what is shown a moment later.
  await new Promise(resolve => window.setTimeout(resolve, 2000));
  // In an order that is the same each time.
  const lines = seen.map(message => message.replace(/\\s+/g, " ")).sort();
  done(lines.length ? lines : [end === LATE ? LATE : "(nothing; it ends with " + end.toString(16) + ")"]);
}).catch(error => done(["script: " + error]));
"""


class Marionette:
    """Its protocol: a length, a colon, and a list in JSON."""

    def __init__(self):
        self.socket, self.buffer, self.number = self.connect(), b"", 0
        self.read()

    @staticmethod
    def connect():
        end = time.monotonic() + 30
        while True:
            try:
                return socket.create_connection(("127.0.0.1", 2828), 30)
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def more(self):
        received = self.socket.recv(65536)
        if not received:
            raise EOFError("Thunderbird ended")
        self.buffer += received

    def read(self):
        while b":" not in self.buffer:
            self.more()
        length, _, self.buffer = self.buffer.partition(b":")
        while len(self.buffer) < int(length):
            self.more()
        message, self.buffer = self.buffer[: int(length)], self.buffer[int(length) :]
        return json.loads(message)

    def ask(self, command, **arguments):
        self.number += 1
        message = json.dumps([0, self.number, command, arguments]).encode()
        self.socket.sendall(b"%d:%s" % (len(message), message))
        _, _, error, value = self.read()
        if error:
            raise RuntimeError(error)
        return value


def main():
    profile = os.path.join(FOLDER, "profile")
    os.makedirs(profile)
    with open(os.path.join(profile, "user.js"), "w") as file:
        for name, value in PREFERENCES.items():
            file.write("user_pref(%s, %s);\n" % (json.dumps(name), json.dumps(value)))
    with open(CERTIFICATE) as file:
        certificate = "".join(line.strip() for line in file if "-----" not in line)
    program = ["thunderbird", "--headless", "--no-remote", "--profile", profile]
    program += ["--marionette", "--remote-allow-system-access"]
    thunderbird = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        marionette = Marionette()
        marionette.ask("WebDriver:NewSession")
        marionette.ask("Marionette:SetContext", value="chrome")
        marionette.ask("WebDriver:SetTimeouts", script=40000)
        arguments = [certificate, HOST, PORT]
        lines = marionette.ask("WebDriver:ExecuteAsyncScript", script=SCRIPT, args=arguments)["value"]
        # A window that waits for the user ends the script.
        for line in lines or marionette.ask("WebDriver:GetAlertText")["value"].splitlines():
            print(line)
        marionette.ask("Marionette:Quit", flags=["eForceQuit"])
    finally:
        thunderbird.kill()
        thunderbird.wait()


main()
