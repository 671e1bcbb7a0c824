//! The head that returns to the caller: what of the platform stays behind and what of the flow passes. It also reads
//! the run id, the one sign that a run exists.

use http::StatusCode;

use crate::model::TriggerUrl;
use crate::wire::Fields;

const RUN_ID: &str = "x-ms-workflow-run-id";
/// Longest run id that is logged; real ones have 33 characters.
const RUN_ID_BYTES_MAX: usize = 64;

/// The run id of an answer, if it carries one that looks like one.
pub fn run_id(fields: &Fields) -> Option<String> {
    let text = fields.text(RUN_ID)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let fits = !text.is_empty() && text.len() <= RUN_ID_BYTES_MAX && text.bytes().all(plain);
    fits.then(|| text.to_owned())
}

/// Whether a field of the answer stays behind. By length first: nearly every name is decided without a comparison.
fn stays(name: &[u8]) -> bool {
    let is_one_of = |names: &[&str]| {
        names
            .iter()
            .any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
    };
    let begins = |with: &[u8]| {
        name.get(..with.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(with))
    };
    // Beside those of the connection (RFC 9110 section 7.6.1), the platform's own words about itself and its host: the
    // caller talks to ours.
    let stays = match name.len() {
        2 => is_one_of(&["te"]),
        6 => is_one_of(&["server"]),
        7 => is_one_of(&["trailer", "upgrade", "alt-svc"]),
        10 => is_one_of(&["connection", "keep-alive", "set-cookie"]),
        12 => is_one_of(&["x-powered-by", "x-request-id"]),
        16 => is_one_of(&["proxy-connection", "x-aspnet-version"]),
        17 => is_one_of(&["transfer-encoding"]),
        18 => is_one_of(&["proxy-authenticate"]),
        25 => is_one_of(&["strict-transport-security"]),
        _ => false,
    };
    stays || begins(b"x-ms-") || begins(b"x-flowgate-")
}

/// Takes out the fields of an API's answer that do not pass: those of its connection and of its host. What it says about
/// the request is the caller's, except how to sign in, which is ours.
pub fn api_head(fields: &mut Fields) {
    let listed = connection_listed(fields);
    fields.retain(|name, _| {
        let of_api = name
            .get(..5)
            .is_some_and(|begin| begin.eq_ignore_ascii_case(b"x-ms-"));
        let kept_back = (stays(name) && !of_api)
            || name.eq_ignore_ascii_case(b"www-authenticate")
            || listed.iter().any(|option| name.eq_ignore_ascii_case(option));
        !kept_back
    });
}

/// Names in the answer's `Connection` field. Mostly none; then it needs no memory.
fn connection_listed(fields: &Fields) -> Vec<Vec<u8>> {
    fields
        .get_all("connection")
        .flat_map(|options| options.split(|byte| *byte == b','))
        .map(|option| option.trim_ascii().to_vec())
        .collect()
}

/// Whether a field says where something is.
fn is_place(name: &[u8]) -> bool {
    let place: &[u8] = match name.len() {
        4 => b"link",
        7 => b"refresh",
        8 => b"location",
        16 => b"content-location",
        18 => b"operation-location",
        20 => b"azure-asyncoperation",
        _ => return false,
    };
    name.eq_ignore_ascii_case(place)
}

/// Takes out the fields that do not pass. A `Location` on the trigger's own host is kept back, and every other place there: it
/// can carry a signature, and the caller could not use it.
pub fn head(status: StatusCode, fields: &mut Fields, trigger: &TriggerUrl) {
    let listed = connection_listed(fields);
    fields.retain(|name, value| {
        let kept_back = stays(name)
            || listed.iter().any(|option| name.eq_ignore_ascii_case(option))
            || (is_place(name) && is_platforms(status, value, trigger));
        !kept_back
    });
}

fn is_platforms(status: StatusCode, value: &[u8], trigger: &TriggerUrl) -> bool {
    let Some(text) = std::str::from_utf8(value).ok().filter(|text| text.is_ascii()) else {
        return true;
    };
    let text = text.to_ascii_lowercase();
    // A relative one that begins as the trigger's own path does leads to the platform, and not to anything of ours.
    let own_root = trigger.path().split('/').nth(1).unwrap_or_default();
    let relative = text.strip_prefix('/').is_some_and(|path| {
        !own_root.is_empty() && path.split(['/', '?']).next() == Some(&own_root.to_ascii_lowercase())
    });
    status == StatusCode::ACCEPTED || relative || text.contains(trigger.host()) || text.contains("sig=")
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::{head, run_id};
    use crate::model::TriggerUrl;
    use crate::wire;
    use crate::wire::Fields;

    fn trigger() -> TriggerUrl {
        let address = "https://prod-1.westus.logic.azure.com/workflows/0123456789abcdef0123456789abcdef/triggers/manual/paths/invoke?api-version=2016-06-01";
        TriggerUrl::parse(address).unwrap()
    }

    fn answer(fields: &[(&str, &str)]) -> Fields {
        let lines: String = fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let text = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        wire::response(&text.into(), fields.len(), &Method::HEAD)
            .unwrap()
            .fields
    }

    fn passed(status: StatusCode, mut fields: Fields) -> Vec<(String, String)> {
        head(status, &mut fields, &trigger());
        let text = |part: &[u8]| String::from_utf8(part.to_vec()).unwrap();
        fields
            .iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    }

    #[test]
    fn the_platform_stays_behind_and_the_flow_passes() {
        let from = answer(&[
            ("content-type", "application/json"),
            ("x-order", "1"),
            ("x-order", "2"),
            ("x-ms-workflow-run-id", "0858CU00"),
            ("x-ms-workflow-name", "secret-name"),
            ("server", "Kestrel"),
            ("set-cookie", "ARRAffinity=1"),
            ("strict-transport-security", "max-age=1"),
            ("transfer-encoding", "chunked"),
            ("location", "https://shop.example/orders/1"),
        ]);
        let names: Vec<_> = passed(StatusCode::CREATED, from)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["content-type", "x-order", "x-order", "location"]);
    }

    #[test]
    fn nothing_of_the_hop_and_of_the_host_passes() {
        for name in [
            "te",
            "server",
            "trailer",
            "upgrade",
            "alt-svc",
            "connection",
            "keep-alive",
            "set-cookie",
            "x-powered-by",
            "x-request-id",
            "proxy-connection",
            "x-aspnet-version",
            "transfer-encoding",
            "proxy-authenticate",
            "strict-transport-security",
            "x-ms-request-id",
            "x-flowgate-caller",
        ] {
            for name in [name.to_owned(), name.to_ascii_uppercase()] {
                let from = answer(&[(&name, "chunked"), ("x-order", "2")]);
                let passed = passed(StatusCode::OK, from);
                assert_eq!(passed, [("x-order".to_owned(), "2".to_owned())], "{name}");
            }
        }
    }

    #[test]
    fn what_a_connection_lists_stays_with_it() {
        let from = answer(&[
            ("connection", "X-Hop, keep-alive, b(d"),
            ("x-HOP", "1"),
            ("x-other", "2"),
        ]);
        assert_eq!(
            passed(StatusCode::OK, from),
            [("x-other".to_owned(), "2".to_owned())]
        );
    }

    #[test]
    fn a_location_of_the_platform_is_kept_back() {
        for (status, location) in [
            (StatusCode::ACCEPTED, "https://anything.example/"),
            (
                StatusCode::OK,
                "https://prod-1.westus.logic.azure.com/workflows/1",
            ),
            (StatusCode::OK, "https://other.example/?sig=abc"),
            (
                StatusCode::OK,
                "https://PROD-1.westus.Logic.Azure.com/workflows/1",
            ),
            (StatusCode::OK, "https://other.example/?SIG=abc"),
            (StatusCode::FOUND, "/workflows/0123/runs/1"),
            (StatusCode::FOUND, "/Workflows"),
            (StatusCode::FOUND, "/workflows?a=b"),
        ] {
            for place in [
                "location",
                "Location",
                "Content-Location",
                "Operation-Location",
                "Azure-AsyncOperation",
                "link",
                "Refresh",
            ] {
                let from = answer(&[("x-order", "2"), (place, location)]);
                let passed = passed(status, from);
                assert_eq!(passed.len(), 1, "{place}: {location}: {passed:?}");
            }
        }
        let from = wire::response(
            &b"HTTP/1.1 200 OK\r\nlocation: /\xe4\r\n\r\n"[..].into(),
            1,
            &Method::HEAD,
        );
        assert_eq!(passed(StatusCode::OK, from.unwrap().fields), []);
    }

    #[test]
    fn a_location_of_the_flow_passes() {
        for location in [
            "/orders/1",
            "/workflows-of-mine/1",
            "workflows/1",
            "/",
            "https://shop.example/workflows/1",
        ] {
            let from = answer(&[("location", location)]);
            let expected = ("location".to_owned(), location.to_owned());
            assert_eq!(passed(StatusCode::CREATED, from), [expected]);
        }
    }

    #[test]
    fn a_run_id_is_read_only_if_it_looks_like_one() {
        assert_eq!(
            run_id(&answer(&[("x-ms-workflow-run-id", "0858CU00")])).as_deref(),
            Some("0858CU00")
        );
        assert_eq!(run_id(&answer(&[("x-ms-workflow-run-id", "a b\"c")])), None);
        assert_eq!(run_id(&answer(&[])), None);
        assert_eq!(run_id(&answer(&[("x-ms-workflow-run-id", "")])), None);
        assert!(run_id(&answer(&[("x-ms-workflow-run-id", "08_5-CU")])).is_some());
        for (bytes, good) in [(64, true), (65, false)] {
            let from = answer(&[("x-ms-workflow-run-id", &"a".repeat(bytes))]);
            assert_eq!(run_id(&from).is_some(), good, "{bytes}");
        }
    }
}
