//! The settings file as a whole: its tables, the JSON Schema for editors, and the words that a report may repeat.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::settings::admin::AdminTable;
use crate::settings::bodies::BodySettings;
use crate::settings::caller::{CallerTable, KeysTable};
use crate::settings::connections::ConnectionSettings;
use crate::settings::control::ControlTable;
use crate::settings::gateway::GatewaySettings;
use crate::settings::identity::IdentityTable;
use crate::settings::keyvault::KeyVaultTable;
use crate::settings::kinds::ANY;
use crate::settings::limits::QuotaSettings;
use crate::settings::listener::ListenerTable;
use crate::settings::log::LogSettings;
use crate::settings::mask::Vocabulary;
use crate::settings::route::RouteTable;
use crate::settings::state::StateTable;
use crate::settings::table::{self, Table, table};

table! {
    /// Settings of Flowgate.
    pub(super) struct File {
        /// The process as a whole.
        gateway: Table<GatewaySettings> = Table::default(), ANY, Reload;
        /// Limits and deadlines of connections.
        connections: Table<ConnectionSettings> = Table::default(), ANY, Reload;
        /// Limits and deadlines of bodies.
        bodies: Table<BodySettings> = Table::default(), ANY, Reload;
        /// Limits that belong neither to one route nor to one caller.
        limits: Table<QuotaSettings> = Table::default(), ANY, Reload;
        /// The listener for health, readiness and metrics.
        admin: Table<AdminTable> = Table::default(), ANY, Reload;
        /// What is logged, and how.
        log: Table<LogSettings> = Table::default(), ANY, Reload;
        /// What is kept on disk.
        state: Table<StateTable> = Table::default(), ANY, Reload;
        /// Who may send commands to the gateway that runs, besides its own user and root.
        control: Table<ControlTable> = Table::default(), ANY, Reload;
        /// What all API keys have in common.
        keys: Table<KeysTable> = Table::default(), ANY, Reload;
        /// How secrets in Azure Key Vaults are read.
        keyvault: Option<Table<KeyVaultTable>> = None, ANY, Reload;
        /// Addresses on which callers are served; at least one.
        listener: Vec<Table<ListenerTable>> = Vec::new(), ANY, Reload;
        /// Entra applications, managed identities or token files, whose tokens the flows accept.
        identity: Vec<Table<IdentityTable>> = Vec::new(), ANY, Reload;
        /// Who may call.
        caller: Vec<Table<CallerTable>> = Vec::new(), ANY, Reload;
        /// Public addresses and the flows behind them; at least one.
        route: Vec<Table<RouteTable>> = Vec::new(), ANY, Reload;
    }
}

pub fn schema() -> Value {
    let mut schema = table::schema::<File>();
    if let Some(schema) = schema.as_object_mut() {
        let dialect = "https://json-schema.org/draft/2020-12/schema";
        schema.insert("$schema".to_owned(), dialect.into());
        schema.insert("title".to_owned(), "Flowgate".into());
        schema.insert("description".to_owned(), json!("Settings of Flowgate."));
    }
    schema
}

pub(super) fn vocabulary() -> &'static Vocabulary {
    static WORDS: OnceLock<Vocabulary> = OnceLock::new();
    WORDS.get_or_init(|| Vocabulary::of(&schema()))
}
