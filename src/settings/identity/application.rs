//! The application of an identity: where it asks for its tokens, and its client secrets.

use std::time::SystemTime;

use crate::model::entra_ids::is_guid;
use crate::model::{ClientId, Cloud, Flaw, Tenant};
use crate::settings::check::Check;
use crate::settings::identity::words::check_authority;
use crate::settings::identity::{IdentityTable, SecretTable};
use crate::settings::kinds::At;
use crate::settings::table::Table;
use crate::settings::{ClientProof, ClientSecret, EndpointSettings, GrantSettings};

impl Check<'_> {
    /// The client credentials grant, with the proof that `proof` reads.
    pub(super) fn client(
        &mut self,
        identity: &Table<IdentityTable>,
        cloud: Option<Cloud>,
        proof: impl FnOnce(&mut Self, &Table<IdentityTable>) -> Option<ClientProof>,
    ) -> Option<GrantSettings> {
        self.without_token_life(identity);
        let proof = proof(self, identity);
        let endpoint = self.endpoint(identity, cloud);
        Some(GrantSettings::Client {
            endpoint: endpoint?,
            proof: proof?,
        })
    }

    pub(super) fn without_token_life(&mut self, identity: &Table<IdentityTable>) {
        if let Some(life) = identity.place("token_life") {
            self.findings
                .mistake(life, Flaw::new("`token_life` goes with `token_file` only"));
        }
    }

    /// Where an application asks for its tokens.
    pub(super) fn endpoint(
        &mut self,
        identity: &Table<IdentityTable>,
        cloud: Option<Cloud>,
    ) -> Option<EndpointSettings> {
        let hint = "write the tenant's id or one of its domains";
        let tenant = identity.require(("tenant", &identity.tenant), hint, &mut self.findings);
        let hint = "write the Application (client) ID that Entra shows for the app registration";
        let client_id = identity.require(("client_id", &identity.client_id), hint, &mut self.findings);
        let authority = match &identity.authority {
            Some(value) => self.findings.keep(value, check_authority(value)),
            None => cloud.map(|cloud| cloud.authority().to_owned()),
        };
        self.endpoint_of(
            identity,
            tenant.map(|value| &**value),
            client_id.map(|value| &**value),
            authority,
        )
    }

    pub(super) fn endpoint_of(
        &mut self,
        identity: &Table<IdentityTable>,
        tenant: Option<&Tenant>,
        client_id: Option<&ClientId>,
        authority: Option<String>,
    ) -> Option<EndpointSettings> {
        let trust = self.trust(identity.ca_file.as_ref());
        let (tenant, authority) = (tenant?, authority?);
        Some(EndpointSettings {
            token_url: format!("{authority}/{tenant}/oauth2/v2.0/token"),
            authority,
            client_id: client_id?.clone(),
            trust,
            timeout: identity.timeout,
        })
    }

    pub(super) fn secrets(&mut self, identity: &Table<IdentityTable>) -> Option<ClientProof> {
        let mut secrets = Vec::new();
        if let Some(value) = &identity.client_secret {
            secrets.push(self.client_secret("client_secret", value, None));
        }
        for table in &identity.secret {
            secrets.push(self.dated_secret(table));
        }
        let secrets: Option<Vec<_>> = secrets.into_iter().collect();
        secrets.map(ClientProof::Secrets)
    }

    fn dated_secret(&mut self, table: &Table<SecretTable>) -> Option<ClientSecret> {
        let hint = "write for example value = \"env:CONTOSO_SECRET\"";
        let value = table.require(("value", &table.value), hint, &mut self.findings)?;
        let expires = table.expires.as_deref().copied();
        if let Some(at) = table
            .expires
            .as_ref()
            .filter(|expires| ***expires <= self.environment.now())
        {
            let flaw = Flaw::new("this client secret has expired");
            self.findings
                .warn(at, flaw.hint("create a new one in Entra, and take this one out"));
        }
        self.client_secret("value", value, expires)
    }

    /// Warns of a secret's id in the place of its value: Entra shows both side by side, and the value only once.
    fn client_secret(
        &mut self,
        key: &str,
        place: &At<String>,
        expires: Option<SystemTime>,
    ) -> Option<ClientSecret> {
        let source = self.secret_source(key, place)?;
        if source.known().is_some_and(|secret| is_guid(secret.expose())) {
            let flaw = Flaw::new(
                "this client secret is a GUID, which is the form of a secret's id and not of its value",
            );
            let hint = "copy the column Value, which Entra shows only when the secret is made; if it was not kept, create a new secret";
            self.findings.warn(place, flaw.hint(hint));
        }
        Some(ClientSecret { source, expires })
    }
}
