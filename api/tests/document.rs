//! The published description of the API is what the code describes.

use std::path::Path;

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

#[test]
fn every_call_says_who_may_make_it_and_what_can_go_wrong() {
    let document = serde_json::to_value(api::routes::document()).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let said = operation["summary"]
                .as_str()
                .is_some_and(|summary| !summary.is_empty());
            assert!(said, "{method} {path} says what it does");
            if path.starts_with("/api/") {
                assert!(
                    operation["security"].is_array(),
                    "{method} {path} says who may"
                );
                let open = operation["security"] == serde_json::json!([{}]);
                let refuses = operation["responses"]["401"].is_object();
                assert!(open || refuses, "{method} {path}");
            }
        }
    }
}
