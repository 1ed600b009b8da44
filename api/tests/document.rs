//! The published description of the API is what the code describes, and tells a client all it needs.

use std::{collections::BTreeMap, path::Path};

use api::limits::Class;
use axum::http::Method;
use jsonschema::Validator;
use serde_json::{Map, Value, json};

const PROBLEM_JSON: &str = "application/problem+json";

#[test]
fn the_published_document_is_the_one_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let generated = api::routes::document().to_pretty_json().expect("JSON") + "\n";
    if std::env::var_os("MEED_WRITE_OPENAPI").is_some() {
        std::fs::write(&file, &generated).expect("written");
    }
    let published = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        published == generated,
        "api/openapi.json is not what the code describes; if the change is meant, run this test \
         with MEED_WRITE_OPENAPI=1 and commit the file"
    );
}

/// What may be done at one address.
struct Call {
    name: String,
    method: Method,
    path: String,
    operation: Value,
}

impl Call {
    fn parameters(&self) -> Vec<&Value> {
        let parameters = self.operation["parameters"].as_array();
        parameters.into_iter().flatten().collect()
    }

    fn has_parameter(&self, name: &str) -> bool {
        self.parameters()
            .iter()
            .any(|parameter| parameter["name"] == name)
    }

    fn responses(&self) -> &Map<String, Value> {
        self.operation["responses"].as_object().expect("responses")
    }
}

struct Described {
    document: Value,
}

impl Described {
    fn new() -> Self {
        let document = serde_json::to_value(api::routes::document()).expect("JSON");
        assert_eq!(document["openapi"], "3.1.0");
        Self { document }
    }

    fn calls(&self) -> Vec<Call> {
        let paths = self.document["paths"].as_object().expect("paths");
        let calls: Vec<Call> = paths
            .iter()
            .flat_map(|(path, operations)| {
                let operations = operations.as_object().expect("operations");
                operations.iter().map(move |(method, operation)| {
                    let method = method.to_uppercase();
                    Call {
                        name: format!("{method} {path}"),
                        method: method.parse().expect("a method"),
                        path: path.clone(),
                        operation: operation.clone(),
                    }
                })
            })
            .collect();
        assert!(!calls.is_empty());
        calls
    }

    /// Checks values against a schema of the document, with their formats.
    fn validator(&self, schema: &Value) -> Validator {
        let schema = json!({ "allOf": [schema], "components": self.document["components"] });
        jsonschema::draft202012::options()
            .should_validate_formats(true)
            .build(&schema)
            .unwrap_or_else(|error| panic!("{error} in {schema}"))
    }

    /// The schema itself, where it is told by its name.
    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(reference) => self
                .document
                .pointer(reference.trim_start_matches('#'))
                .unwrap_or_else(|| panic!("{reference} leads nowhere")),
            None => schema,
        }
    }

    /// The examples of a parameter, a body or an answer: its own, or those of its schema.
    fn examples<'a>(&'a self, content: &'a Value) -> Vec<&'a Value> {
        if let Some(example) = content.get("example") {
            return vec![example];
        }
        if let Some(examples) = content["examples"].as_object() {
            return examples.values().map(|named| &named["value"]).collect();
        }
        let schema = self.resolved(&content["schema"]);
        match (schema.get("example"), schema["examples"].as_array()) {
            (Some(example), _) => vec![example],
            (None, Some(examples)) => examples.iter().collect(),
            (None, None) => Vec::new(),
        }
    }

    /// There is an example, and each is what its schema says.
    fn has_right_examples(&self, what: &str, content: &Value) {
        let examples = self.examples(content);
        assert!(!examples.is_empty(), "{what} has no example");
        let validator = self.validator(&content["schema"]);
        for example in examples {
            let wrong: Vec<String> = validator
                .iter_errors(example)
                .map(|error| format!("{error} at {}", error.instance_path()))
                .collect();
            assert!(wrong.is_empty(), "{what}: {wrong:?} in {example}");
        }
    }
}

#[test]
fn every_call_says_what_it_does_under_a_name_of_its_own() {
    let described = Described::new();
    let tags: Vec<&Value> = described.document["tags"]
        .as_array()
        .expect("tags")
        .iter()
        .map(|tag| &tag["name"])
        .collect();
    let mut names = BTreeMap::new();
    for call in described.calls() {
        let Call {
            name, operation, ..
        } = &call;
        let summary = operation["summary"].as_str().unwrap_or_default();
        assert!(!summary.is_empty(), "{name} says what it does");
        let of_call = operation["tags"].as_array().map_or(&[][..], Vec::as_slice);
        assert_eq!(of_call.len(), 1, "{name} has one tag");
        assert!(tags.contains(&&of_call[0]), "{name}: {of_call:?}");
        let id = operation["operationId"].as_str().unwrap_or_default();
        assert!(
            id.starts_with(|c: char| c.is_ascii_lowercase())
                && id.chars().all(|c| c.is_ascii_alphanumeric()),
            "{name} is {id:?}, which generated clients cannot all use"
        );
        if let Some(other) = names.insert(id.to_owned(), name.clone()) {
            panic!("{name} and {other} are both {id}");
        }
    }
}

#[test]
fn every_call_has_examples_that_its_schemas_allow() {
    let described = Described::new();
    for call in described.calls() {
        let name = &call.name;
        for parameter in call.parameters() {
            let what = format!("{name}, {}", parameter["name"]);
            if parameter["required"] == true || parameter.get("example").is_some() {
                described.has_right_examples(&what, parameter);
            }
        }
        let bodies = call.operation["requestBody"]["content"].as_object();
        for (kind, content) in bodies.into_iter().flatten() {
            described.has_right_examples(&format!("{name}, request, {kind}"), content);
        }
        let mut successes = 0;
        for (status, response) in call.responses() {
            let contents = response["content"].as_object();
            successes += usize::from(status.starts_with('2') || status == "101");
            let is_empty = ["101", "204"].contains(&status.as_str());
            assert!(contents.is_some() || is_empty, "{name}, {status}");
            for (kind, content) in contents.into_iter().flatten() {
                described.has_right_examples(&format!("{name}, {status}, {kind}"), content);
            }
        }
        assert!(successes > 0, "{name} may succeed");
    }
}

#[test]
fn the_examples_of_all_schemas_are_right() {
    let described = Described::new();
    let schemas = described.document["components"]["schemas"].as_object();
    let mut seen = 0;
    for (name, schema) in schemas.expect("schemas") {
        let content = json!({ "schema": schema });
        if !described.examples(&content).is_empty() {
            described.has_right_examples(name, &content);
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} have one");
}

fn is_a_code(code: &Value) -> bool {
    code.as_str().is_some_and(|code| {
        !code.is_empty() && code.chars().all(|c| c.is_ascii_uppercase() || c == '_')
    })
}

#[test]
fn every_call_says_what_can_go_wrong() {
    let described = Described::new();
    for call in described.calls() {
        let name = &call.name;
        let security = call.operation["security"].as_array();
        let security = security.unwrap_or_else(|| panic!("{name} says who may"));
        let mut expected = Vec::new();
        let needs = |scheme: &str| security.iter().any(|way| way.get(scheme).is_some());
        if needs("token") {
            expected.extend(["401", "403"]);
        }
        if needs("clientSecret") || needs("merchantSignature") {
            expected.push("401");
        }
        if Class::of_route(&call.method, &call.path).is_some() {
            expected.extend(["429", "500", "503"]);
        }
        if call.operation.get("requestBody").is_some() {
            expected.extend(["400", "408", "413"]);
        }
        if call.has_parameter("Idempotency-Key") {
            expected.extend(["400", "409", "422"]);
        }
        if call.parameters().iter().any(|p| p["in"] == "query") {
            expected.push("400");
        }
        if call.path.contains('{') {
            expected.push("404");
        }
        for status in expected {
            assert!(call.responses().contains_key(status), "{name}, {status}");
        }
        for (status, response) in call.responses() {
            let is_told_otherwise = match call.path.as_str() {
                // RFC 6749, section 5.2, has errors of its own.
                "/oauth/token" => ["400", "401"].contains(&status.as_str()),
                "/health/ready" => true,
                _ => false,
            };
            if status.starts_with(['1', '2']) || is_told_otherwise {
                continue;
            }
            let content = &response["content"][PROBLEM_JSON];
            assert!(content.is_object(), "{name}, {status} is a problem");
            for example in described.examples(content) {
                let said = example["status"].to_string();
                assert_eq!(&said, status, "{name}: {example}");
                assert!(is_a_code(&example["code"]), "{name}: {example}");
            }
            if ["429", "503"].contains(&status.as_str()) && content.get("example").is_some() {
                assert!(
                    response["headers"]["Retry-After"].is_object(),
                    "{name}, {status} says when to try again"
                );
            }
        }
    }
}
