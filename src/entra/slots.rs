//! Slots for tokens, one for each identity and scope, made when somebody first needs one: a route its identity's own scope,
//! an application the token of the managed identity that vouches for it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::runtime::Handle;

use crate::counters::Counters;
use crate::entra::bearer;
use crate::entra::cache::Slot;
use crate::entra::grant::Grant;
use crate::entra::grants::tries::Account;
use crate::entra::proof::certificate::{HeldCertificate, HeldParts};
use crate::entra::store::Store;
use crate::model::IdentityName;
use crate::outbound::TrustError;
use crate::secrets::{Held, SecretName, SecretOwner, Shown, Vault, Watch};
use crate::settings::{ClientCertificate, IdentitySettings, KeyVaultSettings, SecretSource, VaultReference};

pub(crate) type Maker = fn(&IdentitySettings, &str, &mut Slots<'_>) -> Result<Box<dyn Grant>, TrustError>;

/// Makes slots out of the settings of all identities, and what they share.
pub(crate) struct Slots<'a> {
    maker: Maker,
    settings: &'a [IdentitySettings],
    keyvault: Option<&'a KeyVaultSettings>,
    control: &'a Handle,
    counters: &'a Counters,
    watch: Arc<Watch>,
    made: HashMap<(IdentityName, String), Arc<Slot>>,
    vaults: HashMap<String, Arc<Vault>>,
    held: HashMap<(IdentityName, SecretName), Arc<Held>>,
    certificates: HashMap<(IdentityName, usize), Arc<HeldCertificate>>,
    accounts: HashMap<(String, String), Arc<Account>>,
    stores: HashMap<IdentityName, (Arc<Store>, Option<SecretSource>)>,
}

impl<'a> Slots<'a> {
    pub(crate) fn new(
        maker: Maker,
        settings: &'a [IdentitySettings],
        keyvault: Option<&'a KeyVaultSettings>,
        control: &'a Handle,
        counters: &'a Counters,
    ) -> Self {
        Self {
            maker,
            settings,
            keyvault,
            control,
            counters,
            watch: Arc::default(),
            made: HashMap::new(),
            vaults: HashMap::new(),
            held: HashMap::new(),
            certificates: HashMap::new(),
            accounts: HashMap::new(),
            stores: HashMap::new(),
        }
    }

    /// The same, whose credentials are watched there.
    pub(crate) fn watched_by(mut self, watch: &Arc<Watch>) -> Self {
        self.watch = watch.clone();
        self
    }

    /// Who watches the ends of the credentials that were made here.
    #[cfg(test)]
    fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// The slot for tokens of this identity and scope. It fetches on demand; a caller that wants renewal ahead of expiry
    /// spawns its minder.
    pub(crate) fn slot(&mut self, identity: &IdentitySettings, scope: &str) -> Result<Arc<Slot>, TrustError> {
        let key = (identity.name.clone(), scope.to_owned());
        if let Some(slot) = self.made.get(&key) {
            return Ok(slot.clone());
        }
        // Whom it needs is made on the way; the check of the settings has refused circles.
        let grant = (self.maker)(identity, scope, self)?;
        let slot = Slot::new(
            identity.name.clone(),
            grant,
            self.control.clone(),
            self.counters.clone(),
        );
        let files = self
            .held
            .iter()
            .filter(|((name, _), held)| *name == identity.name && held.is_of_file());
        let files: Vec<_> = files.map(|(_, held)| held.clone()).collect();
        if !files.is_empty() {
            slot.hear(Box::new(move || Box::pin(Held::changed(files.clone()))));
        }
        self.made.insert(key, slot.clone());
        Ok(slot)
    }

    /// The same for an identity of this name, if there is one.
    pub(crate) fn slot_of(
        &mut self,
        name: &IdentityName,
        scope: &str,
    ) -> Result<Option<Arc<Slot>>, TrustError> {
        let settings = self.settings;
        let Some(identity) = settings.iter().find(|identity| identity.name == *name) else {
            return Ok(None);
        };
        self.slot(identity, scope).map(Some)
    }

    /// The vaults of the cloud in which this one is; none if nobody reads vaults.
    pub(crate) fn vault(&mut self, place: &VaultReference) -> Result<Option<Arc<Vault>>, TrustError> {
        let Some(settings) = self.keyvault else {
            return Ok(None);
        };
        let scope = place.scope();
        if let Some(vault) = self.vaults.get(&scope) {
            return Ok(Some(vault.clone()));
        }
        let reader = self.slot(&settings.identity, &scope)?;
        let vault = Arc::new(Vault::new(settings, bearer::bearer(reader))?);
        self.vaults.insert(scope, vault.clone());
        Ok(Some(vault))
    }

    /// A secret of an identity, kept up to date once for all scopes.
    pub(crate) fn held(
        &mut self,
        identity: &IdentityName,
        credential: SecretName,
        source: &SecretSource,
        expires: Option<SystemTime>,
    ) -> Result<Arc<Held>, TrustError> {
        let key = (identity.clone(), credential);
        if let Some(held) = self.held.get(&key) {
            return Ok(held.clone());
        }
        let vault = match source.vault() {
            Some(place) => self.vault(place)?,
            None => None,
        };
        let holder = SecretOwner::Identity(identity.as_str().into());
        // A part of a certificate ends with it, and that is watched by itself.
        let dated = (credential.shown != Shown::Unsaid)
            .then(|| self.watch.add(holder.clone(), &credential.name(), expires));
        let held = Held::new(holder, credential, source, vault, expires, dated);
        let held = Arc::new(held);
        self.held.insert(key, held.clone());
        Ok(held)
    }

    /// The account of this user at a token endpoint, shared by all identities that sign in with it.
    pub(crate) fn account(&mut self, token_url: &str, user: &str) -> Arc<Account> {
        // A tenant is written in more than one way, and a user belongs to its cloud as a whole.
        let cloud: String = token_url.split_inclusive('/').take(3).collect();
        let key = (cloud, user.to_lowercase());
        self.accounts.entry(key).or_default().clone()
    }

    /// The certificate with this number among those of an identity, kept up to date once for all scopes.
    pub(crate) fn certificate(
        &mut self,
        identity: &IdentityName,
        number: usize,
        settings: &ClientCertificate,
    ) -> Result<Arc<HeldCertificate>, TrustError> {
        let key = (identity.clone(), number);
        if let Some(held) = self.certificates.get(&key) {
            return Ok(held.clone());
        }
        let mut held = |what, source: &SecretSource| {
            let name = SecretName {
                what,
                number,
                shown: Shown::Unsaid,
            };
            self.held(identity, name, source, None)
        };
        let key_of = "key of the certificate";
        let password_of = "password of the certificate";
        let held = HeldParts {
            file: held("certificate", &settings.file)?,
            key: settings.key.as_ref().map(|key| held(key_of, key)).transpose()?,
            password: settings
                .password
                .as_ref()
                .map(|text| held(password_of, text))
                .transpose()?,
        };
        let dated = self.watch.add(
            SecretOwner::Identity(identity.as_str().into()),
            &format!("certificate-{number}"),
            settings.known().map(|certificate| certificate.ends()),
        );
        let held = Arc::new(HeldCertificate::new(identity, settings, held, dated));
        self.certificates.insert(key, held.clone());
        Ok(held)
    }

    /// The store of a sign-in, one for all scopes of its identity.
    pub(crate) fn store(
        &mut self,
        identity: &IdentityName,
        path: &Path,
        seal: Option<&SecretSource>,
        client_id: &str,
    ) -> Arc<Store> {
        let made = self.stores.entry(identity.clone());
        let (store, _) = made.or_insert_with(|| {
            let store = Arc::new(Store::new(path, seal, client_id));
            (store, seal.cloned())
        });
        store.clone()
    }

    /// The stores that were made here and are sealed, with the places of their seals.
    pub(crate) fn sealed(&self) -> impl Iterator<Item = (&IdentityName, &Arc<Store>, &SecretSource)> {
        let stores = self.stores.iter();
        stores.filter_map(|(identity, (store, seal))| Some((identity, store, seal.as_ref()?)))
    }

    /// The vaults that were asked for so far, by the scope of their tokens.
    pub(crate) fn vaults(&self) -> &HashMap<String, Arc<Vault>> {
        &self.vaults
    }

    /// Goes on with vaults that were made earlier.
    pub(crate) fn reuse_vaults(&mut self, vaults: &HashMap<String, Arc<Vault>>) {
        self.vaults.clone_from(vaults);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::runtime::Handle;

    use crate::counters::Counters;
    use crate::entra::grants;
    use crate::secrets::{Renewed, SecretName, Shown};
    use crate::settings;
    use crate::settings::{ClientProof, Environment, GrantSettings, IdentitySettings};

    const GUID: &str = "00000000-0000-0000-0000-000000000000";

    fn identities(folder: &Path, proof: &str) -> Vec<IdentitySettings> {
        let text = format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\nplain_http = \"private-networks\"\n\
             plain_http_from = [\"127.0.0.0/8\"]\n\
             [[identity]]\nname = \"contoso\"\ntenant = \"{GUID}\"\nclient_id = \"{GUID}\"\n{proof}\n\
             [[route]]\nname = \"orders\"\npath = \"/orders\"\nanonymous = true\nidentity = \"contoso\"\n\
             trigger = \"https://prod-00.westeurope.logic.azure.com/workflows/0/triggers/manual/paths/invoke?api-version=1\""
        );
        let nothing: [(&str, &str); 0] = [];
        let environment = Environment::from_pairs(nothing);
        let (config, _) = settings::parse(&text, &folder.join("flowgate.toml"), &environment).unwrap();
        config.identities
    }

    #[tokio::test]
    async fn a_certificate_is_watched_once_however_many_scopes_it_is_shown_for() {
        let folder = tempfile::tempdir().unwrap();
        let pem = concat!(
            include_str!("../../tests/certificates/client.pem"),
            include_str!("../../tests/certificates/client.key")
        );
        std::fs::write(folder.path().join("both.pem"), pem).unwrap();
        let all = identities(
            folder.path(),
            "[[identity.certificate]]\nfile = \"file:both.pem\"",
        );
        let (control, counters) = (Handle::current(), Counters::new());
        let mut slots = grants::slots(&all, None, &control, &counters);
        for scope in ["https://a.example/.default", "https://b.example/.default"] {
            slots.slot(&all[0], scope).unwrap();
        }
        let names: Vec<_> = slots.watch().lives("contoso");
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[tokio::test]
    async fn each_scope_that_used_the_old_secret_learns_that_it_was_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "canary-old").unwrap();
        let all = identities(folder.path(), "client_secret = \"file:secret\"");
        let GrantSettings::Client {
            proof: ClientProof::Secrets(secrets),
            ..
        } = &all[0].grant
        else {
            panic!("{all:?}");
        };
        let (control, counters) = (Handle::current(), Counters::new());
        let mut slots = grants::slots(&all, None, &control, &counters);
        let name = SecretName {
            what: "client secret",
            number: 1,
            shown: Shown::DigestEnd,
        };
        let held = slots.held(&all[0].name, name, &secrets[0].source, None).unwrap();
        let old = held.value().await.unwrap();
        std::fs::write(&path, "canary-new").unwrap();
        assert_eq!(held.renew_from(&old).await, Renewed::Changed);
        assert_eq!(
            held.renew_from(&old).await,
            Renewed::Changed,
            "another scope's question"
        );
        let new = held.value().await.unwrap();
        assert_eq!(held.renew_from(&new).await, Renewed::Same);
    }
}
