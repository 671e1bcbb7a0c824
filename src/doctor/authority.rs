//! Checks an authority: the connection to it, and its clock.

use std::time::{Duration, SystemTime};

use jiff::fmt::rfc2822::DateTimeParser;

use crate::doctor::network::{CheckedHosts, Destination};
use crate::doctor::report::{Check, Group};
use crate::model::{FixedBy, Remedy, clock};
use crate::outbound::{FetchFault, Fetcher};
use crate::settings::EndpointSettings;

/// Entra refuses assertions and tokens whose clock is further off than this.
const SKEW_MAX: Duration = Duration::from_secs(300);

pub(super) async fn authority(endpoint: &EndpointSettings, group: &mut Group, seen: &mut CheckedHosts) {
    if group.skips(&["dns", "tcp", "tls", "clock"]) {
        return;
    }
    if endpoint.authority.starts_with("http://") {
        group.aside(Check::note(
            "tls",
            "the authority is called without TLS, as the settings require",
        ));
    } else {
        let setting = "authority of the identity";
        let place = Destination::of(&endpoint.authority, &endpoint.trust, endpoint.timeout, setting);
        seen.walk(&place, group).await;
    }
    if !group.skips(&["clock"]) {
        group.add(compare_clock(endpoint).await);
    }
}

/// Compares this host's clock with the `Date` of the authority's answers.
async fn compare_clock(endpoint: &EndpointSettings) -> Check {
    let remedy = || {
        Remedy::new(
            FixedBy::HostAdmin,
            "Synchronize this host's clock with NTP; Entra refuses requests whose time differs too much.",
        )
        .command("timedatectl status")
    };
    let date = match date_of(endpoint).await {
        Ok(date) => date,
        Err(why) => {
            let what = "Find out what answers instead of Entra: a proxy, a captive portal, a wrong \
                        authority.";
            return Check::fail(
                "clock",
                format!("the authority gave no answer: {why}"),
                Remedy::new(FixedBy::Operator, what),
            );
        }
    };
    let Some(date) = date else {
        return Check::note(
            "clock",
            "the authority sends no date, so the clock was not compared",
        );
    };
    let now = clock::wall();
    let (skew, word) = match now.duration_since(date) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let seconds = skew.as_secs();
    if skew > SKEW_MAX {
        let says = format!("this host's clock is {seconds} s {word} the authority's");
        return Check::fail("clock", says, remedy());
    }
    Check::ok("clock", format!("within {} s of the authority's", seconds.max(1)))
}

/// The `Date` of the authority's answer to a request that needs no credential.
async fn date_of(endpoint: &EndpointSettings) -> Result<Option<SystemTime>, String> {
    let fetcher = Fetcher::new(&endpoint.trust, endpoint.timeout).map_err(|error| error.to_string())?;
    let tenant = endpoint.token_url.strip_suffix("/oauth2/v2.0/token");
    let url = format!(
        "{}/v2.0/.well-known/openid-configuration",
        tenant.unwrap_or(&endpoint.authority)
    );
    let answer = fetcher.fetch(fetcher.get(&url)).await;
    let answer = answer.map_err(|error| match error.cause {
        FetchFault::Timeout(_) => format!("nothing within {:?}", endpoint.timeout),
        _ => "the connection broke".to_owned(),
    })?;
    let read = DateTimeParser::new().parse_timestamp(answer.header("date")).ok();
    Ok(read.map(SystemTime::from))
}
