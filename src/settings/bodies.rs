//! `[bodies]`: limits and deadlines of bodies.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::model::Flaw;
use crate::settings::findings::Findings;
use crate::settings::scalars::{HOUR, MILLISECOND, Size, secs};
use crate::settings::table::{Table, table};

/// The largest body a trigger accepts (Microsoft Learn, "Limits of automated, scheduled, and instant flows").
pub(super) const BODY_SIZE_CEILING: Size = Size::new(104_857_600);
/// Largest rate that can be asked for: callers behind a slow line would be refused above it.
const RATE_CEILING: Size = Size::kib(1024);

table! {
    /// Limits and deadlines of bodies.
    pub struct BodySettings {
        /// Time for a whole held body, and between two pieces of a streamed one.
        timeout: Duration = secs(30), MILLISECOND..=HOUR, Reload;
        // Kestrel's (Microsoft Learn, "Configure options for the ASP.NET Core Kestrel web server", minimum request body
        // data rate): below any line that a caller of today has.
        /// Bytes a second that a caller must send on average while it is waited for; 0 for no such limit.
        rate_min: Option<NonZeroU64> = NonZeroU64::new(240), Size::new(0)..=RATE_CEILING, Reload;
        // Kestrel's, from the same page: TCP needs some of it to get going.
        /// Time a caller may keep the gateway waiting for its body before that.
        rate_grace: Duration = secs(5), MILLISECOND..=HOUR, Reload;
        // A poor mobile line has more, and a body of 1 MiB is then whole within 69 s.
        /// Bytes a second by which a streamed body must be whole, `rate_grace` not counted; 0 for no such limit.
        stream_rate_min: Option<NonZeroU64> = NonZeroU64::new(16 * 1024), Size::new(0)..=RATE_CEILING, Reload;
        // Nearly every webhook body is smaller.
        /// Bodies up to this size are read whole before the flow is called, larger ones are streamed.
        hold_size_max: Size = Size::kib(64), Size::new(0)..=BODY_SIZE_CEILING, Reload;
        // A thousand held bodies of the largest size.
        /// Memory for held bodies over all requests; one caller may hold as much of it as it leaves free, and those of
        /// routes without callers a quarter together.
        held_budget: Size = Size::kib(64 * 1024), Size::new(0)..=Size::new(1 << 40), Reload;
    }
}

/// The largest held body must fit into the budget. A rule points at a line only where the file has one.
pub(super) fn check(bodies: &Table<BodySettings>, findings: &mut Findings) {
    let given = bodies
        .place("held_budget")
        .or_else(|| bodies.place("hold_size_max"));
    if let Some(mark) = given.filter(|_| bodies.held_budget < bodies.hold_size_max) {
        let what = "`held_budget` is smaller than `hold_size_max`, so the largest held body never fits";
        findings.mistake(mark, Flaw::new(what));
    }
}
