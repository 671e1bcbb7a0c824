//! What a gateway that runs knows of itself: which settings it was started with, where it listens, and how the requests of
//! the last ten minutes ended on each route. The admin listener answers it on `/status`; `flowgate doctor` reads it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::counters::{RECENT_MINUTES, RouteFigures};
use crate::gateway::current::Gateway;
use crate::gateway::reloads::{LastReload, ReloadOutcome};
use crate::problem::Kind;

/// What [`Status::service`] says of a gateway of ours.
pub const SERVICE: &str = "flowgate";
/// Routes that are listed; of more only the number is reported.
const ROUTES_MAX: usize = 1000;

/// The answer of `/status`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// Always `flowgate`.
    pub service: String,
    pub version: String,
    /// Digest of the settings in force. It covers no secret.
    pub settings: String,
    pub revision: u64,
    /// The revision that was rolled back to, until the next reload that an operator asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<u64>,
    /// The last try to put other settings in force, if there was one since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reload: Option<LastReload>,
    /// Seconds since the start.
    pub since_seconds: u64,
    /// Addresses on which callers are served, in the order of the settings.
    pub listeners: Vec<SocketAddr>,
    /// Minutes that the counts cover, the current one included.
    pub minutes: u32,
    /// Routes with requests in this time, at most 1,000.
    pub routes: Vec<RouteStatus>,
    pub routes_left_out: usize,
    /// Requests that found no route, or were refused before one was looked for.
    pub without_route: u64,
}

/// How the recent requests of a route ended.
#[derive(Debug, Serialize, Deserialize)]
pub struct RouteStatus {
    pub route: String,
    /// Answers of the flow that reached their callers whole.
    pub answered: u64,
    /// Everything else, by problem code, `flow-cut` or `caller-gone`.
    pub failed: Vec<FailureCount>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct FailureCount {
    pub code: String,
    pub count: u64,
}

impl Gateway {
    pub fn note_reload(&self, outcome: ReloadOutcome) {
        self.estate.reloads.note(outcome);
    }

    /// Notes the revision that was rolled back to, whose files are not followed.
    pub fn note_pinned(&self, revision: Option<u64>) {
        self.estate.reloads.pin(revision);
    }

    /// Whether the last reload was refused.
    pub fn is_reload_refused(&self) -> bool {
        self.estate
            .reloads
            .last()
            .is_some_and(|last| last.refused.is_some())
    }

    pub fn status(&self) -> Status {
        let minute = self.estate.counters.minute();
        let snapshot = self.snapshot();
        let mut busy = snapshot
            .routes
            .iter()
            .filter_map(|route| of_route(&route.figures, minute));
        let routes: Vec<RouteStatus> = busy.by_ref().take(ROUTES_MAX).collect();
        Status {
            service: SERVICE.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            settings: snapshot.digest.to_string(),
            revision: snapshot.revision,
            pinned: self.estate.reloads.pinned(),
            last_reload: self.estate.reloads.last(),
            since_seconds: self.estate.started.elapsed().as_secs(),
            listeners: self.estate.listeners.bound(),
            minutes: RECENT_MINUTES,
            routes,
            routes_left_out: busy.count(),
            without_route: self.estate.counters.without_route.count(minute),
        }
    }
}

/// The recent requests of a route; nothing if there were none.
fn of_route(figures: &RouteFigures, minute: u32) -> Option<RouteStatus> {
    let refused = Kind::ALL
        .iter()
        .map(|kind| (kind.row().code, figures.recently_refused(*kind as usize, minute)));
    let broken = [
        ("flow-cut", figures.recently_cut.count(minute)),
        ("caller-gone", figures.recently_gone.count(minute)),
    ];
    let failed: Vec<FailureCount> = refused
        .chain(broken)
        .filter(|(_, count)| *count > 0)
        .map(|(code, count)| FailureCount {
            code: code.to_owned(),
            count,
        })
        .collect();
    let answered = figures.recently_answered.count(minute);
    (answered > 0 || !failed.is_empty()).then(|| RouteStatus {
        route: figures.route.to_string(),
        answered,
        failed,
    })
}
