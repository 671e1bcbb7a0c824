//! Checks certificates of listeners, addresses of triggers, the pepper and seals for replacements while the gateway runs
//! (credentials of identities are read when a token is requested). It decides when places are read, and logs the result;
//! the code that uses the content decides whether to accept it. All of it runs on the control runtime.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::model::{Secret, clock, locked};
use crate::secrets::desk::{Desk, Stuck};
use crate::secrets::expiry::{Dated, Life, Watch};
use crate::secrets::held::{Held, SecretName, Shown};
use crate::secrets::owner::SecretOwner;
use crate::secrets::vault::Vault;
use crate::settings::{SecretSource, VaultReference, VaultValue};

/// How often files are looked at. One that was replaced a moment ago may still be half of what it will be, so nothing is said
/// of what cannot be used before it was seen in two looks after the first.
const PERIOD: Duration = Duration::from_secs(2);
/// How long a file stays as it is before it is judged. Of an address that is still being written the beginning may name
/// another host, and of a chain it may be good for itself.
const SETTLED: Duration = Duration::from_millis(250);
/// Looks at a file that changes all the time, before it is left for the next round.
const SETTLING_MAX: usize = 4;
/// What each place adds to that, so that ten thousand of them keep no core busy.
const PERIOD_EACH: Duration = Duration::from_millis(1);
/// Looks after which unusable content is logged.
const LOOKS_UNREPORTED: u32 = 2;
/// What cannot be used is tried again after this time even if it stays the same: dates pass, and other things change.
const TRIED_AGAIN: Duration = Duration::from_secs(60);
/// Threads that disks which hang may take at one time: one for each of the first folders, and one for all others.
const DESKS: usize = 16;

/// The result of a look at content that is stored in one place or in several together.
#[derive(Debug)]
pub enum Verdict {
    /// It is what serves already.
    Same,
    /// It serves from now on.
    Taken(Taken),
    /// It must not take the place of what serves, and somebody has to know at once.
    Left(String),
    /// It cannot be used, for this reason.
    Refused(String),
}

#[derive(Debug)]
pub struct Taken {
    /// The sentence for the log.
    pub said: String,
    /// When it expires, if it contains that.
    pub until: Option<SystemTime>,
    /// What it is called among the credentials, if that changed.
    pub credential: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Followed {
    pub holder: SecretOwner,
    /// What it is called in sentences: `trigger`.
    pub what: &'static str,
    /// What it is called among the credentials whose ends are watched.
    pub credential: String,
    /// When it expires, if it contains that.
    pub until: Option<SystemTime>,
}

/// Reads places regularly, and passes new content on.
#[derive(Clone)]
pub struct Rereader {
    control: Handle,
    watch: Arc<Watch>,
    /// One for each cloud, by scope.
    vaults: HashMap<String, Arc<Vault>>,
    /// By folder.
    desks: Arc<Mutex<HashMap<PathBuf, Desk>>>,
    shared_desk: Desk,
    count: Arc<AtomicU32>,
}

/// Keeps something followed until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Following {
    /// Its expiry is watched also where its places cannot change.
    _dated: Arc<Dated>,
    task: Option<(AbortHandle, Arc<AtomicU32>)>,
}

impl Drop for Following {
    fn drop(&mut self) {
        if let Some((task, count)) = &self.task {
            task.abort();
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Rereader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rereader").finish_non_exhaustive()
    }
}

/// Decides whether the content of the places is valid, and if so puts it to use. Called on a thread that may block.
type Judge = Box<dyn FnMut(&[Secret]) -> Verdict + Send>;

impl Rereader {
    /// Reads on `control`.
    pub fn new(control: Handle) -> Self {
        let watch = Arc::default();
        control.spawn(Watch::mind(Arc::downgrade(&watch)));
        Self {
            control,
            watch,
            vaults: HashMap::new(),
            desks: Arc::default(),
            shared_desk: Desk::default(),
            count: Arc::default(),
        }
    }

    /// The same, for places in these vaults.
    pub(crate) fn with(&self, vaults: HashMap<String, Arc<Vault>>) -> Self {
        Self {
            vaults,
            ..self.clone()
        }
    }

    /// The runtime on which it reads.
    pub(crate) fn control(&self) -> &Handle {
        &self.control
    }

    /// What watches the expiry of everything.
    pub(crate) fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Watches the expiry of something and, if they can change, its places. `judge` gets the content of all places, in
    /// their order, whenever it has changed.
    pub fn follow(
        &self,
        followed: Followed,
        places: &[&SecretSource],
        judge: impl FnMut(&[Secret]) -> Verdict + Send + 'static,
    ) -> Following {
        self.follow_nudged(followed, places, &Arc::default(), judge)
    }

    /// The same; a caller that expects new content nudges, and the places are read at once.
    pub(crate) fn follow_nudged(
        &self,
        followed: Followed,
        places: &[&SecretSource],
        nudge: &Arc<Notify>,
        judge: impl FnMut(&[Secret]) -> Verdict + Send + 'static,
    ) -> Following {
        let held: Vec<_> = places.iter().map(|place| self.held(&followed, place)).collect();
        let ends = held.iter().filter_map(|held| held.ends());
        let dated = self.watch.add(
            followed.holder.clone(),
            &followed.credential,
            ends.chain(followed.until).min(),
        );
        // The hourly task may have checked the other credentials just before this one was added.
        dated.look(clock::wall());
        // Variables of a running process cannot change.
        if places
            .iter()
            .all(|place| place.file().is_none() && place.vault().is_none())
        {
            return Following {
                _dated: dated,
                task: None,
            };
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let follower = Follower {
            places: places.iter().map(|place| place.place()).collect(),
            last: held.iter().map(|held| held.current()).collect(),
            held,
            until: followed.until,
            followed,
            dated: dated.clone(),
            desk: Desk::default(),
            judge: Arc::new(Mutex::new(Box::new(judge))),
            verdicts: Arc::default(),
            trouble: None,
            nudge: nudge.clone(),
        };
        let count = self.count.clone();
        let task = self.control.spawn(follower.go_on(number, count.clone()));
        Following {
            _dated: dated,
            task: Some((task.abort_handle(), count)),
        }
    }

    /// The values of key vaults that were read after this time.
    pub fn vault_values_since(&self, time: Instant) -> HashMap<VaultReference, VaultValue> {
        let vaults = self.vaults.values();
        vaults.flat_map(|vault| vault.read_since(time)).collect()
    }

    /// What everything has left that belongs to no identity.
    pub fn lives(&self) -> Vec<(SecretOwner, Life)> {
        self.watch.others()
    }

    fn held(&self, followed: &Followed, place: &SecretSource) -> Arc<Held> {
        let vault = place
            .vault()
            .and_then(|reference| self.vaults.get(&reference.scope()))
            .cloned();
        let name = SecretName {
            what: followed.what,
            number: 1,
            shown: Shown::Unsaid,
        };
        let held = Held::new(followed.holder.clone(), name, place, vault, None, None);
        Arc::new(match place.file().map(|path| path.parent()) {
            // A disk that hangs has a folder that hangs.
            Some(folder) => held.at(self.desk(folder.unwrap_or(Path::new("")))),
            None => held,
        })
    }

    fn desk(&self, folder: &Path) -> Desk {
        let mut desks = locked(&self.desks);
        if desks.len() + 1 >= DESKS && !desks.contains_key(folder) {
            return self.shared_desk.clone();
        }
        desks.entry(folder.to_owned()).or_default().clone()
    }
}

struct Follower {
    followed: Followed,
    places: Vec<String>,
    held: Vec<Arc<Held>>,
    /// What was judged last.
    last: Vec<Option<Secret>>,
    /// When what serves ends by itself.
    until: Option<SystemTime>,
    dated: Arc<Dated>,
    desk: Desk,
    judge: Arc<Mutex<Judge>>,
    /// Verdicts that are not reported yet: a judge that takes too long still finishes after the look has ended.
    verdicts: Arc<Mutex<Vec<Verdict>>>,
    trouble: Option<UnusableContent>,
    nudge: Arc<Notify>,
}

struct UnusableContent {
    why: String,
    /// In how many looks it was seen.
    looks: u32,
    reported: Reported,
    /// When it is tried once more.
    again: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reported {
    Yes,
    No,
}

impl Follower {
    async fn go_on(mut self, number: u32, count: Arc<AtomicU32>) {
        // Spread over the period, so that all of them do not come at once.
        tokio::time::sleep(PERIOD_EACH * number).await;
        loop {
            let all = PERIOD_EACH * count.load(Ordering::Relaxed);
            let nudge = self.nudge.clone();
            tokio::select! {
                () = tokio::time::sleep(PERIOD.max(all)) => self.look(Vaults::WhenDue).await,
                () = nudge.notified() => self.look(Vaults::Now).await,
            }
        }
    }

    async fn look(&mut self, vaults: Vaults) {
        let Some(mut found) = self.settled(vaults).await else {
            return;
        };
        if self.is_news_of(&found, Compared::Files) && self.held.iter().any(|held| held.is_of_vault()) {
            // If the file was replaced, so was the secret that belongs to it.
            found = self.read(Vaults::Now).await;
        }
        self.date();
        let is_due = match &self.trouble {
            Some(trouble) => trouble.looks <= LOOKS_UNREPORTED || Instant::now() >= trouble.again,
            None => false,
        };
        if !is_due && !self.is_news(&found) {
            return;
        }
        self.last.clone_from(&found);
        let Some(texts) = found.into_iter().collect::<Option<Vec<_>>>() else {
            return;
        };
        let (judge, verdicts) = (self.judge.clone(), self.verdicts.clone());
        let judged = self.desk.work(move || {
            let verdict = locked(&judge)(&texts);
            locked(&verdicts).push(verdict);
        });
        match judged.await {
            Ok(()) => {
                let verdicts = std::mem::take(&mut *locked(&self.verdicts));
                for verdict in verdicts {
                    self.report(verdict);
                }
            }
            Err(Stuck::Late) => self.report(Verdict::Refused("it takes too long to be read".to_owned())),
            Err(Stuck::Over) => {}
        }
    }

    /// The content of the places once the files stop changing; nothing if they do not.
    async fn settled(&self, vaults: Vaults) -> Option<Vec<Option<Secret>>> {
        let mut found = self.read(vaults).await;
        if !self.is_news_of(&found, Compared::Files) {
            return Some(found);
        }
        for _ in 0..SETTLING_MAX {
            tokio::time::sleep(SETTLED).await;
            let again = self.read(Vaults::WhenDue).await;
            let stays = found.iter().zip(&again).all(|pair| match pair {
                (Some(found), Some(again)) => found.same_as(again.expose()),
                (found, again) => found.is_none() == again.is_none(),
            });
            if stays {
                return Some(again);
            }
            found = again;
        }
        None
    }

    /// The content of the places. A failed read is logged where it happens, and the last content stays.
    async fn read(&self, vaults: Vaults) -> Vec<Option<Secret>> {
        let mut found = Vec::with_capacity(self.held.len());
        for held in &self.held {
            if vaults == Vaults::Now && held.is_of_vault() {
                held.renew().await;
            }
            found.push(held.value().await.ok());
        }
        found
    }

    fn is_news(&self, found: &[Option<Secret>]) -> bool {
        self.is_news_of(found, Compared::All)
    }

    fn is_news_of(&self, found: &[Option<Secret>], kind: Compared) -> bool {
        let all = self.held.iter().zip(found.iter().zip(&self.last));
        all.filter(|(held, _)| kind == Compared::All || !held.is_of_vault())
            .any(|(_, (found, last))| match (found, last) {
                (Some(found), Some(last)) => !found.same_as(last.expose()),
                (Some(_), None) => true,
                (None, _) => false,
            })
    }

    /// The first end counts: that of the secrets in a vault, or that of what was made of them.
    fn date(&self) {
        let ends = self.held.iter().filter_map(|held| held.ends());
        self.dated.set(ends.chain(self.until).min());
    }

    fn report(&mut self, verdict: Verdict) {
        let Followed { holder, what, .. } = &self.followed;
        let (identity, route, listener) = (holder.identity(), holder.route(), holder.listener());
        match verdict {
            Verdict::Refused(why) => return self.trouble(why),
            Verdict::Left(said) => tracing::warn!(identity, route, listener, "{said}"),
            Verdict::Taken(taken) => {
                tracing::info!(identity, route, listener, "{}", taken.said);
                if let Some(credential) = &taken.credential {
                    self.dated.rename(credential);
                }
                self.until = taken.until;
                self.date();
            }
            Verdict::Same => {
                if self
                    .trouble
                    .as_ref()
                    .is_some_and(|trouble| trouble.reported == Reported::Yes)
                {
                    let places = self.places.join(" and ");
                    tracing::info!(
                        identity,
                        route,
                        listener,
                        "the content of {places} is the {what} of {holder} again"
                    );
                }
            }
        }
        self.trouble = None;
    }

    fn trouble(&mut self, why: String) {
        let last = self.trouble.take().filter(|trouble| trouble.why == why);
        let mut trouble = last.unwrap_or(UnusableContent {
            why,
            looks: 0,
            reported: Reported::No,
            again: Instant::now(),
        });
        trouble.looks = trouble.looks.saturating_add(1);
        trouble.again = Instant::now() + TRIED_AGAIN;
        if trouble.reported == Reported::No && trouble.looks > LOOKS_UNREPORTED {
            trouble.reported = Reported::Yes;
            let Followed { holder, what, .. } = &self.followed;
            let (identity, route, listener) = (holder.identity(), holder.route(), holder.listener());
            let (places, why) = (self.places.join(" and "), &trouble.why);
            tracing::warn!(
                identity,
                route,
                listener,
                "the content of {places} cannot be the {what} of {holder}, the last one serves on: {why}; \
                 the operator must put a good one there before the next start"
            );
        }
        self.trouble = Some(trouble);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compared {
    All,
    Files,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vaults {
    /// When their period is over.
    WhenDue,
    Now,
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, mpsc};

    use tokio::runtime::Handle;

    use super::{DESKS, Followed, Follower, LOOKS_UNREPORTED, Reported, Rereader, Taken, Vaults, Verdict};
    use crate::model::Secret;
    use crate::secrets::owner::SecretOwner;
    use crate::settings;
    use crate::settings::{Environment, SecretSource};

    /// The pepper of settings in this folder, which is stored in the file `pepper`.
    fn source(folder: &Path) -> SecretSource {
        let text = "[keys]\npepper = \"file:pepper\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
                    plain_http = \"private-networks\"\nplain_http_from = [\"127.0.0.0/8\"]\n[[route]]\n\
                    name = \"orders\"\npath = \"/orders\"\nanonymous = true\nsigned = true\n\
                    trigger = \"env:TRIGGER\"";
        let trigger = "https://prod-00.westeurope.logic.azure.com/workflows/0/triggers/manual/paths/invoke\
                       ?api-version=1&sp=a&sv=b&sig=c";
        let environment = Environment::from_pairs([("TRIGGER", trigger)]);
        let (config, _) = settings::parse(text, &folder.join("flowgate.toml"), &environment).unwrap();
        config.key_pepper_source.unwrap()
    }

    /// A follower of that file which takes whatever is no `bad`, and what it was given.
    fn follower(folder: &Path) -> (Follower, Arc<Mutex<Vec<String>>>) {
        let source = source(folder);
        let rereader = Rereader::new(Handle::current());
        let watch = rereader.watch().clone();
        let followed = Followed {
            holder: SecretOwner::Gateway,
            what: "pepper",
            credential: "pepper".to_owned(),
            until: None,
        };
        let given = Arc::new(Mutex::new(Vec::new()));
        let seen = given.clone();
        let judge = move |texts: &[Secret]| {
            let text = texts[0].expose().to_owned();
            seen.lock().unwrap().push(text.clone());
            match text.as_str() {
                "bad" => Verdict::Refused("it is bad".to_owned()),
                "first" => Verdict::Same,
                _ => Verdict::Taken(Taken {
                    said: "taken".to_owned(),
                    until: None,
                    credential: None,
                }),
            }
        };
        let held = vec![rereader.held(&followed, &source)];
        let follower = Follower {
            places: vec![source.place()],
            last: held.iter().map(|held| held.current()).collect(),
            held,
            until: None,
            dated: watch.add(SecretOwner::Gateway, "pepper", None),
            followed,
            desk: super::Desk::default(),
            judge: Arc::new(Mutex::new(Box::new(judge))),
            verdicts: Arc::default(),
            trouble: None,
            nudge: Arc::default(),
        };
        (follower, given)
    }

    fn reported(follower: &Follower) -> Option<Reported> {
        follower.trouble.as_ref().map(|trouble| trouble.reported)
    }

    #[tokio::test]
    async fn a_folder_that_hangs_holds_up_no_other_unless_there_are_very_many() {
        let rereader = Rereader::new(Handle::current());
        let folder = |number: usize| std::path::PathBuf::from(format!("folder-{number}"));
        let desks: Vec<_> = (0..DESKS + 2)
            .map(|number| rereader.desk(&folder(number)))
            .collect();
        for (number, desk) in desks.iter().enumerate() {
            assert!(desk.is(&rereader.desk(&folder(number))), "{number}");
            let alike = desks.iter().filter(|other| desk.is(other)).count();
            assert_eq!(alike, if number < DESKS - 1 { 1 } else { 3 }, "{number}");
        }
    }

    #[tokio::test]
    async fn what_has_not_changed_is_judged_no_second_time() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pepper"), "first").unwrap();
        let (mut follower, given) = follower(folder.path());
        follower.look(Vaults::WhenDue).await;
        std::fs::write(folder.path().join("pepper"), "second").unwrap();
        for _ in 0..3 {
            follower.look(Vaults::WhenDue).await;
        }
        assert_eq!(*given.lock().unwrap(), ["second"]);
    }

    #[tokio::test]
    async fn a_file_that_is_still_being_written_is_not_judged() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pepper");
        std::fs::write(&file, "first").unwrap();
        let (mut follower, given) = follower(folder.path());
        let held = follower.held[0].clone();
        std::fs::write(&file, "sec").unwrap();
        let writing = async {
            while !held.current().is_some_and(|current| current.same_as("sec")) {
                tokio::task::yield_now().await;
            }
            std::fs::write(&file, "second").unwrap();
        };
        tokio::join!(follower.look(Vaults::WhenDue), writing);
        assert_eq!(*given.lock().unwrap(), ["second"]);
    }

    #[tokio::test]
    async fn what_cannot_be_used_for_a_moment_is_not_reported() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pepper"), "first").unwrap();
        let (mut follower, _) = follower(folder.path());
        std::fs::write(folder.path().join("pepper"), "bad").unwrap();
        for _ in 0..LOOKS_UNREPORTED {
            follower.look(Vaults::WhenDue).await;
            assert_eq!(reported(&follower), Some(Reported::No));
        }
        std::fs::write(folder.path().join("pepper"), "second").unwrap();
        follower.look(Vaults::WhenDue).await;
        assert!(follower.trouble.is_none());
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_reported_when_it_lasts_and_then_retried() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pepper"), "first").unwrap();
        let (mut follower, given) = follower(folder.path());
        std::fs::write(folder.path().join("pepper"), "bad").unwrap();
        for _ in 0..=LOOKS_UNREPORTED {
            follower.look(Vaults::WhenDue).await;
        }
        assert_eq!(reported(&follower), Some(Reported::Yes));
        let tried = given.lock().unwrap().len();
        for _ in 0..5 {
            follower.look(Vaults::WhenDue).await;
        }
        assert_eq!(given.lock().unwrap().len(), tried);
        tokio::time::pause();
        tokio::time::advance(super::TRIED_AGAIN).await;
        tokio::time::resume();
        follower.look(Vaults::WhenDue).await;
        assert_eq!(given.lock().unwrap().len(), tried + 1);
    }

    #[tokio::test]
    async fn what_a_slow_judge_let_in_is_reported_at_the_next_look() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pepper"), "first").unwrap();
        let (mut follower, _) = follower(folder.path());
        let end = crate::model::clock::wall();
        let (release, held) = mpsc::channel::<()>();
        let begun = Arc::new(AtomicBool::new(false));
        let judging = begun.clone();
        follower.judge = Arc::new(Mutex::new(Box::new(move |_| {
            if judging.swap(true, Ordering::SeqCst) {
                return Verdict::Same;
            }
            let _ = held.recv();
            Verdict::Taken(Taken {
                said: "taken".to_owned(),
                until: Some(end),
                credential: None,
            })
        })));
        std::fs::write(folder.path().join("pepper"), "second").unwrap();
        let late = async {
            while !begun.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            tokio::time::pause();
            tokio::time::advance(super::TRIED_AGAIN).await;
            tokio::time::resume();
        };
        tokio::join!(follower.look(Vaults::WhenDue), late);
        assert_eq!((reported(&follower), follower.until), (Some(Reported::No), None));
        release.send(()).unwrap();
        follower.look(Vaults::WhenDue).await;
        assert_eq!((reported(&follower), follower.until), (None, Some(end)));
    }

    #[tokio::test]
    async fn a_file_that_is_away_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pepper"), "first").unwrap();
        let (mut follower, given) = follower(folder.path());
        std::fs::remove_file(folder.path().join("pepper")).unwrap();
        follower.look(Vaults::WhenDue).await;
        assert!(given.lock().unwrap().is_empty());
    }
}
