//! Which models and versions there are, and in which state.
//!
//! The folder is read at the start; versions are then loaded one after another in the background, so that the agent is on its
//! tunnels at once and says of each model that it is loading. A broken model is reported with its reason, everywhere where
//! models are listed, and the others are served. From then on the folder is looked at again and again, and what has changed
//! in it is loaded beside what serves.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adit_common::id::ModelName;
use tokio::sync::watch;

use super::catalogue::Catalogue;
use super::control::Control;
use super::devices::Devices;
use super::keeper::Keeper;
use crate::config::ServingConfig;
use crate::error::AgentError;
use crate::metrics::Metrics;

/// The models of an agent.
#[derive(Debug)]
pub struct Repository {
    keeper: Mutex<Keeper>,
    control: Control,
    catalogue: Arc<watch::Sender<Catalogue>>,
    devices: Arc<Devices>,
}

impl Repository {
    /// Opens the device, reads the folder and the descriptions in it, but no weights yet.
    pub fn scan(config: &ServingConfig, metrics: Arc<Metrics>) -> Result<Self, AgentError> {
        let devices = Arc::new(Devices::open(config.device).map_err(AgentError::device)?);
        let control = Control::new(config.queue);
        let catalogue = Arc::new(watch::Sender::new(Catalogue::default()));
        let keeper = Keeper::new(config, catalogue.clone(), control.clone(), devices.clone(), metrics)?;
        Ok(Self { keeper: Mutex::new(keeper), control, catalogue, devices })
    }

    /// The catalogue, as it changes.
    pub fn catalogue(&self) -> watch::Receiver<Catalogue> {
        self.catalogue.subscribe()
    }

    /// The devices that its models compute on.
    pub const fn devices(&self) -> &Arc<Devices> {
        &self.devices
    }

    /// Gives up workers that have shown no progress for `patience`, and puts others in their places. To be called again and
    /// again.
    pub fn tend(&self, patience: Duration) {
        let models = self.catalogue.borrow().models();
        let changed = models.iter().filter(|model| model.engine().tend(patience)).count();
        if changed > 0 {
            // Relays are to know who answers and who does not.
            self.catalogue.send_modify(|_| ());
        }
    }

    /// Loads what there is, one version after another, and returns when all of it is loaded or found not to be loadable. Reads
    /// and computes for seconds: not for the runtime's threads.
    pub fn load(&self) {
        self.keeper().work();
    }

    /// As [`Repository::load`], but of one model alone; the others are as if somebody had unloaded them.
    pub fn load_only(&self, model: &ModelName) {
        let mut keeper = self.keeper();
        keeper.park_all_but(model);
        keeper.work();
    }

    /// As [`Repository::load`], and then keeps the models as their folder is, until [`Repository::close`].
    pub fn keep(&self) {
        self.keeper().run();
    }

    /// Ends [`Repository::keep`] after what it is loading.
    pub fn close(&self) {
        self.control.close();
    }

    /// What requests and people ask of the keeper.
    pub(super) const fn control(&self) -> &Control {
        &self.control
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        // After a panic its own state is what it was between two steps.
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Instant;

    use adit_common::deadline::Deadline;
    use adit_common::id::Version;
    use adit_common::manifest::ModelState;
    use adit_vision::DeviceChoice;

    use super::super::request::Choice;
    use super::*;
    use crate::error::InferError;

    const UNKNOWN: Version = Version(0);
    const STAND_IN: &str = "architecture = \"stand_in\"\n";
    const LENET: &str =
        "architecture = \"lenet\"\n[preprocess]\nsize = [28, 28]\nresize = \"digit\"\nchannels = \"grey\"\n";

    fn scan(root: &Path, embedded: bool) -> (Repository, watch::Receiver<Catalogue>) {
        let config =
            ServingConfig { models: Some(root.to_owned()), embedded: Some(embedded), ..ServingConfig::default() };
        let repository = Repository::scan(&config, Arc::new(Metrics::new())).unwrap();
        let catalogue = repository.catalogue();
        (repository, catalogue)
    }

    fn name(text: &str) -> ModelName {
        ModelName::new(text).unwrap()
    }

    #[test]
    fn one_model_may_be_loaded_alone() {
        let root = tempfile::tempdir().unwrap();
        for model in ["one", "other"] {
            fs::create_dir(root.path().join(model)).unwrap();
            fs::write(root.path().join(model).join("model.toml"), STAND_IN).unwrap();
        }
        let (repository, catalogue) = scan(root.path(), false);
        repository.load_only(&name("one"));
        assert!(catalogue.borrow().card(&name("one"), &Choice::Newest).is_ok());
        let error = catalogue.borrow().card(&name("other"), &Choice::Newest).unwrap_err();
        assert_eq!(error.to_string(), "model `other` is not ready: it is not loaded, see the repository index");
    }

    #[test]
    fn broken_models_are_reported_and_the_rest_is_served() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &[u8]| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        write("good/model.toml", STAND_IN.as_bytes());
        write("misspelt/model.toml", b"architectur = \"lenet\"");
        write("empty/model.toml", LENET.as_bytes());
        write("half/model.toml", LENET.as_bytes());
        write("half/1/model.safetensors", b"not weights");
        write("half/labels.txt", b"zero");
        write("picky/model.toml", format!("{STAND_IN}[version_policy]\nspecific = [1, 7]\n").as_bytes());
        write("notes/readme.txt", b"no model");
        write(".git/model.toml", b"no name");
        let (repository, catalogue) = scan(root.path(), true);
        assert!(!catalogue.borrow().is_settled());
        let asked = |model: &str, choice: Choice| catalogue.borrow().card(&name(model), &choice).cloned();
        let newest = |model: &str| asked(model, Choice::Newest);
        assert_eq!(newest("good").unwrap_err().to_string(), "model `good` is not ready: it is being loaded");

        repository.load();
        assert!(catalogue.borrow().is_settled() && catalogue.borrow().is_alive(Duration::from_secs(60)));
        assert_eq!(newest("good").unwrap().version, Version(1));
        assert_eq!(newest("picky").unwrap().version, Version(1));
        assert_eq!(newest("digits").unwrap().labels.all().len(), 10);
        for (model, version, because) in [
            ("misspelt", UNKNOWN, "did you mean `architecture`?"),
            ("empty", UNKNOWN, "no <version>/model.safetensors in"),
            ("half", Version(1), "not a complete safetensors file"),
            ("picky", Version(7), "names version 7"),
        ] {
            let error = asked(model, Choice::Version(version)).unwrap_err().to_string();
            assert_eq!(error, format!("model `{model}` is not ready: it is not loaded, see the repository index"));
            let reason = &catalogue.borrow().versions(&name(model)).unwrap()[&version].reason.clone();
            assert!(reason.contains(because), "{model}: {reason}");
        }
        let states: Vec<_> = catalogue
            .borrow()
            .report()
            .into_iter()
            .map(|model| (model.name.to_string(), model.version.0, model.state))
            .collect();
        let (ready, unavailable) = (ModelState::Ready, ModelState::Unavailable);
        assert_eq!(
            states,
            [
                ("digits".into(), 1, ready),
                ("empty".into(), 0, unavailable),
                ("good".into(), 1, ready),
                ("half".into(), 1, unavailable),
                ("misspelt".into(), 0, unavailable),
                ("picky".into(), 1, ready),
                ("picky".into(), 7, unavailable),
            ]
        );
        assert_eq!(catalogue.borrow().first_ready(), Some(&name("digits")));
        assert_eq!(catalogue.borrow().first_classifier(), Some(&name("digits")));
        assert!(matches!(newest("nobody"), Err(InferError::NotFound { .. })));
        assert!(matches!(asked("good", Choice::Version(Version(2))), Err(InferError::NotFound { .. })));
        let error = asked("good", "stable".parse().unwrap()).unwrap_err().to_string();
        assert_eq!(error, "model `good` has no version labelled `stable`");
    }

    #[test]
    fn a_device_that_is_not_there_ends_the_agent_or_one_model_of_it() {
        let config = ServingConfig { device: DeviceChoice::Cuda(999), ..ServingConfig::default() };
        let error = Repository::scan(&config, Arc::new(Metrics::new())).unwrap_err().to_string();
        assert!(error.starts_with("device `cuda:999` is not to be had: "), "{error}");

        let root = tempfile::tempdir().unwrap();
        let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/digits");
        let spec = fs::read_to_string(digits.join("model.toml")).unwrap();
        for (model, key) in [
            ("plain", ""),
            ("half", "device = \"cpu\"\nprecision = \"f16\"\n"),
            ("candle", "kernels = \"off\"\n"),
            ("brain", "device = \"cpu\"\nprecision = \"bf16\"\n"),
            ("away", "device = \"cuda:999\"\n"),
        ] {
            fs::create_dir(root.path().join(model)).unwrap();
            let places = format!("versions = \"{0}\"\nlabels = \"{0}/labels.txt\"\n", digits.display());
            fs::write(root.path().join(model).join("model.toml"), format!("{key}{places}{spec}")).unwrap();
        }
        let (repository, catalogue) = scan(root.path(), false);
        repository.load();
        let reason = |model: &str| catalogue.borrow().versions(&name(model)).unwrap()[&Version(1)].reason.clone();
        let bytes = |model: &str| catalogue.borrow().card(&name(model), &Choice::Newest).unwrap().bytes;
        assert_eq!(["plain", "half", "candle"].map(reason), ["", "", ""]);
        assert_eq!(bytes("half") * 2, bytes("candle"));
        let kernels = |model: &str| catalogue.borrow().card(&name(model), &Choice::Newest).unwrap().kernels;
        assert!(kernels("plain").is_some() && bytes("plain") > bytes("candle"), "packed weights are filled up");
        assert_eq!(["half", "candle"].map(kernels), [None, None]);
        assert!(reason("brain").contains("`bf16` cannot be computed in: "), "{}", reason("brain"));
        assert!(reason("away").contains("device `cuda:999` is not to be had: "), "{}", reason("away"));
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_an_error_not_an_empty_house() {
        let config = ServingConfig { models: Some("/nowhere/models".into()), ..ServingConfig::default() };
        let error = Repository::scan(&config, Arc::new(Metrics::new())).unwrap_err().to_string();
        assert_eq!(error, "cannot read the models folder /nowhere/models");
    }

    #[tokio::test]
    async fn a_sleeping_model_is_waited_for_by_few_and_not_beyond_a_deadline() {
        let (root, digits) =
            (tempfile::tempdir().unwrap(), Path::new(env!("CARGO_MANIFEST_DIR")).join("models/digits"));
        let spec = fs::read_to_string(digits.join("model.toml")).unwrap();
        let spec = format!("versions = \"{0}\"\nlabels = \"{0}/labels.txt\"\n{spec}", digits.display());
        for model in ["one", "two"] {
            fs::create_dir(root.path().join(model)).unwrap();
            fs::write(root.path().join(model).join("model.toml"), &spec).unwrap();
        }
        // Half precision on disk: room for one of the two.
        let memory = Some(fs::metadata(digits.join("1/model.safetensors")).unwrap().len() * 3);
        let config =
            ServingConfig { models: Some(root.path().to_owned()), memory, queue: 1, ..ServingConfig::default() };
        let repository = Arc::new(Repository::scan(&config, Arc::new(Metrics::new())).unwrap());
        repository.load();
        let keeping = std::thread::spawn({
            let repository = repository.clone();
            move || repository.keep()
        });
        let (catalogue, control) = (repository.catalogue(), repository.control());
        let (one, two) = (name("one"), name("two"));
        let ask = |model, deadline| control.awake(&catalogue, model, &Choice::Newest, deadline);
        assert!(catalogue.borrow().is_asleep(&one, Version(1)));

        // Who has a model keeps it awake.
        let held = ask(&two, Deadline::never()).await.unwrap();
        let soon = Deadline::after(Instant::now(), Duration::from_millis(50));
        assert!(matches!(ask(&one, soon).await, Err(InferError::DeadlineExceeded)));
        let (waiting, refused) = (ask(&one, Deadline::never()), ask(&one, Deadline::never()));
        let mut waiting = std::pin::pin!(waiting);
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("there is no room for it"),
            refused = refused => assert!(matches!(refused, Err(InferError::Overloaded { .. }))),
        }
        drop(held);
        assert_eq!(waiting.await.unwrap().card().name, one);
        assert!(catalogue.borrow().is_asleep(&two, Version(1)));
        repository.close();
        keeping.join().unwrap();
    }
}
