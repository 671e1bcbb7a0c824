//! Asynchronous answers: the addresses that a flow returns for polling, and the answers to polls.

use std::collections::VecDeque;

use super::reply::Reply;
use super::trigger::Trigger;
use super::wire::Head;
use super::{admission, form, ids};

/// Operations that can be polled at a time; the oldest are dropped.
const OPERATIONS_MAX: usize = 1024;

#[derive(Debug)]
struct Operation {
    trigger: Trigger,
    run: String,
    path: String,
    query: String,
    permission: String,
    signature: String,
    polls: u32,
    then: Reply,
}

/// The answer to a poll.
#[derive(Debug)]
pub struct Poll {
    /// The trigger that started the run.
    pub trigger: Trigger,
    pub run: String,
    /// 202 with the same address again, the final answer, or a refusal.
    pub outcome: Result<Reply, admission::Refused>,
}

#[derive(Debug, Default)]
pub struct Operations {
    open: VecDeque<Operation>,
}

impl Operations {
    /// Registers an operation and returns its path and query, which carries a signature of its own.
    pub fn start(&mut self, trigger: &Trigger, run: &str, polls: u32, then: Reply) -> String {
        if self.open.len() == OPERATIONS_MAX {
            self.open.pop_front();
        }
        let operation = ids::guid();
        let signature = ids::signature();
        let workflow = trigger.path();
        let workflow = workflow
            .split_once("/triggers/")
            .map_or("", |(workflow, _)| workflow);
        let path = format!("{workflow}/runs/{run}/operations/{operation}");
        let permission = format!("/runs/{run}/operations/{operation}/read");
        let query = format!(
            "api-version=2016-06-01&sp={}&sv=1.0&sig={signature}",
            permission.replace('/', "%2F")
        );
        let target = format!("{path}?{query}");
        self.open.push_back(Operation {
            trigger: trigger.clone(),
            run: run.to_owned(),
            path,
            query,
            permission,
            signature,
            polls,
            then,
        });
        target
    }

    /// Answers a poll, if the path belongs to an operation. `origin` is the server's address.
    pub fn poll(&mut self, head: &Head, origin: &str) -> Option<Poll> {
        let operation = self
            .open
            .iter_mut()
            .find(|operation| operation.path == head.path())?;
        let query = form::decode(head.query());
        let checked = admission::single_bearer(head, &query).and_then(|_| {
            Ok(admission::check_signature(
                &query,
                &operation.permission,
                &operation.signature,
            )?)
        });
        let outcome = checked.map(|()| match operation.polls.checked_sub(1) {
            Some(left) => {
                operation.polls = left;
                let location = format!("{origin}{}?{}", operation.path, operation.query);
                Reply::new(202)
                    .header("Location", location)
                    .header("Retry-After", "1")
            }
            None => operation.then.clone(),
        });
        Some(Poll {
            trigger: operation.trigger.clone(),
            run: operation.run.clone(),
            outcome,
        })
    }
}
