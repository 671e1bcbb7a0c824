//! The head that returns to the caller: what of the platform stays behind and what of the flow passes. It also reads
//! the run id, the one sign that a run exists.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::header;

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

/// Whether a field of the answer stays behind.
fn stays(name: &str) -> bool {
    match name {
        "connection" | "keep-alive" | "proxy-authenticate" | "proxy-connection" | "te" | "trailer"
        | "transfer-encoding" | "upgrade" => true,
        // The platform's own words about itself and its host; the caller talks to ours.
        "server"
        | "set-cookie"
        | "strict-transport-security"
        | "alt-svc"
        | "x-powered-by"
        | "x-aspnet-version" => true,
        _ => name.starts_with("x-ms-") || name.starts_with("x-flowgate-") || name == "x-request-id",
    }
}

/// Moves the fields that pass into a new head. A `Location` on the trigger's own host is kept back: it can carry a
/// signature, and the caller could not use it.
pub fn head(status: StatusCode, from: HeaderMap, trigger_host: &str) -> HeaderMap {
    let mut to = HeaderMap::with_capacity(from.len());
    let mut last: Option<HeaderName> = None;
    for (name, value) in from {
        // A repeated field comes without its name: it belongs to the one before.
        let Some(name) = name.or_else(|| last.clone()) else {
            continue;
        };
        let kept_back = stays(name.as_str())
            || (name == header::LOCATION && is_platforms(status, &value, trigger_host))
            || (name == header::CONTENT_LOCATION && is_platforms(status, &value, trigger_host));
        if !kept_back {
            to.append(name.clone(), value);
        }
        last = Some(name);
    }
    to
}

fn is_platforms(status: StatusCode, value: &HeaderValue, trigger_host: &str) -> bool {
    let Ok(text) = value.to_str() else { return true };
    let text = text.to_ascii_lowercase();
    status == StatusCode::ACCEPTED || text.contains(trigger_host) || text.contains("sig=")
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::HeaderValue;
    use http::StatusCode;

    use super::head;
    use super::run_id;

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
        let to = head(StatusCode::CREATED, from, "prod-1.logic.azure.com");
        let names: Vec<_> = to.keys().map(|name| name.as_str().to_owned()).collect();
        assert_eq!(names, ["content-type", "x-order", "location"]);
        assert_eq!(to.get_all("x-order").iter().count(), 2);
    }

    #[test]
    fn a_location_of_the_platform_is_kept_back() {
        for (status, location) in [
            (StatusCode::ACCEPTED, "https://anything.example/"),
            (StatusCode::OK, "https://prod-1.logic.azure.com/workflows/1"),
            (StatusCode::OK, "https://other.example/?sig=abc"),
        ] {
            let from = answer(&[("location", location)]);
            assert!(
                head(status, from, "prod-1.logic.azure.com").is_empty(),
                "{location}"
            );
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
