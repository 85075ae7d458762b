//! A models folder that changes while its agent serves.

use std::fs;
use std::path::{Path, PathBuf};

use adit_agent::config::Config;
use http::StatusCode;
use serde_json::{Value, json};

use crate::house::{House, json_image, one, stand_in, start};

const DIGITS: &str = include_str!("../../models/digits/model.toml");

/// The files of the built-in model.
fn built_in() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/digits")
}

/// Publishes a version as it should be done: whole, under its name.
fn publish(model: &Path, version: u64) {
    let beside = model.join("coming");
    fs::create_dir_all(&beside).unwrap();
    fs::copy(built_in().join("1/model.safetensors"), beside.join("model.safetensors")).unwrap();
    fs::rename(beside, model.join(version.to_string())).unwrap();
}

/// A house whose folder is looked at when a test says so, with `reader`, which has version 1.
async fn house(change: impl FnOnce(&mut Config)) -> (House, PathBuf) {
    let house = House::new(&[("reader", DIGITS)], |config| {
        let model = config.serving.models.clone().unwrap().join("reader");
        fs::copy(built_in().join("labels.txt"), model.join("labels.txt")).unwrap();
        publish(&model, 1);
        config.serving.watch = std::time::Duration::ZERO;
        config.serving.embedded = Some(false);
        config.local.control = true;
        change(config);
    })
    .await;
    let model = house.models.path().join("reader");
    (house, model)
}

impl House {
    async fn rescan(&self) {
        self.agent.serving().rescan().await.unwrap();
    }

    /// Version, state and reason of each version of a model.
    async fn index(&self, model: &str) -> Vec<(String, String, String)> {
        let index = self.post("/v2/repository/index", "").await.json();
        let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
        let entries = index.as_array().unwrap().iter().filter(|entry| entry["name"] == model);
        entries.map(|entry| (text(entry, "version"), text(entry, "state"), text(entry, "reason"))).collect()
    }

    async fn states(&self, model: &str) -> Vec<String> {
        self.index(model).await.into_iter().map(|(version, state, _)| format!("{version} {state}")).collect()
    }

    /// The version that answers, and the class it sees.
    async fn read(&self, path: &str) -> (String, usize) {
        let answer = self.post(&format!("/v2/models/reader{path}/infer"), json_image(&one(), "")).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let answer = answer.json();
        let row: Vec<f64> =
            answer["outputs"][0]["data"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
        let best = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
        (answer["model_version"].as_str().unwrap().to_owned(), best)
    }
}

#[tokio::test]
async fn a_new_version_takes_over_and_a_broken_one_does_not() {
    let (house, model) = house(|_| {}).await;
    assert_eq!(house.read("").await, ("1".to_owned(), 1));
    publish(&model, 2);
    house.rescan().await;
    assert_eq!(house.read("").await, ("2".to_owned(), 1));
    assert_eq!(house.states("reader").await, ["2 READY"]);

    // Half a copy.
    let whole = fs::read(built_in().join("1/model.safetensors")).unwrap();
    fs::create_dir(model.join("3")).unwrap();
    fs::write(model.join("3/model.safetensors"), &whole[..whole.len() / 2]).unwrap();
    house.rescan().await;
    assert_eq!(house.read("").await.0, "2");
    let index = house.index("reader").await;
    assert!(index[1].1 == "UNAVAILABLE" && index[1].2.contains("not a complete safetensors file"), "{index:?}");
    assert_eq!(house.metric("adit_agent_model_loads_failed_total").await, 1);
    house.rescan().await;
    assert_eq!(house.metric("adit_agent_model_loads_failed_total").await, 1, "not tried again as it is");
    // It grows, and then it is whole.
    fs::write(model.join("3/model.safetensors"), &whole).unwrap();
    house.rescan().await;
    house.rescan().await;
    assert_eq!(house.read("").await.0, "3");
    assert_eq!(house.states("reader").await, ["3 READY"]);

    // Written over while it is served, by rubbish: what is loaded goes on, and says so.
    fs::write(model.join("3/model.safetensors"), "rubbish").unwrap();
    house.rescan().await;
    assert_eq!(house.read("").await, ("3".to_owned(), 1));
    let index = house.index("reader").await;
    assert!(index[0].1 == "READY" && index[0].2.contains("served as it was loaded before"), "{index:?}");

    fs::remove_dir_all(&model).unwrap();
    house.rescan().await;
    assert_eq!(house.index("reader").await, []);
    assert_eq!(house.get("/v2/models/reader").await.status, StatusCode::NOT_FOUND);
    assert_eq!(house.metric("adit_agent_model_unloads_total").await, 3);
}

#[tokio::test]
async fn the_folder_is_looked_at_without_being_asked_to() {
    let (house, model) = house(|config| config.serving.watch = std::time::Duration::from_millis(20)).await;
    let mut catalogue = house.agent.serving().watch();
    publish(&model, 2);
    let ready = |version: u64| {
        move |catalogue: &adit_agent::serving::Catalogue| {
            catalogue.report().iter().map(|model| model.version.0).collect::<Vec<_>>() == [version]
                && catalogue.first_ready().is_some()
        }
    };
    tokio::time::timeout(crate::house::LIMIT, catalogue.wait_for(ready(2))).await.unwrap().unwrap();
    // A model of its own, and its labels elsewhere.
    fs::create_dir(house.models.path().join("another")).unwrap();
    fs::write(house.models.path().join("another/model.toml"), stand_in("0ms", "0ms", "0ms")).unwrap();
    let two =
        |catalogue: &adit_agent::serving::Catalogue| catalogue.report().len() == 2 && catalogue.first_ready().is_some();
    tokio::time::timeout(crate::house::LIMIT, catalogue.wait_for(two)).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_is_being_answered_is_answered_by_the_version_it_began_with() {
    let slow = stand_in("0ms", "0ms", "1h");
    let house = House::new(&[("slow", &slow)], |config| config.serving.watch = std::time::Duration::ZERO).await;
    let request = http::Request::post("/v2/models/slow/infer").header("content-type", "image/jpeg");
    let running = start(house.address(), request.body("image".into()).unwrap());
    house.begun(1).await;
    fs::write(house.models.path().join("slow/model.toml"), stand_in("0ms", "0ms", "0ms")).unwrap();
    house.rescan().await;
    // The old one still runs; the new one answers.
    let answer = house.post("/v2/models/slow/infer", json_image(b"image", "")).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert!(!running.is_finished());
    // A model that is taken away says that somebody still has it.
    fs::write(house.models.path().join("slow/model.toml"), &slow).unwrap();
    house.rescan().await;
    let request = http::Request::post("/v2/models/slow/infer").header("content-type", "image/jpeg");
    let held = start(house.address(), request.body("image".into()).unwrap());
    house.begun(3).await;
    fs::remove_dir_all(house.models.path().join("slow")).unwrap();
    house.rescan().await;
    assert_eq!(house.states("slow").await, ["1 UNLOADING"]);
    let refused = house.post("/v2/models/slow/infer", json_image(b"image", "")).await;
    assert!(refused.error().contains("it was unloaded"), "{refused:?}");
    let mut catalogue = house.agent.serving().watch();
    held.abort();
    running.abort();
    let gone = |catalogue: &adit_agent::serving::Catalogue| {
        catalogue.report().iter().all(|model| model.name.as_str() != "slow")
    };
    tokio::time::timeout(crate::house::LIMIT, catalogue.wait_for(gone)).await.unwrap().unwrap();
}

#[tokio::test]
async fn labels_stand_for_versions() {
    let (house, model) = house(|_| {}).await;
    publish(&model, 2);
    let labels =
        |text: &str| fs::write(model.join("model.toml"), format!("{DIGITS}[version_labels]\n{text}\n")).unwrap();
    labels("stable = 1\ncanary = 2");
    house.rescan().await;
    assert_eq!(house.read("/versions/stable").await.0, "1");
    assert_eq!(house.read("/versions/canary").await.0, "2");
    assert_eq!(house.read("").await.0, "2", "the newest");
    let metadata = house.get("/v2/models/reader/versions/stable").await.json();
    assert_eq!(metadata["parameters"], json!({ "label.canary": 2, "label.stable": 1 }));
    assert_eq!(metadata["versions"], json!(["1", "2"]));
    assert_eq!(house.get("/v2/models/reader/versions/stable/ready").await.status, StatusCode::OK);
    let unknown = house.post("/v2/models/reader/versions/staple/infer", json_image(&one(), "")).await;
    assert_eq!(
        (unknown.status, &*unknown.error()),
        (StatusCode::NOT_FOUND, "model `reader` has no version labelled `staple`")
    );
    labels("stable = 2");
    house.rescan().await;
    assert_eq!(house.read("/versions/stable").await.0, "2");
    assert_eq!(house.states("reader").await, ["2 READY"], "nobody names 1 any more");
}

#[tokio::test]
async fn models_are_loaded_and_unloaded_on_request() {
    let (house, model) = house(|_| {}).await;
    let order = async |what: &str, body: &'static str| house.post(&format!("/v2/repository/models/{what}"), body).await;
    let unloaded = order("reader/unload", r#"{"parameters":{"unload_dependents":false}}"#).await;
    assert_eq!((unloaded.status, &unloaded.body[..]), (StatusCode::OK, &b""[..]));
    assert_eq!(house.index("reader").await, [("1".into(), "UNAVAILABLE".into(), "unloaded on request".into())]);
    assert_eq!(
        house.post("/v2/models/reader/infer", json_image(&one(), "")).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    publish(&model, 2);
    house.rescan().await;
    assert_eq!(house.states("reader").await, ["2 UNAVAILABLE"], "a new version does not load it");
    assert_eq!(order("reader/load", "").await.status, StatusCode::OK);
    assert_eq!(house.read("").await.0, "2");

    fs::create_dir(model.join("3")).unwrap();
    fs::write(model.join("3/model.safetensors"), "rubbish").unwrap();
    let failed = order("reader/load", "{}").await;
    assert_eq!(failed.status, StatusCode::BAD_REQUEST);
    assert!(failed.error().contains("version 3: ") && failed.error().contains("safetensors"), "{}", failed.error());
    assert_eq!(house.read("").await.0, "2");

    for (what, body, status, because) in [
        ("nobody/load", "", 404, "unknown model `nobody`"),
        ("nobody/unload", "", 404, "unknown model `nobody`"),
        ("%2e%2e/load", "", 404, "unknown model `..`"),
        ("reader/load", "[", 400, "the JSON of the message is wrong"),
        ("reader/load", r#"{"parameters":{"config":"{}"}}"#, 400, "the parameter `config` is not taken"),
    ] {
        let refused = order(what, body).await;
        assert_eq!(refused.status.as_u16(), status, "{what}");
        assert!(refused.error().contains(because), "{}", refused.error());
    }
}

#[tokio::test]
async fn the_local_listener_changes_nothing_unless_it_may() {
    let (house, _) = house(|config| config.local.control = false).await;
    for what in ["load", "unload"] {
        let refused = house.post(&format!("/v2/repository/models/reader/{what}"), "").await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        assert!(refused.error().contains("[local] control"), "{}", refused.error());
    }
    assert_eq!(house.states("reader").await, ["1 READY"]);
}

#[tokio::test]
async fn a_changed_description_takes_effect_without_reading_weights() {
    let (house, model) = house(|_| {}).await;
    let label = |name: &str| {
        let names: Vec<_> = (0..10).map(|digit| format!("{name} {digit}")).collect();
        fs::write(model.join("other.txt"), names.join("\n")).unwrap();
    };
    let told = async || {
        let asked = json_image(&one(), r#","outputs":[{"name":"probabilities","parameters":{"classification":1}}]"#);
        let answer = house.post("/v2/models/reader/infer", asked).await.json();
        answer["outputs"][0]["data"][0].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    label("digit");
    fs::write(model.join("model.toml"), format!("labels = \"other.txt\"\n{DIGITS}")).unwrap();
    let loads = house.metric("adit_agent_model_loads_total").await;
    house.rescan().await;
    assert!(told().await.ends_with(":1:digit 1"), "{}", told().await);
    label("the number");
    house.rescan().await;
    assert!(told().await.ends_with(":1:the number 1"));
    assert_eq!(house.metric("adit_agent_model_loads_total").await, loads);

    // What is wrong with it is told, and the one before is in force.
    fs::write(model.join("model.toml"), "architecture = 7\n").unwrap();
    house.rescan().await;
    let index = house.index("reader").await;
    assert!(index[0].1 == "READY" && index[0].2.contains("model.toml:1:16"), "{index:?}");
    assert!(told().await.ends_with(":1:the number 1"));
    let few = format!("labels = \"few.txt\"\n{DIGITS}");
    fs::write(model.join("few.txt"), "one\ntwo").unwrap();
    fs::write(model.join("model.toml"), few).unwrap();
    house.rescan().await;
    let index = house.index("reader").await;
    assert!(index[0].1 == "READY" && index[0].2.contains("served as it was loaded before"), "{index:?}");
    assert!(told().await.ends_with(":1:the number 1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_asked_sleeps_when_memory_is_short_and_wakes_when_it_is() {
    let weights = fs::metadata(built_in().join("1/model.safetensors")).unwrap().len();
    let (house, model) = house(|config| {
        let root = config.serving.models.clone().unwrap();
        for name in ["b", "c"] {
            fs::create_dir(root.join(name)).unwrap();
            let spec = format!("versions = \"../reader\"\nlabels = \"../reader/labels.txt\"\n{DIGITS}");
            fs::write(root.join(name).join("model.toml"), spec).unwrap();
        }
        // Half precision on disk: room for two of the three.
        config.serving.memory = Some(weights * 5);
    })
    .await;
    assert!(model.is_dir());
    let asleep = async || {
        let index = house.post("/v2/repository/index", "").await.json();
        let sleeps = |entry: &&Value| entry["reason"].as_str().unwrap().starts_with("asleep");
        assert!(index.as_array().unwrap().iter().all(|entry| entry["state"] == "READY"), "{index}");
        let asleep: Vec<_> = index.as_array().unwrap().iter().filter(sleeps).collect();
        asleep.into_iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(asleep().await, ["b"], "the first that was loaded");
    assert_eq!(
        house.get("/v2/models/b").await.json()["outputs"][0]["shape"],
        json!([-1, 10]),
        "it is known all the same"
    );
    let ask = |name: &str| {
        let request = http::Request::post(format!("/v2/models/{name}/infer"));
        start(house.address(), request.body(json_image(&one(), "").into()).unwrap())
    };
    // Many at once wake it once.
    let evictions = house.metric("adit_agent_model_evictions_total").await;
    let many: Vec<_> = (0..8).map(|_| ask("b")).collect();
    for one in many {
        let answer = one.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    assert_eq!(asleep().await, ["c"]);
    assert_eq!(house.metric("adit_agent_model_evictions_total").await, evictions + 1);
    // All three at once, again and again: nobody is refused.
    let all: Vec<_> = (0..30).map(|number| ask(["b", "c", "reader"][number % 3])).collect();
    for one in all {
        let answer = one.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    assert_eq!(asleep().await.len(), 1);
}

#[tokio::test]
async fn what_can_never_fit_says_so() {
    let (house, _) = house(|config| config.serving.memory = Some(1000)).await;
    let index = house.index("reader").await;
    assert!(index[0].1 == "UNAVAILABLE" && index[0].2.contains("[serving] memory allows 1000"), "{index:?}");
    let refused = house.post("/v2/models/reader/infer", json_image(&one(), "")).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.error(), "model `reader` does not fit into the memory that models may take");
}
