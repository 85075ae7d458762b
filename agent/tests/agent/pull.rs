//! `adit-agent pull`, against a hub on loopback: what arrives is served, and what goes wrong is said with its remedy.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use adit_certs::{Bundle, Store, Validity};
use adit_vision::{Architecture, Device, Weights};
use serde_json::json;

use crate::hub::{COMMIT, FakeHub, Plan, REPOSITORY, sha256};

const DIGITS: &[u8] = include_bytes!("../../models/digits/1/model.safetensors");
const DIGITS_SPEC: &str = include_str!("../../models/digits/model.toml");
const DIGITS_LABELS: &str = include_str!("../../models/digits/labels.txt");

/// A folder of models, and what lies beside it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let (_, sections) = DIGITS_SPEC.split_once("[preprocess]").unwrap();
        fs::write(place.path().join("digit.toml"), format!("[preprocess]{sections}")).unwrap();
        fs::write(place.path().join("digit.txt"), DIGITS_LABELS).unwrap();
        Self(place)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn models(&self) -> String {
        self.path("models")
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join("models").join(name)).unwrap()
    }

    /// Names in the folder of models, hidden ones too.
    fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.models()) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Bytes of the part file that waits for the next try.
    fn part(&self, model: &str) -> Option<u64> {
        let hidden = fs::read_dir(self.0.path().join(format!("models/.pull-{model}"))).ok()?;
        let mut parts = hidden.map(|entry| entry.unwrap()).filter(|entry| entry.path().extension().is_some());
        parts.next().map(|part| part.metadata().unwrap().len())
    }
}

/// Nothing of this machine's environment: no proxy, no token, no cache.
fn program(place: &Place, endpoint: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit-agent"));
    command.env_clear().env("HF_ENDPOINT", endpoint).env("HF_HOME", place.path("home"));
    command.args(arguments).args(["--models", &place.models()]);
    command
}

fn pull(place: &Place, hub: &FakeHub, rest: &[&str]) -> Output {
    let (sections, labels) = (place.path("digit.toml"), place.path("digit.txt"));
    let digits = ["pull", REPOSITORY, "--architecture", "lenet", "--preprocess", &sections, "--labels", &labels];
    program(place, &hub.endpoint(), &[&digits, rest].concat()).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn well(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    text(output)
}

#[track_caller]
fn fails(output: &Output, because: &[&str]) {
    assert_eq!(output.status.code(), Some(1), "{}", text(output));
    for because in because {
        assert!(text(output).contains(because), "{because} is not in\n{}", text(output));
    }
}

/// What a model says of a drawn four, without any network around.
fn infer(place: &Place, model: &str) -> String {
    let drawn = Command::new(env!("CARGO_BIN_EXE_adit-agent")).args(["draw", "4"]).output().unwrap();
    fs::write(place.path("4.png"), drawn.stdout).unwrap();
    well(&program(place, "", &["infer", "--model", model, &place.path("4.png")]).output().unwrap())
}

fn plan() -> Plan {
    Plan { files: [("model.safetensors".to_owned(), DIGITS.to_vec())].into(), ..Plan::default() }
}

/// Weights that a network takes, all of them this number, as a safetensors file.
fn weights_of(architecture: Architecture, number: f32) -> Vec<u8> {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let maker = Weights::made_by("a list", {
        let asked = asked.clone();
        move |name, shape| {
            asked.lock().unwrap().push((name.to_owned(), shape.to_vec()));
            Some(vec![0.0; shape.iter().product()])
        }
    });
    architecture.build(&maker, &Device::Cpu).unwrap();
    let (mut header, mut bytes) = (serde_json::Map::new(), Vec::<u8>::new());
    for (name, shape) in asked.lock().unwrap().iter() {
        let (from, count) = (bytes.len(), shape.iter().product::<usize>());
        bytes.extend(number.to_le_bytes().repeat(count));
        let tensor = json!({ "dtype": "F32", "shape": shape, "data_offsets": [from, bytes.len()] });
        header.insert(name.clone(), tensor);
    }
    let header = serde_json::to_string(&header).unwrap();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes].concat()
}

#[test]
fn a_model_is_pulled_and_then_answers() {
    let (place, hub) = (Place::new(), FakeHub::new(plan()));
    let said = well(&pull(&place, &hub, &["--as", "mine"]));
    for line in [
        format!("{} bytes, SHA-256 {}", DIGITS.len(), sha256(DIGITS)),
        format!("commit {COMMIT}, licence of the weights: apache-2.0"),
        "model.safetensors: 100 %".to_owned(),
    ] {
        assert!(said.contains(&line), "{line} is not in\n{said}");
    }
    assert_eq!(fs::read(place.path("models/mine/1/model.safetensors")).unwrap(), DIGITS);
    let spec = place.read("mine/model.toml");
    assert!(spec.contains(&format!("# Pulled from {REPOSITORY}, model.safetensors at commit {COMMIT}.\n")), "{spec}");
    assert!(spec.contains("architecture = \"lenet\"\n\n[preprocess]\n"), "{spec}");
    assert_eq!(place.names(), ["mine"]);

    let list = program(&place, "http://nowhere.invalid", &["list", "--json"]).output().unwrap();
    let list: serde_json::Value = serde_json::from_str(&well(&list)).unwrap();
    assert_eq!(
        list,
        json!([{ "name": "mine", "version": 1, "architecture": "lenet", "input": [1, 28, 28], "classes": 10,
                 "size_bytes": DIGITS.len(), "state": "ready", "reason": null }])
    );
    let said = infer(&place, "mine");
    assert!(said.lines().nth(1).unwrap().ends_with("%  4"), "{said}");
}

#[test]
fn the_token_is_for_the_hub_and_not_for_its_store() {
    let (place, hub) = (Place::new(), FakeHub::new(Plan { token: Some("secret".to_owned()), ..plan() }));
    let ask = |token: Option<&str>| {
        let arguments = ["pull", REPOSITORY, "--architecture", "lenet", "--as", "mine"];
        let mut command = program(&place, &hub.endpoint(), &arguments);
        command.args(["--preprocess", &place.path("digit.toml")]);
        command.envs(token.map(|token| ("HF_TOKEN", token))).output().unwrap()
    };
    fails(&ask(None), &["does not show owner/digits.tv_in1k to strangers", "give a token in HF_TOKEN"]);
    fails(&ask(Some("old")), &["to the holder of this token", "whether the token in HF_TOKEN is valid"]);
    hub.at_front();
    let said = well(&ask(Some("secret")));
    assert!(!said.contains("secret") && said.contains("its 10 classes have no names there, so they are numbered"));
    assert_eq!(place.read("mine/labels.txt").lines().last(), Some("class 9"));
    let (front, store) = (hub.at_front(), hub.at_store());
    assert!(front.iter().all(|seen| seen.token.as_deref() == Some("secret")), "{front:?}");
    assert_eq!((store.len(), store[0].token.as_deref()), (1, None));

    // As it is stored by logging in.
    fs::create_dir(place.path("home")).unwrap();
    fs::write(place.path("home/token"), "secret\n").unwrap();
    fails(&ask(None), &["mine version 1 is there already: --version adds another one, --force replaces it"]);
    assert_eq!(hub.at_front(), [], "that is known without asking");
    fs::remove_dir_all(place.models()).unwrap();
    well(&ask(None));
}

#[test]
fn a_broken_download_goes_on_where_it_broke_off() {
    let (place, hub) = (Place::new(), FakeHub::new(Plan { breaks: [50_000, 30_000].into(), ..plan() }));
    let said = well(&pull(&place, &hub, &["--as", "mine"]));
    assert!(said.contains(&format!("broke off at 50000 of {} bytes", DIGITS.len())), "{said}");
    let ranges: Vec<_> = hub.at_store().into_iter().map(|seen| seen.range).collect();
    assert_eq!(ranges, [None, Some("bytes=50000-".to_owned()), Some("bytes=80000-".to_owned())]);
    assert_eq!(fs::read(place.path("models/mine/1/model.safetensors")).unwrap(), DIGITS);

    // The hub stays away: what has arrived waits, out of sight.
    hub.plan().breaks = [70_000, 0, 0, 0, 0].into();
    let arguments = ["--as", "other"];
    fails(&pull(&place, &hub, &arguments), &["broke off at 70000 of ", "the same command goes on from there"]);
    assert_eq!((place.part("other"), hub.plan().breaks.len()), (Some(70_000), 1));
    let listed = program(&place, "", &["list"]).output().unwrap();
    assert!(!text(&listed).contains("other"), "{}", text(&listed));
    hub.plan().breaks.clear();
    hub.at_store();
    let said = well(&pull(&place, &hub, &arguments));
    assert!(said.contains("model.safetensors: 70000 of "), "{said}");
    let ranges: Vec<_> = hub.at_store().into_iter().map(|seen| seen.range).collect();
    assert_eq!(ranges, [Some("bytes=70000-".to_owned())]);
    assert_eq!(fs::read(place.path("models/other/1/model.safetensors")).unwrap(), DIGITS);

    // A store that knows no ranges sends it all once more.
    (hub.plan().breaks, hub.plan().deaf) = ([60_000].into(), true);
    well(&pull(&place, &hub, &["--as", "third"]));
    assert_eq!(fs::read(place.path("models/third/1/model.safetensors")).unwrap(), DIGITS);
}

#[test]
fn what_arrives_damaged_is_deleted() {
    let (place, hub) = (Place::new(), FakeHub::new(Plan { lies: true, ..plan() }));
    let stated = sha256(b"something else");
    let found = sha256(DIGITS);
    fails(&pull(&place, &hub, &["--as", "mine"]), &["arrived damaged", &stated, &found, "pull it again"]);
    assert_eq!((place.part("mine"), place.names()), (None, Vec::new()));
    (hub.plan().lies, hub.plan().silent) = (false, true);
    fails(&pull(&place, &hub, &["--as", "mine"]), &["states no hash of model.safetensors"]);
    hub.plan().silent = false;
    well(&pull(&place, &hub, &["--as", "mine"]));
    assert_eq!(place.names(), ["mine"]);
}

#[test]
fn what_the_hub_refuses_is_said_with_its_remedy() {
    let (place, hub) = (Place::new(), FakeHub::new(plan()));
    let terms = format!("accept its terms at {}/{REPOSITORY}", hub.endpoint());
    hub.plan().gated = true;
    fails(&pull(&place, &hub, &[]), &["does not give owner/digits.tv_in1k to strangers", &terms]);
    hub.plan().gated = false;
    fails(&pull(&place, &hub, &["--revision", "v9"]), &["at revision v9: look at its name, and at --revision"]);
    let other = ["pull", "owner/nothing", "--architecture", "lenet"];
    fails(&program(&place, &hub.endpoint(), &other).output().unwrap(), &["has no owner/nothing at revision main"]);
    let file = ["--file", "weights.safetensors"];
    fails(&pull(&place, &hub, &file), &["no file weights.safetensors: name one with --file; it has model.safetensors"]);
    hub.plan().instead = Some((503, "busy"));
    fails(&pull(&place, &hub, &[]), &["cannot reach ", "the hub answered 503"]);
    hub.plan().instead = Some((200, "<html>sign in to this network</html>"));
    fails(&pull(&place, &hub, &[]), &["does not speak as a hub does"]);
    hub.plan().instead = Some((418, ""));
    fails(&pull(&place, &hub, &[]), &["answered 418"]);
    let closed = program(&place, "http://127.0.0.1:1", &["pull", "resnet18"]).output().unwrap();
    fails(&closed, &["cannot reach http://127.0.0.1:1: ", "refused", "HF_ENDPOINT"]);
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn what_was_asked_for_wrongly_is_said_before_anything_is_asked() {
    let (place, hub) = (Place::new(), FakeHub::new(plan()));
    let ask = |arguments: &[&str]| program(&place, &hub.endpoint(), &[&["pull"], arguments].concat()).output().unwrap();
    fails(&ask(&["resnet19"]), &["no model named `resnet19`", "resnet18, resnet34"]);
    fails(&ask(&[REPOSITORY]), &["say with --architecture what it is"]);
    fails(&ask(&[REPOSITORY, "--architecture", "lenot"]), &["unknown architecture `lenot`"]);
    fails(&ask(&["resnet18", "--architecture", "lenet"]), &["--architecture is for OWNER/REPOSITORY"]);
    fails(&ask(&["resnet18", "--revision", "../x"]), &["`../x` is no revision"]);
    fails(&ask(&["resnet18", "--file", "model.bin"]), &["no .safetensors file"]);
    fails(&ask(&["resnet18", "--labels", "/nowhere.txt"]), &["cannot read /nowhere.txt"]);
    assert_eq!(ask(&[]).status.code(), Some(2));
    let list = Command::new(env!("CARGO_BIN_EXE_adit-agent")).args(["pull", "--list"]).output().unwrap();
    let list = well(&list);
    let row = list.lines().find(|line| line.starts_with("resnet18 ")).unwrap_or(&list);
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(cells, ["resnet18", "resnet18", "timm/resnet18.tv_in1k", "BSD-3-Clause"]);
    let nowhere = Command::new(env!("CARGO_BIN_EXE_adit-agent")).args(["pull", "resnet18"]).output().unwrap();
    fails(&nowhere, &["Name the folder of models by --models"]);
    assert_eq!(hub.at_front(), []);
}

#[test]
fn a_disk_that_takes_no_more_is_said_and_nothing_is_lost() {
    let (place, hub) = (Place::new(), FakeHub::new(plan()));
    fs::write(place.models(), "a file where the folder should be").unwrap();
    fails(&pull(&place, &hub, &["--as", "mine"]), &["cannot create", "/models/.pull-mine"]);
    fs::remove_file(place.models()).unwrap();

    // A limit on files of 64 blocks stands for a disk that is full in the middle; its signal would end the program.
    let (sections, labels) = (place.path("digit.toml"), place.path("digit.txt"));
    let limited = Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 64; exec \"$@\"",
            "sh",
            env!("CARGO_BIN_EXE_adit-agent"),
            "pull",
            REPOSITORY,
        ])
        .args(["--architecture", "lenet", "--as", "mine", "--preprocess", &sections, "--labels", &labels])
        .args(["--models", &place.models()])
        .envs([("HF_ENDPOINT", hub.endpoint()), ("HF_HOME", place.path("home")), ("NO_PROXY", "*".to_owned())])
        .output()
        .unwrap();
    fails(&limited, &["cannot write", ".part: File too large"]);
    let kept = place.part("mine").unwrap();
    assert!(kept > 0 && kept < DIGITS.len() as u64, "{kept}");
    hub.at_store();
    well(&pull(&place, &hub, &["--as", "mine"]));
    assert_eq!(hub.at_store()[0].range, Some(format!("bytes={kept}-")));
}

#[test]
fn versions_are_added_and_replaced() {
    let (place, hub) = (Place::new(), FakeHub::new(plan()));
    well(&pull(&place, &hub, &["--as", "mine"]));
    let edited = place.read("mine/model.toml") + "\n[version_policy]\nall = true\n";
    fs::write(place.path("models/mine/model.toml"), &edited).unwrap();
    let said = well(&pull(&place, &hub, &["--as", "mine", "--version", "2"]));
    assert!(said.contains("model.toml and labels.txt are the ones that were there"), "{said}");
    assert_eq!(place.read("mine/model.toml"), edited);
    fails(&pull(&place, &hub, &["--as", "mine", "--version", "2"]), &["mine version 2 is there already"]);
    let other = ["pull", REPOSITORY, "--architecture", "resnet18", "--as", "mine", "--version", "3"];
    let other = program(&place, &hub.endpoint(), &other).output().unwrap();
    fails(&other, &["mine is there already, as a lenet: choose another name with --as"]);

    // Weights of another training take the place of the old ones.
    let blank = weights_of(Architecture::Lenet, 0.0);
    hub.plan().files.insert("model.safetensors".to_owned(), blank.clone());
    well(&pull(&place, &hub, &["--as", "mine", "--version", "2", "--force"]));
    assert_eq!(fs::read(place.path("models/mine/2/model.safetensors")).unwrap(), blank);
    assert_eq!(fs::read(place.path("models/mine/1/model.safetensors")).unwrap(), DIGITS);
    assert!(!place.read("mine/model.toml").contains("version_policy"));
}

#[test]
fn weights_that_do_not_fit_are_not_put_where_an_agent_looks() {
    let (place, hub) = (Place::new(), FakeHub::new(plan()));
    let wrong = ["pull", REPOSITORY, "--architecture", "squeezenet1_1_torchvision", "--as", "mine"];
    let config = r#"{"pretrained_cfg": {"input_size": [3, 224, 224], "interpolation": "bilinear", "crop_pct": 0.875,
        "mean": [0, 0, 0], "std": [1, 1, 1]}}"#;
    let ask = || program(&place, &hub.endpoint(), &wrong).output().unwrap();
    fails(&ask(), &["how pictures are prepared for this network is not known", "no config.json", "with --preprocess"]);
    hub.plan().files.insert("config.json".to_owned(), b"{}".to_vec());
    fails(&ask(), &["has no `pretrained_cfg`"]);
    hub.plan().files.insert("config.json".to_owned(), config.as_bytes().to_vec());
    fails(&ask(), &["the weights do not fit: ", "has no tensor `features.0.weight`"]);
    assert_eq!(place.names(), [".pull-mine"]);
}

#[test]
fn timm_says_itself_how_its_networks_are_asked() {
    let config = json!({
        "architecture": "squeezenet", "num_classes": 1000,
        "pretrained_cfg": {
            "tag": "tv_in1k", "input_size": [3, 224, 224], "interpolation": "bilinear", "crop_pct": 0.875,
            "crop_mode": "center", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "num_classes": 1000
        }
    });
    let weights = weights_of(Architecture::SqueezenetTorchvision, 0.01);
    let files = [("sub/model.safetensors".to_owned(), weights), ("config.json".to_owned(), config.to_string().into())];
    let (place, hub) = (Place::new(), FakeHub::new(Plan { files: files.into(), ..Plan::default() }));
    let arguments =
        ["pull", REPOSITORY, "--architecture", "squeezenet1_1_torchvision", "--file", "sub/model.safetensors"];
    well(&program(&place, &hub.endpoint(), &arguments).output().unwrap());
    let spec = place.read("digits.tv_in1k/model.toml");
    assert!(spec.contains("\nresize = { short_side = 256 }\n"), "{spec}");
    assert_eq!(place.read("digits.tv_in1k/labels.txt").lines().next(), Some("tench, Tinca tinca"));
    let said = infer(&place, "digits.tv_in1k");
    // All classes are alike to these weights.
    assert!(said.lines().nth(1).unwrap().contains("0.10 %  "), "{said}");
}

#[test]
fn a_name_of_the_catalogue_is_enough() {
    let weights = weights_of(Architecture::Resnet18, 0.001);
    let files = [("model.safetensors".to_owned(), weights.clone())];
    let repository = Some("timm/resnet18.tv_in1k".to_owned());
    let (place, hub) = (Place::new(), FakeHub::new(Plan { files: files.into(), repository, ..Plan::default() }));
    let said = well(&program(&place, &hub.endpoint(), &["pull", "resnet18"]).output().unwrap());
    assert!(
        said.contains("licence of the weights: BSD-3-Clause") && said.contains("--model resnet18 photo.jpg"),
        "{said}"
    );
    assert_eq!(fs::metadata(place.path("models/resnet18/1/model.safetensors")).unwrap().len(), weights.len() as u64);
    let list = well(&program(&place, "", &["list"]).output().unwrap());
    assert!(list.contains("resnet18        1  resnet18      3x224x224     1000  46.8 MB  ready"), "{list}");
}

#[test]
fn a_hub_is_asked_over_tls() {
    let (place, certs) = (Place::new(), tempfile::tempdir().unwrap());
    let store = Store::new(certs.path());
    store.init(&["127.0.0.1".parse().unwrap()], Validity::days(1), false).unwrap();
    let bundle = Bundle::https(&store.relay_folder());
    let mut tls = adit_certs::https_server(&bundle.certificate, &bundle.key).unwrap();
    // The hub of these tests speaks nothing newer.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let hub = FakeHub::with_tls(plan(), tls);
    let endpoint = format!("https://{}", hub.front);
    let arguments = ["pull", REPOSITORY, "--architecture", "lenet", "--preprocess", &place.path("digit.toml")];
    let ask = |authorities: &Path| {
        let mut command = program(&place, &endpoint, &arguments);
        command.env("SSL_CERT_FILE", authorities).output().unwrap()
    };
    let other = tempfile::tempdir().unwrap();
    let stranger = Store::new(other.path());
    stranger.init(&["127.0.0.1".parse().unwrap()], Validity::days(1), false).unwrap();
    fails(&ask(&Bundle::https(&stranger.relay_folder()).ca), &["cannot reach https://127.0.0.1:", "certificate"]);
    well(&ask(&bundle.ca));
}
