// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is refused, with the exact sentence.

use super::super::{parse, parse_setting};

fn refused(text: &str) -> String {
    match parse(text, "limiter.toml") {
        Ok(config) => format!("accepted: {config}"),
        Err(error) => error.to_string(),
    }
}

macro_rules! refuses {
    ($($name:ident { $($text:expr => $expected:expr,)+ })+) => {$(
        #[test]
        fn $name() {
            $(assert_eq!(refused($text), concat!("limiter.toml:", $expected), "{:?}", $text);)+
        }
    )+
        /// All of these texts, to be changed further.
        pub const TEXTS: &[&str] = &[$($($text,)+)+];
    };
}

refuses! {
    a_limit_must_be_a_number_in_range {
        "[service.smtp]\nmax_connections = 0" => "2:19: max_connections must be between 1 and 1000000, not 0; give the number of connections one source may hold",
        "[service.smtp]\nmax_connections = -1" => "2:19: max_connections must be between 1 and 1000000, not -1; give the number of connections one source may hold",
        "[defaults]\nmax_connections = 1000001" => "2:19: max_connections must be between 1 and 1000000, not 1000001; give the number of connections one source may hold",
        "[defaults]\n  max_connections   =   0xffffffffffffffffff" => "2:25: max_connections must be between 1 and 1000000, not 0xffffffffffffffffff; give the number of connections one source may hold",
        "[defaults]\nmax_connections = 4294967297" => "2:19: max_connections must be between 1 and 1000000, not 4294967297; give the number of connections one source may hold",
        "[defaults]\nmax_connections = 999999999999999999999999999999999999999999999999999" => "2:19: max_connections must be between 1 and 1000000, not 9999999999999999999999999999999999999999…; give the number of connections one source may hold",
        "[defaults]\nmax_connections = \"20\"" => "2:19: max_connections must be a whole number between 1 and 1000000, not \"20\"; leave the quotes out",
        "[defaults]\nmax_connections = \"many\"" => "2:19: max_connections must be a whole number between 1 and 1000000, not \"many\"; give the number of connections one source may hold",
        "[defaults]\nmax_connections = 2.5" => "2:19: max_connections must be a whole number between 1 and 1000000, not a fraction; give the number of connections one source may hold",
        "[defaults]\nmax_connections = true" => "2:19: max_connections must be a whole number between 1 and 1000000, not a boolean; give the number of connections one source may hold",
        "[defaults]\nmax_connections = { imap = 200 }" => "2:19: max_connections must be a whole number between 1 and 1000000, not a table; give the number of connections one source may hold",
    }
    a_message_is_one_line_that_its_protocol_has {
        "[defaults]\nmessage = 5" => "2:11: message must be text, or a table of texts by reason, or \"none\", not 5; write for example message = { concurrency = \"Too many connections, close one\" }",
        "[defaults]\nmessage = ''" => "2:11: message has no text; write some, or \"none\" for the words of limiter",
        "[defaults]\nmessage = ' '" => "2:11: message has no text; write some, or \"none\" for the words of limiter",
        "[defaults]\nmessage = \"a\\r\\nb\"" => "2:11: message has the control character \\r, which a reply cannot have; write it as one line of text",
        "[defaults]\nmessage = '''a\nb'''" => "2:11: message has the control character \\n, which a reply cannot have; write it as one line of text",
        "[defaults]\nmessage = \"a\\tb\"" => "2:11: message has the control character \\t, which a reply cannot have; write it as one line of text",
        "[defaults]\nmessage = \"a\\u2028b\"" => "2:11: message has the control character \\u{2028}, which a reply cannot have; write it as one line of text",
        "[defaults]\nmessage = '{cuont}'" => "2:11: message has the unknown placeholder {cuont} (known: {count} {limit} {address} {service} {hostname} {reason} {retry} {url}); did you mean {count}?",
        "[defaults]\nmessage = '{client}'" => "2:11: message has the unknown placeholder {client} (known: {count} {limit} {address} {service} {hostname} {reason} {retry} {url}); write one of these, or {{ for a brace",
        "[defaults]\nmessage = '{host}'" => "2:11: message has the unknown placeholder {host} (known: {count} {limit} {address} {service} {hostname} {reason} {retry} {url}); did you mean {hostname}?",
        "[defaults]\nmessage = '{count'" => "2:11: message has a brace without the other; close the placeholder, or write {{ or }} for a brace",
        "[service.imap]\nmessage = { rate = 'a', concurency = 'b' }" => "2:25: unknown key concurency in the message of [service.imap] (known: total, network, concurrency, rate); did you mean concurrency?",
        "[service.imap]\nmessage = { rate = '{count} of {limit}' }" => "2:20: the message for rate has {count}, but a refusal for rate counts no connections; remove it",
        "[service.imap]\nmessage = { rate = 'a', denied = 'b' }" => "2:25: nobody is told that it is denied, because its packets are dropped; remove this message",
        "[service.imap]\nmessage = { total = 5 }" => "2:21: message must be text, or a table of texts by reason, or \"none\", not 5; write for example message = { concurrency = \"Too many connections, close one\" }",
        "[service.imap]\nmessage = 'zu viele, schließen'" => "2:11: the message of service imap has the character ß, but a reply of IMAP has only ASCII; write it in ASCII",
        "[service.sieve]\nmessage = 'schließen'\n[defaults]\nmessage = { rate = 'ß' }" => "4:20: the message of service imap has the character ß, but a reply of IMAP has only ASCII; write it in ASCII",
    }
    a_history_is_a_table_or_none {
        "history = 5" => "1:11: history must be a table, true or false, not 5; write history = false to keep none",
        "history = \"none\"" => "1:11: history must be a table, true or false, not \"none\"; write history = false to keep none",
        "[history]\nusers = 1" => "2:9: users must be true or false, not 1; choose whether the history keeps the names of users",
        "[history]\ndays = 0" => "2:8: days of [history] must be between 1 and 3650, not 0; give the days after which the history forgets",
        "[history]\nmax_mib = 7" => "2:11: max_mib of [history] must be between 8 and 1048576, not 7; give the MiB that the history may take on disk",
        "[history]\nuser = false" => "2:1: unknown key user in [history] (known: users, days, max_mib); did you mean users?",
    }
    a_url_is_one {
        "[defaults]\nurl = 'example.org'" => "2:7: url must begin with https:// or http://, and be ASCII without spaces, quotes and <>, or \"none\", not \"example.org\"; give the address of a page",
        "[defaults]\nurl = 'https://'" => "2:7: url must begin with https:// or http://, and be ASCII without spaces, quotes and <>, or \"none\", not \"https://\"; give the address of a page",
        "[defaults]\nurl = 'https://a b'" => "2:7: url must begin with https:// or http://, and be ASCII without spaces, quotes and <>, or \"none\", not \"https://a b\"; give the address of a page",
        "[defaults]\nurl = 'https://ä.example'" => "2:7: url must begin with https:// or http://, and be ASCII without spaces, quotes and <>, or \"none\", not \"https://ä.example\"; give the address of a page",
        "[defaults]\nurl = 5" => "2:7: url must begin with https:// or http://, and be ASCII without spaces, quotes and <>, or \"none\", not 5; give the address of a page",
        "[defaults]\nurl = 'javascript:x'" => "2:7: url must begin with https:// or http://, and be ASCII without spaces, quotes and <>, or \"none\", not \"javascript:x\"; give the address of a page",
        "[defaults]\nurl = 'https://a/{retry}'" => "2:7: url cannot have {retry}; use {address}, {service}, {hostname} or {reason}, or remove it",
        "[defaults]\nurl = 'https://a/{url}'" => "2:7: url cannot have {url}; use {address}, {service}, {hostname} or {reason}, or remove it",
    }
    a_port_must_be_one {
        "[service.smtp]\nports = [25, 0]" => "2:14: a port must be between 1 and 65535, not 0; give the TCP port the service listens on",
        "[service.smtp]\nports = [\n  25,\n  70000,\n]" => "4:3: a port must be between 1 and 65535, not 70000; give the TCP port the service listens on",
        "[service.smtp]\nports = [-25]" => "2:10: a port must be between 1 and 65535, not -25; give the TCP port the service listens on",
        "[service.smtp]\nports = [\"smtp\"]" => "2:10: a port must be a whole number between 1 and 65535, not \"smtp\"; give the TCP port the service listens on",
        "[service.smtp]\nports = 25" => "2:9: ports must be a list, not 25; write for example ports = [25]",
        "[service.smtp]\nports = \"25, 587\"" => "2:9: ports must be a list, not \"25, 587\"; write for example ports = [25]",
    }
    a_port_belongs_to_one_service {
        "[service.smtp]\nports = [25, 2525, 25]" => "2:20: port 25 is listed twice in service smtp; list it once",
        "[service.a]\nports = [9]\nprotocol = 'smtp'\n[service.b]\nports = [8, 9]\nprotocol = 'smtp'" => "5:13: port 9 of service b already belongs to service a (line 2); remove it from one of them",
        "[service.imaps]\nports = [993]\nprotocol = 'imap'" => "2:10: port 993 of service imaps already belongs to the built-in service imap; remove it there with [service.imap] ports = [143], or here",
        "[service.mx]\nports = [25]\nprotocol = 'smtp'" => "2:10: port 25 of service mx already belongs to the built-in service smtp; remove it there with [service.smtp] ports = [], or here",
        "[service.smtp]\nports = [25, 587]\n[service.submission]\nmax_connections = 5" => "2:14: port 587 of service smtp already belongs to the built-in service submission; remove it there with [service.submission] ports = [], or here",
    }
    a_prefix_never_makes_the_world_one_source {
        "[defaults]\nipv4_prefix = 0" => "2:15: ipv4_prefix must be between 1 and 32, not 0; give the bits of an IPv4 address that make a source, 32 for single addresses",
        "[defaults]\nipv4_prefix = 33" => "2:15: ipv4_prefix must be between 1 and 32, not 33; give the bits of an IPv4 address that make a source, 32 for single addresses",
        "[service.smtp]\nipv6_prefix = 0" => "2:15: ipv6_prefix must be between 1 and 128, not 0; give the bits of an IPv6 address that make a source, 64 for one network",
        "[service.smtp]\nipv6_prefix = 129" => "2:15: ipv6_prefix must be between 1 and 128, not 129; give the bits of an IPv6 address that make a source, 64 for one network",
        "[service.smtp]\nipv6_prefix = \"/64\"" => "2:15: ipv6_prefix must be a whole number between 1 and 128, not \"/64\"; give the bits of an IPv6 address that make a source, 64 for one network",
    }
    a_rate_is_a_number_of_connections_in_a_time {
        "[defaults]\nrate = \"60\"" => "2:8: rate must be a number of connections a second, minute or hour such as \"10/s\", \"60/min\" or \"600/h\", or \"none\", not \"60\"; choose how fast one source may connect",
        "[service.smtp]\nrate = 60" => "2:8: rate must be a number of connections a second, minute or hour such as \"10/s\", \"60/min\" or \"600/h\", or \"none\", not 60; choose how fast one source may connect",
        "[service.smtp]\nrate = \"60/min\"\nburst = 0" => "3:9: burst must be between 1 and 1000000, not 0; give the number of connections a source may make at once",
        "[service.smtp]\nburst = 5" => "2:1: burst has no effect without a rate; add for example rate = \"60/min\", or remove it",
        "[defaults]\nburst = 5\n[service.smtp]\nrate = \"1/s\"" => "2:1: burst has no effect without a rate; add for example rate = \"60/min\", or remove it",
        "[defaults]\nrate = \"1/s\"\n[service.smtp]\nrate = \"none\"\nburst = 5" => "5:1: burst has no effect without a rate; add for example rate = \"60/min\", or remove it",
    }
    a_network_is_larger_than_a_source {
        "[service.smtp]\nnetwork = 50" => "2:11: network must be a table or \"none\", not 50; write for example network = { max_connections = 50 }",
        "[service.smtp]\nnetwork = {}" => "2:11: network has no max_connections; write for example network = { max_connections = 50 }",
        "[service.smtp]\nnetwork = { max_connections = 0 }" => "2:31: max_connections of a network must be between 1 and 1000000, not 0; give the number of connections one network may hold",
        "[service.smtp]\nnetwork = { prefix = 24, max_connections = 50 }" => "2:13: unknown key prefix in the network of [service.smtp] (known: ipv4_prefix, ipv6_prefix, max_connections); remove it",
        "[service.smtp]\n[service.smtp.network]\nipv4_prefix = 33\nmax_connections = 50" => "3:15: ipv4_prefix of a network must be between 1 and 32, not 33; give the bits of an IPv4 address that make a network, 24 for example",
        "[service.smtp]\nnetwork = { max_connections = 19 }" => "2:1: a network may hold 19 connections to service smtp, less than the 20 one source may hold; raise it, or lower max_connections",
        "hostname = 'a'\n[defaults]\nnetwork = { max_connections = 19 }" => "3:1: a network may hold 19 connections to service imap, less than the 20 one source may hold; raise it, or lower max_connections",
        "[service.smtp]\nipv6_prefix = 56\nnetwork = { ipv6_prefix = 64, max_connections = 50 }" => "3:1: the ipv6_prefix 64 of a network is longer than the ipv6_prefix 56 of a source at service smtp; give a shorter one",
    }
    a_total_is_for_a_service_and_has_room_for_a_source {
        "[defaults]\nmax_total = 400" => "2:1: unknown key max_total in [defaults] (known: max_connections, ipv4_prefix, ipv6_prefix, response, rate, burst, network, keepalive, wait, tls, message, url); move it to a [service.NAME]",
        "[service.smtp]\nmax_total = 0" => "2:13: max_total must be between 1 and 1000000, not 0; give the number of connections the whole service may hold, or \"none\"",
        "[service.smtp]\nmax_total = 19" => "2:13: max_total 19 of service smtp is less than the 20 connections one source may hold; raise it, or lower max_connections",
        "[service.smtp]\nreserve = 5" => "2:11: service smtp has a reserve but no max_total; add max_total, or set reserve to 0",
        "[service.smtp]\nreserve = 5\nmax_total = 'none'" => "2:11: service smtp has a reserve but no max_total; add max_total, or set reserve to 0",
        "[service.smtp]\nmax_total = true" => "2:13: max_total must be a whole number between 1 and 1000000, not a boolean; give the number of connections the whole service may hold, or \"none\"",
    }
    what_does_not_fit_to_the_defaults_is_at_what_the_service_says {
        "[defaults]\nnetwork.max_connections = 50\n[service.imap]\nports = [143]\nmax_connections = 51" => "5:19: a network may hold 50 connections to service imap, less than the 51 one source may hold; raise it, or lower max_connections",
        "[defaults]\nnetwork = { ipv4_prefix = 24, max_connections = 50 }\n[service.imap]\nipv4_prefix = 16" => "4:15: the ipv4_prefix 24 of a network is longer than the ipv4_prefix 16 of a source at service imap; give a shorter one",
        "[defaults]\nmax_connections = 51\n[service.smtp.network]\nmax_connections = 50" => "3:15: a network may hold 50 connections to service smtp, less than the 51 one source may hold; raise it, or lower max_connections",
        "[service.smtp]\n[defaults]\nmax_connections = 51\n[defaults.network]\nmax_connections = 50" => "4:11: a network may hold 50 connections to service smtp, less than the 51 one source may hold; raise it, or lower max_connections",
        "[defaults]\nmax_connections = 51\n[service.smtp]\nmax_total = 50" => "4:13: max_total 50 of service smtp is less than the 51 connections one source may hold; raise it, or lower max_connections",
    }
    a_key_typed_below_a_network_is_sent_back_to_its_table {
        "[service.smtp.network]\nmax_connections = 50\nmax_total = 400" => "3:1: unknown key max_total in the network of [service.smtp] (known: ipv4_prefix, ipv6_prefix, max_connections); move it above network, in [service.smtp]",
        "[defaults.network]\nmax_connections = 50\nrate = '60/min'" => "3:1: unknown key rate in the network of [defaults] (known: ipv4_prefix, ipv6_prefix, max_connections); move it above network, in [defaults]",
        "[service.smtp.network]\nmax_connections = 50\nmax_sources = 2048" => "3:1: unknown key max_sources in the network of [service.smtp] (known: ipv4_prefix, ipv6_prefix, max_connections); move it above the first table",
        "[service.smtp.network]\nmax_conections = 50" => "2:1: unknown key max_conections in the network of [service.smtp] (known: ipv4_prefix, ipv6_prefix, max_connections); did you mean max_connections?",
    }
    a_mode_is_one_of_two {
        "mode = \"test\"" => "1:8: mode must be \"enforce\" or \"observe\", not \"test\"; choose whether to refuse connections or only to count refusals",
        "[service.smtp]\nmode = true" => "2:8: mode must be \"enforce\" or \"observe\", not a boolean; choose whether to refuse connections or only to count refusals",
    }
    a_rule_is_for_a_network {
        "rule = 5" => "1:8: rule must be a list of tables, not 5; write [[rule]] above the keys of each",
        "[rule]\nallow = true" => "1:1: rule must be a list of tables, not a table; write [[rule]] above the keys of each",
        "rule = [5]" => "1:9: rule must be a list of tables, not 5; write [[rule]] above the keys of each",
        "[[rule]]\nallow = true" => "1:1: this rule has no network; add for example network = \"203.0.113.0/24\"",
        "[[rule]]\nnetwork = \"office\"\nallow = true" => "2:11: network must be an address or a network such as \"203.0.113.0/24\" or \"2001:db8::/48\", not office; give the network that the rule is for",
        "[[rule]]\nnetwork = 5\nallow = true" => "2:11: network must be an address or a network such as \"203.0.113.0/24\" or \"2001:db8::/48\", not 5; give the network that the rule is for",
        "[[rule]]\nnetwork = \"203.0.113.7/24\"\ndeny = true" => "2:11: 203.0.113.7/24 has bits set after its prefix; write 203.0.113.0/24 for the network, or the address without the prefix",
        "[[rule]]\nnetwork = \"203.0.113.0/33\"\ndeny = true" => "2:11: network must be an address or a network such as \"203.0.113.0/24\" or \"2001:db8::/48\", not 203.0.113.0/33; give the network that the rule is for",
        "[[rule]]\nnetwork = \"::ffff:203.0.113.0/120\"\ndeny = true" => "2:11: ::ffff:203.0.113.0/120 is an IPv4-mapped IPv6 address; write it as IPv4",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\ndeny = true\n[[rule]]\nnetwork = \"10.0.0.0/8\"\nallow = true" => "5:11: 10.0.0.0/8 already has a rule on line 2; merge the two rules",
        "[[rule]]\nnetwork = \"10.0.0.1\"\ndeny = true\n[[rule]]\nnetwork = \"10.0.0.1/32\"\nallow = true" => "5:11: 10.0.0.1/32 already has a rule on line 2; merge the two rules",
    }
    a_rule_says_one_thing {
        "[[rule]]\nnetwork = \"10.0.0.0/8\"" => "2:11: the rule for 10.0.0.0/8 has no effect; add allow = true, deny = true, max_connections, rate, network_max_connections, or source_prefix",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\nallow = true\ndeny = true" => "2:11: the rule for 10.0.0.0/8 has more than one of allow, deny and limits; keep one of them",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\nallow = true\nmax_connections = 5" => "2:11: the rule for 10.0.0.0/8 has more than one of allow, deny and limits; keep one of them",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\nallow = false" => "3:9: allow can only be true; set it to true, or remove it",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\nmax_connections = 0" => "3:19: max_connections must be between 1 and 1000000, not 0; give the number of connections one source may hold",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\nmax_connections = { imap = 0 }" => "3:28: max_connections must be between 1 and 1000000, not 0; give the number of connections one source may hold",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\nmax_connections = { imaps = 5 }" => "3:21: unknown service imaps (known: imap, pop3, sieve, smtp, submission, submissions); name one of these",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\nlimit = 5" => "3:1: unknown key limit in [[rule]] (known: network, allow, deny, max_connections, rate, burst, network_max_connections, source_prefix, comment); remove it",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\ndeny = true\ncomment = 5" => "4:11: comment must be text, not 5; put it in quotes",
    }
    a_rules_limits_are_those_of_a_service {
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\nrate = 60" => "3:8: rate must be a number of connections a second, minute or hour such as \"10/s\", \"60/min\" or \"600/h\", or \"none\", not 60; choose how fast one source may connect",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\nrate = { smtp = \"60\" }" => "3:17: rate must be a number of connections a second, minute or hour such as \"10/s\", \"60/min\" or \"600/h\", or \"none\", not \"60\"; choose how fast one source may connect",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\nrate = { smtps = \"60/min\" }" => "3:10: unknown service smtps (known: imap, pop3, sieve, smtp, submission, submissions); name one of these",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\nburst = 5" => "3:1: burst has no effect without a rate in the same rule; add for example rate = \"60/min\", or remove it",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\nrate = \"none\"\nburst = 5" => "4:1: burst has no effect without a rate in the same rule; add for example rate = \"60/min\", or remove it",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\nrate = { imap = \"60/min\" }\nburst = { smtp = 5 }" => "4:1: burst has no effect without a rate in the same rule; add for example rate = \"60/min\", or remove it",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\nrate = \"60/min\"\nburst = 0" => "4:9: burst must be between 1 and 1000000, not 0; give the number of connections a source may make at once",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\nnetwork_max_connections = 0" => "3:27: network_max_connections must be between 1 and 1000000, not 0; give the number of connections the network around a source may hold, or \"none\"",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\nnetwork_max_connections = \"many\"" => "3:27: network_max_connections must be a whole number between 1 and 1000000, not \"many\"; give the number of connections the network around a source may hold, or \"none\"",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\nmax_connections = { imap = 9 }\nnetwork_max_connections = 8" => "4:1: the rule for 10.0.0.0/8 lets the network around a source hold 8 connections, less than the 9 the source itself may hold; raise network_max_connections, or lower max_connections",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\nallow = true\nrate = \"60/min\"" => "2:11: the rule for 10.0.0.0/8 has more than one of allow, deny and limits; keep one of them",
        "[[rule]]\nnetwork = \"10.0.0.0/8\"\ndeny = true\nnetwork_max_connections = \"none\"" => "2:11: the rule for 10.0.0.0/8 has more than one of allow, deny and limits; keep one of them",
    }
    keepalive_is_a_time {
        "[defaults]\nkeepalive = 600" => "2:13: keepalive must be a time between \"30s\" and \"24h\", or \"none\", not 600; give the time after which a vanished client's connection ends",
        "[defaults]\nkeepalive = \"29s\"" => "2:13: keepalive must be a time between \"30s\" and \"24h\", or \"none\", not \"29s\"; give the time after which a vanished client's connection ends",
        "[defaults]\nkeepalive = \"25h\"" => "2:13: keepalive must be a time between \"30s\" and \"24h\", or \"none\", not \"25h\"; give the time after which a vanished client's connection ends",
        "[defaults]\nkeepalive = \"30s 1ms\"" => "2:13: keepalive must be a time between \"30s\" and \"24h\", or \"none\", not \"30s 1ms\"; give the time after which a vanished client's connection ends",
    }
    a_certificate_is_two_absolute_paths {
        "[defaults]\ntls = 1" => "2:7: tls must be a table, a list of tables, or \"none\", not 1; write for example tls = { certificate = \"/etc/ssl/mail.pem\", key = \"/etc/ssl/private/mail.key\" }",
        "[defaults]\ntls = [\"/a\"]" => "2:8: tls must be a table, a list of tables, or \"none\", not \"/a\"; write for example tls = { certificate = \"/etc/ssl/mail.pem\", key = \"/etc/ssl/private/mail.key\" }",
        "[service.imap]\ntls = { certificate = \"/a\", keyy = \"/b\" }" => "2:29: unknown key keyy in the tls of [service.imap] (known: certificate, key); did you mean key?",
        "[service.imap]\ntls = { cert = \"/a\", key = \"/b\" }" => "2:9: unknown key cert in the tls of [service.imap] (known: certificate, key); did you mean certificate?",
        "[service.imap]\ntls = { certificate = \"/a\", privkey = \"/b\" }" => "2:29: unknown key privkey in the tls of [service.imap] (known: certificate, key); did you mean key?",
        "[service.imap]\ntls = { certificate = \"/a\" }" => "2:7: tls has no key; add for example key = \"/etc/ssl/private/mail.key\"",
        "[service.imap]\ntls = [{ key = \"/a\" }]" => "2:8: tls has no certificate; add for example certificate = \"/etc/ssl/mail.pem\"",
        "[service.imap.tls]\nkey = \"a.key\"" => "2:7: key must be an absolute path such as \"/etc/ssl/mail.pem\", not \"a.key\"; give the path of a PEM file",
        "[service.imap.tls]\ncertificate = \"/a\\nb\"" => "2:15: certificate must be an absolute path such as \"/etc/ssl/mail.pem\", not \"/a\\nb\"; give the path of a PEM file",
        "[service.imap.tls]\ncertificate = true" => "2:15: certificate must be an absolute path such as \"/etc/ssl/mail.pem\", not a boolean; give the path of a PEM file",
        "[service.imap.tls]\ncert = \"/a\"" => "2:1: unknown key cert in the tls of [service.imap] (known: certificate, key); did you mean certificate?",
        "[service.imap.tls]\nwait = \"1s\"" => "2:1: unknown key wait in the tls of [service.imap] (known: certificate, key); move it above tls, in [service.imap]",
    }
    tls_starts_at_once_at_ports_of_the_service {
        "[service.imap]\ntls_ports = 993" => "2:13: tls_ports must be a list, not 993; write for example tls_ports = [465]",
        "[service.imap]\ntls_ports = [143,  465]" => "2:20: port 465 of tls_ports is not a port of service imap; add it to ports, or remove it here",
        "[service.imap]\nports = [143]\ntls_ports = [993]" => "3:14: port 993 of tls_ports is not a port of service imap; add it to ports, or remove it here",
        "[service.imap]\ntls_ports = [993, 143, 993]" => "2:24: port 993 is listed twice in tls_ports of service imap; list it once",
        "[service.imap]\ntls_ports = [0]" => "2:14: a port must be between 1 and 65535, not 0; give the TCP port the service listens on",
        "[defaults]\ntls_ports = [993]" => "2:1: unknown key tls_ports in [defaults] (known: max_connections, ipv4_prefix, ipv6_prefix, response, rate, burst, network, keepalive, wait, tls, message, url); move it to a [service.NAME]",
    }
    a_wait_is_a_time_in_whole_seconds {
        "[service.smtp]\nwait = \"61s\"" => "2:8: wait must be a time in whole seconds between \"0s\" and \"60s\", not \"61s\"; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        "[defaults]\nwait = \"1.5s\"" => "2:8: wait must be a time in whole seconds between \"0s\" and \"60s\", not \"1.5s\"; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        "[defaults]\nwait = 1.5" => "2:8: wait must be a time in whole seconds between \"0s\" and \"60s\", not a fraction; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        "[defaults]\nwait = \"-1\"" => "2:8: wait must be a time in whole seconds between \"0s\" and \"60s\", not \"-1\"; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        "[defaults]\nwait = -1" => "2:8: wait must be a time in whole seconds between \"0s\" and \"60s\", not -1; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        "[defaults]\n  wait  =  5" => "2:12: wait must be a time in whole seconds between \"0s\" and \"60s\", not 5; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        "[defaults]\nwait = \"5\"" => "2:8: wait must be a time in whole seconds between \"0s\" and \"60s\", not \"5\"; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        "[defaults]\nwait = \"abc\"" => "2:8: wait must be a time in whole seconds between \"0s\" and \"60s\", not \"abc\"; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        "[defaults]\nwait = \"\"" => "2:8: wait must be a time in whole seconds between \"0s\" and \"60s\", not \"\"; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        "[defaults]\nwait = \"none\"" => "2:8: wait must be a time in whole seconds between \"0s\" and \"60s\", not \"none\"; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        "[defaults]\nwait = \"5s 1ms\"" => "2:8: wait must be a time in whole seconds between \"0s\" and \"60s\", not \"5s 1ms\"; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        "[defaults]\nwait = \"256s\"" => "2:8: wait must be a time in whole seconds between \"0s\" and \"60s\", not \"256s\"; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        "[defaults]\nwait = \"99999999999999999999s\"" => "2:8: wait must be a time in whole seconds between \"0s\" and \"60s\", not \"99999999999999999999s\"; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        "[service.smtp]\nwait = true" => "2:8: wait must be a time in whole seconds between \"0s\" and \"60s\", not a boolean; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        "wait = \"5s\"" => "1:1: unknown key wait at the top level (known: hostname, max_sources, remember_seconds, reconcile_seconds, mode, interfaces, history, defaults, service, ladder, rule); move it to [defaults]",
        "[service.smtp]\nwaits = \"5s\"" => "2:1: unknown key waits in [service.smtp] (known: ports, tls_ports, protocol, mode, max_total, reserve, max_connections, ipv4_prefix, ipv6_prefix, response, rate, burst, network, keepalive, wait, tls, message, url); did you mean wait?",
    }
    the_ladder_is_of_numbers_and_times {
        "[ladder]\nreplies = 20" => "2:11: replies must be a text such as \"20/min\", per s, min or h, or \"none\", not 20; give the number of replies a source gets before it gets resets",
        "[ladder]\nreplies = \"0/min\"" => "2:11: replies must be a text such as \"20/min\", per s, min or h, or \"none\", not \"0/min\"; give the number of replies a source gets before it gets resets",
        "[ladder]\nban_after = 100" => "2:13: ban_after must be a text such as \"100 in 10min\", or \"none\", not 100; give the number of refused connections that leads to a ban, and their time",
        "[ladder]\nban_after = \"100\"" => "2:13: ban_after must be a text such as \"100 in 10min\", or \"none\", not \"100\"; give the number of refused connections that leads to a ban, and their time",
        "[ladder]\nban_after = \"0 in 10min\"" => "2:13: ban_after must be a text such as \"100 in 10min\", or \"none\", not \"0 in 10min\"; give the number of refused connections that leads to a ban, and their time",
        "[ladder]\nban_after = \"100 in 31days\"" => "2:13: ban_after must be a text such as \"100 in 10min\", or \"none\", not \"100 in 31days\"; give the number of refused connections that leads to a ban, and their time",
        "[ladder]\nban_after = \"200 in 10min\"" => "2:13: ban_after = \"200 in 10m\" is never reached, because only refusals with a reply count and replies is \"20/min\"; lower ban_after, or raise replies",
        "[ladder]\nban = 600" => "2:7: ban must be a time between \"1s\" and \"30days\", not 600; give the length of a ban",
        "[ladder]\nban = \"0s\"" => "2:7: ban must be a time between \"1s\" and \"30days\", not \"0s\"; give the length of a ban",
        "[ladder]\nban_max = \"none\"" => "2:11: ban_max must be a time between \"1s\" and \"30days\", not \"none\"; give the length of a ban",
        "[ladder]\nban = \"2h\"\nban_max = \"1h\"" => "3:11: ban_max (1h) is shorter than ban (2h); raise ban_max, or lower ban",
        "[ladder]\nmax_bans = 1023" => "2:12: max_bans must be between 1024 and 4194304, not 1023; give the number of refused and banned sources to remember",
        "[ladder]\nban_aftr = \"5 in 1min\"" => "2:1: unknown key ban_aftr in [ladder] (known: replies, ban_after, ban, ban_max, max_bans); did you mean ban_after?",
        "ban = \"10m\"" => "1:1: unknown key ban at the top level (known: hostname, max_sources, remember_seconds, reconcile_seconds, mode, interfaces, history, defaults, service, ladder, rule); move it to [ladder]",
        "ladder = 5" => "1:10: ladder must be a table, not 5; write [ladder] above its keys",
    }
    interfaces_are_auto_or_named {
        "interfaces = \"eth0\"" => "1:14: interfaces must be \"auto\" or a list of names such as [\"eth0\"], not \"eth0\"; name the interfaces the shield attaches to, or [] for none",
        "interfaces = [\"eth0\", 5]" => "1:23: interfaces must be \"auto\" or a list of names such as [\"eth0\"], not 5; name the interfaces the shield attaches to, or [] for none",
        "interfaces = [\"a/b\"]" => "1:15: interfaces must be \"auto\" or a list of names such as [\"eth0\"], not \"a/b\"; name the interfaces the shield attaches to, or [] for none",
        "interfaces = [\"sixteen-letters-\"]" => "1:15: interfaces must be \"auto\" or a list of names such as [\"eth0\"], not \"sixteen-letters-\"; name the interfaces the shield attaches to, or [] for none",
        "interfaces = [\"eth0\", \"eth0\"]" => "1:23: the interface eth0 is named twice; remove one",
    }
    the_words_are_those_of_the_design {
        "[service.smtp]\nprotocol = \"SMTP\"" => "2:12: protocol must be \"smtp\", \"imap\", \"pop3\" or \"sieve\", not \"SMTP\"; give the protocol of the service's clients",
        "[service.smtp]\nprotocol = 1" => "2:12: protocol must be \"smtp\", \"imap\", \"pop3\" or \"sieve\", not 1; give the protocol of the service's clients",
        "[defaults]\nresponse = \"ban\"" => "2:12: response must be \"reply\", \"reset\" or \"drop\", not \"ban\"; choose how to answer a refusal",
        "[defaults]\nresponse = []" => "2:12: response must be \"reply\", \"reset\" or \"drop\", not a list; choose how to answer a refusal",
    }
    the_keys_above_all_tables_have_bounds_too {
        "max_sources = 1023" => "1:15: max_sources must be between 1024 and 16777216, not 1023; give the number of sources the ledger can hold",
        "max_sources = 16777217" => "1:15: max_sources must be between 1024 and 16777216, not 16777217; give the number of sources the ledger can hold",
        "hostname = \"\"" => "1:12: hostname must be 1 to 253 letters, digits, \".\" and \"-\", not \"\"; give the name mail clients know",
        "hostname = \"a b\\r\\n250 c\"" => "1:12: hostname must be 1 to 253 letters, digits, \".\" and \"-\", not \"a b\\r\\n250 c\"; give the name mail clients know",
        "hostname = 7" => "1:12: hostname must be 1 to 253 letters, digits, \".\" and \"-\", not 7; give the name mail clients know",
    }
    a_service_needs_a_name_and_a_new_one_ports_and_protocol {
        "[service.Smtp]" => "1:10: a service name must be 1 to 15 of a-z, 0-9, \"-\" and \"_\", not \"Smtp\"; give it another name",
        "[service.\"\"]" => "1:10: a service name must be 1 to 15 of a-z, 0-9, \"-\" and \"_\", not \"\"; give it another name",
        "[service.\"a\\nb\"]" => "1:10: a service name must be 1 to 15 of a-z, 0-9, \"-\" and \"_\", not \"a\\nb\"; give it another name",
        "[service.sixteen-letters-]" => "1:10: a service name must be 1 to 15 of a-z, 0-9, \"-\" and \"_\", not \"sixteen-letters-\"; give it another name",
        "[service.lmtp]\nprotocol = 'smtp'" => "1:10: service lmtp is not built in and has no ports; add for example ports = [2525]",
        "[service.lmtp]\nports = [24]" => "1:10: service lmtp is not built in and has no protocol; add for example protocol = \"smtp\"",
    }
    an_unknown_key_is_named_with_those_there_are {
        "[service.smtp]\nspeed = \"60/min\"" => "2:1: unknown key speed in [service.smtp] (known: ports, tls_ports, protocol, mode, max_total, reserve, max_connections, ipv4_prefix, ipv6_prefix, response, rate, burst, network, keepalive, wait, tls, message, url); remove it",
        "[service.smtp]\nmax_conections = 5" => "2:1: unknown key max_conections in [service.smtp] (known: ports, tls_ports, protocol, mode, max_total, reserve, max_connections, ipv4_prefix, ipv6_prefix, response, rate, burst, network, keepalive, wait, tls, message, url); did you mean max_connections?",
        "[defaults]\nipv4-prefix = 5" => "2:1: unknown key ipv4-prefix in [defaults] (known: max_connections, ipv4_prefix, ipv6_prefix, response, rate, burst, network, keepalive, wait, tls, message, url); did you mean ipv4_prefix?",
        "modes = \"observe\"" => "1:1: unknown key modes at the top level (known: hostname, max_sources, remember_seconds, reconcile_seconds, mode, interfaces, history, defaults, service, ladder, rule); did you mean mode?",
        "[ladders]\nban = '10min'" => "1:2: unknown key ladders at the top level (known: hostname, max_sources, remember_seconds, reconcile_seconds, mode, interfaces, history, defaults, service, ladder, rule); did you mean ladder?",
        "[services.smtp]" => "1:2: unknown key services at the top level (known: hostname, max_sources, remember_seconds, reconcile_seconds, mode, interfaces, history, defaults, service, ladder, rule); did you mean service?",
        "\"a\\nb\" = 1" => "1:1: unknown key a\\nb at the top level (known: hostname, max_sources, remember_seconds, reconcile_seconds, mode, interfaces, history, defaults, service, ladder, rule); remove it",
    }
    a_key_in_the_wrong_table_is_sent_home {
        "max_connections = 5" => "1:1: unknown key max_connections at the top level (known: hostname, max_sources, remember_seconds, reconcile_seconds, mode, interfaces, history, defaults, service, ladder, rule); move it to [defaults]",
        "[defaults]\nports = [25]" => "2:1: unknown key ports in [defaults] (known: max_connections, ipv4_prefix, ipv6_prefix, response, rate, burst, network, keepalive, wait, tls, message, url); move it to a [service.NAME]",
        "[defaults]\nhostname = 'a'" => "2:1: unknown key hostname in [defaults] (known: max_connections, ipv4_prefix, ipv6_prefix, response, rate, burst, network, keepalive, wait, tls, message, url); move it above the first table",
    }
    a_table_must_be_one {
        "defaults = 5" => "1:12: defaults must be a table, not 5; write [defaults] above its keys",
        "[[defaults]]\nmax_connections = 5" => "1:1: defaults must be a table, not a list; write [defaults] above its keys",
        "service = 'smtp'" => "1:11: service must be a table, not \"smtp\"; write [service] above its keys",
        "[service]\nsmtp = 25" => "2:8: service smtp must be a table, not 25; write [service.smtp] above its keys",
        "[[service.smtp]]\nports = [25]" => "1:1: service smtp must be a table, not a list; write [service.smtp] above its keys",
    }
    the_grammar_is_that_of_toml {
        "[defaults]\nmax_connections 5" => "2:17: this is not valid TOML (key with no value, expected `=`); correct it",
        "[defaults" => "1:10: this is not valid TOML (unclosed table, expected `]`); correct it",
        "hostname = 'a" => "1:14: this is not valid TOML (invalid literal string, expected `'`); correct it",
        "hostname = \"a\\q\"" => "1:15: this is not valid TOML (missing escaped value, expected `b`, `e`, `f`, `n`, `r`, `\\`, `\"`, `x`, `u`, `U`); correct it",
        "max_sources = 2048\nmax_sources = 2048" => "2:1: this is not valid TOML (duplicate key); correct it",
        "[service.smtp]\n[service.smtp]" => "2:10: this is not valid TOML (duplicate key); correct it",
        "max_sources = 10k" => "1:15: this is not valid TOML (string values must be quoted, expected literal string); correct it",
        "# ä\n\thostname = ä" => "2:13: this is not valid TOML (string values must be quoted, expected literal string); correct it",
        "=" => "1:1: this is not valid TOML (unquoted keys cannot be empty, expected letters, numbers, `-`, `_`); correct it",
    }
    the_first_mistake_of_the_file_is_the_one_reported {
        "[service.smtp]\nmax_connections = 0\n[defaults]\nmax_connections = 0" => "2:19: max_connections must be between 1 and 1000000, not 0; give the number of connections one source may hold",
        "[defaults]\nresponse = 'no'\nipv4_prefix = 0" => "2:12: response must be \"reply\", \"reset\" or \"drop\", not \"no\"; choose how to answer a refusal",
    }
    columns_are_characters {
        "[defaults] # größer\n\"max_connections\" = 0 # ä" => "2:21: max_connections must be between 1 and 1000000, not 0; give the number of connections one source may hold",
        "service = { 'smtp' = { 'response' = 'ä', ports = 1 } }" => "1:37: response must be \"reply\", \"reset\" or \"drop\", not \"ä\"; choose how to answer a refusal",
        "\u{feff}max_sources = 0" => "1:15: max_sources must be between 1024 and 16777216, not 0; give the number of sources the ledger can hold",
        "\r\n\r\nmax_sources = 0" => "3:15: max_sources must be between 1024 and 16777216, not 0; give the number of sources the ledger can hold",
    }
}

#[test]
fn deep_nesting_is_refused_and_harmless() {
    for open in ["[", "{a="] {
        let text = format!("hostname = {}", open.repeat(100_000));
        assert!(refused(&text).starts_with("limiter.toml:1:"));
    }
    assert!(refused(&format!("{}a = 1", "a.".repeat(100_000))).starts_with("limiter.toml:1:"));
}

#[test]
fn a_setting_is_refused_with_the_sentence_of_the_file() {
    let table = [
        (
            "max_connections=0",
            "max_connections must be between 1 and 1000000, not 0; give the number of connections one source may hold",
        ),
        (
            "max_connections=-5",
            "max_connections must be between 1 and 1000000, not -5; give the number of connections one source may hold",
        ),
        (
            "max_connections=1000001",
            "max_connections must be between 1 and 1000000, not 1000001; give the number of connections one source may hold",
        ),
        (
            "max_connections=99999999999999999999999999999999999999999",
            "max_connections must be between 1 and 1000000, not 9999999999999999999999999999999999999999…; give the number of connections one source may hold",
        ),
        (
            "max_connections=ten",
            "max_connections must be a whole number between 1 and 1000000, not \"ten\"; give the number of connections one source may hold",
        ),
        (
            "max_connections=",
            "max_connections must be a whole number between 1 and 1000000, not \"\"; give the number of connections one source may hold",
        ),
        (
            "max_connections=2.5",
            "max_connections must be a whole number between 1 and 1000000, not \"2.5\"; give the number of connections one source may hold",
        ),
        (
            "response=ban",
            "response must be \"reply\", \"reset\" or \"drop\", not \"ban\"; choose how to answer a refusal",
        ),
        (
            "response=1",
            "response must be \"reply\", \"reset\" or \"drop\", not 1; choose how to answer a refusal",
        ),
        (
            "wait=61s",
            "wait must be a time in whole seconds between \"0s\" and \"60s\", not \"61s\"; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        ),
        (
            "wait=-1",
            "wait must be a time in whole seconds between \"0s\" and \"60s\", not -1; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        ),
        (
            "wait=abc",
            "wait must be a time in whole seconds between \"0s\" and \"60s\", not \"abc\"; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        ),
        (
            "wait=1.5s",
            "wait must be a time in whole seconds between \"0s\" and \"60s\", not \"1.5s\"; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        ),
        (
            "wait=5",
            "wait must be a time in whole seconds between \"0s\" and \"60s\", not 5; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        ),
        (
            "wait=",
            "wait must be a time in whole seconds between \"0s\" and \"60s\", not \"\"; choose how long a client waits for a place before it is refused, \"0s\" to refuse it at once",
        ),
        (
            "max_connection=5",
            "unknown key max_connection of a running service (known: max_connections, rate, burst, network_max_connections, max_total, reserve, keepalive, wait, response, mode); did you mean max_connections?",
        ),
        (
            "ipv4_prefix=24",
            "unknown key ipv4_prefix of a running service (known: max_connections, rate, burst, network_max_connections, max_total, reserve, keepalive, wait, response, mode); change other keys in the file",
        ),
        ("max_connections", "\"max_connections\" is not KEY=VALUE; write for example max_connections=20"),
        ("", "\"\" is not KEY=VALUE; write for example max_connections=20"),
        ("=5", "\"=5\" is not KEY=VALUE; write for example max_connections=20"),
    ];
    for (text, expected) in table {
        assert_eq!(
            parse_setting(text).map_err(|error| error.to_string()),
            Err(expected.to_owned()),
            "{text}"
        );
    }
}
