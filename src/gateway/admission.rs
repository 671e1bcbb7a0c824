//! Who may call: the order in which the head of a request is checked, inexpensive checks first. Nothing of a body is
//! read before the caller is known.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Version, header};

use crate::flow::outbound::Introduction;
use crate::flow::{Address, Progress, outbound};
use crate::gateway::connection::Connection;
use crate::gateway::journal::Journal;
use crate::gateway::payload::Payload;
use crate::gateway::upstream::target;
use crate::gateway::{Gateway, Route, host, payload};
use crate::model::{Holder, clock};
use crate::policy::{Attempt, Caller, Guesses, Origin, Shown};
use crate::problem::{Kind, Problem};
use crate::settings::Peers;
use crate::wire::Defect;

/// A request that passed every check, and its way to the trigger. Only `admit` makes one, only `forward` takes one.
pub(super) struct Admitted {
    pub head: Parts,
    pub payload: Payload,
    pub route: Arc<Route>,
    pub address: Arc<Address>,
    pub target: PathAndQuery,
    pub who: Introduction,
    pub holder: Holder,
    pub progress: Arc<Progress>,
    pub worker: usize,
}

/// A request whose head passed every check.
pub(super) struct Known {
    pub route: Arc<Route>,
    pub address: Arc<Address>,
    pub target: PathAndQuery,
    pub who: Introduction,
    pub holder: Holder,
}

impl Gateway {
    /// All checks that need nothing but the head, inexpensive ones first.
    pub(super) fn check(
        &self,
        head: &Parts,
        via: &Connection,
        defect: Option<Defect>,
        journal: &mut Journal,
    ) -> Result<Known, Problem> {
        let origin = Origin::of_peer(via.peer);
        match defect {
            Some(Defect::Malformed(what)) => return Err(Problem::from(Kind::MalformedRequest).detail(what)),
            Some(Defect::TooLarge) => return Err(Kind::HeadTooLarge.into()),
            None => {}
        }
        let host = self.host(head)?;
        let path = head.uri.path();
        let found = match self.routes.find(&host, path, &head.method) {
            Ok(found) => found,
            Err(problem) => {
                journal.target(path);
                return Err(problem);
            }
        };
        let route = found.value;
        journal.route(&route.figures);
        outbound::refuse_lookalikes(&head.headers, &route.credentials)?;
        route.networks.admit(origin)?;
        let caller = self.identify(route, head, via, origin)?;
        via.known.store(true, Ordering::Relaxed);
        journal.caller(&caller.name, caller.label.as_ref());
        let _taken = self.quotas.take(caller.index, route.index)?;
        payload::check_length(&head.headers, &route.rules)?;
        // Looked up once: whatever replaces it, this request goes where its target belongs.
        let address = route.trigger.address();
        let target = target(route, address.url(), found.rest, head.uri.query())?;
        Ok(Known {
            route: route.clone(),
            address,
            target,
            holder: caller.holder(origin),
            who: Introduction {
                request: journal.request(),
                caller: caller.name,
                key: caller.label,
                origin: via.origin.clone(),
            },
        })
    }

    /// Checks what every request must keep, and finds the host it is meant for.
    fn host<'a>(&self, head: &'a Parts) -> Result<Cow<'a, str>, Problem> {
        if head
            .uri
            .path_and_query()
            .is_some_and(|target| target.as_str().len() > self.target_bytes_max)
        {
            return Err(Kind::TargetTooLong.into());
        }
        if head.headers.len() > self.headers_max {
            return Err(Kind::HeadTooLarge.into());
        }
        // Over HTTP/1 a larger head is not read to its end.
        if head.version == Version::HTTP_2 {
            let bytes = head_bytes(head);
            if bytes > self.head_bytes_max {
                let cause = format!(
                    "the head has {bytes} bytes; `connections.head_size_max` is {}",
                    self.head_bytes_max
                );
                return Err(Problem::from(Kind::HeadTooLarge).because(cause));
            }
        }
        let mut expects = head.headers.get_all(header::EXPECT).iter();
        if expects.any(|expect| !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
            return Err(Kind::ExpectationFailed.into());
        }
        host::of(head)
    }

    /// Finds out who calls. Failed attempts of an address are limited; a caller with a valid generated key,
    /// or with none where none is needed, is served whatever others at its address present.
    fn identify(
        &self,
        route: &Route,
        head: &Parts,
        via: &Connection,
        origin: Origin,
    ) -> Result<Caller, Problem> {
        // All callers behind a balancer have its address, so a limit there would be one for all of them.
        let is_limited = via.peers == Peers::Callers;
        let spent = match is_limited {
            true => self.quotas.admit_address(origin).err(),
            false => None,
        };
        let guesses = match &spent {
            Some(_) => Guesses::Refused,
            None => Guesses::Allowed,
        };
        let identified = route.access.identify(&Shown {
            headers: &head.headers,
            origin,
            guesses,
            now: &clock::wall,
        });
        identified.map_err(|problem| {
            if Attempt::of(problem.kind()) == Attempt::Unrelated {
                return problem;
            }
            match spent {
                Some(refusal) => refusal,
                None => {
                    if is_limited {
                        self.quotas.count_failure(origin);
                    }
                    problem
                }
            }
        })
    }
}

/// The size of a head as HTTP/2 counts it (RFC 9113 section 6.5.2).
fn head_bytes(head: &Parts) -> usize {
    const OVERHEAD: usize = 32;
    let fields = head.headers.iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + OVERHEAD);
    let uri = &head.uri;
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
    let host = uri.authority().map_or(0, |authority| authority.as_str().len());
    let pseudo = [
        (":method", head.method.as_str().len()),
        (":path", target),
        (":authority", host),
    ];
    let pseudo = pseudo.map(|(name, value)| name.len() + value + OVERHEAD);
    fields.sum::<usize>() + pseudo.iter().sum::<usize>()
}
