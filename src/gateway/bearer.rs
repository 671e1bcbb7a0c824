//! The token that a request takes along.

use std::sync::Arc;

use tokio::time::Instant;

use crate::entra::{Identity, Token};
use crate::gateway::journal::Journal;
use crate::gateway::snapshot::Route;
use crate::problem::{Kind, Problem};

/// The token of the route's identity, if it has one; not one that the route refuses to show.
pub(super) async fn fitting_token(
    route: &Route,
    journal: &mut Journal,
) -> Result<Option<Arc<Token>>, Problem> {
    let Some(identity) = &route.identity else {
        return Ok(None);
    };
    let token = token(identity, journal).await?;
    let preflight = route.preflight.as_ref();
    match preflight.and_then(|preflight| preflight.refusal()) {
        Some(why) => Err(Problem::from(Kind::TokenUnfit).because(why)),
        None => Ok(Some(token)),
    }
}

/// The identity's token: at hand nearly always, or else waited for.
async fn token(identity: &Identity, journal: &mut Journal) -> Result<Arc<Token>, Problem> {
    if let Some(token) = identity.token_at_hand() {
        return Ok(token);
    }
    let started = Instant::now();
    let token = identity.token().await;
    journal.token_time(started.elapsed());
    Ok(token?)
}
