//! The checked settings as plain data, and the one way to get them: [`load()`]. Values here cannot be wrong any more;
//! machines are built from them one floor up, and no setting is looked up by text after that.

mod admin;
mod answer;
mod api;
mod bodies;
mod brackets;
mod caller;
mod changes;
mod check;
mod connections;
mod content;
mod control;
mod cors;
mod difference;
mod digest;
mod duplicates;
mod duplicates_check;
pub mod edit;
mod files;
mod findings;
mod fingerprint;
mod gateway;
mod handshake;
mod handshake_check;
mod identity;
pub mod key_edit;
mod keys;
mod keyvault;
mod kinds;
mod limits;
mod listener;
mod lists;
mod load;
mod log;
mod mask;
mod mistake;
mod name;
mod near;
mod network;
mod openings;
mod origin;
mod path;
mod problem_pages;
mod rings;
mod route;
mod route_openings;
#[cfg(test)]
mod sample;
mod scalars;
mod schema;
mod serving;
mod signature;
mod source;
mod state;
mod syntax;
mod table;
mod tls;
mod trigger;
mod url_keys;
mod value;
mod vault;
mod waiting;
mod word;

pub use admin::{AdminSettings, ReadyRequires};
pub use answer::{FixedAnswer, RUNS, RunCredential, SuccessAnswer, WaitSettings};
pub use bodies::BodySettings;
pub use caller::CallerSettings;
pub use changes::{Change, Scalars};
pub use connections::ConnectionSettings;
pub use content::{ContentSettings, FileSchema, JSON_DEPTH_CEILING, ReadingSettings};
pub use control::{ControlSettings, GroupName, control_socket};
pub use difference::Difference;
pub use digest::KeyDigest;
pub use duplicates::{DeliveryId, DuplicateSettings, InFlight, UnknownOutcome, WithoutId};
pub use files::{FileInForce, FileState, Look, UNSEEN, sha256_of};
pub use fingerprint::SettingsDigest;
pub use gateway::{GatewaySettings, Watched};
pub use handshake::HandshakeSettings;
pub use identity::GrantSettings;
pub use identity::certificate::ClientCertificate;
pub use identity::grant::{
    AssertionSource, ClientProof, ClientSecret, DefaultSettings, EXCHANGE_AUDIENCE, EndpointSettings,
    FederatedSettings, ManagedSettings, ManagedSource, Selector,
};
pub use identity::settings::{IdentityRole, IdentitySettings};
pub use identity::sign_in::check_seal;
pub use keys::{Dates, KeyList, KeySettings, KeyState, Terms};
pub use keyvault::KeyVaultSettings;
pub use limits::QuotaSettings;
pub use listener::{Http2, ListenerSettings, Peers, TlsSettings, Transport};
pub use load::{load, parse, parse_file, read};
pub use log::{AccessLog, LogFormat, LogSettings};
pub use mistake::{Mistake, Report, Severity, Style};
pub use network::NetworkSettings;
pub use openings::openings;
pub use origin::WebOrigin;
pub use route::{
    CallersSettings, Checks, ClaimMismatch, QueryPass, RelativePath, RouteKind, RouteSettings,
    UpstreamSettings,
};
pub use scalars::{Rate, Size};
pub use schema::schema;
pub use serving::{Certificate, CertificateSource};
pub use signature::{SignatureSettings, SigningSecretSettings};
pub use source::{Environment, SecretSource, Secrets, UNRESOLVED, VaultValue};
pub use state::{state_folder, without_comments};
pub use trigger::{Proof, TriggerSource};
pub use vault::VaultReference;
pub use word::{Contact, KeyPlace};

use std::path::PathBuf;

use crate::model::Secret;

/// Everything the settings say, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Public listeners; at least one.
    pub listeners: Vec<ListenerSettings>,
    /// The admin listener, unless it is switched off.
    pub admin: Option<AdminSettings>,
    pub gateway: GatewaySettings,
    pub connections: ConnectionSettings,
    pub bodies: BodySettings,
    pub quotas: QuotaSettings,
    pub log: LogSettings,
    /// The folder for what is kept on disk, if anything is.
    pub state_folder: Option<PathBuf>,
    pub control: ControlSettings,
    /// Secret mixed into key digests of the form `hmac-sha256:`.
    pub key_pepper: Option<Secret>,
    pub key_pepper_source: Option<SecretSource>,
    /// What seals addresses of runs; the first seals, all open.
    pub run_seals: Vec<SecretSource>,
    pub keyvault: Option<KeyVaultSettings>,
    pub identities: Vec<IdentitySettings>,
    pub callers: Vec<CallerSettings>,
    /// Routes; at least one.
    pub routes: Vec<RouteSettings>,
    /// Digest by which two loads of the settings are compared.
    pub digest: SettingsDigest,
    /// The settings file and the list files that these settings were read from.
    pub files: Vec<FileInForce>,
}

impl Config {
    /// The largest body that is held in memory.
    pub fn held_body_bytes_max(&self) -> usize {
        let routes = self.routes.iter().map(|route| route.held_bytes_max(&self.bodies));
        routes.fold(self.bodies.hold_size_max.bytes(), usize::max)
    }
}
