//! Applies the rules of a route to a body that is held, after the caller is known for good: what the flow gets may differ
//! from what the caller signed. The rules are `policy/body`'s; here are memory and time.

use std::fmt::Display;

use bytes::Bytes;
use http::HeaderValue;
use http::request::Parts;
use tokio::task::spawn_blocking;

use crate::gateway::budget::{Owner, Reservation};
use crate::gateway::estate::Estate;
use crate::gateway::payload::Payload;
use crate::policy::BodyRules;
use crate::policy::body::{BodyReader, Syntax};
use crate::problem::{Kind, Problem};

/// Larger bodies are read beside the worker, on which all other requests wait; this much takes it a millisecond or two, with
/// a large schema some more.
const WORKER_BYTES_MAX: usize = 16 * 1024;

/// Checks a body and replaces it by what the flow gets. Returns the type of that, if it is not the stated one.
///
/// # Errors
/// [`Kind::BodyTypeRefused`], [`Kind::BodyInvalid`], and [`Kind::GatewayBusy`] where there is no memory for reading it.
pub(super) async fn apply<'r>(
    rules: &'r BodyRules,
    head: &Parts,
    payload: &mut Payload,
    (owner, estate): (Owner<'_>, &Estate),
) -> Result<Option<&'r HeaderValue>, Problem> {
    let is_empty = matches!(payload, Payload::Held(body, _) if body.is_empty());
    let syntax = match is_empty {
        true => Syntax::Other,
        false => rules.accept(&head.headers)?,
    };
    if let Some(reader) = rules.reader() {
        let Payload::Held(body, reservation) = payload else {
            // A route that reads its bodies accepts none that is not held.
            return Err(Kind::BodyTooLarge.into());
        };
        let mut memory = reservation
            .take()
            .unwrap_or_else(|| Reservation::of(&estate.budget, owner.holder));
        let received = std::mem::take(body);
        if received.len() <= WORKER_BYTES_MAX {
            *body = read(reader, received, syntax, &mut memory, &owner)?;
            *reservation = Some(memory);
        } else {
            let (reader, owner) = (reader.clone(), owner.to_string());
            // As many at one time as there are workers. The semaphore is never closed, and a panic is a fault of ours.
            let turn = estate.large_bodies.clone().acquire_owned().await;
            let turn = turn.map_err(|_| Problem::from(Kind::Internal))?;
            let reading = spawn_blocking(move || {
                let _turn = turn;
                let read = read(&reader, received, syntax, &mut memory, &owner);
                read.map(|read| (read, memory))
            });
            let (read, memory) = reading.await.map_err(|_| Problem::from(Kind::Internal))??;
            *body = read;
            *reservation = Some(memory);
        }
    }
    Ok(rules.content_type(syntax).filter(|_| !is_empty))
}

/// What the flow gets, and memory for that alone.
fn read(
    reader: &BodyReader,
    body: Bytes,
    syntax: Syntax,
    memory: &mut Reservation,
    owner: &dyn Display,
) -> Result<Bytes, Problem> {
    let length = body.len();
    let read = reader.read(body, syntax, &mut |beside| {
        memory.grow_to(length.saturating_add(beside), owner)
    })?;
    memory.shrink_to(read.len());
    Ok(read)
}
