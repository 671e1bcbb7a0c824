//! The seal of a sign-in's store, when another one takes its place. The store is written anew under the new one at once: a
//! gateway that is started after that knows no other, and without its refresh token a person would have to sign in again.
//! Until that is done the old one stays in use.

use std::sync::{Arc, OnceLock};

use crate::entra::store::Store;
use crate::model::{IdentityName, Secret};
use crate::secrets::{Followed, Following, Rereader, SecretOwner, Taken, Verdict};
use crate::settings::{SecretSource, check_seal};

/// A sealed store, and what follows its seal once somebody serves with it.
pub(crate) struct Seal {
    store: Arc<Store>,
    source: SecretSource,
    following: OnceLock<Following>,
}

impl Seal {
    pub(crate) fn new(store: &Arc<Store>, source: &SecretSource) -> Self {
        Self {
            store: store.clone(),
            source: source.clone(),
            following: OnceLock::new(),
        }
    }

    /// Follows the seal from now on.
    pub(crate) fn follow(&self, identity: &IdentityName, rereader: &Rereader) {
        self.following.get_or_init(|| {
            let followed = Followed {
                holder: SecretOwner::Identity(identity.as_str().into()),
                what: "seal",
                credential: "seal".to_owned(),
                until: None,
            };
            let (name, store) = (identity.clone(), self.store.clone());
            let mut last = self.source.known().cloned();
            let nudge = self.store.seal_wanted();
            rereader.follow_nudged(followed, &[&self.source], nudge, move |texts| {
                let verdict = judge(&name, &store, last.as_ref(), texts);
                if let Verdict::Taken(_) = verdict {
                    last = texts.first().cloned();
                }
                verdict
            })
        });
    }
}

fn judge(identity: &IdentityName, store: &Store, last: Option<&Secret>, texts: &[Secret]) -> Verdict {
    let Some(seal) = texts.first() else {
        return Verdict::Same;
    };
    if last.is_some_and(|last| last.same_as(seal.expose())) {
        return Verdict::Same;
    }
    if let Err(why) = check_seal(seal) {
        return Verdict::Refused(why.to_owned());
    }
    let path = store.path().display();
    match store.reseal(seal) {
        Ok(()) => Verdict::Taken(Taken {
            said: format!("seal of identity {identity} replaced, {path} is encrypted under the new one"),
            until: None,
            credential: None,
        }),
        Err(why) => Verdict::Refused(format!("{path} cannot be encrypted under it: {why}")),
    }
}
