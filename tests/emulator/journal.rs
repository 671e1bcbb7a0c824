//! The last requests that a server received, limited in number and bytes so that a long load run does not
//! fill the memory.

use std::collections::VecDeque;
use std::sync::Arc;

const ENTRIES_MAX: usize = 10_000;
const BYTES_MAX: usize = 64 << 20;

/// Requests in the order in which they were recorded.
#[derive(Debug)]
pub struct Journal<T> {
    entries: VecDeque<(usize, Arc<T>)>,
    bytes: usize,
    open: bool,
}

impl<T> Default for Journal<T> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            open: true,
        }
    }
}

impl<T> Journal<T> {
    /// Adds an entry of this many `bytes`, and drops the oldest ones beyond the limits.
    pub fn record(&mut self, bytes: usize, entry: Arc<T>) {
        if !self.open {
            return;
        }
        self.bytes += bytes;
        self.entries.push_back((bytes, entry));
        while self.entries.len() > ENTRIES_MAX || (self.bytes > BYTES_MAX && self.entries.len() > 1) {
            let Some((freed, _)) = self.entries.pop_front() else {
                return;
            };
            self.bytes -= freed;
        }
    }

    /// Stops recording; for load runs that only need the counts.
    pub fn stop(&mut self) {
        self.open = false;
    }

    /// Whether entries are recorded.
    pub fn is_open(&self) -> bool {
        self.open
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    /// All entries, oldest first; they are no longer kept.
    pub fn take(&mut self) -> Vec<Arc<T>> {
        let all = self.all();
        self.clear();
        all
    }

    /// All entries, oldest first.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.entries.iter().map(|(_, entry)| Arc::clone(entry)).collect()
    }
}
