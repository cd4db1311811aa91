//! What is shipped beside the program: each file is read by the program it is for, or checked for what would hurt
//! somebody who takes it as it is; and what the documents promise has the tests they name.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::{
    standby::router::{program, shipped},
    support::{binary, folder},
};

/// What standin takes after its drain for what is left: threads that end, the store, admin.
const AFTER_DRAIN_S: u64 = 8;

#[test]
fn the_routers_accept_their_examples() {
    let folder = folder();
    let haproxy = write(&folder, "haproxy.cfg", &shipped("haproxy-standby.cfg"));
    succeeds(Command::new(program("haproxy")).args(["-c", "-f"]).arg(haproxy));
    let others = "proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;";
    let nginx = shipped("nginx-standby.conf").replace("proxy_temp_path         proxy;", others);
    let nginx = write(&folder, "nginx.conf", &nginx);
    let mut test = Command::new(program("nginx"));
    succeeds(test.args(["-t", "-e", "stderr", "-p"]).arg(folder.path()).arg("-c").arg(nginx));
}

#[test]
fn the_unit_gives_the_drain_its_time() {
    let unit = shipped("standin.service");
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {key}")).to_owned()
    };
    assert!(value("TimeoutStopSec").parse::<u64>().unwrap() > drain_s("") + AFTER_DRAIN_S);
    let files: u64 = value("LimitNOFILE").parse().unwrap();
    let clients = standin::config::Limits::default().connections as u64;
    assert!(files > 2 * clients, "a file for each client and one for its connection to the app");
    assert_eq!(value("LimitCORE"), "0");
    assert_eq!(value("WorkingDirectory"), format!("/var/lib/{}", value("StateDirectory")));

    let folder = folder();
    let there = unit.replace("/usr/local/bin/standin", binary().to_str().unwrap());
    let file = write(&folder, "standin.service", &there);
    match Command::new("systemd-analyze").arg("verify").arg(&file).output() {
        Ok(verified) => {
            let said = String::from_utf8_lossy(&verified.stderr);
            // Only what it says of this unit: it looks at the machine's own ones, too.
            let ours: Vec<&str> =
                said.lines().filter(|line| line.contains("standin.service")).collect();
            assert!(ours.is_empty(), "{ours:?}");
        }
        Err(error) => println!("not verified, no systemd-analyze: {error}"),
    }
}

#[test]
fn every_configuration_that_is_shipped_is_sound() {
    let mut configs = vec![
        ("standin.toml".to_owned(), shipped("standin.toml")),
        ("compose.toml".to_owned(), shipped("compose.toml")),
    ];
    configs.extend(MANIFESTS.map(|file| (file.to_owned(), config_of(&manifest(file)))));
    let folder = folder();
    for (name, text) in configs {
        let file = write(&folder, "standin.toml", &text);
        let checked = Command::new(binary()).arg("check").arg("-c").arg(file).output().unwrap();
        assert!(checked.status.success(), "{name}: {}", shown(&checked));
    }
}

#[test]
fn pods_end_after_their_drain_and_lose_nothing_they_keep() {
    for file in MANIFESTS {
        let documents = manifest(file);
        let config: toml::Table = config_of(&documents).parse().unwrap();
        let set = of_kind(&documents, "StatefulSet");
        let pod = &set["spec"]["template"]["spec"];
        let standin = standin_in(pod);

        let pause = standin["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap_or(0);
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        let drain = drain_s(config["drain"].as_str().unwrap());
        assert!(grace > pause + drain + AFTER_DRAIN_S, "{file}: {grace} s");

        let health = config["admin"]["health"].as_str().unwrap();
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let asked = &standin[probe]["httpGet"];
            let wanted = if probe == "readinessProbe" { "/readyz" } else { "/healthz" };
            assert_eq!(asked["path"], wanted, "{file}: {probe}");
            let port = port_of(standin, asked["port"].as_str().unwrap());
            assert!(health.ends_with(&format!(":{port}")), "{file}: {probe}");
        }
        let listen = config["listen"]["address"].as_str().unwrap();
        assert!(listen.ends_with(&format!(":{}", port_of(standin, "http"))), "{file}");

        // The store lies in a volume of the pod's own that outlives it; everything else is read-only.
        let store = Path::new(config["store"]["path"].as_str().unwrap());
        let mounted = array(&standin["volumeMounts"]).iter().find(|mount| {
            let here = mount["mountPath"].as_str().unwrap();
            store.starts_with(here) && mount["readOnly"] != true
        });
        let claims = array(&set["spec"]["volumeClaimTemplates"]);
        let name = &mounted.expect("the store lies in a volume")["name"];
        assert!(claims.iter().any(|claim| claim["metadata"]["name"] == *name), "{file}");
        let kept = &set["spec"]["persistentVolumeClaimRetentionPolicy"];
        assert_eq!(
            (kept["whenDeleted"].as_str(), kept["whenScaled"].as_str()),
            (Some("Retain"), Some("Retain"))
        );
        let max = config["store"]["max_bytes"].as_str().unwrap().trim_end_matches("GiB");
        let size = claims[0]["spec"]["resources"]["requests"]["storage"].as_str().unwrap();
        let size: u64 = size.trim_end_matches("Gi").parse().unwrap();
        assert!(size > max.parse::<u64>().unwrap(), "{file}: room for the log beside the file");

        let security = |key: &str| {
            let own = &standin["securityContext"][key];
            if own.is_null() { &pod["securityContext"][key] } else { own }
        };
        assert_eq!(security("runAsUser"), 65532, "{file}");
        assert_eq!(security("runAsNonRoot"), true, "{file}");
        assert_eq!(security("readOnlyRootFilesystem"), true, "{file}");
        assert_eq!(security("allowPrivilegeEscalation"), false, "{file}");
        assert_eq!(security("capabilities")["drop"][0], "ALL", "{file}");
        assert_eq!(pod["securityContext"]["fsGroup"], 65532, "{file}: the volume is writable");
    }
}

#[test]
fn services_and_budgets_find_their_pods() {
    for file in MANIFESTS {
        let documents = manifest(file);
        let set = of_kind(&documents, "StatefulSet");
        let labels = set["spec"]["template"]["metadata"]["labels"].as_object().unwrap();
        let chosen = |selector: &Value| {
            selector.as_object().unwrap().iter().all(|(key, value)| labels.get(key) == Some(value))
        };
        assert!(chosen(&set["spec"]["selector"]["matchLabels"]), "{file}");
        let services: Vec<&Value> =
            documents.iter().filter(|one| one["kind"] == "Service").collect();
        assert!(services.iter().all(|service| chosen(&service["spec"]["selector"])), "{file}");
        let standin = standin_in(&set["spec"]["template"]["spec"]);
        for port in services.iter().flat_map(|service| array(&service["spec"]["ports"])) {
            port_of(standin, port["targetPort"].as_str().unwrap());
        }
        let governing = &set["spec"]["serviceName"];
        assert!(services.iter().any(|service| service["metadata"]["name"] == *governing), "{file}");
        let replicas = set["spec"]["replicas"].as_u64().unwrap();
        let budget = documents.iter().find(|one| one["kind"] == "PodDisruptionBudget");
        assert_eq!(budget.is_some(), replicas > 1, "{file}: a budget of one pod would only block");
        if let Some(budget) = budget {
            assert!(chosen(&budget["spec"]["selector"]["matchLabels"]), "{file}");
        }
        if replicas > 1 {
            let sticky = |service: &&Value| service["spec"]["sessionAffinity"] == "ClientIP";
            assert!(services.iter().any(sticky), "{file}: keys reach one pod");
            let config: toml::Table = config_of(&documents).parse().unwrap();
            for (name, route) in config["route"].as_table().unwrap() {
                assert!(route.get("app_dedupes").is_some(), "{file}: {name} is not protected");
            }
        }
    }
}

#[test]
fn the_image_runs_as_nobody_and_is_built_with_our_toolchain() {
    let dockerfile = shipped("Dockerfile");
    let toolchain: toml::Table = repository("rust-toolchain.toml").parse().unwrap();
    let channel = toolchain["toolchain"]["channel"].as_str().unwrap();
    assert!(dockerfile.contains(&format!("FROM rust:{channel}-alpine")), "{channel}");
    assert!(dockerfile.contains(&format!("ENV RUSTUP_TOOLCHAIN={channel}\n")));
    let last = dockerfile.rsplit("\nFROM ").next().unwrap();
    assert!(last.contains("\nUSER 65532:65532\n"));
    assert!(
        last.contains("\nVOLUME /var/lib/standin\n")
            && last.contains("\nWORKDIR /var/lib/standin\n")
    );

    let compose = yaml("compose.yaml").remove(0);
    let service = &compose["services"]["standin"];
    assert_eq!(service["read_only"], true);
    assert_eq!(service["build"]["dockerfile"], "deploy/Dockerfile");
    let grace = service["stop_grace_period"].as_str().unwrap();
    assert!(drain_s(grace) > drain_s("") + AFTER_DRAIN_S);
    for volume in array(&service["volumes"]) {
        let (from, to) = volume.as_str().unwrap().split_once(':').unwrap();
        match from.strip_prefix("./") {
            Some(file) => assert!(!shipped(file).is_empty() && to.ends_with(":ro")),
            None => assert!(compose["volumes"].as_object().unwrap().contains_key(from)),
        }
    }
    // The shop of the example is the hidden command of the program.
    let shop = array(&compose["services"]["shop"]["command"]);
    let arguments: Vec<&str> = shop.iter().map(|word| word.as_str().unwrap()).collect();
    let mut help = Command::new(binary());
    let said = succeeds(help.arg(arguments[0]).arg("--help"));
    for option in arguments.iter().filter(|word| word.starts_with("--")) {
        assert!(said.contains(option), "{option}");
    }
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let text = repository("docs/GUARANTEES.md");
    let (promised, not_yet) = text.split_once("\n## Not promised yet").expect("both parts");
    let mut named = BTreeSet::new();
    for promise in promised.split("\n- ").skip(1) {
        let promise = promise.split("\n## ").next().unwrap();
        let tests: Vec<&str> =
            promise.split('`').skip(1).step_by(2).filter(|code| code.contains(".rs::")).collect();
        assert!(!tests.is_empty(), "no test is named by: {promise}");
        named.extend(tests);
    }
    assert!(named.len() >= 40, "only {} tests are named", named.len());
    for name in named {
        let (file, test) = name.split_once("::").unwrap();
        let test = test.rsplit("::").next().unwrap();
        let source = repository(file);
        let is_test = source.match_indices(&format!("fn {test}(")).any(|(at, _)| {
            // A test attribute, also that of a property test, among the lines right above it.
            let above = source[..at].rsplit_once('\n').map_or("", |(above, _)| above);
            let above = above.lines().rev().take(8);
            let mut own = above.take_while(|line| !line.trim().is_empty() && line.trim() != "}");
            own.any(|line| line.contains("#[test]") || line.contains("#[tokio::test"))
        });
        assert!(is_test, "docs/GUARANTEES.md names {name}, which is no test of {file}");
    }
    assert!(!not_yet.trim().is_empty());
}

#[test]
fn every_alert_is_explained() {
    let operations = repository("docs/OPERATIONS.md");
    let mut alerts = BTreeSet::new();
    for group in array(&yaml("alerts.yaml")[0]["groups"]) {
        for rule in array(&group["rules"]) {
            alerts.extend(rule["alert"].as_str().map(str::to_owned));
        }
    }
    assert!(!alerts.is_empty());
    let unexplained: Vec<_> =
        alerts.iter().filter(|alert| !operations.contains(&format!("`{alert}`"))).collect();
    assert!(unexplained.is_empty(), "docs/OPERATIONS.md says nothing of {unexplained:?}");
}

#[test]
fn decisions_are_numbered_and_have_their_parts() {
    let mut numbers = BTreeMap::new();
    for entry in std::fs::read_dir(root().join("docs/decisions")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let number: usize = name.split('-').next().unwrap().parse().unwrap();
        let text = repository(&format!("docs/decisions/{name}"));
        for part in ["\n## Context\n", "\n## Choice\n", "\n## What we gave up\n"] {
            assert!(text.contains(part), "{name} lacks{part}");
        }
        assert!(numbers.insert(number, name).is_none(), "{number} is there twice");
    }
    assert!(numbers.keys().copied().eq(1..=numbers.len()), "{numbers:?}");
}

const MANIFESTS: [&str; 3] = ["in-front.yaml", "sidecar.yaml", "standby.yaml"];

fn manifest(name: &str) -> Vec<Value> {
    let documents = yaml(name);
    for document in &documents {
        for key in ["apiVersion", "kind", "metadata"] {
            assert!(!document[key].is_null(), "{name}: {document}");
        }
    }
    documents
}

fn config_of(documents: &[Value]) -> String {
    of_kind(documents, "ConfigMap")["data"]["standin.toml"].as_str().unwrap().to_owned()
}

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    documents.iter().find(|document| document["kind"] == kind).unwrap()
}

/// The container of standin: one of the pod, or the sidecar.
fn standin_in(pod: &Value) -> &Value {
    let all = array(&pod["containers"]).iter().chain(array(&pod["initContainers"]));
    let standin = all.clone().find(|container| container["name"] == "standin").unwrap();
    let beside = array(&pod["initContainers"]).contains(standin);
    assert!(!beside || standin["restartPolicy"] == "Always", "else the app would never start");
    standin
}

fn port_of(container: &Value, name: &str) -> u64 {
    let port = array(&container["ports"]).iter().find(|port| port["name"] == name);
    port.unwrap_or_else(|| panic!("no port {name}"))["containerPort"].as_u64().unwrap()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Seconds of a drain as written, or of the default.
fn drain_s(written: &str) -> u64 {
    match written.strip_suffix('s') {
        Some(seconds) => seconds.parse().unwrap(),
        None => standin::config::Config::default().drain.as_secs(),
    }
}

/// All documents of a YAML file of deploy/, as JSON.
fn yaml(name: &str) -> Vec<Value> {
    const READ: &str = "import json, sys, yaml; \
                        print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let ours = root().join("target/venv/bin/python");
    let python = if ours.exists() { ours } else { "python3".into() };
    let file = root().join("deploy").join(name);
    let said = succeeds(Command::new(python).arg("-c").arg(READ).arg(file));
    serde_json::from_str(&said).unwrap()
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(done.status.success(), "{command:?}: {}", shown(&done));
    String::from_utf8(done.stdout).unwrap()
}

fn shown(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn write(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let file = folder.path().join(name);
    std::fs::write(&file, text).unwrap();
    file
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
#[track_caller]
fn repository(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}
