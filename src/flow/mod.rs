//! Calling triggers: permits, connections, deadlines, and whether anything of a request has left. It knows nothing of
//! callers or of how a token is got; `gateway` hands it a finished head and body.

mod body;
mod error;
pub mod evidence;
mod exchange;
pub mod fault;
mod hosts;
mod location;
pub mod outbound;
mod permits;
mod pool;
pub mod reply;
mod shares;
mod trigger;

pub use body::{Outgoing, Progress, StreamedBody};
pub use error::{ConnectError, Failed, FlowError, Sent};
pub use exchange::{Answer, AnswerBody, Call};
pub use location::run_target;
pub use permits::{Arriving, Permit, Permits};
pub use pool::{Age, Lease};
pub use shares::Load;
pub use trigger::{Address, Flows, Mover, Trigger};
