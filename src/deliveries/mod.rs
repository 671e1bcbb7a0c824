//! Recognizes a delivery that was handled before, so that it starts no second run. It decides which request is the first of
//! a delivery; what an outcome means for the next one is the gateway's decision.

mod identity;
mod memory;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, StatusCode};

pub use identity::{Sent, identify};
pub use memory::Memory;

use crate::model::{AnsweredBy, RequestId};

type Digest = [u8; 32];

/// What a request delivers. Two deliveries with one key are the same if their content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Of route, caller and id.
    key: Digest,
    /// Of what the flow would get.
    content: Digest,
    /// Route and caller: the one that has most is forgotten first.
    sender: u64,
    /// The request that delivers it.
    request: RequestId,
}

/// An answer as duplicates get it.
#[derive(Debug, Clone)]
pub struct KeptAnswer {
    /// The request that it was given to.
    pub request: RequestId,
    pub by: AnsweredBy,
    pub status: StatusCode,
    pub fields: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

impl KeptAnswer {
    /// An answer with nothing but its status.
    pub fn bare(request: RequestId, by: AnsweredBy, status: StatusCode) -> Self {
        Self {
            request,
            by,
            status,
            fields: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// Bytes that it keeps beyond its status.
    fn bytes(&self) -> usize {
        let field = |(_, value): &(HeaderName, HeaderValue)| {
            size_of::<(HeaderName, HeaderValue)>().saturating_add(value.len())
        };
        self.fields.iter().map(field).sum::<usize>() + self.body.len()
    }
}

/// What became of an attempt to be the first.
pub enum Started {
    /// It is the first: it ends with `complete` or `abort`.
    First,
    Earlier(Earlier),
}

/// What is known of a delivery that another request brought first.
pub enum Earlier {
    Answered(Arc<KeptAnswer>),
    Running(Running),
    /// This request used the same id for another content.
    Differs(RequestId),
}

/// A delivery that another request is handling.
pub struct Running {
    pub first: RequestId,
    /// Its answer; none if it was given up, so that the next one may be the first.
    pub end: BoxFuture<'static, Option<Arc<KeptAnswer>>>,
}

/// Remembers deliveries. `complete` and `abort` return at once, because a claim that is dropped calls them: a store behind a
/// network does the rest in a task of its own.
pub trait DeliveryStore: fmt::Debug + Send + Sync {
    /// Claims a delivery. Of all that try at one time exactly one is the first.
    fn try_start<'s>(&'s self, delivery: &'s Delivery) -> BoxFuture<'s, Started>;

    /// Ends a claim with the answer that duplicates get for this time.
    fn complete(&self, delivery: &Delivery, answer: KeptAnswer, window: Duration);

    /// Ends a claim as if it had never been.
    fn abort(&self, delivery: &Delivery);
}

/// The right to handle a delivery. Dropped without an answer, it is given up.
#[derive(Debug)]
pub struct Claim {
    store: Arc<dyn DeliveryStore>,
    window: Duration,
    delivery: Option<Delivery>,
}

impl Claim {
    /// Claims a delivery; its answer will be kept for `window`.
    ///
    /// # Errors
    /// Another request was the first.
    pub async fn take(
        store: &Arc<dyn DeliveryStore>,
        delivery: &Delivery,
        window: Duration,
    ) -> Result<Self, Earlier> {
        match store.try_start(delivery).await {
            Started::First => Ok(Self {
                store: store.clone(),
                window,
                delivery: Some(delivery.clone()),
            }),
            Started::Earlier(earlier) => Err(earlier),
        }
    }

    pub fn complete(mut self, answer: KeptAnswer) {
        if let Some(delivery) = self.delivery.take() {
            self.store.complete(&delivery, answer, self.window);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(delivery) = self.delivery.take() {
            self.store.abort(&delivery);
        }
    }
}
