//! The commands that make in Entra what an identity needs, with the values of the settings filled in. They are printed and
//! never run.

use crate::config::IdentitySettings;
use crate::doctor::advice::FLOW_SERVICE;
use crate::model::Cloud;

/// In what the commands are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Azure CLI.
    Az,
    /// Microsoft Graph PowerShell.
    PowerShell,
    /// Bicep with the Microsoft Graph extension.
    Bicep,
}

/// The commands for one identity.
pub fn lines(identity: &IdentitySettings, style: Style) -> String {
    let tenant = match identity.tenant.as_str() {
        "" => "TENANT",
        tenant => tenant,
    };
    let application = identity.grant.application();
    let client = application.map_or("CLIENT_ID", |(endpoint, _)| endpoint.client_id.as_str());
    let body = match style {
        Style::Az => az(identity, tenant, client),
        Style::PowerShell => powershell(identity, tenant, client),
        Style::Bicep => bicep(identity, tenant, client),
    };
    let comment = if style == Style::Bicep { "//" } else { "#" };
    let rights = [
        "No API permission and no consent: Entra gives an application a token for the flow service without either,",
        "and a trigger compares audience, issuer, tenant and, under \"Specific users\", the object id. Grant none.",
    ];
    let rights = rights.map(|line| format!("{comment} {line}\n")).concat();
    format!("{body}\n{rights}")
}

/// Commands for the cloud, where it is not the public one.
fn az_cloud(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Public | Cloud::Gcc => "",
        Cloud::GccHigh | Cloud::Dod => "az cloud set --name AzureUSGovernment\n",
        Cloud::China => "az cloud set --name AzureChinaCloud\n",
    }
}

fn az(identity: &IdentitySettings, tenant: &str, client: &str) -> String {
    let name = &identity.name;
    format!(
        "# Identity {name}, tenant {tenant}, with Azure CLI.
{cloud}az login --tenant {tenant} --allow-no-subscriptions

# 1. App registration. Skip it if {client} exists: az ad app show --id {client}
APP=$(az ad app create --display-name flowgate-{name} --sign-in-audience AzureADMyOrg --query appId --output tsv)

# 2. Service principal (the enterprise application).
az ad sp create --id \"$APP\"

# 3. Credential: its value is shown once and goes where the settings' reference points.
az ad app credential reset --id \"$APP\" --append --display-name flowgate --years 1 --query password --output tsv

# 4. Only if Entra answers AADSTS500011: the flow service itself is missing in the tenant.
az ad sp create --id {FLOW_SERVICE}

# 5. The object id for the trigger's list under \"Specific users in my tenant\". Not the client id.
az ad sp show --id {client} --query id --output tsv

# 6. For the settings: client_id and tenant.
echo \"$APP\"
az account show --query tenantId --output tsv
",
        cloud = az_cloud(identity.cloud)
    )
}

fn powershell(identity: &IdentitySettings, tenant: &str, client: &str) -> String {
    let name = &identity.name;
    let environment = match identity.cloud {
        Cloud::Public | Cloud::Gcc => "Global",
        Cloud::GccHigh => "USGov",
        Cloud::Dod => "USGovDoD",
        Cloud::China => "China",
    };
    format!(
        "# Identity {name}, tenant {tenant}, with Microsoft Graph PowerShell.
Connect-MgGraph -TenantId {tenant} -Environment {environment} -Scopes Application.ReadWrite.All

# 1. App registration. Skip it if {client} exists: Get-MgApplication -Filter \"appId eq '{client}'\"
$app = New-MgApplication -DisplayName flowgate-{name} -SignInAudience AzureADMyOrg

# 2. Service principal (the enterprise application).
New-MgServicePrincipal -AppId $app.AppId

# 3. Credential: its value is shown once and goes where the settings' reference points.
$password = @{{ displayName = 'flowgate'; endDateTime = (Get-Date).AddYears(1) }}
(Add-MgApplicationPassword -ApplicationId $app.Id -PasswordCredential $password).SecretText

# 4. Only if Entra answers AADSTS500011: the flow service itself is missing in the tenant.
New-MgServicePrincipal -AppId {FLOW_SERVICE}

# 5. The object id for the trigger's list under \"Specific users in my tenant\". Not the client id.
(Get-MgServicePrincipal -Filter \"appId eq '{client}'\").Id

# 6. For the settings: client_id and tenant.
$app.AppId
(Get-MgContext).TenantId
"
    )
}

fn bicep(identity: &IdentitySettings, tenant: &str, client: &str) -> String {
    let name = &identity.name;
    format!(
        "// Identity {name}, tenant {tenant}, client id {client}; bicepconfig.json needs the Microsoft Graph extension.
extension microsoftGraphV1

// 1. App registration.
resource app 'Microsoft.Graph/applications@v1.0' = {{
  uniqueName: 'flowgate-{name}'
  displayName: 'flowgate-{name}'
  signInAudience: 'AzureADMyOrg'
}}

// 2. Service principal (the enterprise application).
resource principal 'Microsoft.Graph/servicePrincipals@v1.0' = {{
  appId: app.appId
}}

// 3. Credential: a template would keep a secret in the history of deployments, so make it afterwards.
//    az ad app credential reset --id CLIENT_ID --append --display-name flowgate --years 1

// 4. Only if Entra answers AADSTS500011: the flow service itself is missing in the tenant.
//    az ad sp create --id {FLOW_SERVICE}

// 5. For the settings: client_id. For the trigger's list under \"Specific users in my tenant\": objectId, which is what
//    az ad sp show --id {client} --query id shows.
output clientId string = app.appId
output objectId string = principal.id
"
    )
}
