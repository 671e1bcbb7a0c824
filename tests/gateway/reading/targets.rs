//! Targets and methods on HTTP/1 that different readers interpret differently. Paths that could lead to
//! another route are in `paths.rs`.

use crate::reading::{Case, case, changed, refused};

fn targets() -> Vec<Case> {
    let target = |what: &str, target: &[u8]| {
        let good = crate::listening::order_bytes("");
        let (before, after) = good.split_once("/orders").unwrap();
        case(what, [before.as_bytes(), target, after.as_bytes()].concat())
    };
    vec![
        target("a fragment", b"/orders#x"),
        target("an empty fragment", b"/orders#"),
        target("a fragment before the query", b"/orders#x?y"),
        target("a fragment in the query", b"/orders?y#x"),
        target("a fragment in the absolute form", b"https://localhost/orders#x"),
        target("a fragment in front", b"#/orders"),
        target("a backslash in front", b"\\orders"),
        target("a backslash in the path", b"/a\\..\\orders"),
        target("a backslash in the query", b"/orders?a=\\b"),
        target("a backslash in the absolute form", b"https://localhost\\orders"),
        target("UTF-8 in the path", "/\u{f6}rders".as_bytes()),
        target("UTF-8 in the query", "/orders?a=\u{f6}".as_bytes()),
        target(
            "UTF-8 in the absolute form",
            "https://localhost/\u{f6}rders".as_bytes(),
        ),
        target("Latin-1 in the path", b"/\xf6rders"),
        target("Latin-1 in the query", b"/orders?a=\xf6"),
        target("an overlong slash", b"/a\xc0\xaforders"),
        target("a word that is no path", b"orders"),
        target("an asterisk", b"*"),
        target("a host and a port", b"localhost:443"),
    ]
}

refused!(
    targets();
    an_ambiguous_target_is_refused,
    a_target_with_two_meanings_does_not_escape_behind_a_good_request,
    a_target_with_two_meanings_is_refused_in_two_pieces_too
);

fn methods() -> Vec<Case> {
    let method = |line: &str| changed("POST /orders", line);
    vec![
        case("CONNECT to a host", method("CONNECT localhost:443")),
        case("CONNECT to our path", method("CONNECT /orders")),
        case(
            "CONNECT in the absolute form",
            method("CONNECT https://localhost/orders"),
        ),
        case("TRACE", method("TRACE /orders")),
        case("TRACE of everything", method("TRACE *")),
        case("OPTIONS of everything", method("OPTIONS *")),
    ]
}

refused!(
    methods();
    a_method_that_is_not_served_is_refused,
    a_method_that_is_not_served_does_not_escape_behind_a_good_request,
    a_method_that_is_not_served_is_refused_in_two_pieces_too
);
