//! What becomes of a flow's success on a route whose vendors expect another one. Failures are not its business: they pass, or
//! are problems already.

use bytes::Bytes;
use http::{Method, StatusCode, header};

use crate::gateway::answer::FlowBody;
use crate::gateway::journal::Journal;
use crate::model::clock;
use crate::settings::SuccessAnswer;
use crate::wire::Fields;

#[derive(Debug)]
pub(super) enum Success {
    AcceptedIsOk,
    Fixed {
        status: StatusCode,
        fields: Fields,
        body: Bytes,
    },
}

impl Success {
    /// None where the flow's own passes.
    pub(super) fn build(settings: &SuccessAnswer) -> Option<Self> {
        match settings {
            SuccessAnswer::Flow => None,
            SuccessAnswer::AcceptedIsOk => Some(Self::AcceptedIsOk),
            SuccessAnswer::Fixed(fixed) => Some(Self::Fixed {
                status: fixed.status,
                fields: fixed
                    .content_type
                    .as_ref()
                    .map_or_else(Fields::default, |value| Fields::one(&header::CONTENT_TYPE, value)),
                body: fixed.body.clone(),
            }),
        }
    }

    /// Replaces what of an answer is to be replaced; returns the status for the caller. The log keeps that of the flow.
    pub(super) async fn apply(
        &self,
        method: &Method,
        (status, fields): (StatusCode, &mut Fields),
        flow: &mut FlowBody,
        journal: &mut Journal,
    ) -> StatusCode {
        match self {
            Self::AcceptedIsOk if status == StatusCode::ACCEPTED => {
                journal.flow_status(status.as_u16());
                // When to ask for the outcome, at an address that the caller does not get.
                fields.retain(|name, _| !name.eq_ignore_ascii_case(b"retry-after"));
                StatusCode::OK
            }
            Self::Fixed {
                status: replaced,
                fields: own,
                body,
            } if status.is_success() => {
                journal.flow_status(status.as_u16());
                let waiting = clock::now();
                flow.discard().await;
                journal.waited(clock::now() - waiting);
                *fields = own.clone();
                if method != Method::HEAD && !body.is_empty() {
                    flow.first.push_back(body.clone());
                }
                *replaced
            }
            Self::AcceptedIsOk | Self::Fixed { .. } => status,
        }
    }
}
