//! The trigger endpoint of flows. It finds the trigger, makes the platform's checks, records the request, and
//! then does what the script or the trigger's configuration says. This file has the handles that tests use;
//! `flow/serve.rs` serves.

mod serve;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use super::answer::Answer;
use super::gate::{Count, Gate};
use super::journal::Journal;
use super::jwt::Mint;
use super::listener::{Connection, Listener};
use super::operations::Operations;
use super::record::Recorded;
use super::script::{Script, Violations};
use super::session;
use super::trigger::{Condition, Trigger};
use super::wire::Wire;

#[derive(Debug)]
struct Registered {
    settings: Mutex<Arc<Trigger>>,
    requests: Count,
    runs: Count,
    gate: Mutex<Option<Gate>>,
}

#[derive(Debug)]
struct State {
    listener: Arc<Listener>,
    mint: Arc<Mint>,
    violations: Violations,
    triggers: Mutex<HashMap<String, Arc<Registered>>>,
    script: Mutex<Script<Answer>>,
    journal: Mutex<Journal<Recorded>>,
    operations: Mutex<Operations>,
    revoked: Mutex<HashSet<String>>,
    gate: Mutex<Option<Gate>>,
    heads: Count,
    body_bytes: Count,
    requests: Count,
    polls: Count,
    hang_ups: Count,
    broken_bodies: Count,
    written: Count,
}

/// A handle on the trigger endpoint; clones share its state.
#[derive(Clone, Debug)]
pub struct Flow {
    state: Arc<State>,
}

/// A handle on a trigger of the endpoint; clones share its state.
#[derive(Clone, Debug)]
pub struct TriggerHandle {
    flow: Flow,
    registered: Arc<Registered>,
}

impl Flow {
    pub(super) fn new(listener: Arc<Listener>, mint: Arc<Mint>, violations: Violations) -> Self {
        let state = State {
            listener,
            mint,
            violations,
            triggers: Mutex::default(),
            script: Mutex::default(),
            journal: Mutex::default(),
            operations: Mutex::default(),
            revoked: Mutex::default(),
            gate: Mutex::default(),
            heads: Count::new("heads that the flow read"),
            body_bytes: Count::new("body bytes that the flow read"),
            requests: Count::new("requests that the flow read"),
            polls: Count::new("polls"),
            hang_ups: Count::new("requests whose caller hung up"),
            broken_bodies: Count::new("bodies that stopped in the middle"),
            written: Count::new("answers written by hand to their last step"),
        };
        Self {
            state: Arc::new(state),
        }
    }

    /// Adds a trigger.
    pub fn add(&self, trigger: Trigger) -> TriggerHandle {
        let workflow = trigger.workflow.clone();
        let registered = Arc::new(Registered {
            settings: Mutex::new(Arc::new(trigger)),
            requests: Count::new("requests for the trigger"),
            runs: Count::new("runs of the trigger"),
            gate: Mutex::default(),
        });
        self.state
            .triggers
            .lock()
            .unwrap()
            .insert(workflow, Arc::clone(&registered));
        TriggerHandle {
            flow: self.clone(),
            registered,
        }
    }

    /// The listener: its counts, its certificate, its misbehaviour.
    pub fn listener(&self) -> &Listener {
        &self.state.listener
    }

    /// The address without a path: `https://localhost:PORT`.
    pub fn origin(&self) -> String {
        format!("https://localhost:{}", self.state.listener.address().port())
    }

    /// Scripts the answer to the next request for this trigger that passes the checks of its head.
    pub fn next(&self, trigger: &TriggerHandle, answer: Answer) {
        self.state
            .script
            .lock()
            .unwrap()
            .next_for(&trigger.workflow(), answer);
    }

    /// Scripts the answer to the next request for any trigger.
    pub fn next_any(&self, answer: Answer) {
        self.state.script.lock().unwrap().next(answer);
    }

    /// Scripts the answer to all requests once the queue is empty.
    pub fn always(&self, answer: Answer) {
        self.state.script.lock().unwrap().always(answer);
    }

    /// Scripts the answer to all requests for this trigger once the queue is empty.
    pub fn always_for(&self, trigger: &TriggerHandle, answer: Answer) {
        self.state
            .script
            .lock()
            .unwrap()
            .always_for(&trigger.workflow(), answer);
    }

    /// Clears the script; triggers follow their configuration.
    pub fn normal(&self) {
        self.state.script.lock().unwrap().clear();
    }

    /// From now on a request that passes the checks without a scripted answer is a violation.
    pub fn strict(&self) {
        self.state.script.lock().unwrap().be_strict();
    }

    /// Number of scripted answers that were not used yet.
    pub fn script_left(&self) -> usize {
        self.state.script.lock().unwrap().left()
    }

    /// From now on, refuses exactly this token.
    pub fn revoke(&self, token: &str) {
        self.state.revoked.lock().unwrap().insert(token.to_owned());
    }

    /// From now on, holds requests for all triggers after they were read and recorded.
    pub fn hold(&self) -> Gate {
        let gate = Gate::closed();
        *self.state.gate.lock().unwrap() = Some(gate.clone());
        gate
    }

    /// Stops recording requests; only the counts continue. For load runs.
    pub fn stop_recording(&self) {
        self.state.journal.lock().unwrap().stop();
    }

    /// Forgets the recorded requests.
    pub fn clear_requests(&self) {
        self.state.journal.lock().unwrap().clear();
    }

    /// The requests for all triggers, including polls, oldest first.
    pub fn requests(&self) -> Vec<Arc<Recorded>> {
        self.state.journal.lock().unwrap().all()
    }

    /// The same, and forgets them.
    pub fn take_requests(&self) -> Vec<Arc<Recorded>> {
        self.state.journal.lock().unwrap().take()
    }

    /// Heads read; the body may still be arriving.
    pub fn heads(&self) -> &Count {
        &self.state.heads
    }

    /// Bytes of bodies read.
    pub fn body_bytes(&self) -> &Count {
        &self.state.body_bytes
    }

    /// Requests read to their end, including polls.
    pub fn request_count(&self) -> &Count {
        &self.state.requests
    }

    /// Polls received for asynchronous answers.
    pub fn polls(&self) -> &Count {
        &self.state.polls
    }

    /// Callers that left while their request was held or answered.
    pub fn hang_ups(&self) -> &Count {
        &self.state.hang_ups
    }

    /// Bodies that ended early.
    pub fn broken_bodies(&self) -> &Count {
        &self.state.broken_bodies
    }

    /// Step-by-step answers that reached their last step.
    pub fn written(&self) -> &Count {
        &self.state.written
    }

    pub(super) async fn serve(self, wire: Wire, connection: Connection) {
        session::converse(&self, wire, connection, &self.state.violations).await;
    }
}

impl TriggerHandle {
    /// The address for settings, with the host `localhost`.
    pub fn url(&self) -> String {
        self.url_on("localhost")
    }

    /// The address with another name for this machine, such as `127.0.0.1`.
    pub fn url_on(&self, host: &str) -> String {
        let port = self.flow.state.listener.address().port();
        format!("https://{host}:{port}{}", self.target())
    }

    /// Path and query of the address.
    pub fn target(&self) -> String {
        let trigger = self.settings();
        format!("{}?{}", trigger.path(), trigger.query())
    }

    pub fn workflow(&self) -> String {
        self.settings().workflow.clone()
    }

    /// The trigger's current configuration.
    pub fn settings(&self) -> Arc<Trigger> {
        self.registered.settings()
    }

    /// Changes the trigger's configuration; requests in progress keep the old one.
    pub fn change(&self, change: impl FnOnce(&mut Trigger)) {
        let mut settings = self.registered.settings.lock().unwrap();
        change(Arc::make_mut(&mut settings));
    }

    /// Enables, disables or deletes the flow.
    pub fn set_condition(&self, condition: Condition) {
        self.change(|trigger| trigger.condition = condition);
    }

    /// Changes what the flow does.
    pub fn does(&self, behaviour: Answer) {
        self.change(|trigger| trigger.behaviour = behaviour);
    }

    /// Scripts the answer to the next request that passes the checks of its head.
    pub fn next(&self, answer: Answer) {
        self.flow.next(self, answer);
    }

    /// Number of runs started.
    pub fn runs(&self) -> u64 {
        self.registered.runs.get()
    }

    /// The same as a count that can be waited for.
    pub fn run_count(&self) -> &Count {
        &self.registered.runs
    }

    /// Requests received, including refused and broken ones.
    pub fn request_count(&self) -> &Count {
        &self.registered.requests
    }

    /// The requests for this trigger, oldest first.
    pub fn requests(&self) -> Vec<Arc<Recorded>> {
        let workflow = self.workflow();
        let mut requests = self.flow.requests();
        requests.retain(|request| request.workflow.as_deref() == Some(workflow.as_str()));
        requests
    }

    /// The last request for this trigger.
    ///
    /// # Panics
    /// If there was none.
    pub fn last_request(&self) -> Arc<Recorded> {
        self.requests().pop().expect("the trigger was called")
    }

    /// From now on, holds requests for this trigger after they were read and recorded.
    pub fn hold(&self) -> Gate {
        let gate = Gate::closed();
        *self.registered.gate.lock().unwrap() = Some(gate.clone());
        gate
    }
}

impl Registered {
    fn settings(&self) -> Arc<Trigger> {
        Arc::clone(&self.settings.lock().unwrap())
    }
}
