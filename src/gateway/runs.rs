//! Answers at the address of a run: opens it, checks that it is still good where and for whom it is presented, and asks the
//! platform once. No flow is started. What is wrong with an address that cannot be opened is for the log alone.

use std::sync::Arc;

use bytes::Bytes;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Response, StatusCode, header};

use crate::flow::Address;
use crate::flow::outbound::Introduction;
use crate::gateway::answer::{self, AnswerBody};
use crate::gateway::arrived::{Arrived, check_enabled};
use crate::gateway::attempts::Attempts;
use crate::gateway::connection::Connection;
use crate::gateway::cors::Cors;
use crate::gateway::host;
use crate::gateway::journal::{Journal, PathMask};
use crate::gateway::run::{Asked, Run};
use crate::gateway::run_address::{RunAddress, RunSeals};
use crate::gateway::snapshot::{Route, Snapshot};
use crate::gateway::waiting::{RunningAt, Waiting};
use crate::model::{AnsweredBy, Holder, clock};
use crate::policy::host::fold;
use crate::policy::{Caller, Identity, Origin, Shown, Taken};
use crate::problem::{Again, Kind, Problem, Run as ProblemRun};
use crate::settings::RUNS;

/// How a run is asked for.
pub(super) static METHODS: HeaderValue = HeaderValue::from_static("GET");

/// A run that may be asked for.
pub(super) struct Found<'r> {
    route: &'r Route,
    waiting: &'r Waiting,
    run: RunAddress,
    address: Arc<Address>,
    holder: Holder,
    taken: Taken,
}

/// Decides whether a request may ask for the run that its address names.
pub(super) fn admit<'r>(
    snapshot: &'r Snapshot,
    arrived: &mut Arrived<'r>,
    (seals, sealed): (&RunSeals, &str),
    journal: &mut Journal,
) -> Result<Found<'r>, Problem> {
    let (head, via) = (arrived.head, arrived.via);
    note(journal);
    snapshot.heads.check(head)?;
    let host = host::of(head)?;
    if head.method != Method::GET {
        return Err(Problem::from(Kind::MethodNotAllowed).allow(METHODS.clone()));
    }
    let origin = Origin::of_peer(via.peer);
    let attempts = Attempts::of(&snapshot.quotas, origin, via.peers);
    // Not a failed attempt: a seal cannot be guessed, and a page anywhere can have a browser ask for an address that it made up.
    let why = "no secret in `run_addresses` opens the address";
    let run = seals.open(sealed).ok_or_else(|| unknown(why))?;
    let (route, waiting) = find(snapshot, &host, &run).map_err(unknown)?;
    arrived.route = Some(route);
    journal.route(&route.figures);
    route.networks.admit(origin)?;
    let address = route.trigger.address();
    if !run.is_on(address.url().authority()) {
        return Err(unknown(
            "the trigger of the route is on another host or port than when the run was started",
        ));
    }
    if run.expires <= clock::wall() {
        return Err(Kind::RunExpired.into());
    }
    let caller = match waiting.demands_credential() {
        true => identify(route, &run, arrived, attempts)?,
        false => {
            let why = "the caller that started the run is gone, or its route does not list it any more";
            let known = route.access.known(&run.caller, origin)?;
            known.ok_or_else(|| unknown(why))?
        }
    };
    via.set_known();
    journal.caller(&run.caller, caller.label.as_ref());
    check_enabled(route)?;
    Ok(Found {
        taken: snapshot.quotas.take(caller.index, route.index)?,
        route,
        waiting,
        run,
        address,
        holder: caller.holder(origin),
    })
}

/// Notes that it is the address of a run. Never the address itself: anyone who has it can ask for the run.
pub(super) fn note(journal: &mut Journal) {
    journal.target(&format!("{RUNS}***"), PathMask::LongSegments);
}

/// The route of the run that an address names.
pub(super) fn route_of<'r>(
    snapshot: &'r Snapshot,
    (seals, sealed): (&RunSeals, &str),
    host: &str,
) -> Option<&'r Route> {
    let (route, _) = find(snapshot, host, &seals.open(sealed)?).ok()?;
    Some(route)
}

fn unknown(why: &'static str) -> Problem {
    Problem::from(Kind::RunUnknown).because(why)
}

/// The route of a run, if it is still there and has this host.
fn find<'r>(
    snapshot: &'r Snapshot,
    host: &str,
    run: &RunAddress,
) -> Result<(&'r Route, &'r Waiting), &'static str> {
    let route = snapshot.routes.iter().find(|route| route.name == run.route);
    let found = route.and_then(|route| Some((&**route, route.waiting.as_ref()?)));
    let (route, waiting) = found.ok_or("its route is gone, or waits for no results")?;
    match waiting.host() {
        Some(own) if **own != *fold(host) => Err("its route has another host"),
        _ => Ok((route, waiting)),
    }
}

/// Who asks, which must be the caller that started the run.
fn identify(
    route: &Route,
    run: &RunAddress,
    arrived: &Arrived<'_>,
    attempts: Attempts<'_>,
) -> Result<Caller, Problem> {
    let head = arrived.head;
    let target = head.uri.path_and_query();
    let shown = Shown {
        headers: &head.headers,
        method: &head.method,
        target: target.map_or(head.uri.path(), PathAndQuery::as_str),
        public_url: route.public_url.as_ref(),
        path_key: None,
        origin: Origin::of_peer(arrived.via.peer),
        guesses: attempts.guesses(),
        now: &clock::wall,
    };
    let caller = match route
        .access
        .identify(&shown)
        .map_err(|problem| attempts.failed(problem))?
    {
        Identity::Known(caller) => caller,
        Identity::Pending(_) => {
            let why = "a caller that signs bodies has nothing to sign here: `run_credential` is for callers with keys";
            return Err(Problem::from(Kind::KeyMissing).because(why));
        }
    };
    if caller.name != run.caller {
        let why = format!("the run was started by caller {}", run.caller);
        return Err(Problem::from(Kind::CallerNotAllowed)
            .of_caller(caller.name, caller.label)
            .because(why));
    }
    Ok(caller)
}

impl Found<'_> {
    /// Asks the platform, and answers with the result or with when to ask again.
    pub(super) async fn ask(self, via: &Connection, mut journal: Journal) -> Response<AnswerBody> {
        let who = Introduction {
            request: journal.request(),
            caller: self.run.caller.clone(),
            key: None,
            origin: via.origin.clone(),
        };
        let run = Run {
            route: self.route,
            address: &self.address,
            who: &who,
            holder: self.holder,
            worker: via.worker,
        };
        let began = clock::now();
        let asked = run.ask(&self.run.target, &mut journal).await;
        journal.waited(clock::now() - began);
        let (problem, by) = match asked {
            Ok(Asked::Ended((status, mut fields, mut body))) => {
                if self.route.cors.is_some() {
                    Cors::replace(&mut fields);
                }
                body.taken = Some(self.taken);
                // The run that is named was started by another request.
                journal.unsent();
                return answer::passed(status, fields, body, AnsweredBy::Flow, journal);
            }
            Ok(Asked::Running(fields)) => {
                let mut at = RunningAt::first(self.run.target.clone());
                at.update(&fields, self.address.url());
                return answer::own(self.running(&at), AnsweredBy::Flow, journal);
            }
            Ok(Asked::Refused(problem)) => (problem, AnsweredBy::Platform),
            Err(problem) => (problem, AnsweredBy::Gateway),
        };
        // Whatever happened, asking has started nothing.
        let problem = problem.run(ProblemRun::No).again(Again::Later);
        answer::problem(&self.route.problem(problem), by, journal)
    }

    /// The answer while the run goes on: the same address, valid as long as before.
    fn running(&self, at: &RunningAt) -> Response<Bytes> {
        let mut answer = Response::new(Bytes::new());
        *answer.status_mut() = StatusCode::ACCEPTED;
        let headers = answer.headers_mut();
        let (caller, expires) = (&self.run.caller, self.run.expires);
        let address = self.waiting.address(caller, expires, (self.address.url(), at));
        headers.extend(address.map(|address| (header::LOCATION, address)));
        headers.insert(header::RETRY_AFTER, at.retry_after());
        answer
    }
}
