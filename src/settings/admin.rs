//! `[admin]`: the listener for health, readiness and metrics.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::model::{Flaw, Host};
use crate::settings::check::Check;
use crate::settings::kinds::{ANY, Setting, choice};
use crate::settings::listener::ListenerTable;
use crate::settings::table::{Table, table};

/// Loopback: health and metrics are for this machine until the settings say otherwise.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

table! {
    /// The listener for health, readiness and metrics.
    pub(super) struct AdminTable {
        /// Address to listen on.
        address: SocketAddr = ADDRESS, ANY, Restart;
        /// Names that it may be asked by, besides IP addresses and localhost; default: none.
        hosts: Vec<Host> = Vec::new(), ANY, Restart;
        /// Switches the listener off.
        off: bool = false, ANY, Restart;
        /// What must work before `/readyz` answers 200: "any-route" or "all-routes".
        ready_requires: ReadyRequires = ReadyRequires::AnyRoute, ANY, Reload;
    }
}

#[derive(Debug, Clone)]
pub struct AdminSettings {
    pub address: SocketAddr,
    pub hosts: Arc<[Host]>,
    pub ready_requires: ReadyRequires,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadyRequires {
    AnyRoute,
    AllRoutes,
}

choice!(ReadyRequires: Self::AnyRoute => "any-route", Self::AllRoutes => "all-routes");

impl Serialize for ReadyRequires {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.show().serialize(serializer)
    }
}

impl Check<'_> {
    pub(super) fn admin(
        &mut self,
        table: &Table<AdminTable>,
        listeners: &[Table<ListenerTable>],
    ) -> Option<AdminSettings> {
        if table.off {
            return None;
        }
        let address = table.address;
        if let Some(mark) = table.place("address") {
            let public = |listener: &&Table<ListenerTable>| {
                listener.address.as_deref().is_some_and(|other| *other == address)
            };
            if let Some(other) = listeners.iter().find(public).filter(|_| address.port() != 0) {
                let flaw = Flaw::new("the admin listener has the address of a public listener");
                self.findings.clash(mark, flaw, other, "of this listener");
            }
            if !address.ip().to_canonical().is_loopback() {
                let flaw = Flaw::new("the admin listener can be reached from other machines, without a key");
                self.findings
                    .warn(mark, flaw.hint("protect it by a firewall or a network policy"));
            }
        }
        Some(AdminSettings {
            address,
            hosts: table.hosts.as_slice().into(),
            ready_requires: table.ready_requires,
        })
    }
}
