//! A host of a vendor: it serves what was put there, such as signing certificates, and answers otherwise when the script says
//! so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::task::AbortHandle;

use super::certs::Authority;
use super::gate::Count;
use super::listener::{Connection, Listener};
use super::reply::Reply;
use super::script::{Cue, Script, Violations};
use super::session::{Exchange, Next};
use super::wire::{Body, Broken, Head, Wire};
use super::{NAMES, session};

#[derive(Debug)]
struct State {
    listener: Arc<Listener>,
    violations: Violations,
    pages: Mutex<HashMap<String, Bytes>>,
    script: Mutex<Script<Reply>>,
    targets: Mutex<Vec<String>>,
    reads: Count,
}

/// Ends when it is dropped.
#[derive(Debug)]
pub struct Vendor {
    state: Arc<State>,
    task: AbortHandle,
}

impl Drop for Vendor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Vendor {
    /// Starts it on the current runtime.
    ///
    /// # Panics
    /// If this machine has no free port.
    pub async fn start(ca: &Authority) -> Self {
        let (listener, socket) = Listener::bind(&ca.leaf(NAMES), 0).await.unwrap();
        let state = Arc::new(State {
            listener: Arc::clone(&listener),
            violations: Violations::default(),
            pages: Mutex::default(),
            script: Mutex::default(),
            targets: Mutex::default(),
            reads: Count::new("requests to the vendor"),
        });
        let serving = Arc::clone(&state);
        let task = tokio::spawn(listener.run(socket, move |wire, connection| {
            let state = Arc::clone(&serving);
            async move { session::converse(&*state, wire, connection, &state.violations).await }
        }));
        Self {
            task: task.abort_handle(),
            state,
        }
    }

    /// Its host and port.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.state.listener.address().port())
    }

    pub fn listener(&self) -> &Listener {
        &self.state.listener
    }

    /// Serves this at a path; everything else is 404.
    pub fn put(&self, path: &str, page: impl Into<Bytes>) {
        self.state
            .pages
            .lock()
            .unwrap()
            .insert(path.to_owned(), page.into());
    }

    /// Scripts the answer to the next request.
    pub fn next(&self, reply: Reply) {
        self.state.script.lock().unwrap().next(reply);
    }

    /// The targets of all requests, oldest first.
    pub fn targets(&self) -> Vec<String> {
        self.state.targets.lock().unwrap().clone()
    }

    /// Requests received.
    pub fn reads(&self) -> &Count {
        &self.state.reads
    }

    /// # Panics
    /// If it received what is no HTTP.
    pub fn assert_clean(&self) {
        assert_eq!(self.state.violations.list(), Vec::<String>::new());
    }
}

impl Exchange for State {
    async fn exchange(&self, wire: &mut Wire, _: &Connection, head: Head) -> Result<Next, Broken> {
        let mut body = Body::empty();
        wire.body(head.framing()?, &mut body, |_| {}).await?;
        self.targets.lock().unwrap().push(head.target.clone());
        let scripted = self.script.lock().unwrap().take(head.path());
        let reply = match scripted {
            Cue::Scripted(reply) => reply,
            Cue::Free | Cue::Missing => match self.pages.lock().unwrap().get(head.path()) {
                Some(page) if head.method == "GET" => Reply::text(200, page.clone()),
                _ => Reply::new(404),
            },
        };
        // Last, so that a test that waited for the count finds the request.
        self.reads.add(1);
        session::send(wire, &self.listener, &head, reply).await
    }
}
