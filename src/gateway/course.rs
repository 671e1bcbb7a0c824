//! What a request in work and its caller share: how far its body has come, and the answer that the caller gets before that of
//! the flow.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;

use crate::flow::Progress;
use crate::model::locked;

#[derive(Debug, Default)]
pub(super) struct Course {
    progress: Progress,
    is_early: AtomicBool,
    /// In a box: most requests have none, and all keep its place.
    early: Mutex<Option<Box<Response<Bytes>>>>,
}

impl Deref for Course {
    type Target = Progress;

    fn deref(&self) -> &Progress {
        &self.progress
    }
}

impl Course {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Answers the caller now. The work goes on in a task of its own once it waits for something.
    pub(super) fn answer_early(&self, answer: Response<Bytes>) {
        *locked(&self.early) = Some(Box::new(answer));
        self.is_early.store(true, Ordering::Release);
    }

    pub(super) fn take_early(&self) -> Option<Response<Bytes>> {
        // Read before it is written, which costs more: each turn of each request asks.
        let is_early = self.is_early.load(Ordering::Acquire) && self.is_early.swap(false, Ordering::AcqRel);
        let early = is_early.then(|| locked(&self.early).take()).flatten()?;
        Some(*early)
    }
}
