//! What a grant is configured with: where tokens are requested, and how an application or machine proves who it is.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::model::{ClientId, Cloud, IdentityName, Secret};
use crate::outbound::Trust;
use crate::settings::{ClientCertificate, SecretSource};

#[derive(Debug, Clone, PartialEq)]
pub struct EndpointSettings {
    /// Scheme, host and port of the authority.
    pub authority: String,
    /// Token endpoint: `{authority}/{tenant}/oauth2/v2.0/token`.
    pub token_url: String,
    pub client_id: ClientId,
    pub trust: Trust,
    /// Time for one token request from its start to the last byte of the answer.
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq)]
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
    pub fn secret_sources(&self) -> Vec<&SecretSource> {
        match self {
            Self::Secrets(secrets) => secrets.iter().map(|secret| &secret.source).collect(),
            Self::Certificates(certificates) => {
                let sources = certificates.iter().flat_map(|certificate| {
                    let beside = [certificate.key.as_ref(), certificate.password.as_ref()];
                    [Some(&certificate.file)].into_iter().chain(beside)
                });
                sources.flatten().collect()
            }
            Self::Federated(_) | Self::Public => Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct ClientSecret {
    pub source: SecretSource,
    pub expires: Option<SystemTime>,
}

/// The audience of a federated token in the public cloud; those of other clouds begin with it.
pub const EXCHANGE_AUDIENCE: &str = "api://AzureADTokenExchange";

#[derive(Debug, Clone, PartialEq)]
pub struct ManagedSettings {
    pub source: ManagedSource,
    /// Which of the user-assigned identities; none means the system-assigned one.
    pub selector: Option<Selector>,
    pub trust: Trust,
    /// Time for one request from its start to the last byte of the answer.
    pub timeout: Duration,
    /// How the source was found, in words.
    pub origin: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ManagedSource {
    /// The Instance Metadata Service of virtual machines.
    Imds {
        /// Scheme, host and port.
        endpoint: String,
    },
    /// App Service, Functions and Container Apps.
    AppService {
        /// The whole address.
        endpoint: String,
        /// What proves that we are the app.
        header: Secret,
    },
    /// The agent of Azure Arc.
    Arc {
        /// Scheme, host and port.
        endpoint: String,
        /// The only folder from which the agent's keys are read.
        token_folder: PathBuf,
    },
}

impl ManagedSource {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Imds { .. } => "IMDS",
            Self::AppService { .. } => "App Service",
            Self::Arc { .. } => "the Azure Arc agent",
        }
    }

    pub fn endpoint(&self) -> &str {
        match self {
            Self::Imds { endpoint } | Self::AppService { endpoint, .. } | Self::Arc { endpoint, .. } => {
                endpoint
            }
        }
    }
}

/// A user-assigned identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    ClientId(ClientId),
    /// By its object (principal) id.
    ObjectId(String),
    ResourceId(String),
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientId(id) => write!(f, "client id {id}"),
            Self::ObjectId(id) => write!(f, "object id {id}"),
            Self::ResourceId(id) => write!(f, "resource id {id}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct FederatedSettings {
    pub source: AssertionSource,
    /// Which settings were taken from environment variables, in words.
    pub origins: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum AssertionSource {
    /// A file that the platform keeps fresh.
    File(PathBuf),
    /// A managed identity of the same settings.
    Identity { name: IdentityName, scope: String },
}

/// The sources that the default chain looks at, in its order; where one is out of the question, the reason.
#[derive(Debug, Clone, PartialEq)]
pub struct DefaultSettings {
    pub federated: Result<(EndpointSettings, FederatedSettings), String>,
    pub managed: Result<ManagedSettings, String>,
}

/// The scope of federated tokens in this cloud (Microsoft Learn, "Configure an application to trust a managed identity").
pub(super) fn exchange_scope(cloud: Cloud) -> String {
    let ending = match cloud {
        Cloud::Public | Cloud::Gcc => "",
        Cloud::GccHigh | Cloud::Dod => "USGov",
        Cloud::China => "China",
    };
    format!("{EXCHANGE_AUDIENCE}{ending}/.default")
}
