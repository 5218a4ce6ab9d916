// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Requests are found and removed.

use std::io;

use super::scene::{Scene, each};

#[test]
fn a_held_handshake_is_found_and_removed_once_and_its_listener_stays() {
    each(|lab, way| {
        let scene = Scene::new(lab, way);
        let found = scene.diag.find(&scene.held.tuple()).unwrap().expect("there is a request");
        assert_eq!(found.state, 3, "TCP_SYN_RECV");
        let another = [found.cookie[0] ^ 1, found.cookie[1]];
        assert!(!scene.diag.destroy(&scene.held.tuple(), another).unwrap(), "another's cookie");
        assert_eq!(scene.diag.find(&scene.held.tuple()).unwrap(), Some(found));
        assert!(scene.diag.destroy(&scene.held.tuple(), found.cookie).unwrap());
        assert_eq!(scene.diag.find(&scene.held.tuple()).unwrap(), None);
        assert!(!scene.diag.destroy(&scene.held.tuple(), found.cookie).unwrap(), "it is gone");
        // Any cookie would do: without the request that is the listener.
        let error = scene.diag.destroy(&scene.held.tuple(), [u32::MAX; 2]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(scene.listener.take_error().unwrap().map(|e| e.kind()), None, "the listener is well");
        // Without a listener there is nothing that could be found.
        let Scene { listener, diag, held, .. } = scene;
        drop(listener);
        assert_eq!(diag.find(&held.tuple()).unwrap(), None);
        assert!(!diag.destroy(&held.tuple(), found.cookie).unwrap());
    });
}

#[test]
fn a_connection_has_the_cookie_of_its_request() {
    each(|lab, way| {
        let scene = Scene::new(lab, way);
        let request = scene.diag.find(&scene.held.tuple()).unwrap().unwrap();
        scene.open_the_gate();
        scene.prober.probe(&scene.held).unwrap();
        let _connection = scene.listener.accept().unwrap();
        let connection = scene.diag.find(&scene.held.tuple()).unwrap().unwrap();
        assert_eq!((connection.state, connection.cookie), (1, request.cookie), "TCP_ESTABLISHED");
    });
}
