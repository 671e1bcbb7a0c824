//! Checks the gateway that runs on this host through its admin listener: whether it is a gateway, whether it
//! was started with these settings, and how recent calls ended.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::doctor::report::{Check, count};
use crate::gateway::{RouteStatus, SERVICE, Status};
use crate::model::{FixedBy, Remedy};
use crate::problem::{ENDINGS, Kind, REQUEST};
use crate::settings::Config;

const NAME: &str = "running";
const CALLS: &str = "calls";
/// Time limit; a gateway on this machine answers at once, however busy the machine is.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Far more than a thousand routes or keys take.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
const CODES_NAMED_MAX: usize = 5;

#[derive(Debug)]
pub(super) enum Running {
    /// The settings leave no address to ask at; what that leaves untested.
    Unaddressed(Check),
    /// Nothing accepts connections there.
    Silent(SocketAddr, String),
    /// Something answers there that is not a gateway.
    Foreign(SocketAddr, String),
    Here(SocketAddr, Box<Status>),
}

impl Running {
    pub(super) async fn ask(config: &Config) -> Self {
        let Some(admin) = &config.admin else {
            let says =
                "the admin listener is off, so a running gateway cannot be asked for its settings and calls";
            let open = "the settings and the calls of the running gateway (remove `off` from [admin], or \
                        read the access log)";
            return Self::Unaddressed(Check::note(NAME, says).untested(open));
        };
        if admin.address.port() == 0 {
            let says = "the admin listener has port 0, so a running gateway cannot be found";
            let open = "the running gateway (set a port in [admin] address)";
            return Self::Unaddressed(Check::note(NAME, says).untested(open));
        }
        let address = at_home(admin.address);
        match ask::<Status>(address, "/status").await {
            Ok(status) if status.service == SERVICE => Self::Here(address, Box::new(status)),
            Ok(_) => Self::Foreign(address, "the answer is not one of a Flowgate".to_owned()),
            Err(NoAnswer::Refused(why)) => Self::Silent(address, why),
            Err(NoAnswer::Unanswered(why)) => Self::Foreign(address, why),
        }
    }

    /// The status of a gateway that was started with these settings.
    pub(super) fn with(&self, config: &Config) -> Option<&Status> {
        match self {
            Self::Here(_, status) if status.settings == config.digest.to_string() => Some(status),
            _ => None,
        }
    }

    pub(super) fn checks(&self, config: &Config) -> Vec<Check> {
        let (address, status) = match self {
            Self::Unaddressed(check) => return vec![check.clone()],
            Self::Silent(address, why) => {
                let says = format!("no gateway answers at http://{address} ({why})");
                let open = "the running gateway (start it with `flowgate serve`, then ask again)";
                return vec![Check::note(NAME, says).untested(open)];
            }
            Self::Foreign(address, why) => {
                let says = format!("what answers at http://{address}/status is not this gateway: {why}");
                let what = "Stop the program that uses the port, or set another address in [admin]; a \
                            Flowgate of an older version has no /status and has to be restarted.";
                return vec![Check::fail(NAME, says, holds(*address, what))];
            }
            Self::Here(address, status) => (address, status),
        };
        let age = age(status.since_seconds);
        let mut checks = vec![match self.with(config) {
            Some(_) => Check::ok(
                NAME,
                format!(
                    "version {}, started {age} ago, with these settings in force",
                    status.version
                ),
            ),
            None => {
                let says = format!(
                    "the gateway at http://{address}, version {}, started {age} ago, has other settings in force",
                    status.version
                );
                let what = "Put these in force with `flowgate reload` or SIGHUP, or name with --config those that it has.";
                Check::warn(NAME, says, Remedy::new(FixedBy::Operator, what))
                    .untested("the gateway with these settings (reload them, then ask again)")
            }
        }];
        if status.without_route > 0 {
            let says = format!(
                "{} in the last {} minutes led to no route: see `problem` and `target` in the access log",
                count(clamp(status.without_route), "request", "requests"),
                status.minutes
            );
            checks.push(Check::note(CALLS, says));
        }
        checks
    }

    /// How the recent calls of a route ended; `None` if no gateway reports it.
    pub(super) fn calls(&self, route: &str) -> Option<Check> {
        let Self::Here(_, status) = self else {
            return None;
        };
        let minutes = status.minutes;
        Some(match status.routes.iter().find(|one| one.route == route) {
            Some(seen) => judge(seen, minutes),
            None if status.routes_left_out > 0 => Check::note(
                CALLS,
                "the gateway lists no calls of this route: too many others had some",
            ),
            None => Check::note(CALLS, format!("no call in the last {minutes} minutes")),
        })
    }
}

/// The remedy for a program that occupies a port.
pub(super) fn holds(address: SocketAddr, what: &str) -> Remedy {
    Remedy::new(FixedBy::Operator, what.to_owned()).command(format!("ss -ltnp 'sport = :{}'", address.port()))
}

/// The address at which this machine reaches a listener that is bound to all addresses.
pub(crate) fn at_home(address: SocketAddr) -> SocketAddr {
    let home = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(home, address.port())
}

fn clamp(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => count(clamp(seconds), "second", "seconds"),
        60..3600 => count(clamp(seconds / 60), "minute", "minutes"),
        3600..86_400 => count(clamp(seconds / 3600), "hour", "hours"),
        _ => count(clamp(seconds / 86_400), "day", "days"),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CausedBy {
    /// The gateway, the flow or the settings: no caller can avoid it.
    Ours,
    /// A known caller who breaks a rule of the settings.
    Rule,
    /// The caller: anyone on the network can cause it.
    Caller,
}

fn kind_of(code: &str) -> Option<Kind> {
    Kind::ALL.iter().copied().find(|kind| kind.row().code == code)
}

fn side(code: &str) -> CausedBy {
    match kind_of(code).map(|kind| kind.row().status.as_u16()) {
        Some(403) => CausedBy::Rule,
        Some(500..) => CausedBy::Ours,
        None if code == "flow-cut" => CausedBy::Ours,
        Some(_) | None => CausedBy::Caller,
    }
}

fn judge(seen: &RouteStatus, minutes: u32) -> Check {
    let failed: u64 = seen.failed.iter().map(|failed| failed.count).sum();
    let calls = count(clamp(seen.answered + failed), "call", "calls");
    if failed == 0 {
        let says = format!("{calls} in the last {minutes} minutes, each answered");
        return Check::ok(CALLS, says);
    }
    let mut kinds: Vec<_> = seen.failed.iter().collect();
    kinds.sort_by_key(|kind| std::cmp::Reverse((side(&kind.code) != CausedBy::Caller, kind.count)));
    let named: Vec<String> = kinds
        .iter()
        .take(CODES_NAMED_MAX)
        .map(|kind| match kind_of(&kind.code) {
            Some(known) => format!(
                "{} {} ({})",
                kind.count,
                known.row().code,
                known.row().status.as_u16()
            ),
            None => format!("{} {}", kind.count, crate::model::claims::safe(&kind.code)),
        })
        .collect();
    let first = kinds.first().map_or("", |kind| kind.code.as_str());
    let title = kind_of(first).map_or("", |kind| kind.row().title);
    let ended = match seen.answered {
        0 => "none answered".to_owned(),
        answered => format!("{answered} answered, {failed} not"),
    };
    let says = format!(
        "{calls} in the last {minutes} minutes, {ended}: {}. {title}",
        named.join(", ")
    );
    let says = says.trim_end().to_owned();
    match (seen.answered, side(first)) {
        (0, CausedBy::Ours | CausedBy::Rule) => Check::fail(CALLS, says, remedy(first)),
        (0, CausedBy::Caller) => Check::warn(CALLS, says, remedy(first))
            .untested(format!("whether a call of route {} gets through", seen.route)),
        (_, CausedBy::Ours) => Check::warn(CALLS, says, remedy(first)),
        (_, CausedBy::Rule | CausedBy::Caller) => Check::note(CALLS, says),
    }
}

/// What to do about calls that end so.
fn remedy(code: &str) -> Remedy {
    let ending = || ENDINGS.iter().find(|row| row.code == code);
    match (kind_of(code).map(Kind::row), ending()) {
        (Some(row), _) => Remedy::new(row.fixed_by, row.fix),
        (None, Some(row)) => row.remedy(&[]),
        (None, None) => Remedy::new(FixedBy::Caller, REQUEST),
    }
}

#[derive(Debug)]
pub(super) enum NoAnswer {
    /// Nothing accepts connections.
    Refused(String),
    /// Something accepts connections, but gave no valid answer.
    Unanswered(String),
}

impl NoAnswer {
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Refused(why) | Self::Unanswered(why) => why,
        }
    }
}

pub(super) async fn ask<T: DeserializeOwned>(address: SocketAddr, path: &str) -> Result<T, NoAnswer> {
    let asking = async {
        let tcp = TcpStream::connect(address).await;
        let tcp = tcp.map_err(|error| NoAnswer::Refused(unconnected(&error)))?;
        answer(tcp, address, path).await.map_err(NoAnswer::Unanswered)
    };
    match tokio::time::timeout(TIMEOUT, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(NoAnswer::Unanswered(format!("no answer within {TIMEOUT:?}"))),
    }
}

/// Why a connection was not made.
pub(crate) fn unconnected(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}

async fn answer<T: DeserializeOwned>(tcp: TcpStream, address: SocketAddr, path: &str) -> Result<T, String> {
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await.map_err(text)?;
    let asking = async {
        let request = Request::get(path)
            .header(header::HOST, address.to_string())
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("status {status}"));
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        let body = body.await.map_err(|error| error.to_string())?.to_bytes();
        serde_json::from_slice(&body).map_err(|_| "the answer cannot be read".to_owned())
    };
    tokio::pin!(connection);
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => answer,
        // The data read before the connection ended may be complete.
        _ = &mut connection => asking.await,
    }
}

#[cfg(test)]
mod tests {
    use super::{CALLS, CausedBy, FixedBy, age, at_home, judge, remedy, side};
    use crate::doctor::report::Verdict;
    use crate::gateway::{FailureCount, RouteStatus};
    use crate::problem::Kind;

    fn route(answered: u64, failed: &[(&str, u64)]) -> RouteStatus {
        let failed = failed.iter().map(|(code, count)| FailureCount {
            code: (*code).to_owned(),
            count: *count,
        });
        RouteStatus {
            route: "orders".to_owned(),
            answered,
            failed: failed.collect(),
        }
    }

    #[test]
    fn a_route_on_which_every_call_fails_is_broken_unless_only_strangers_can_cause_it() {
        for (answered, failed, verdict) in [
            (0, &[("caller-not-allowed", 3)][..], Verdict::Fail),
            (0, &[("flow-refused-token", 1), ("key-missing", 9)], Verdict::Fail),
            (0, &[("flow-cut", 1)], Verdict::Fail),
            (0, &[("key-unknown", 40)], Verdict::Warn),
            (0, &[("caller-gone", 2)], Verdict::Warn),
            (7, &[("flow-timeout", 1)], Verdict::Warn),
            (7, &[("key-unknown", 40)], Verdict::Note),
            (7, &[("address-refused", 1)], Verdict::Note),
            (7, &[], Verdict::Ok),
        ] {
            let check = judge(&route(answered, failed), 10);
            assert_eq!((check.name, check.verdict), (CALLS, verdict), "{}", check.says);
            assert_eq!(
                check.untested.is_some(),
                verdict == Verdict::Warn && answered == 0,
                "{failed:?}"
            );
        }
    }

    #[test]
    fn what_matters_most_is_named_first_with_its_status() {
        let check = judge(&route(0, &[("key-missing", 9), ("flow-off", 1)]), 10);
        assert_eq!(
            check.says,
            "10 calls in the last 10 minutes, none answered: 1 flow-off (503), 9 key-missing (401). The flow \
             behind this address is switched off; no run was started."
        );
        assert_eq!(check.remedy.unwrap().fixed_by, FixedBy::FlowOwner);
    }

    #[test]
    fn every_problem_has_a_side_and_a_remedy() {
        for kind in Kind::ALL {
            let row = kind.row();
            let is_ours = row.status.is_server_error();
            assert_eq!(side(row.code) == CausedBy::Ours, is_ours, "{}", row.code);
            let remedy = remedy(row.code);
            assert!(remedy.what.ends_with('.'), "{}", row.code);
            assert!(!(is_ours && remedy.fixed_by == FixedBy::Caller), "{}", row.code);
        }
    }

    #[test]
    fn a_listener_for_every_address_is_asked_on_this_machine() {
        for (address, home) in [
            ("0.0.0.0:9464", "127.0.0.1:9464"),
            ("[::]:9464", "[::1]:9464"),
            ("192.0.2.1:1", "192.0.2.1:1"),
        ] {
            assert_eq!(at_home(address.parse().unwrap()).to_string(), home);
        }
    }

    #[test]
    fn an_age_has_the_largest_unit_that_fits() {
        for (seconds, text) in [
            (1, "1 second"),
            (119, "1 minute"),
            (7200, "2 hours"),
            (900_000, "10 days"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }
}
