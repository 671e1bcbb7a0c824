//! Signatures whose key is in a certificate of the vendor's: which one a request needs is known once its body was read, and it is
//! fetched before the signature is checked.

use bytes::Bytes;
use http::request::Parts;

use crate::gateway::snapshot::Snapshot;
use crate::model::clock;
use crate::policy::{CertificateWanted, Origin, Pending};
use crate::problem::{Kind, Problem};

/// A body up to this size is read by the worker.
const READ_HERE_MAX: usize = 64 * 1024;

/// Gives candidates the certificates that their signatures need.
pub(super) async fn supply(
    mut pending: Pending,
    snapshot: &Snapshot,
    (head, body): (&Parts, &Bytes),
    origin: Origin,
) -> Result<Pending, Problem> {
    let wanted: Vec<CertificateWanted>;
    if body.len() <= READ_HERE_MAX {
        wanted = pending.certificates(&head.method, &head.headers, body, clock::wall());
    } else {
        let (method, headers, body) = (head.method.clone(), head.headers.clone(), body.clone());
        let reading = move || {
            let wanted = pending.certificates(&method, &headers, &body, clock::wall());
            (pending, wanted)
        };
        let read = tokio::task::spawn_blocking(reading).await;
        (pending, wanted) = read.map_err(|_| Kind::Internal)?;
    }
    for wanted in wanted {
        let vendor = wanted
            .caller
            .and_then(|index| Some((index, snapshot.vendors.get(index)?.as_ref()?)));
        let Some((index, vendor)) = vendor else { continue };
        let permit = || snapshot.quotas.take_fetch(origin, index);
        let fetched = vendor.certificate(&wanted.url, permit).await;
        pending.supply(&wanted, fetched);
    }
    Ok(pending)
}
