//! `[gateway]`: the process as a whole.

use std::num::NonZero;
use std::thread;
use std::time::Duration;

use crate::model::ProblemPages;
use crate::settings::kinds::{ANY, choice};
use crate::settings::scalars::{DAY, MILLISECOND, secs};
use crate::settings::table::table;

table! {
    /// The process as a whole.
    pub struct GatewaySettings {
        /// Worker threads, one runtime each; default: one for each core.
        workers: usize = cores(), 1..=1024, Restart;
        // Orchestrators kill a process 30 s after they asked it to end.
        /// Time running requests get to finish after the gateway was asked to stop.
        drain_timeout: Duration = secs(30), MILLISECOND..=DAY, Reload;
        /// Files whose change reloads the settings: "lists" of keys and networks, "all" for the settings file as well, or
        /// "off" for a reload on SIGHUP only.
        watch: Watched = Watched::Lists, ANY, Reload;
        /// Address of the gateway itself at which it shows a page about each problem, to which the `type` of problems leads then:
        /// `https://hooks.example.com/problems`. Default: none, and the type is a name.
        problem_pages: Option<ProblemPages> = None, ANY, Reload;
    }
}

/// Files whose change reloads the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    Lists,
    All,
    Off,
}

choice!(Watched: Self::Lists => "lists", Self::All => "all", Self::Off => "off");

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}
