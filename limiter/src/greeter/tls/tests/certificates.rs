// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which files are used, when they are read again, and what is said of them.

use super::*;

/// Rounds of the keeper: a change is read once it has been seen twice, so that nobody reads half of one.
fn renewed(host: &mut Host, port: u16, files: &[&str]) -> Report {
    host.round(port, files, SystemTime::now());
    host.round(port, files, SystemTime::now())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_used_and_one_that_cannot_be_used_leaves_the_old_in_use() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let greeter = host.greeter(&["a"], Bounds::default());
    let port = greeter.port;
    fs::copy(host.path("a.pem"), host.path("old.pem")).unwrap();
    let stays = |host: &Host| assert_eq!(host.hears(&greeter, "old", NAME).as_deref(), Ok(LINE));
    let large = "x".repeat(10 << 20);
    for (file, text, words) in [
        ("a.pem", "", "DIR/a.pem is empty; write the PEM file again"),
        (
            "a.pem",
            large.as_str(),
            "DIR/a.pem is larger than 64 KiB, so it is not a PEM file of a certificate or key; give the path of the right file",
        ),
        (
            "a.pem",
            "no certificate",
            "DIR/a.pem contains no certificate that can be read; give the certificate and its chain in PEM form",
        ),
        ("a.key", "", "DIR/a.key is empty; write the PEM file again"),
        (
            "a.key",
            "no key",
            "DIR/a.key contains no private key that can be read; give the key in PEM form, without a passphrase",
        ),
    ] {
        let before = fs::read_to_string(host.path(file)).unwrap();
        host.file(file, text);
        let dir = host.dir.path().display().to_string();
        let report = renewed(&mut host, port, &["a"]);
        let [said] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
        let expected = words.replace("DIR", &dir);
        assert!(
            said.starts_with(&format!("x: {expected}; the certificate from before, which expires on ")),
            "{said}"
        );
        assert!(said.ends_with("stays in use"), "{said}");
        stays(&host);
        host.file(file, &before);
        assert_eq!(renewed(&mut host, port, &["a"]).warnings, [""; 0]);
    }
    // The new certificate comes before its key, as with many tools.
    host.certificate("b", &[NAME]);
    fs::rename(host.path("b.pem"), host.path("a.pem")).unwrap();
    let report = renewed(&mut host, port, &["a"]);
    assert!(
        report.warnings[0].contains("a.key does not belong to the certificate in"),
        "{:?}",
        report.warnings
    );
    stays(&host);
    fs::rename(host.path("b.key"), host.path("a.key")).unwrap();
    assert_eq!(renewed(&mut host, port, &["a"]).warnings, [""; 0]);
    assert_eq!(host.hears(&greeter, "a", NAME).as_deref(), Ok(LINE), "the new one is in use");
    assert!(host.hears(&greeter, "old", NAME).is_err(), "the old one is not");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symbolic_link_that_leads_to_another_certificate_is_followed() {
    let mut host = Host::new();
    for version in ["1", "2"] {
        fs::create_dir(host.path(version)).unwrap();
        host.certificate(&format!("{version}/a"), &[NAME]);
    }
    symlink("1", host.path("live")).unwrap();
    let greeter = host.greeter(&["live/a"], Bounds::default());
    assert_eq!(host.hears(&greeter, "1/a", NAME).as_deref(), Ok(LINE));
    symlink("2", host.path("next")).unwrap();
    fs::rename(host.path("next"), host.path("live")).unwrap();
    assert_eq!(renewed(&mut host, greeter.port, &["live/a"]).warnings, [""; 0]);
    assert_eq!(host.hears(&greeter, "2/a", NAME).as_deref(), Ok(LINE));
    assert!(host.hears(&greeter, "1/a", NAME).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_used_only_while_it_is_valid() {
    let mut host = Host::new();
    let day = |year| SystemTime::from(date_time_ymd(year, 6, 1));
    let mut parameters = parameters(&[NAME]);
    (parameters.not_before, parameters.not_after) = (date_time_ymd(2030, 1, 1), date_time_ymd(2031, 1, 1));
    host.write("a", &parameters, &KeyPair::generate().unwrap());
    let early = host.round(2465, &["a"], day(2029));
    let words = "is not valid before 2030-01-01 00:00:00 UTC; check the clock of this host; until then, its refused \
                 clients get a TLS alert instead of a reason";
    assert!(early.warnings[0].ends_with(words), "{:?}", early.warnings);
    assert_eq!(host.speaks(2465), "an alert");
    // Nobody touches the file.
    let report = host.round(2465, &["a"], day(2030));
    assert_eq!(report.warnings, [""; 0]);
    assert_eq!(report.certificates[0].expires.as_deref(), Some("2031-01-01 00:00:00 UTC"));
    assert_eq!(report.certificates[0].names, [NAME]);
    assert_eq!(host.speaks(2465), "TLS");
    let soon = host.round(2465, &["a"], SystemTime::from(date_time_ymd(2030, 12, 30)));
    assert!(
        soon.warnings[0].ends_with("expires on 2031-01-01 00:00:00 UTC; renew it"),
        "{:?}",
        soon.warnings
    );
    let late = host.round(2465, &["a"], day(2031));
    assert!(
        late.warnings[0].contains("expired on 2031-01-01 00:00:00 UTC and is still in use"),
        "{:?}",
        late.warnings
    );
    assert_eq!(host.speaks(2465), "TLS", "its clients would be told nothing else");
    let mut another = Host::new();
    another.write("a", &parameters, &KeyPair::generate().unwrap());
    let expired = another.round(2465, &["a"], day(2031));
    assert!(
        expired.warnings[0].contains("expired on 2031-01-01 00:00:00 UTC; renew it"),
        "{:?}",
        expired.warnings
    );
    assert_eq!(another.speaks(2465), "an alert", "none is used that was never valid here");
}

#[test]
fn a_key_that_others_can_read_is_used_with_a_warning_of_its_mode() {
    if !nix::unistd::geteuid().is_root() {
        return limiter_lab::skip("a key belongs to root");
    }
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let key = host.path("a.key");
    let said = |host: &mut Host| renewed(host, 2465, &["a"]).warnings;
    let path = key.display().to_string();
    let (all, group) = (", so every user can use it", ", so group 0 can use it");
    for (mode, whose) in [(0o644, all), (0o640, group), (0o604, all), (0o666, all), (0o620, group)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let expected = format!(
            "{path}: the private key has mode {mode:04o}{whose}; only root needs it: run `chmod 600 {path}`"
        );
        assert_eq!(said(&mut host), [expected]);
        assert_eq!(host.speaks(2465), "TLS");
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    assert_eq!(said(&mut host), [""; 0]);
}

#[test]
fn a_key_of_another_owner_is_used_with_one_warning_that_says_all_there_is_to_do() {
    if !nix::unistd::geteuid().is_root() {
        return limiter_lab::skip("a key belongs to root");
    }
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let key = host.path("a.key");
    let path = key.display().to_string();
    std::os::unix::fs::chown(&key, Some(65_534), None).unwrap();
    for (mode, words, remedy) in [
        (0o400, "", String::new()),
        (0o640, ", so others can use it", format!(" && chmod 600 {path}")),
        (0o666, ", so others can use it", format!(" && chmod 600 {path}")),
    ] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let expected = format!(
            "{path}: the private key has mode {mode:04o} and belongs to user 65534{words}; only root needs it: run \
             `chown root {path}{remedy}`"
        );
        assert_eq!(renewed(&mut host, 2465, &["a"]).warnings, [expected]);
    }
    std::os::unix::fs::chown(&key, Some(0), None).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(renewed(&mut host, 2465, &["a"]).warnings, [""; 0]);
}

#[test]
fn a_warning_of_who_else_has_a_say_comes_and_goes_with_the_modes_on_the_way_to_the_files() {
    if !nix::unistd::geteuid().is_root() {
        return limiter_lab::skip("a key belongs to root");
    }
    let mut host = Host::new();
    fs::create_dir(host.path("live")).unwrap();
    host.certificate("live/a", &[NAME]);
    let said = |host: &mut Host| host.round(2465, &["live/a"], SystemTime::now()).warnings;
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let (dir, key) = (host.path("live"), host.path("live/a.key"));
    for _ in 0..2 {
        assert_eq!(said(&mut host), [""; 0]);
        // The files stay as they are.
        chmod(&dir, 0o777);
        let warnings = said(&mut host);
        assert_eq!(warnings.len(), 2, "one of each file: {warnings:?}");
        for warning in warnings {
            assert!(warning.contains(&format!("run `chmod o-w {}`", dir.display())), "{warning}");
        }
        chmod(&dir, 0o755);
        assert_eq!(said(&mut host), [""; 0]);
        chmod(&key, 0o644);
        let warnings = said(&mut host);
        assert!(warnings[0].contains("the private key has mode 0644"), "{warnings:?}");
        chmod(&key, 0o600);
    }
}

#[test]
fn what_is_no_file_is_neither_waited_for_nor_read() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let said = |host: &mut Host| renewed(host, 2465, &["a"]).warnings.remove(0);
    let replace = |host: &Host, make: &dyn Fn(&Path)| {
        let path = host.path("a.key");
        fs::remove_file(&path).unwrap();
        make(&path);
    };
    replace(&host, &|path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).unwrap());
    assert!(said(&mut host).contains("a.key is not a file; give the path of a PEM file"));
    replace(&host, &|path| symlink("/dev/zero", path).unwrap());
    assert!(said(&mut host).contains("a.key is not a file"));
    replace(&host, &|path| symlink("nowhere", path).unwrap());
    assert!(said(&mut host).contains("a.key does not exist; correct the path, or create the file"));
    replace(&host, &|path| symlink("a.key", path).unwrap());
    assert!(said(&mut host).contains("cannot read"));
    fs::remove_file(host.path("a.key")).unwrap();
    fs::create_dir(host.path("a.key")).unwrap();
    assert!(said(&mut host).contains("a.key is not a file"));
}

#[test]
fn when_the_configuration_names_a_certificate_that_cannot_be_used_the_one_before_stays_in_use() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    assert_eq!(host.round(2465, &["a"], SystemTime::now()).warnings, [""; 0]);
    let report = host.round(2465, &["b"], SystemTime::now());
    assert!(report.warnings[0].contains("b.pem does not exist"), "{:?}", report.warnings);
    assert_eq!(host.speaks(2465), "TLS");
    assert_eq!(host.speaks(993), "an alert", "imap has no certificate");
    assert_eq!(host.speaks(143), "plain text");
    host.round(2465, &[], SystemTime::now());
    assert_eq!(host.speaks(2465), "an alert", "the configuration names none");
}

#[test]
fn status_has_the_certificates_in_the_order_of_the_configuration_with_their_names() {
    let mut host = Host::new();
    let many = ["a.example.org", "b.example.org", "c.example.org", "d.example.org", "e.example.org"];
    for (file, names) in [("c", &["mx.example.net"][..]), ("a", &many), ("b", &many[..2])] {
        host.certificate(file, names);
    }
    let report =
        host.round_of(&[("x", 2465, &["c", "a", "missing"]), ("y", 2466, &["b", "c"])], SystemTime::now());
    let path = |file: &str| host.path(&format!("{file}.pem")).display().to_string();
    let lines = [
        format!("certificate for x, y (mx.example.net): {}, expires on ", path("c")),
        format!(
            "certificate for x (a.example.org, b.example.org, c.example.org and 2 more): {}, expires on ",
            path("a")
        ),
        format!("certificate for x: {}, not in use", path("missing")),
        format!("certificate for y (a.example.org, b.example.org): {}, expires on ", path("b")),
    ];
    assert_eq!(report.certificates.len(), lines.len());
    for (certificate, line) in report.certificates.iter().zip(lines) {
        assert!(certificate.to_string().starts_with(&line), "{certificate}, not {line}");
    }
}

#[test]
fn a_warning_of_a_certificate_for_several_services_speaks_of_all_of_them() {
    let mut host = Host::new();
    let missing = &["missing"][..];
    let said = |host: &mut Host, services: &[(&str, u16, &[&str])]| {
        host.round_of(services, SystemTime::now()).warnings.remove(0)
    };
    let one = said(&mut host, &[("x", 2465, missing)]);
    assert!(
        one.starts_with("x: ")
            && one.ends_with("; until then, its refused clients get a TLS alert instead of a reason"),
        "{one}"
    );
    let two = said(&mut host, &[("x", 2465, missing), ("y", 2466, missing)]);
    assert!(
        two.starts_with("x, y: ")
            && two.ends_with("; until then, their refused clients get a TLS alert instead of a reason"),
        "{two}"
    );
    host.certificate("a", &[NAME]);
    let both = &["a", "missing"][..];
    let one = said(&mut host, &[("x", 2465, both)]);
    assert!(one.ends_with("; the other certificates of the service stay in use"), "{one}");
    let two = said(&mut host, &[("x", 2465, both), ("y", 2466, both)]);
    assert!(two.ends_with("; the other certificates of the services stay in use"), "{two}");
}

fn openssl(arguments: &[&str], files: &[(&str, PathBuf)]) {
    let mut openssl = Command::new("openssl");
    openssl.args(arguments);
    for (argument, path) in files {
        openssl.arg(argument).arg(path);
    }
    let made = openssl.output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

#[test]
fn a_certificate_that_is_not_of_version_3_is_named_as_such_and_its_key_is_not_blamed() {
    let mut host = Host::new();
    let key = KeyPair::generate().unwrap();
    let mut der = parameters(&[NAME]).self_signed(&key).unwrap().der().to_vec();
    let version_3 = [0xa0, 3, 2, 1, 2];
    let at = der.windows(version_3.len()).position(|bytes| bytes == version_3).unwrap();
    der[at + version_3.len() - 1] = 0;
    fs::write(host.path("a.der"), der).unwrap();
    openssl(&["x509", "-inform", "DER"], &[("-in", host.path("a.der")), ("-out", host.path("a.pem"))]);
    host.file("a.key", &key.serialize_pem());
    let warnings = host.round(2465, &["a"], SystemTime::now()).warnings;
    let words = "a.pem is X.509 version 1 or malformed; issue a version 3 certificate; until then, ";
    assert!(warnings[0].contains(words), "{warnings:?}");
    assert!(!warnings[0].contains("a.key"), "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_the_configuration_no_longer_names_is_shown_and_renewed_while_it_stays_in_use() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let greeter = host.greeter(&["a"], Bounds::default());
    let port = greeter.port;
    let path = host.path("a.pem").display().to_string();
    let missing = host.path("b.pem").display().to_string();
    let mut parameters = parameters(&[NAME]);
    for year in [2040, 2041] {
        parameters.not_after = date_time_ymd(year, 1, 1);
        host.write("a", &parameters, &KeyPair::generate().unwrap());
        renewed(&mut host, port, &["b"]);
        let report = host.round(port, &["b"], SystemTime::now());
        let kept = format!(
            "{path}, which the configuration no longer names, stays in use; it expires on {year}-01-01 00:00:00 UTC"
        );
        let expected = [
            format!(
                "x: {missing} does not exist; correct the path, or create the file; until then, the certificate from before stays in use"
            ),
            format!("x: the certificate in {kept}"),
        ];
        assert_eq!(report.warnings, expected);
        let lines: Vec<String> = report.certificates.iter().map(ToString::to_string).collect();
        let kept = format!("certificate for x ({NAME}): {path}, expires on {year}-01-01 00:00:00 UTC");
        assert_eq!(lines, [format!("certificate for x: {missing}, not in use"), kept]);
        assert_eq!(host.hears(&greeter, "a", NAME).as_deref(), Ok(LINE), "the renewed one is in use");
    }
    // Its own end is said as well.
    let late = host.round(port, &["b"], SystemTime::from(date_time_ymd(2042, 1, 1)));
    assert!(late.warnings[2].contains("expired on 2041-01-01 00:00:00 UTC and is still in use"), "{late:?}");
    // Nobody needs its files any more: what was read stays.
    fs::remove_file(host.path("a.key")).unwrap();
    assert_eq!(renewed(&mut host, port, &["b"]).warnings.len(), 2);
    assert_eq!(host.hears(&greeter, "a", NAME).as_deref(), Ok(LINE));
    host.certificate("b", &[NAME]);
    let report = renewed(&mut host, port, &["b"]);
    assert_eq!((report.warnings.len(), report.certificates.len()), (0, 1), "{report:?}");
    assert_eq!(host.hears(&greeter, "b", NAME).as_deref(), Ok(LINE), "the one that is named is in use");
}

#[tokio::test(flavor = "multi_thread")]
async fn rsa_keys_sign_from_2048_to_4096_bits_as_the_warning_of_others_says() {
    let mut host = Host::new();
    for (bits, signs) in [("1024", false), ("2048", true), ("4096", true), ("4608", false)] {
        let [certificate, key] = ["pem", "key"].map(|end| host.path(&format!("{bits}.{end}")));
        let (new, name) = (format!("rsa:{bits}"), format!("subjectAltName=DNS:{NAME}"));
        openssl(
            // No authority, so that the client trusts it as it is.
            &[
                &["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=limiter", "-newkey", &new][..],
                &["-addext", &name, "-addext", "basicConstraints=critical,CA:FALSE"],
            ]
            .concat(),
            &[("-out", certificate), ("-keyout", key)],
        );
        if signs {
            let greeter = host.greeter(&[bits], Bounds::default());
            assert_eq!(host.hears(&greeter, bits, NAME).as_deref(), Ok(LINE), "{bits}");
        } else {
            let warnings = host.round(2465, &[bits], SystemTime::now()).warnings;
            let words = "use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits; ";
            assert!(warnings[0].contains(words), "{bits}: {warnings:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_key_that_is_named_signs() {
    let mut host = Host::new();
    for (file, algorithm) in [
        ("p256", &rcgen::PKCS_ECDSA_P256_SHA256),
        ("p384", &rcgen::PKCS_ECDSA_P384_SHA384),
        ("ed25519", &rcgen::PKCS_ED25519),
    ] {
        host.write(file, &parameters(&[NAME]), &KeyPair::generate_for(algorithm).unwrap());
        let greeter = host.greeter(&[file], Bounds::default());
        assert_eq!(host.hears(&greeter, file, NAME).as_deref(), Ok(LINE), "{file}");
    }
}
