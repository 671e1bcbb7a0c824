//! Which address of a run is followed: one on the host of the trigger and nowhere else, because the token goes there.

use http::uri::PathAndQuery;

use crate::model::TriggerUrl;

/// Longest path and query of a run; those of the platform have some 400 bytes, and a sealed one must fit into a target.
const TARGET_BYTES_MAX: usize = 2048;
const HTTPS: &str = "https://";

/// Path and query of a run on the trigger's host.
///
/// # Errors
/// Why the address is not followed, without a part of it.
pub fn run_target(location: &[u8], trigger: &TriggerUrl) -> Result<PathAndQuery, &'static str> {
    let text = std::str::from_utf8(location).ok();
    let text = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'));
    let text = text.ok_or("it has characters that no address has")?;
    if text.len() > TARGET_BYTES_MAX + HTTPS.len() + trigger.authority().len() {
        return Err("it is too long");
    }
    let target = match text.get(..HTTPS.len()) {
        Some(scheme) if scheme.eq_ignore_ascii_case(HTTPS) => on_host(text, trigger)?,
        _ if text.starts_with("//") => return Err("it does not say https"),
        _ if text.starts_with('/') => text,
        _ => return Err("it is neither an https address nor a path from the root"),
    };
    let path = target.split('?').next().unwrap_or_default();
    if target.len() > TARGET_BYTES_MAX || target.contains('#') {
        return Err("it is too long, or has a fragment");
    }
    let is_plain = |segment: &str| !matches!(segment, "" | "." | "..") && !segment.contains('%');
    if !path.split('/').skip(1).all(is_plain) {
        return Err("its path can be read in two ways");
    }
    // A flow could have the gateway start another flow of the same host with its token.
    if path
        .split('/')
        .any(|segment| segment.eq_ignore_ascii_case("triggers"))
    {
        return Err("it is that of a trigger, which would start a run");
    }
    PathAndQuery::try_from(target).map_err(|_| "it is no address")
}

/// What follows the authority, which must be that of the trigger.
fn on_host<'t>(text: &'t str, trigger: &TriggerUrl) -> Result<&'t str, &'static str> {
    let rest = text.get(HTTPS.len()..).unwrap_or_default();
    let cut = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(cut);
    if authority.contains('@') {
        return Err("it has user information");
    }
    let bare = authority.strip_suffix(":443").unwrap_or(authority);
    if !bare.eq_ignore_ascii_case(trigger.authority()) {
        return Err("it is on another host or port than the trigger");
    }
    match target.starts_with('/') {
        true => Ok(target),
        false => Err("it has no path"),
    }
}

#[cfg(test)]
mod tests {
    use super::run_target;
    use crate::model::TriggerUrl;

    const RUN: &str = "/workflows/0123/runs/08/operations/1?api-version=2016-10-01&sp=%2Fruns&sig=abc";

    fn trigger(authority: &str) -> TriggerUrl {
        let path =
            "workflows/0123456789abcdef0123456789abcdef/triggers/manual/paths/invoke?api-version=2016-06-01";
        TriggerUrl::parse(&format!("https://{authority}/{path}")).unwrap()
    }

    #[test]
    fn a_run_on_the_host_of_the_trigger_is_followed() {
        let host = "prod-1.westus.logic.azure.com";
        for location in [
            format!("https://{host}{RUN}"),
            format!("HTTPS://{}:443{RUN}", host.to_uppercase()),
            RUN.to_owned(),
        ] {
            let target = run_target(location.as_bytes(), &trigger(host)).unwrap();
            assert_eq!(target.as_str(), RUN, "{location}");
        }
        let other_port = format!("https://localhost:8443{RUN}");
        assert!(run_target(other_port.as_bytes(), &trigger("localhost:8443")).is_ok());
    }

    #[test]
    fn every_other_address_is_refused() {
        let host = "prod-1.westus.logic.azure.com";
        for (location, why) in [
            (format!("http://{host}{RUN}"), "neither"),
            (format!("//{host}{RUN}"), "https"),
            (format!("//evil.example{RUN}"), "https"),
            (format!("https://evil.example{RUN}"), "another host"),
            (format!("https://{host}.evil.example{RUN}"), "another host"),
            (format!("https://{host}:8443{RUN}"), "another host"),
            (format!("https://{host}.{RUN}"), "another host"),
            (format!("https://{host}@evil.example{RUN}"), "user information"),
            (format!("https://user:pw@{host}{RUN}"), "user information"),
            (format!("https://evil.example\\@{host}{RUN}"), "characters"),
            (format!("https://{host}/a b"), "characters"),
            (format!("https://{host}/\u{e4}"), "characters"),
            (format!("https://{host}?{RUN}"), "no path"),
            (format!("https://{host}"), "no path"),
            ("runs/1".to_owned(), "neither"),
            (String::new(), "neither"),
            (format!("https://{host}{RUN}#a"), "fragment"),
            (format!("https://{host}/a/../b"), "two ways"),
            (format!("https://{host}/a//b"), "two ways"),
            (format!("https://{host}/a/%74riggers/b"), "two ways"),
            (
                format!("https://{host}/workflows/1/Triggers/manual/paths/invoke"),
                "start a run",
            ),
            (format!("https://{host}/{}", "a".repeat(10 * 1024)), "too long"),
        ] {
            let refused = run_target(location.as_bytes(), &trigger(host)).unwrap_err();
            assert!(refused.contains(why), "{location}: {refused}");
        }
        assert!(run_target(b"/\xff", &trigger(host)).is_err());
    }

    proptest::proptest! {
        /// Whatever is followed is a path from the root, with nothing that names another host.
        #[test]
        fn what_is_followed_stays_on_the_host(location in "[ -~]{0,60}") {
            if let Ok(target) = run_target(location.as_bytes(), &trigger("prod-1.westus.logic.azure.com")) {
                let text = target.as_str();
                proptest::prop_assert!(text.starts_with('/') && !text.starts_with("//"));
                proptest::prop_assert!(location.ends_with(text));
            }
        }
    }
}
