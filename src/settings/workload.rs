//! Identities that come from the platform the gateway runs on: managed identities, tokens of another issuer, and the chain
//! that looks for either. Plain data; asking is for `entra`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{Cloud, IdentityName, Secret};
use crate::outbound::Trust;
use crate::settings::{ClientProof, EndpointSettings, GrantSettings, IdentitySettings};

/// The audience of a federated token in the public cloud; those of other clouds begin with it.
pub const EXCHANGE_AUDIENCE: &str = "api://AzureADTokenExchange";

/// What stands for a value of the pod's variables where those are not read.
pub const UNRESOLVED: &str = "unresolved";

/// A managed identity of the machine or platform.
#[derive(Debug, Clone)]
pub struct ManagedSettings {
    /// Who hands its tokens out.
    pub source: ManagedSource,
    /// Which of the user-assigned identities; none means the system-assigned one.
    pub selector: Option<Selector>,
    /// Certificate authorities trusted for an endpoint with TLS.
    pub trust: Trust,
    /// Time for one request from its start to the last byte of the answer.
    pub timeout: Duration,
    /// How the source was found, in words.
    pub origin: String,
}

/// Who hands out the tokens of a managed identity.
#[derive(Debug, Clone)]
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
        /// The one folder in which the agent's keys may lie.
        token_folder: PathBuf,
    },
}

impl ManagedSource {
    /// Its name for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Imds { .. } => "IMDS",
            Self::AppService { .. } => "App Service",
            Self::Arc { .. } => "the Azure Arc agent",
        }
    }

    /// Where it is asked.
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
    /// By its client id.
    ClientId(String),
    /// By its object (principal) id.
    ObjectId(String),
    /// By its path in Azure Resource Manager.
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

/// A token of another issuer with which an application proves who it is.
#[derive(Debug, Clone)]
pub struct FederatedSettings {
    /// Where the token comes from.
    pub source: AssertionSource,
    /// Which settings were taken from environment variables, in words.
    pub origins: Vec<String>,
}

/// Where a federated token comes from.
#[derive(Debug, Clone)]
pub enum AssertionSource {
    /// A file that the platform keeps fresh.
    File(PathBuf),
    /// A managed identity of the same settings.
    Identity {
        /// Its name.
        name: IdentityName,
        /// The scope its token is asked for.
        scope: String,
    },
}

/// The sources that the default chain looks at, in its order; where one is out of the question, the reason.
#[derive(Debug, Clone)]
pub struct DefaultSettings {
    /// Workload identity.
    pub federated: Result<(EndpointSettings, FederatedSettings), String>,
    /// Managed identity.
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

impl IdentitySettings {
    /// The identities of the same settings that this one needs tokens of.
    pub fn leans_on(&self) -> Vec<&IdentityName> {
        match &self.grant {
            GrantSettings::Client {
                proof:
                    ClientProof::Federated(FederatedSettings {
                        source: AssertionSource::Identity { name, .. },
                        ..
                    }),
                ..
            } => vec![name],
            _ => Vec::new(),
        }
    }

    /// What was found outside of the settings file, in words.
    pub fn notes(&self) -> Vec<String> {
        match &self.grant {
            GrantSettings::Client {
                proof: ClientProof::Federated(federated),
                ..
            } => federated.origins.clone(),
            GrantSettings::Managed(managed) => vec![managed.origin.clone()],
            GrantSettings::Default(chain) => {
                let federated = match &chain.federated {
                    Ok((_, federated)) => federated.origins.clone(),
                    Err(why) => vec![format!("no workload identity: {why}")],
                };
                let managed = match &chain.managed {
                    Ok(managed) => managed.origin.clone(),
                    Err(why) => format!("no managed identity: {why}"),
                };
                federated.into_iter().chain([managed]).collect()
            }
            _ => Vec::new(),
        }
    }
}
