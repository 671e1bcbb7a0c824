//! The resource that an identity's tokens are for: the flow service, or an API. In Entra it is an enterprise
//! application with an id of its own, which must exist in the tenant before tokens for it are issued.

use crate::doctor::questions::uses;
use crate::model::Cloud;
use crate::model::entra_ids::is_guid;
use crate::settings::{Config, IdentitySettings, RouteKind};

/// Application id of the flow service in every tenant.
pub(super) const FLOW_SERVICE: &str = "7df0a125-d3be-4c96-aa54-591f83ff541c";
/// Application id of the Power Platform API (Microsoft Learn, "Power Platform API, Authentication").
const POWER_PLATFORM: &str = "8578e004-a5c6-46e7-913e-12f58912df43";
/// Application id of Microsoft Graph in every tenant.
const GRAPH: &str = "00000003-0000-0000-c000-000000000000";

const GRAPH_HOSTS: [&str; 4] = [
    "https://graph.microsoft.com",
    "https://graph.microsoft.us",
    "https://dod-graph.microsoft.us",
    "https://microsoftgraph.chinacloudapi.cn",
];
const POWER_PLATFORM_HOSTS: [&str; 5] = [
    "https://api.powerplatform.com",
    "https://api.gov.powerplatform.microsoft.us",
    "https://api.high.powerplatform.microsoft.us",
    "https://api.appsplatform.us",
    "https://api.powerplatform.partner.microsoftonline.cn",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource<'a> {
    Flow,
    /// The Power Platform API, at this address.
    PowerPlatform(&'a str),
    Graph,
    /// Any other, by the name in the scope.
    Other(&'a str),
}

impl<'a> Resource<'a> {
    pub(super) fn of(audience: &'a str) -> Self {
        let bare = audience.trim_end_matches('/');
        let is = |id: &str| {
            bare.strip_prefix("api://")
                .unwrap_or(bare)
                .eq_ignore_ascii_case(id)
        };
        let is_flow = |cloud: Cloud| cloud.audience().trim_end_matches('/') == bare;
        if Cloud::ALL.into_iter().any(is_flow) || is(FLOW_SERVICE) {
            return Self::Flow;
        }
        if POWER_PLATFORM_HOSTS.contains(&bare) {
            return Self::PowerPlatform(bare);
        }
        if is(POWER_PLATFORM) {
            return Self::PowerPlatform("https://api.powerplatform.com");
        }
        if GRAPH_HOSTS.contains(&bare) || is(GRAPH) {
            return Self::Graph;
        }
        Self::Other(audience)
    }

    /// Its name in the list of enterprise applications.
    pub(super) fn name(self) -> String {
        match self {
            Self::Flow => "Microsoft Flow Service".to_owned(),
            Self::PowerPlatform(_) => "Power Platform API".to_owned(),
            Self::Graph => "Microsoft Graph".to_owned(),
            Self::Other(audience) => shown(audience),
        }
    }

    /// Its application id, or a placeholder for it.
    pub(super) fn id(self) -> String {
        match self {
            Self::Flow => FLOW_SERVICE.to_owned(),
            Self::PowerPlatform(_) => POWER_PLATFORM.to_owned(),
            Self::Graph => GRAPH.to_owned(),
            Self::Other(audience) => {
                let id = audience.strip_prefix("api://").unwrap_or(audience);
                if is_guid(id) {
                    id.to_owned()
                } else {
                    "API_APPLICATION_ID".to_owned()
                }
            }
        }
    }

    /// The command that creates its service principal in a tenant that lacks it.
    pub(super) fn create(self) -> String {
        format!("az ad sp create --id {}", self.id())
    }
}

/// The audience as it may appear in a command.
fn shown(audience: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/@".contains(&byte);
    match audience.bytes().all(is_plain) {
        true => audience.to_owned(),
        // Quotation marks are not allowed: it goes into commands.
        false => "the resource of the scope".to_owned(),
    }
}

/// Whether an API takes the tokens of this identity, rather than a trigger. A trigger of a Logic App may
/// require an audience of its own, so the routes decide if the audience is unknown.
pub(super) fn is_for_api(identity: &IdentitySettings, config: &Config) -> bool {
    match Resource::of(&identity.audience) {
        Resource::Flow => false,
        Resource::PowerPlatform(_) | Resource::Graph => true,
        Resource::Other(_) => config
            .routes
            .iter()
            .any(|route| matches!(route.kind, RouteKind::Api(_)) && uses(route, identity.name.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::Resource;
    use crate::model::Cloud;

    #[test]
    fn a_resource_is_known_by_its_audience() {
        for cloud in Cloud::ALL {
            assert_eq!(Resource::of(cloud.audience()), Resource::Flow);
        }
        for (audience, name, create) in [
            (
                "https://service.flow.microsoft.com",
                "Microsoft Flow Service",
                "az ad sp create --id 7df0a125-d3be-4c96-aa54-591f83ff541c",
            ),
            (
                "https://api.powerplatform.com",
                "Power Platform API",
                "az ad sp create --id 8578e004-a5c6-46e7-913e-12f58912df43",
            ),
            (
                "https://graph.microsoft.com",
                "Microsoft Graph",
                "az ad sp create --id 00000003-0000-0000-c000-000000000000",
            ),
            (
                "api://12345678-1234-1234-1234-123456789012",
                "api://12345678-1234-1234-1234-123456789012",
                "az ad sp create --id 12345678-1234-1234-1234-123456789012",
            ),
            (
                "https://erp.contoso.example",
                "https://erp.contoso.example",
                "az ad sp create --id API_APPLICATION_ID",
            ),
        ] {
            let resource = Resource::of(audience);
            assert_eq!(
                (resource.name().as_str(), resource.create().as_str()),
                (name, create)
            );
        }
        assert!(!Resource::of("https://a/'; rm").name().contains('\''));
    }
}
