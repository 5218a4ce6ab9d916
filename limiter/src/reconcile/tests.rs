// SPDX-License-Identifier: GPL-2.0-only OR MIT
use std::net::IpAddr;

use limiter_common::{
    Addr, ConnectionRecord, CountKeys, ServiceId, ServicePolicy, record, service::Prefixes,
};

use super::*;

fn count_keys(address: &str) -> CountKeys {
    let policy = ServicePolicy {
        source: Prefixes { ipv4: 32, ipv6: 64 },
        network: Prefixes { ipv4: 24, ipv6: 48 },
        network_max_connections: 50,
        ..ServicePolicy::default()
    };
    CountKeys::new(
        ServiceId(1),
        &policy,
        limiter_common::Scope::SERVICES,
        &Addr::from(address.parse::<IpAddr>().unwrap()),
    )
}

fn records(kind: u32, address: &str, n: usize) -> Vec<SocketRecord> {
    vec![SocketRecord { kind, count_keys: count_keys(address), ..SocketRecord::default() }; n]
}

/// Books in which the sources hold so many connections.
fn books(sources: &[(&str, u32)]) -> Books {
    let mut books = Books::new();
    for &(address, connections) in sources {
        let count_keys = count_keys(address);
        for key in [count_keys.source, count_keys.network, Key::total(ServiceId(1))] {
            let book = books.entry(key).or_insert((Count(0), 0));
            book.0.0 += u64::from(connections);
            book.1 += u64::from(connections);
        }
    }
    books
}

#[test]
fn what_agrees_in_every_tier_is_no_difference() {
    let books = books(&[("192.0.2.1", 3), ("192.0.2.2", 1), ("2001:db8::1", 2)]);
    let mut found = records(kind::COUNTED, "192.0.2.1", 2);
    found.extend(records(kind::DEAD, "192.0.2.1", 1));
    found.extend(records(kind::COUNTED, "192.0.2.2", 1));
    found.extend(records(kind::COUNTED, "2001:db8::1", 2));
    found.extend(records(kind::LET_GO, "2001:db8::1", 9));
    found.extend(records(kind::UNCOUNTED, "2001:db8::1", 9));
    let look = Look::compare(&books, &found, &books);
    assert_eq!(look.differences, []);
    assert_eq!((look.connections, look.dead), (5, 1));
}

#[test]
fn a_count_too_many_and_one_too_few_are_differences() {
    let books = books(&[("192.0.2.1", 3), ("198.51.100.1", 0)]);
    let look = Look::compare(&books, &records(kind::COUNTED, "192.0.2.1", 2), &books);
    let found = |key| look.differences.iter().find(|difference| difference.key == key).copied();
    let count_keys_1 = count_keys("192.0.2.1");
    for key in [count_keys_1.source, count_keys_1.network, Key::total(ServiceId(1))] {
        assert_eq!(found(key), Some(Difference { key, ledger: 3, sockets: 2 }));
    }
    assert_eq!(look.differences.len(), 3);
    let look = Look::compare(&books, &records(kind::COUNTED, "198.51.100.1", 1), &books);
    let key = count_keys("198.51.100.1").source;
    assert!(look.differences.contains(&Difference { key, ledger: 0, sockets: 1 }));
}

#[test]
fn what_moved_meanwhile_is_not_judged() {
    let before = books(&[("192.0.2.1", 3)]);
    // One went and one came: the count is the same, the connections are not.
    let mut after = before.clone();
    for book in after.values_mut() {
        book.1 += 1;
    }
    assert_eq!(Look::compare(&before, &[], &after).differences, []);
    // A handshake is just being completed.
    let mut reserved = before;
    for book in reserved.values_mut() {
        book.0.0 += 1 << 32;
    }
    assert_eq!(Look::compare(&reserved, &[], &reserved).differences, []);
    // The entry is gone.
    assert_eq!(Look::compare(&books(&[("192.0.2.1", 3)]), &[], &Books::new()).differences, []);
}

#[test]
fn a_dead_connection_is_counted_once_whether_or_not_the_census_has_found_it() {
    let record = |cookie, kind| SocketRecord { cookie, kind, count_keys: count_keys("192.0.2.1"), zero: 0 };
    let mut found = vec![record(1, kind::COUNTED), record(2, kind::COUNTED)];
    let kept = |cookie| {
        let record = ConnectionRecord::new(record::COUNTED, &count_keys("192.0.2.1"));
        (cookie, Kept::new(record, count_keys("192.0.2.1").source.addr))
    };
    // The second has died since the census found it.
    add_dead(&mut found, &[kept(2), kept(3)]);
    assert_eq!(found, [record(1, kind::COUNTED), record(2, kind::COUNTED), record(3, kind::DEAD)]);
}

#[test]
fn a_suspicion_is_looked_at_again_soon() {
    let every = Duration::from_secs(30);
    let mut reconciler = Reconciler::default();
    assert_eq!(reconciler.wait(every), every);
    reconciler.suspicions.push(Difference { key: count_keys("192.0.2.1").source, ledger: 1, sockets: 0 });
    assert_eq!(reconciler.wait(every), LOOK_AGAIN);
}
