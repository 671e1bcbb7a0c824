//! Determines the owner of a host and the form of a path, and from both the family and cloud of an address.

use crate::model::Cloud;
use crate::model::trigger::TriggerUrlError;

/// Which of the known shapes a trigger address has (Microsoft Learn, "Call, trigger, or nest workflows with
/// HTTPS endpoints in Azure Logic Apps" and "Troubleshoot common issues with triggers" of Power Automate).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// `prod-NN.<region>.logic.azure.com`: Logic Apps Consumption, and flows from before the move of 2025.
    Consumption,
    /// `<environment>.environment.api.powerplatform.com/powerautomate/automations/direct/workflows/...`.
    PowerPlatform,
    /// The same host with a scale unit in its path: `.../direct/cu/<NN>/workflows/...`.
    PowerPlatformScaleUnit,
    /// `<app>.azurewebsites.net/api/<workflow>/triggers/<trigger>/invoke`: Logic Apps Standard.
    Standard,
    Other,
}

/// The owner of a host, regardless of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Site {
    LogicApps,
    Environment,
    AppService,
    Unknown,
}

/// Clouds by the suffix of an environment's host (Microsoft Learn, "IP address configuration" of Power
/// Automate).
const ENVIRONMENTS: [(&str, Cloud); 5] = [
    (".environment.api.powerplatform.com", Cloud::Public),
    (".environment.api.gov.powerplatform.microsoft.us", Cloud::Gcc),
    (".environment.api.high.powerplatform.microsoft.us", Cloud::GccHigh),
    (".environment.api.appsplatform.us", Cloud::Dod),
    (
        ".environment.api.powerplatform.partner.microsoftonline.cn",
        Cloud::China,
    ),
];

/// The form of a path, regardless of the host.
pub(super) fn shape_of(path: &str) -> Family {
    let lower = path.to_ascii_lowercase();
    let segments: Vec<&str> = lower.trim_start_matches('/').split('/').collect();
    match segments.as_slice() {
        ["powerautomate", "automations", "direct", "cu", _, rest @ ..] if is_invocation(rest) => {
            Family::PowerPlatformScaleUnit
        }
        ["powerautomate", "automations", "direct", rest @ ..] if is_invocation(rest) => Family::PowerPlatform,
        ["api", _, "triggers", _, "invoke", ..] => Family::Standard,
        rest if is_invocation(rest) => Family::Consumption,
        _ => Family::Other,
    }
}

fn is_invocation(segments: &[&str]) -> bool {
    matches!(segments, ["workflows", _, "triggers", _, "paths", "invoke", ..])
}

pub(super) fn site_of(host: &str) -> (Site, Option<Cloud>) {
    for (suffix, cloud) in ENVIRONMENTS {
        if host.ends_with(suffix) {
            return (Site::Environment, Some(cloud));
        }
    }
    if host.ends_with(".logic.azure.com") {
        return (Site::LogicApps, Some(Cloud::Public));
    }
    if host.ends_with(".logic.azure.cn") {
        return (Site::LogicApps, Some(Cloud::China));
    }
    if let Some(region) = host.strip_suffix(".logic.azure.us") {
        // The regions usdodcentral and usdodeast serve only the Department of Defense; usgov* is shared.
        let dod = region.split('.').any(|label| label.starts_with("usdod"));
        return (Site::LogicApps, dod.then_some(Cloud::Dod));
    }
    let standard = [".azurewebsites.net", ".azurewebsites.us", ".chinacloudsites.cn"];
    if standard.into_iter().any(|suffix| host.ends_with(suffix)) {
        return (Site::AppService, None);
    }
    (Site::Unknown, None)
}

pub(super) fn family_of(site: Site, shape: Family) -> Family {
    match (site, shape) {
        (Site::LogicApps, Family::Consumption)
        | (Site::Environment, Family::PowerPlatform | Family::PowerPlatformScaleUnit)
        | (Site::AppService, Family::Standard) => shape,
        _ => Family::Other,
    }
}

/// Hosts of portals and designers. A leading dot matches any subdomain.
const DESIGNERS: &[&str] = &[
    "make.powerautomate.com",
    "make.gov.powerautomate.us",
    "make.high.powerautomate.us",
    "make.powerautomate.appsplatform.us",
    "make.powerautomate.cn",
    "flow.microsoft.com",
    ".flow.microsoft.com",
    "make.powerapps.com",
    "make.gov.powerapps.us",
    "make.high.powerapps.us",
    "admin.powerplatform.microsoft.com",
    "portal.azure.com",
    "portal.azure.us",
    "portal.azure.cn",
];

/// Hosts of management APIs and of the audiences of their tokens; checked before the designers.
const MANAGERS: &[&str] = &[
    "api.flow.microsoft.com",
    ".api.flow.microsoft.com",
    "service.flow.microsoft.com",
    "gov.service.flow.microsoft.us",
    "high.service.flow.microsoft.us",
    "service.flow.appsplatform.us",
    "service.powerautomate.cn",
    "management.azure.com",
    "management.usgovcloudapi.net",
    "management.chinacloudapi.cn",
    "api.powerplatform.com",
    "api.gov.powerplatform.microsoft.us",
    "api.high.powerplatform.microsoft.us",
    "api.appsplatform.us",
    "api.powerplatform.partner.microsoftonline.cn",
];

pub(super) fn refuse_portal(host: &str) -> Result<(), TriggerUrlError> {
    let named = |entry: &&str| {
        if entry.starts_with('.') {
            host.ends_with(*entry)
        } else {
            host == *entry
        }
    };
    if MANAGERS.iter().any(named) {
        return Err(TriggerUrlError::ManagementAddress {
            host: host.to_owned(),
        });
    }
    if DESIGNERS.iter().any(named) {
        return Err(TriggerUrlError::DesignerAddress {
            host: host.to_owned(),
        });
    }
    Ok(())
}
