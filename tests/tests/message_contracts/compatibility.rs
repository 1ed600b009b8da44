//! Whether one version of a JSON Schema can stand in for another.
//!
//! A reader's schema may only widen and a writer's only narrow, so both questions are
//! one: does everything that satisfies the narrower schema satisfy the wider one? The
//! check knows the keywords that our schemas use and reports any other, so that a new
//! keyword cannot slip a change past it. It may refuse a harmless change; it must not
//! let a harmful one through.

use serde_json::Value;

/// Who depends on the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Others send: what they were allowed to send must still be accepted.
    Inbound,
    /// Others read: what is sent now must be what they were promised.
    Outbound,
}

/// What of the change from `released` to `current` would break the other side.
/// Both must be free of references.
pub fn breaking_changes(direction: Direction, released: &Value, current: &Value) -> Vec<String> {
    let (wide, narrow) = match direction {
        Direction::Inbound => (current, released),
        Direction::Outbound => (released, current),
    };
    let mut comparison = Comparison {
        direction,
        found: Vec::new(),
    };
    comparison.compare("", wide, narrow);
    comparison.found
}

const ANNOTATIONS: [&str; 8] = [
    "$schema",
    "$id",
    "$defs",
    "$comment",
    "title",
    "description",
    "examples",
    "x-open-enum",
];
const LOWER_BOUNDS: [&str; 5] = [
    "minimum",
    "exclusiveMinimum",
    "minLength",
    "minItems",
    "minProperties",
];
const UPPER_BOUNDS: [&str; 5] = [
    "maximum",
    "exclusiveMaximum",
    "maxLength",
    "maxItems",
    "maxProperties",
];
/// Compared for equality: whether one pattern contains another is not decided here.
const EXACT: [&str; 3] = ["pattern", "format", "multipleOf"];
const STRUCTURE: [&str; 8] = [
    "type",
    "enum",
    "const",
    "required",
    "properties",
    "items",
    "oneOf",
    "additionalProperties",
];

struct Comparison {
    direction: Direction,
    found: Vec<String>,
}

impl Comparison {
    fn compare(&mut self, path: &str, wide: &Value, narrow: &Value) {
        self.keywords(path, wide);
        self.keywords(path, narrow);
        self.types(path, wide, narrow);
        self.values(path, wide, narrow);
        self.limits(path, wide, narrow);
        self.required(path, wide, narrow);
        self.properties(path, wide, narrow);
        self.branches(path, wide, narrow);
        if let Some(items) = wide.get("items") {
            let path = format!("{path}/items");
            self.compare(
                &path,
                items,
                narrow.get("items").unwrap_or(&Value::Bool(true)),
            );
        }
        if wide.get("additionalProperties") == Some(&Value::Bool(false))
            && narrow.get("additionalProperties") != Some(&Value::Bool(false))
        {
            self.report(path, "unknown fields are refused on one side only");
        }
    }

    fn report(&mut self, path: &str, what: &str) {
        let path = if path.is_empty() { "/" } else { path };
        let side = match self.direction {
            Direction::Inbound => "senders",
            Direction::Outbound => "readers",
        };
        self.found
            .push(format!("{path}: {what} ({side} would break)"));
    }

    fn keywords(&mut self, path: &str, schema: &Value) {
        let Some(fields) = schema.as_object() else {
            return;
        };
        for keyword in fields.keys().map(String::as_str) {
            let known = [
                &ANNOTATIONS[..],
                &LOWER_BOUNDS,
                &UPPER_BOUNDS,
                &EXACT,
                &STRUCTURE,
            ];
            if !known.iter().any(|known| known.contains(&keyword)) {
                self.report(path, &format!("the keyword {keyword} is not understood"));
            }
        }
    }

    fn types(&mut self, path: &str, wide: &Value, narrow: &Value) {
        let allowed = types(wide);
        if allowed.is_empty() {
            return;
        }
        let used = types(narrow);
        let fits = |used: &String| {
            allowed.contains(used) || (used == "integer" && allowed.iter().any(|t| t == "number"))
        };
        if used.is_empty() || !used.iter().all(fits) {
            self.report(path, &format!("type {used:?} is not within {allowed:?}"));
        }
    }

    fn values(&mut self, path: &str, wide: &Value, narrow: &Value) {
        let Some(allowed) = values(wide) else { return };
        match values(narrow) {
            None => self.report(path, "any value where only listed ones were expected"),
            Some(used) => {
                for value in used.iter().filter(|value| !allowed.contains(value)) {
                    self.report(path, &format!("the value {value} is not among {allowed:?}"));
                }
            }
        }
    }

    fn limits(&mut self, path: &str, wide: &Value, narrow: &Value) {
        // A constant has no bounds of its own: it is its own lower and upper bound.
        let constant = narrow.get("const").and_then(Value::as_f64);
        let bound = |schema: &Value, keyword: &str| schema.get(keyword).and_then(Value::as_f64);
        for keyword in LOWER_BOUNDS {
            if let Some(wide) = bound(wide, keyword)
                && bound(narrow, keyword)
                    .or(constant)
                    .is_none_or(|narrow| narrow < wide)
            {
                self.report(
                    path,
                    &format!("{keyword} is not at least {wide} on both sides"),
                );
            }
        }
        for keyword in UPPER_BOUNDS {
            if let Some(wide) = bound(wide, keyword)
                && bound(narrow, keyword)
                    .or(constant)
                    .is_none_or(|narrow| narrow > wide)
            {
                self.report(
                    path,
                    &format!("{keyword} is not at most {wide} on both sides"),
                );
            }
        }
        for keyword in EXACT {
            if let Some(wide) = wide.get(keyword)
                && narrow.get(keyword) != Some(wide)
            {
                self.report(path, &format!("{keyword} is not {wide} on both sides"));
            }
        }
    }

    fn required(&mut self, path: &str, wide: &Value, narrow: &Value) {
        let given = required(narrow);
        for field in required(wide) {
            if !given.contains(&field) {
                self.report(path, &format!("{field} is required on one side only"));
            }
        }
    }

    fn properties(&mut self, path: &str, wide: &Value, narrow: &Value) {
        let Some(properties) = wide.get("properties").and_then(Value::as_object) else {
            return;
        };
        for (name, wide) in properties {
            let path = format!("{path}/{name}");
            match narrow.get("properties").and_then(|fields| fields.get(name)) {
                Some(narrow) => self.compare(&path, wide, narrow),
                None if self.direction == Direction::Outbound => {
                    self.report(&path, "the field is gone");
                }
                // A new field that senders may leave out; a required one is reported above.
                None => {}
            }
        }
    }

    /// Every branch of the narrower schema needs one of the wider to go into.
    fn branches(&mut self, path: &str, wide: &Value, narrow: &Value) {
        let Some(targets) = wide.get("oneOf").and_then(Value::as_array) else {
            return;
        };
        let whole = [narrow.clone()];
        let branches = narrow
            .get("oneOf")
            .and_then(Value::as_array)
            .map_or(&whole[..], Vec::as_slice);
        for (index, branch) in branches.iter().enumerate() {
            let goes_into = |target: &Value| {
                let mut trial = Comparison {
                    direction: self.direction,
                    found: Vec::new(),
                };
                trial.compare(path, target, branch);
                trial.found
            };
            let mut trials: Vec<Vec<String>> = targets.iter().map(goes_into).collect();
            trials.sort_by_key(Vec::len);
            if let Some(closest) = trials.first().filter(|closest| !closest.is_empty()) {
                let name = branch.get("title").and_then(Value::as_str).unwrap_or("");
                let why = closest.join("; ");
                self.report(
                    path,
                    &format!("branch {index} {name} has no counterpart: {why}"),
                );
            }
        }
    }
}

fn types(schema: &Value) -> Vec<String> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(several)) => several
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => values(schema)
            .unwrap_or_default()
            .into_iter()
            .map(|value| match value {
                Value::String(_) => "string",
                Value::Number(number) if number.is_f64() => "number",
                Value::Number(_) => "integer",
                Value::Bool(_) => "boolean",
                Value::Null => "null",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
            })
            .map(str::to_owned)
            .collect(),
    }
}

fn values(schema: &Value) -> Option<Vec<&Value>> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(one), _) => Some(vec![one]),
        (None, Some(several)) => several.as_array().map(|values| values.iter().collect()),
        (None, None) => None,
    }
}

fn required(schema: &Value) -> Vec<&str> {
    schema
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

mod tests {
    use super::Direction::{Inbound, Outbound};
    use super::*;
    use serde_json::json;

    fn released() -> Value {
        json!({
            "type": "object",
            "required": ["id", "points"],
            "properties": {
                "id": {"type": "string", "maxLength": 128},
                "points": {"type": "integer", "minimum": 0},
                "status": {"type": "string", "enum": ["SUCCESS", "FAILED"]},
                "reason": {"type": "string", "x-open-enum": ["CANCELLED"]},
                "at": {"type": "string", "format": "date-time"},
                "lines": {"type": "array", "items": {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string"}}}}
            },
            "oneOf": [
                {"title": "ok", "properties": {"status": {"const": "SUCCESS"}}},
                {"title": "not", "required": ["reason"], "properties": {"status": {"const": "FAILED"}}}
            ]
        })
    }

    /// Puts `value` at a JSON pointer of the released schema, or takes it away.
    fn changed(pointer: &str, value: Option<Value>) -> Value {
        let mut schema = released();
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer has a slash");
        let parent = schema.pointer_mut(parent).expect("the parent is there");
        match (parent, value) {
            (Value::Object(fields), Some(value)) => drop(fields.insert(name.to_owned(), value)),
            (Value::Object(fields), None) => drop(fields.remove(name).expect("the field is there")),
            (Value::Array(items), Some(value)) => items.push(value),
            (parent, _) => panic!("{parent} cannot be changed"),
        }
        schema
    }

    #[test]
    fn a_schema_can_stand_in_for_itself() {
        for direction in [Inbound, Outbound] {
            assert_eq!(
                breaking_changes(direction, &released(), &released()),
                Vec::<String>::new()
            );
        }
    }

    #[test]
    fn each_change_breaks_the_side_that_it_should() {
        let any = json!({"type": "string"});
        // The change, whether it breaks senders, whether it breaks readers.
        let cases = [
            ("/required", Some(json!(["id"])), false, true),
            (
                "/required",
                Some(json!(["id", "points", "at"])),
                true,
                false,
            ),
            ("/properties/id/type", Some(json!("integer")), true, true),
            (
                "/properties/points/type",
                Some(json!("number")),
                false,
                true,
            ),
            (
                "/properties/points/type",
                Some(json!(["integer", "null"])),
                false,
                true,
            ),
            ("/properties/points/type", Some(json!("string")), true, true),
            ("/properties/id/type", None, false, true),
            ("/properties/id/maxLength", Some(json!(64)), true, false),
            ("/properties/id/maxLength", Some(json!(256)), false, true),
            ("/properties/id/maxLength", None, false, true),
            ("/properties/points/minimum", Some(json!(1)), true, false),
            ("/properties/points/minimum", Some(json!(-1)), false, true),
            (
                "/properties/id/pattern",
                Some(json!("^[a-z]+$")),
                true,
                false,
            ),
            ("/properties/at/format", None, false, true),
            (
                "/properties/status/enum",
                Some(json!(["SUCCESS", "FAILED", "PENDING"])),
                false,
                true,
            ),
            (
                "/properties/status/enum",
                Some(json!(["SUCCESS"])),
                true,
                false,
            ),
            ("/properties/status/enum", None, false, true),
            (
                "/properties/reason/enum",
                Some(json!(["CANCELLED"])),
                true,
                false,
            ),
            (
                "/properties/reason/x-open-enum",
                Some(json!(["CANCELLED", "EXPIRED"])),
                false,
                false,
            ),
            ("/properties/reason", None, false, true),
            ("/properties/at", None, false, true),
            ("/properties/note", Some(any), false, false),
            ("/properties/lines/items/required", None, false, true),
            (
                "/properties/lines/items/properties/sku/type",
                Some(json!("integer")),
                true,
                true,
            ),
            ("/properties/lines/items", None, false, true),
            ("/additionalProperties", Some(json!(false)), true, false),
            (
                "/oneOf/-",
                Some(json!({"properties": {"status": {"const": "PENDING"}}})),
                false,
                true,
            ),
            (
                "/oneOf",
                Some(json!([{"properties": {"status": {"const": "SUCCESS"}}}])),
                true,
                false,
            ),
            ("/title", Some(json!("other words")), false, false),
            ("/if", Some(json!({})), true, true),
        ];
        for (pointer, value, breaks_senders, breaks_readers) in cases {
            let current = changed(pointer, value.clone());
            for (direction, breaks) in [(Inbound, breaks_senders), (Outbound, breaks_readers)] {
                let found = breaking_changes(direction, &released(), &current);
                assert_eq!(
                    !found.is_empty(),
                    breaks,
                    "{direction:?} {pointer} {value:?}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn a_finding_says_where_and_whom() {
        let current = changed("/properties/points/type", Some(json!("number")));
        assert_eq!(
            breaking_changes(Outbound, &released(), &current),
            [r#"/points: type ["number"] is not within ["integer"] (readers would break)"#]
        );
    }
}
