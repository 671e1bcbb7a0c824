//! The head that returns to the caller: what of the platform stays behind and what of the flow passes. It also reads
//! the run id, the one sign that a run exists.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::header;

use crate::model::TriggerUrl;

/// Names the run that a request started.
const RUN_ID: HeaderName = HeaderName::from_static("x-ms-workflow-run-id");
/// Longest run id that is logged; real ones have 33 characters.
const RUN_ID_BYTES_MAX: usize = 64;

/// The run id of an answer, if it carries one that looks like one.
pub fn run_id(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(RUN_ID)?.to_str().ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let fits = !text.is_empty() && text.len() <= RUN_ID_BYTES_MAX && text.bytes().all(plain);
    fits.then(|| text.to_owned())
}

/// Whether a field of the answer stays behind. By length first: nearly every name is decided without a comparison.
fn stays(name: &str) -> bool {
    let stays = match name.len() {
        2 => name == "te",
        // What follows for server, alt-svc and the like: the platform's own words about itself and its host; the caller
        // talks to ours.
        6 => name == "server",
        7 => matches!(name, "trailer" | "upgrade" | "alt-svc"),
        10 => matches!(name, "connection" | "keep-alive" | "set-cookie"),
        12 => matches!(name, "x-powered-by" | "x-request-id"),
        16 => matches!(name, "proxy-connection" | "x-aspnet-version"),
        17 => name == "transfer-encoding",
        18 => name == "proxy-authenticate",
        25 => name == "strict-transport-security",
        _ => false,
    };
    stays || name.starts_with("x-ms-") || name.starts_with("x-flowgate-")
}

/// Takes out the fields that do not pass: those of this connection (RFC 9110 section 7.6.1), and the platform's. A
/// `Location` on the trigger's own host is kept back: it can carry a signature, and the caller could not use it.
pub fn head(status: StatusCode, mut fields: HeaderMap, trigger: &TriggerUrl) -> HeaderMap {
    let mut gone: Vec<HeaderName> = fields
        .keys()
        .filter(|name| stays(name.as_str()))
        .cloned()
        .collect();
    for listed in fields.get_all(header::CONNECTION) {
        let names = listed.as_bytes().split(|byte| *byte == b',');
        gone.extend(names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()));
    }
    for place in [header::LOCATION, header::CONTENT_LOCATION] {
        let mut values = fields.get_all(&place).iter();
        if values.any(|value| is_platforms(status, value, trigger)) {
            gone.push(place);
        }
    }
    for name in gone {
        fields.remove(name);
    }
    fields
}

fn is_platforms(status: StatusCode, value: &HeaderValue, trigger: &TriggerUrl) -> bool {
    let Ok(text) = value.to_str() else { return true };
    let text = text.to_ascii_lowercase();
    // A relative one that begins as the trigger's own path does leads to the platform, and not to anything of ours.
    let own_root = trigger
        .path_and_query()
        .path()
        .split('/')
        .nth(1)
        .unwrap_or_default();
    let relative = text.strip_prefix('/').is_some_and(|path| {
        !own_root.is_empty() && path.split(['/', '?']).next() == Some(&own_root.to_ascii_lowercase())
    });
    status == StatusCode::ACCEPTED || relative || text.contains(trigger.host()) || text.contains("sig=")
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::HeaderValue;
    use http::StatusCode;

    use super::head;
    use super::run_id;
    use crate::model::TriggerUrl;

    fn trigger() -> TriggerUrl {
        let address = "https://prod-1.westus.logic.azure.com/workflows/0123456789abcdef0123456789abcdef/triggers/manual/paths/invoke?api-version=2016-06-01";
        TriggerUrl::parse(address).unwrap()
    }

    fn answer(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
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
        let to = head(StatusCode::CREATED, from, &trigger());
        let names: Vec<_> = to.keys().map(|name| name.as_str().to_owned()).collect();
        assert_eq!(names, ["content-type", "x-order", "location"]);
        assert_eq!(to.get_all("x-order").iter().count(), 2);
    }

    #[test]
    fn what_a_connection_lists_stays_with_it() {
        let from = answer(&[
            ("connection", "X-Hop, keep-alive, b(d"),
            ("x-hop", "1"),
            ("x-other", "2"),
        ]);
        let to = head(StatusCode::OK, from, &trigger());
        let names: Vec<_> = to.keys().map(|name| name.as_str().to_owned()).collect();
        assert_eq!(names, ["x-other"]);
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
            (StatusCode::FOUND, "/workflows/0123/runs/1"),
        ] {
            let from = answer(&[("location", location)]);
            assert!(head(status, from, &trigger()).is_empty(), "{location}");
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
    }
}
