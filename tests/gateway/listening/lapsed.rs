//! Listeners with a certificate that callers refuse because of its dates: the gateway keeps serving, and is
//! not ready.

use serde_json::Value;

use crate::emulator::certs::Leaf;
use crate::harness::{PATIENCE, Running, World};

/// A listener with this certificate.
fn listener(world: &World, name: &str, leaf: &Leaf) -> String {
    world.file(&format!("{name}.pem"), &leaf.chain_pem);
    world.file(&format!("{name}.key"), &leaf.key_pem);
    format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[[listener.certificate]]\nchain = \"{name}.pem\"\nkey = \"file:{name}.key\"\n"
    )
}

/// A gateway with these listeners and a route that needs no token.
fn start(world: &World, requires: &str, listeners: &str) -> Running {
    world.file("trigger", "https://localhost:9/?sp=a&sv=b&sig=canary");
    let route = world.route(
        "orders",
        "/orders",
        "file:trigger",
        "signed = true\nanonymous = true",
    );
    world.start(&format!(
        "[admin]\naddress = \"127.0.0.1:0\"\nready_requires = \"{requires}\"\n{listeners}{route}"
    ))
}

#[tokio::test]
async fn one_good_listener_is_enough_where_any_route_is() {
    let world = World::new().await;
    let ca = &world.emulator.ca;
    let good = listener(&world, "good", &ca.leaf(&["localhost"]));
    let old = listener(&world, "old", &ca.expired_leaf(&["old.example"]));
    for (requires, status) in [("any-route", "ready"), ("all-routes", "no-certificate")] {
        let gateway = start(&world, requires, &format!("{old}{good}"));
        let (code, text) = gateway.admin("/readyz?verbose").await;
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (report["status"].as_str(), code == 200),
            (Some(status), status == "ready"),
            "{report}"
        );
        let why = report["certificates_not_ready"][0]["why"].as_str().unwrap();
        assert!(
            why.starts_with("the certificate for old.example expired on 2"),
            "{report}"
        );
        assert_eq!(report["certificates_not_ready"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn without_a_valid_certificate_the_gateway_is_not_ready_until_one_is_put_in_its_place() {
    let world = World::new().await;
    let old = listener(&world, "site", &world.emulator.ca.future_leaf(&["localhost"]));
    let gateway = start(&world, "any-route", &old);
    assert_eq!(gateway.admin("/readyz").await, (503, "no-certificate".to_owned()));
    let (_, text) = gateway.admin("/readyz?verbose").await;
    assert!(
        text.contains("the certificate for localhost is not valid before 2"),
        "{text}"
    );
    listener(&world, "site", &world.emulator.ca.leaf(&["localhost"]));
    let ready = async {
        while gateway.admin("/readyz").await.0 != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ready)
        .await
        .expect("the new certificate does not count");
}
