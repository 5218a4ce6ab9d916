// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A client that is reset hears it.

use std::io::{self, Read as _};

use super::scene::{Scene, each};

#[test]
fn a_client_that_is_reset_hears_it_at_once() {
    each(|lab, way| {
        let mut scene = Scene::new(lab, way);
        scene.remove_the_request();
        scene.prober.reset(&scene.held).unwrap();
        let error = scene.client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}
