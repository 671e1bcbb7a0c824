//! What the settings decide: immutable, built whole, replaced in one store. A request loads it once and keeps it to its
//! end.

use std::sync::{Arc, Mutex};

use http::request::Parts;
use http::{HeaderName, Version, header};

use crate::counters::RouteFigures;
use crate::entra::claims::{Inspector, Preflight};
use crate::entra::{Identity, Tokens};
use crate::flow::Trigger;
use crate::gateway::arrival::Pace;
use crate::gateway::cors::Cors;
use crate::gateway::deadline::Deadlines;
use crate::gateway::duplicates::Duplicates;
use crate::gateway::estate::Estate;
use crate::gateway::journal::PathMask;
use crate::gateway::payload::{IsRead, Rules};
use crate::gateway::run_address::RunSeals;
use crate::gateway::success::Success;
use crate::gateway::upstream::{Passes, Upstream};
use crate::gateway::vendor::Vendor;
use crate::gateway::waiting::Waiting;
use crate::model::handshake::{Handshake, Requires};
use crate::model::signature::{SECRETS_MAX, SecretOrigin};
use crate::model::{CallerName, Minute, ProblemPages, PublicUrl, RouteName, Secret, clock, locked};
use crate::outbound::TrustError;
use crate::policy::key::KeyReader;
use crate::policy::signature::SignerError;
use crate::policy::{Access, BodyRules, Callers, Handshakes, Matching, Networks, Quotas, Routes};
use crate::problem::{Kind, Problem};
use crate::secrets::Following;
use crate::settings::{
    CallerSettings, CallersSettings, Checks, Config, Contact, KeyPlace, ListenerSettings, Proof,
    ReadyRequires, RouteSettings, SettingsDigest,
};

#[derive(Debug)]
pub(super) struct Snapshot {
    /// Counts the settings that were in force: with a state folder over restarts, otherwise from 1 on.
    pub revision: u64,
    pub tokens: Tokens,
    pub table: Routes<Arc<Route>>,
    /// All routes, in the order of the settings.
    pub routes: Vec<Arc<Route>>,
    pub callers: Arc<Callers>,
    /// What signs with a certificate that is fetched, in the order of the callers.
    pub vendors: Box<[Option<Arc<Vendor>>]>,
    pub quotas: Quotas,
    pub heads: HeadLimits,
    pub path_mask: PathMask,
    pub problem_pages: Option<ProblemPages>,
    /// As data: the server derives what it needs from them.
    pub listeners: Vec<ListenerSettings>,
    pub ready_requires: ReadyRequires,
    pub digest: SettingsDigest,
    /// What opens addresses of runs.
    pub run_seals: Option<Arc<RunSeals>>,
    pepper: Option<Secret>,
    /// What follows the places of triggers and of the pepper, once this is in force.
    following: Mutex<Vec<Following>>,
}

/// The fields in which callers of a route present credentials.
fn credentials(settings: &RouteSettings, callers: &Callers) -> Vec<HeaderName> {
    let mut fields = KeyReader::build(&settings.key_places).header_places().to_vec();
    if let CallersSettings::Named(names) = &settings.callers {
        let signers = names.iter().filter_map(|name| callers.signer(name));
        fields.extend(signers.flat_map(|signer| signer.fields().to_vec()));
    }
    fields.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    fields.dedup();
    fields
}

/// The callers whose vendor sends their secrets.
fn enrolled(config: &Config) -> impl Iterator<Item = &CallerName> {
    let callers = config.callers.iter().filter(|caller| {
        let signature = caller.signature.as_ref();
        signature.is_some_and(|signature| signature.recipe.secrets == SecretOrigin::Handshake)
    });
    callers.map(|caller| &caller.name)
}

/// Has these callers use the secrets that came.
fn follow_enrolments(config: &Config, callers: &Callers, estate: &Estate) {
    for name in enrolled(config) {
        if let Some(signer) = callers.signer(name) {
            estate.enrolments.follow(name, signer);
        }
    }
}

/// Those of them that a route lists, whether or not it accepts a secret now.
fn enrolled_of(settings: &RouteSettings, config: &Config) -> Vec<CallerName> {
    let CallersSettings::Named(names) = &settings.callers else {
        return Vec::new();
    };
    let listed = enrolled(config).filter(|name| names.contains(name));
    listed.cloned().collect()
}

/// The caller of a route whose secrets its vendor sends in a handshake, and how many there may be beside those of the settings.
fn enrols(settings: &RouteSettings, config: &Config) -> Option<(CallerName, usize)> {
    let vendors = settings.handshakes.vendors.iter();
    let mut rows = vendors.flat_map(|vendor| Handshake::of(*vendor));
    let place = rows.find_map(|row| match &row.requires {
        Requires::Enrolment(place) => Some(place),
        _ => None,
    })?;
    let CallersSettings::Named(names) = &settings.callers else {
        return None;
    };
    let mut callers = config
        .callers
        .iter()
        .filter(|caller| names.contains(&caller.name));
    callers.find_map(|caller| {
        let signature = caller.signature.as_ref()?;
        let signs = signature.recipe.signature.contains(place);
        let max = SECRETS_MAX.saturating_sub(signature.secrets.len());
        signs.then(|| (caller.name.clone(), max))
    })
}

/// A public address and all that is decided for it.
#[derive(Debug)]
pub(super) struct Route {
    pub index: usize,
    pub name: RouteName,
    pub enabled: bool,
    pub access: Access,
    pub networks: Networks,
    /// The challenges of vendors that are answered here; none on most routes.
    pub handshakes: Option<Box<Handshakes>>,
    /// The caller whose secrets a vendor sends here, and how many of those there may be.
    pub enrols: Option<(CallerName, usize)>,
    /// The callers that may have secrets which a vendor sent, here or earlier.
    pub enrolled: Vec<CallerName>,
    pub checks: Checks,
    /// Scheme and host under which callers know it.
    pub public_url: Option<PublicUrl>,
    pub rules: Rules,
    /// What it demands of bodies; nothing for most.
    pub body: Option<BodyRules>,
    pub identity: Option<Identity>,
    pub preflight: Option<Arc<Preflight>>,
    pub trigger: Arc<Trigger>,
    /// Fields in which callers present keys. They are kept from the flow also where no key is read: vendors send one
    /// header everywhere.
    pub credentials: Vec<HeaderName>,
    pub upstream: Upstream,
    pub passes: Passes,
    pub cors: Option<Cors>,
    /// What becomes of a flow's success, if it does not pass.
    pub success: Option<Success>,
    /// How results of runs are waited for.
    pub waiting: Option<Waiting>,
    /// When those that call it give up.
    pub deadlines: Deadlines,
    pub contact: Option<Contact>,
    pub problem_pages: Option<ProblemPages>,
    pub duplicates: Option<Duplicates>,
    pub figures: Arc<RouteFigures>,
}

/// Who wants other settings in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Somebody who knows what the files say.
    ByOperator,
    /// The gateway itself, because a list was changed. What else was changed since may not be meant yet.
    ByItself,
}

/// Why a gateway cannot be built from settings that are right in themselves.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Other digests of keys would be needed, and nobody asked for that.
    #[error("the pepper was changed as well: send SIGHUP once the digests of keys are made with the new one")]
    Pepper,
    /// A token would go to another host, and nobody asked for that.
    #[error("route {route}: {why}")]
    Moved {
        route: RouteName,
        /// Where it would go.
        why: String,
    },
    /// Two routes clash; the check of the settings names both places.
    #[error("the routes clash: {0}")]
    Routes(String),
    #[error(transparent)]
    Signer(#[from] SignerError),
}

impl Snapshot {
    /// A problem of a request whose route is not known.
    pub(super) fn problem(&self, problem: Problem) -> Problem {
        with_page(problem, self.problem_pages.as_ref())
    }

    /// Keeps what follows the places of its secrets while it is in force, in place of what it kept before.
    pub(super) fn keep(&self, following: Vec<Following>) {
        *locked(&self.following) = following;
    }

    /// Checks that no token goes to another host than under these settings unless an operator wants that: the address of a
    /// trigger may be in a file that others can write.
    pub(super) fn check_moves(&self, config: &Config) -> Result<(), BuildError> {
        if self.pepper.is_some() && self.pepper != config.key_pepper {
            return Err(BuildError::Pepper);
        }
        for settings in &config.routes {
            let current = self.routes.iter().find(|route| route.name == settings.name);
            let Some((source, current)) = settings.trigger_source.as_ref().zip(current) else {
                continue;
            };
            let moved = source.check_move(&settings.trigger, current.trigger.address().url());
            moved.map_err(|why| BuildError::Moved {
                route: settings.name.clone(),
                why,
            })?;
        }
        Ok(())
    }

    /// Where tokens or signatures would go under these settings and do not go now, in words.
    pub(super) fn moves(&self, config: &Config) -> Vec<String> {
        let moves = config.routes.iter().filter_map(|settings| {
            let current = self.routes.iter().find(|route| route.name == settings.name)?;
            let (from, to) = (current.trigger.address(), &settings.trigger);
            (from.url().authority() != to.authority()).then(|| {
                let (name, from, to) = (&settings.name, from.url().authority(), to.authority());
                format!("route {name} would call {to}, not {from}")
            })
        });
        moves.collect()
    }

    /// Builds all of it, or nothing. Parts of the estate are looked up and not changed, so that a snapshot that is not used
    /// leaves no trace. What is the same as in the `earlier` one is taken from there.
    pub(super) fn build(
        config: &Config,
        estate: &Estate,
        earlier: Option<&Self>,
    ) -> Result<Self, BuildError> {
        let tokens = Tokens::build(
            &config.identities,
            config.keyvault.as_ref(),
            (&estate.rereader, &estate.counters),
            earlier.map(|earlier| &earlier.tokens),
        )?;
        let run_seals = RunSeals::build(&config.run_seals).map(Arc::new);
        let callers = Callers::build(&config.callers, config.key_pepper.as_ref(), &estate.callers)?;
        if !estate.revocations.is_empty() {
            callers.revoke_all(|digest| estate.revocations.has(&digest.to_setting()));
        }
        callers.advance(Minute::of(clock::wall()));
        follow_enrolments(config, &callers, estate);
        let callers = Arc::new(callers);
        let mut routes = Vec::with_capacity(config.routes.len());
        for (index, settings) in config.routes.iter().enumerate() {
            let access = Access::build(&settings.callers, &settings.key_places, &config.callers, &callers);
            let route = Route::build(
                index,
                settings,
                (access, &callers),
                config,
                (estate, &tokens, run_seals.as_ref()),
            )?;
            routes.push(Arc::new(route));
        }
        let vendor = |caller: &CallerSettings| {
            let signature = caller.signature.as_ref();
            let fetching = signature.filter(|signature| signature.recipe.certificate.is_some());
            fetching
                .map(|signature| estate.vendor(&signature.trust))
                .transpose()
        };
        let matching = config.routes.iter().map(Matching::from);
        let table = Routes::build(matching.zip(routes.iter().cloned()))
            .map_err(|error| BuildError::Routes(error.to_string()))?;
        let admin = config.admin.as_ref();
        Ok(Self {
            revision: earlier.map_or(estate.first_revision, |earlier| earlier.revision + 1),
            tokens,
            table,
            routes,
            callers,
            vendors: config.callers.iter().map(vendor).collect::<Result<_, _>>()?,
            quotas: Quotas::build(&config.quotas, &config.callers, &config.routes, &estate.limits),
            path_mask: match config
                .routes
                .iter()
                .any(|route| route.key_places.contains(&KeyPlace::Path))
            {
                true => PathMask::All,
                false => PathMask::LongSegments,
            },
            heads: HeadLimits {
                fields_max: config.connections.headers_max,
                bytes_max: config.connections.head_size_max.bytes(),
                target_bytes_max: config.connections.target_size_max.bytes(),
            },
            problem_pages: config.gateway.problem_pages.clone(),
            listeners: config.listeners.clone(),
            ready_requires: admin.map_or(ReadyRequires::AnyRoute, |admin| admin.ready_requires),
            digest: config.digest.clone(),
            run_seals,
            pepper: config.key_pepper.clone(),
            following: Mutex::default(),
        })
    }

    /// Changes parts of the estate to what this snapshot needs. Called when it is put in force.
    pub(super) fn take_effect(&self, estate: &Estate, config: &Config) {
        let bodies = &config.bodies;
        let budget = bodies.held_budget.bytes();
        estate.budget.resize(budget, config.held_body_bytes_max());
        let (deliveries, answers) = (
            config.quotas.deliveries_max,
            config.quotas.delivery_answers_budget,
        );
        estate.deliveries.resize(deliveries, answers.bytes());
        for settings in &config.routes {
            estate.flows.resize(settings);
        }
        self.tokens.start();
        // Each new token is compared with what the routes of its identity need.
        for identity in self.tokens.identities() {
            let name = &identity.settings().name;
            let mine = self.routes.iter().filter(|route| {
                let used = route.identity.as_ref();
                used.is_some_and(|used| used.settings().name == *name)
            });
            let preflights = mine.filter_map(|route| route.preflight.clone()).collect();
            identity.inspect(Inspector::new(name, preflights));
        }
    }
}

impl Route {
    /// A problem of this route, with what all its problems have.
    pub(super) fn problem(&self, problem: Problem) -> Problem {
        let problem = match &self.contact {
            Some(contact) => problem.contact(contact.text()),
            None => problem,
        };
        with_page(problem, self.problem_pages.as_ref())
    }

    fn build(
        index: usize,
        settings: &RouteSettings,
        (access, callers): (Access, &Callers),
        config: &Config,
        (estate, tokens, run_seals): (&Estate, &Tokens, Option<&Arc<RunSeals>>),
    ) -> Result<Self, TrustError> {
        let identity = match &settings.proof {
            Proof::Identity(name) => tokens.identity(name).cloned(),
            Proof::Signed => None,
        };
        let preflight = |identity: &Identity| Preflight::new(settings, identity.settings());
        let bodies = &config.bodies;
        let body = BodyRules::build(&settings.content);
        let reader = body.as_ref().and_then(BodyRules::reader);
        let (bytes_max, set_by) = settings.accepted_bytes_max(&config.callers);
        let figures = || estate.counters.of_route(settings.name.as_str(), Kind::ALL.len());
        Ok(Self {
            index,
            name: settings.name.clone(),
            enabled: settings.enabled,
            access,
            networks: Networks::build(&settings.networks),
            enrols: enrols(settings, config),
            enrolled: enrolled_of(settings, config),
            handshakes: Handshakes::build(&settings.handshakes, &settings.callers, callers),
            checks: settings.checks,
            public_url: settings.public_url.clone(),
            rules: Rules {
                bytes_max,
                set_by,
                hold_bytes_max: settings.held_bytes_max(bodies),
                is_read: reader.map_or(IsRead::No, |_| IsRead::Yes),
                pace: Pace {
                    timeout: bodies.timeout,
                    rate_min: bodies.rate_min,
                    rate_grace: bodies.rate_grace,
                    stream_rate_min: bodies.stream_rate_min,
                },
            },
            body,
            preflight: identity.as_ref().map(preflight),
            identity,
            trigger: estate.flows.trigger(settings)?,
            credentials: credentials(settings, callers),
            upstream: Upstream::of(&settings.kind),
            passes: Passes {
                relative_path: settings.relative_path,
                query: settings.query.clone(),
            },
            cors: Cors::build(settings),
            success: Success::build(&settings.success),
            waiting: Waiting::build(settings, run_seals),
            deadlines: Deadlines::build(settings, &config.callers),
            contact: settings.contact.clone(),
            problem_pages: config.gateway.problem_pages.clone(),
            duplicates: Duplicates::build(settings),
            figures: estate.figures.share(settings.name.clone(), figures),
        })
    }
}

/// A problem whose type leads to its page, where there are pages.
fn with_page(problem: Problem, pages: Option<&ProblemPages>) -> Problem {
    match pages {
        Some(pages) => problem.pages(pages),
        None => problem,
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct HeadLimits {
    fields_max: usize,
    bytes_max: usize,
    target_bytes_max: usize,
}

impl HeadLimits {
    pub(super) fn check(&self, head: &Parts) -> Result<(), Problem> {
        let target = head.uri.path_and_query();
        if target.is_some_and(|target| target.as_str().len() > self.target_bytes_max) {
            return Err(Kind::TargetTooLong.into());
        }
        if head.headers.len() > self.fields_max {
            return Err(Kind::HeadTooLarge.into());
        }
        // Over HTTP/1 a larger head is not read to its end.
        if head.version == Version::HTTP_2 {
            let bytes = head_bytes(head);
            if bytes > self.bytes_max {
                let max = self.bytes_max;
                let cause = format!("the head has {bytes} bytes; `connections.head_size_max` is {max}");
                return Err(Problem::from(Kind::HeadTooLarge).because(cause));
            }
        }
        let mut expects = head.headers.get_all(header::EXPECT).iter();
        if expects.any(|expect| !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
            return Err(Kind::ExpectationFailed.into());
        }
        Ok(())
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
