//! The message contracts: `asyncapi.yaml`, the schemas, the topics and the sample day
//! say the same, and no change of a schema breaks those who rely on the released one.

mod compatibility;
mod published;
mod second_opinion;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use compatibility::{Direction, breaking_changes};
use jsonschema::Validator;
use samples::feed::{self, Delivery};
use samples::recompute::{Recomputation, Verdict};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads a schema file and puts what its references point to in their place.
fn schema(path: &Path) -> Value {
    let raw: Value = serde_json::from_str(&text(path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut schema = expand(&raw, &|reference| {
        let pointer = reference
            .strip_prefix('#')
            .expect("schemas refer to themselves only");
        raw.pointer(pointer)
            .expect("the reference leads somewhere")
            .clone()
    });
    schema
        .as_object_mut()
        .expect("a schema is an object")
        .remove("$defs");
    schema
}

/// Replaces every `$ref` by what it refers to; what stands beside it is kept.
fn expand(value: &Value, resolve: &dyn Fn(&str) -> Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut expanded = serde_json::Map::new();
            if let Some(Value::String(reference)) = fields.get("$ref")
                && let Value::Object(target) = expand(&resolve(reference), resolve)
            {
                expanded.extend(target);
            }
            for (name, field) in fields.iter().filter(|(name, _)| *name != "$ref") {
                expanded.insert(name.clone(), expand(field, resolve));
            }
            Value::Object(expanded)
        }
        Value::Array(items) => items.iter().map(|item| expand(item, resolve)).collect(),
        other => other.clone(),
    }
}

fn schema_files(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect()
}

fn validator(schema: &Value) -> Validator {
    let mut schema = schema.clone();
    // Schemas put inside another one must not claim an address of their own.
    strip_ids(&mut schema);
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap_or_else(|error| panic!("{error}: {schema}"))
}

fn strip_ids(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("$id");
            fields.remove("$schema");
            fields.values_mut().for_each(strip_ids);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_ids),
        _ => {}
    }
}

fn asyncapi() -> Value {
    yaml_serde::from_str(&text(&root().join("asyncapi.yaml"))).expect("asyncapi.yaml is YAML")
}

/// One message of one channel, with its references replaced.
struct Contract {
    topic: String,
    name: String,
    /// Both for what Meed writes and reads.
    directions: BTreeSet<Direction>,
    headers: Value,
    payload: Value,
    examples: Vec<Value>,
    /// The schema files it is made of.
    files: BTreeSet<String>,
}

fn contracts() -> Vec<Contract> {
    let api = asyncapi();
    let at = |reference: &str| -> Value {
        let pointer = reference
            .strip_prefix('#')
            .expect("a reference inside the file");
        api.pointer(pointer)
            .unwrap_or_else(|| panic!("{reference} leads nowhere"))
            .clone()
    };
    let mut directions: BTreeMap<String, BTreeSet<Direction>> = BTreeMap::new();
    for (name, operation) in object(&api["operations"]) {
        let direction = match operation["action"].as_str() {
            Some("receive") => Direction::Inbound,
            Some("send") => Direction::Outbound,
            other => panic!("operation {name} has action {other:?}"),
        };
        let channel = operation["channel"]["$ref"].as_str().expect("a channel");
        // Those of its messages that it names, or all.
        let named = operation["messages"].as_array().map(|messages| {
            let names = messages
                .iter()
                .map(|m| m["$ref"].as_str().expect("a message"));
            names.map(str::to_owned).collect()
        });
        let all = || {
            let described = at(channel);
            object(&described["messages"])
                .keys()
                .map(|name| format!("{channel}/messages/{name}"))
                .collect()
        };
        let messages: Vec<String> = named.unwrap_or_else(all);
        for message in messages {
            directions.entry(message).or_default().insert(direction);
        }
    }
    let mut contracts = Vec::new();
    for (key, channel) in object(&api["channels"]) {
        for (name, message) in object(&channel["messages"]) {
            let message = at(message["$ref"].as_str().expect("messages are components"));
            let mut files = BTreeSet::new();
            collect_files(&message, &mut files);
            let inline = |part: &str| {
                expand(&message[part], &|reference| {
                    let file = reference.strip_prefix("./").expect("a file of schemas/");
                    schema(&root().join(file))
                })
            };
            contracts.push(Contract {
                topic: channel["address"].as_str().expect("an address").to_owned(),
                name: name.clone(),
                directions: directions[&format!("#/channels/{key}/messages/{name}")].clone(),
                headers: inline("headers"),
                payload: inline("payload"),
                examples: message["examples"].as_array().cloned().unwrap_or_default(),
                files,
            });
        }
    }
    contracts
}

fn object(value: &Value) -> &serde_json::Map<String, Value> {
    value
        .as_object()
        .unwrap_or_else(|| panic!("not an object: {value}"))
}

fn collect_files(value: &Value, files: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match (name.as_str(), field.as_str()) {
                    ("$ref", Some(reference)) => {
                        files.extend(reference.strip_prefix("./schemas/").map(str::to_owned));
                    }
                    _ => collect_files(field, files),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_files(item, files)),
        _ => {}
    }
}

#[test]
fn every_schema_compiles_and_every_example_holds() {
    let folder = root().join("schemas");
    for file in schema_files(&folder) {
        let raw: Value = serde_json::from_str(&text(&folder.join(&file))).expect("JSON");
        assert!(jsonschema::draft202012::meta::is_valid(&raw), "{file}");
        validator(&schema(&folder.join(&file)));
    }
    for contract in contracts() {
        let payload = validator(&contract.payload);
        let headers = validator(&contract.headers);
        assert!(
            !contract.examples.is_empty(),
            "{} has no example",
            contract.topic
        );
        for example in &contract.examples {
            let place = format!("{}, {}", contract.topic, example["name"]);
            if let Err(error) = payload.validate(&example["payload"]) {
                panic!("{place}: {error} at {}", error.instance_path());
            }
            if let Some(given) = example.get("headers")
                && let Err(error) = headers.validate(given)
            {
                panic!("{place}, headers: {error}");
            }
        }
    }
}

/// What is promised to readers is said in full: each field is required or has a reason
/// not to be, and each says what it means.
#[test]
fn outbound_fields_are_described() {
    for contract in contracts() {
        let read_here = contract.directions.contains(&Direction::Inbound);
        if !read_here && contract.topic != "dead-letter" {
            described(&contract.topic, &contract.payload);
        }
    }
}

fn described(place: &str, schema: &Value) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    for (name, property) in properties {
        let place = format!("{place}, {name}");
        assert!(
            property.get("description").is_some(),
            "{place} is not described"
        );
        assert!(property.get("type").is_some(), "{place} has no type");
        described(&place, property);
        if let Some(items) = property.get("items") {
            described(&place, items);
        }
    }
}

/// Reasons to refuse that no schema can see: they hang on the clock, on what came before,
/// on the size in bytes or on the rates of the programme.
const BEYOND_A_SCHEMA: [&str; 4] = [
    "TIMESTAMP_IN_FUTURE",
    "BODY_CONFLICT",
    "PAYLOAD_TOO_LARGE",
    "UNKNOWN_CURRENCY",
];

#[test]
fn the_sample_day_keeps_and_breaks_the_contracts_as_it_should() {
    struct Reader {
        headers: Validator,
        payload: Validator,
    }
    let mut readers: BTreeMap<(String, bool), Reader> = BTreeMap::new();
    for contract in contracts() {
        let reader = Reader {
            headers: validator(&contract.headers),
            payload: validator(&contract.payload),
        };
        readers.insert((contract.topic, contract.name == "structured"), reader);
    }
    let mut pass = Recomputation::default();
    let deliveries = feed::read(&feed::committed_sample()).expect("the sample can be read");
    let mut refused = 0;
    for (line, delivery) in deliveries.iter().enumerate() {
        let reader = &readers[&(delivery.topic.clone(), is_structured(delivery))];
        let place = format!("line {} on {}", line + 1, delivery.topic);
        let value = serde_json::from_slice::<Value>(&delivery.value).ok();
        match pass.take(delivery) {
            Verdict::DeadLetter(class) if BEYOND_A_SCHEMA.contains(&class) => {}
            Verdict::DeadLetter(class) => {
                let valid = value.is_some_and(|value| reader.payload.is_valid(&value));
                assert!(!valid, "{place} is {class} and yet satisfies its schema");
                refused += 1;
            }
            _ => {
                let value = value.unwrap_or_else(|| panic!("{place} is no JSON"));
                if let Err(error) = reader.payload.validate(&value) {
                    panic!("{place}: {error} at {}", error.instance_path());
                }
                let headers = serde_json::to_value(&delivery.headers).expect("headers are text");
                assert!(reader.headers.is_valid(&headers), "{place}: {headers}");
            }
        }
    }
    assert!(refused > 500, "only {refused} malformed messages");
}

fn is_structured(delivery: &Delivery) -> bool {
    delivery
        .headers
        .get("content-type")
        .is_some_and(|kind| kind.starts_with("application/cloudevents+json"))
}

#[test]
fn no_released_schema_is_broken() {
    let mut directions: BTreeMap<String, BTreeSet<Direction>> = BTreeMap::new();
    for contract in contracts() {
        for file in contract.files {
            directions
                .entry(file)
                .or_default()
                .extend(contract.directions.iter().copied());
        }
    }
    let folder = root().join("schemas");
    let in_use: BTreeSet<String> = directions.keys().cloned().collect();
    assert_eq!(
        schema_files(&folder),
        in_use,
        "asyncapi.yaml uses every schema"
    );

    let released = folder.join("released");
    let mut broken = Vec::new();
    for file in schema_files(&released) {
        let Some(directions) = directions.get(&file) else {
            broken.push(format!("{file} was released and is gone"));
            continue;
        };
        for direction in directions {
            let before = schema(&released.join(&file));
            let now = schema(&folder.join(&file));
            for change in breaking_changes(*direction, &before, &now) {
                broken.push(format!("{file}{change}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_topics_are_the_channels() {
    let declared: toml::Table =
        toml::from_str(&text(&root().join("deploy/kafka/topics.toml"))).expect("TOML");
    let topics: BTreeSet<String> = declared["topics"]
        .as_array()
        .expect("a list of topics")
        .iter()
        .map(|topic| topic["name"].as_str().expect("a name").to_owned())
        .collect();
    let channels: BTreeSet<String> = contracts()
        .into_iter()
        .map(|contract| contract.topic)
        .collect();
    assert_eq!(topics, channels);
}
