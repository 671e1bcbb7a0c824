//! An identity as the settings give it: where its tokens come from, and how it proves who it is.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::model::{Cloud, IdentityName};
use crate::outbound::Trust;
use crate::settings::{ClientCertificate, DefaultSettings, FederatedSettings, ManagedSettings, SecretSource};

/// An identity whose tokens the flow service accepts.
#[derive(Debug, Clone)]
pub struct IdentitySettings {
    /// Its name.
    pub name: IdentityName,
    /// Where its tokens come from.
    pub grant: GrantSettings,
    /// The cloud whose presets fill authority and scope.
    pub cloud: Cloud,
    /// The scope asked for, byte for byte.
    pub scope: String,
    /// The audience a good token carries: the scope without its last `/.default`.
    pub audience: String,
    /// Tenant id or domain; empty for a token file that does not name one.
    pub tenant: String,
    /// Whom it is there for.
    pub role: IdentityRole,
}

/// Whom an identity is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityRole {
    /// For routes: its token is kept fresh.
    Serves,
    /// For other identities alone: it is asked for what they need, and for nothing else.
    Helps,
}

/// Where the tokens of an identity come from.
#[derive(Debug, Clone)]
pub enum GrantSettings {
    /// OAuth 2.0 client credentials (RFC 6749 section 4.4).
    Client {
        /// Where they are asked for.
        endpoint: EndpointSettings,
        /// How the application proves who it is.
        proof: ClientProof,
    },
    /// A file that another program keeps fresh.
    TokenFile {
        /// Path of the file.
        path: PathBuf,
        /// Life of a token whose own expiry cannot be read, counted from when the file was seen to change.
        life: Duration,
    },
    /// A managed identity of the machine or platform.
    Managed(ManagedSettings),
    /// The first source that is there.
    Default(Box<DefaultSettings>),
    /// The resource owner password credentials grant (RFC 6749 section 4.3).
    Password {
        /// Where they are asked for.
        endpoint: EndpointSettings,
        /// How the application proves who it is.
        proof: ClientProof,
        /// User name of the account.
        user: String,
        /// Its password.
        password: SecretSource,
    },
    /// The refresh token of an account that a person signed in (RFC 6749 section 6).
    SignIn {
        /// Where they are asked for.
        endpoint: EndpointSettings,
        /// How the application proves who it is.
        proof: ClientProof,
        /// The file that keeps the refresh token.
        store: PathBuf,
        /// The secret under which that file is encrypted, if it is; where it was not read the file can neither be read
        /// nor written.
        seal: Option<SecretSource>,
    },
}

impl GrantSettings {
    /// The application that asks, and how it proves who it is, where one does.
    pub fn application(&self) -> Option<(&EndpointSettings, &ClientProof)> {
        match self {
            Self::Client { endpoint, proof }
            | Self::Password { endpoint, proof, .. }
            | Self::SignIn { endpoint, proof, .. } => Some((endpoint, proof)),
            Self::TokenFile { .. } | Self::Managed(_) | Self::Default(_) => None,
        }
    }
}

/// A token endpoint, and the application that asks there.
#[derive(Debug, Clone)]
pub struct EndpointSettings {
    /// Scheme, host and port of the authority.
    pub authority: String,
    /// Token endpoint: `{authority}/{tenant}/oauth2/v2.0/token`.
    pub token_url: String,
    /// Application (client) id.
    pub client_id: String,
    /// Certificate authorities trusted for it.
    pub trust: Trust,
    /// Time for one token request from its start to the last byte of the answer.
    pub timeout: Duration,
}

/// How an application proves to the token endpoint who it is.
#[derive(Debug, Clone)]
pub enum ClientProof {
    /// One of several client secrets; at least one.
    Secrets(Vec<ClientSecret>),
    /// Assertions signed with one of several certificates; at least one.
    Certificates(Vec<ClientCertificate>),
    /// A token of another issuer.
    Federated(FederatedSettings),
    /// Not at all: a public client, which only ever asks in the name of an account.
    Public,
}

impl ClientProof {
    /// Where its secrets lie.
    pub fn secret_sources(&self) -> Vec<&SecretSource> {
        match self {
            Self::Secrets(secrets) => secrets.iter().map(|secret| &secret.source).collect(),
            Self::Certificates(certificates) => {
                let parts = certificates.iter().map(ClientCertificate::parts);
                parts
                    .flat_map(|parts| [Some(parts.file), parts.key, parts.password])
                    .flatten()
                    .collect()
            }
            Self::Federated(_) | Self::Public => Vec::new(),
        }
    }
}

/// A client secret.
#[derive(Debug, Clone)]
pub struct ClientSecret {
    /// Its value, and where it can be read again.
    pub source: SecretSource,
    /// When Entra stops accepting it, as far as the settings tell.
    pub expires: Option<SystemTime>,
}
