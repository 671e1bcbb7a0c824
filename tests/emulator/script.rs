//! The script of answers: queues of single answers, standing answers, and the strict mode in which an
//! unscripted request is a violation. Violations are collected, and fail the test when it checks.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

/// Violations that are kept; the first ones are the most useful.
const VIOLATIONS_MAX: usize = 100;

/// What the script has for a request.
#[derive(Clone, Debug)]
pub enum Cue<A> {
    /// The test asked for this answer.
    Scripted(A),
    /// Nothing is scripted, so the emulator behaves normally.
    Free,
    /// Nothing is scripted, although the mode is strict.
    Missing,
}

/// Answers for later requests, some of them for one client or one trigger.
#[derive(Debug)]
pub struct Script<A> {
    queue: VecDeque<A>,
    keyed: HashMap<String, VecDeque<A>>,
    standing: Option<A>,
    standing_keyed: HashMap<String, A>,
    strict: bool,
}

impl<A> Default for Script<A> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            keyed: HashMap::new(),
            standing: None,
            standing_keyed: HashMap::new(),
            strict: false,
        }
    }
}

impl<A: Clone> Script<A> {
    /// Answers the next request.
    pub fn next(&mut self, answer: A) {
        self.queue.push_back(answer);
    }

    /// Answers the next request for `key`, before answers for all.
    pub fn next_for(&mut self, key: &str, answer: A) {
        self.keyed.entry(key.to_owned()).or_default().push_back(answer);
    }

    /// Answers every request for which nothing is queued.
    pub fn always(&mut self, answer: A) {
        self.standing = Some(answer);
    }

    /// Answers every request for `key` for which nothing is queued.
    pub fn always_for(&mut self, key: &str, answer: A) {
        self.standing_keyed.insert(key.to_owned(), answer);
    }

    /// Removes all answers, queued and standing.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.keyed.clear();
        self.standing = None;
        self.standing_keyed.clear();
    }

    /// From now on a request without a scripted answer is a violation.
    pub fn be_strict(&mut self) {
        self.strict = true;
    }

    /// Number of queued answers that were not used yet.
    pub fn left(&self) -> usize {
        self.queue.len() + self.keyed.values().map(VecDeque::len).sum::<usize>()
    }

    /// Takes the answer for a request for `key`.
    pub fn take(&mut self, key: &str) -> Cue<A> {
        let queued = self.keyed.get_mut(key).and_then(VecDeque::pop_front);
        let answer = queued
            .or_else(|| self.queue.pop_front())
            .or_else(|| self.standing_keyed.get(key).cloned())
            .or_else(|| self.standing.clone());
        match answer {
            Some(answer) => Cue::Scripted(answer),
            None if self.strict => Cue::Missing,
            None => Cue::Free,
        }
    }
}

/// What went wrong in the emulator; shared by its servers.
#[derive(Clone, Debug, Default)]
pub struct Violations {
    list: Arc<Mutex<Vec<String>>>,
}

impl Violations {
    /// Records one, for the test to check later: a panic would only end the server's task.
    pub fn note(&self, what: impl Into<String>) {
        let mut list = self.list.lock().unwrap();
        if list.len() < VIOLATIONS_MAX {
            list.push(what.into());
        }
    }

    pub fn list(&self) -> Vec<String> {
        self.list.lock().unwrap().clone()
    }
}
