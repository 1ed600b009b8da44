//! A JSON object written by hand: field order, spacing and the spelling of numbers
//! are chosen, because a reader must cope with every choice.

use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

/// An object of fields in a chosen order.
#[derive(Debug, Clone, Default)]
pub(super) struct Body(Vec<(String, Part)>);

#[derive(Debug, Clone)]
enum Part {
    /// JSON text as it is to stand in the message.
    Raw(String),
    Object(Body),
}

/// A string as JSON.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl Body {
    /// Adds a string field.
    pub(super) fn text(self, name: &str, value: &str) -> Self {
        self.raw(name, &quoted(value))
    }

    /// Adds a field whose value is the given JSON.
    pub(super) fn raw(mut self, name: &str, json: &str) -> Self {
        self.0.push((name.to_owned(), Part::Raw(json.to_owned())));
        self
    }

    /// Adds an object.
    pub(super) fn object(mut self, name: &str, body: Body) -> Self {
        self.0.push((name.to_owned(), Part::Object(body)));
        self
    }

    /// Whether there is a field at a dotted path.
    pub(super) fn has(&self, path: &str) -> bool {
        let (name, rest) = split(path);
        self.0.iter().any(|(field, part)| {
            field == name
                && match (part, rest) {
                    (_, None) => true,
                    (Part::Object(body), Some(rest)) => body.has(rest),
                    (Part::Raw(_), Some(_)) => false,
                }
        })
    }

    /// Puts JSON at a dotted path, in place of what was there.
    pub(super) fn set(&mut self, path: &str, json: &str) {
        let (name, rest) = split(path);
        let found = self.0.iter_mut().find(|(field, _)| field == name);
        match (found, rest) {
            (Some((_, Part::Object(body))), Some(rest)) => body.set(rest, json),
            (Some((_, part)), None) => *part = Part::Raw(json.to_owned()),
            (None, None) => self.0.push((name.to_owned(), Part::Raw(json.to_owned()))),
            _ => panic!("no object on the way to {path}"),
        }
    }

    /// Takes away the field at a dotted path.
    pub(super) fn remove(&mut self, path: &str) {
        let (name, rest) = split(path);
        match rest {
            None => self.0.retain(|(field, _)| field != name),
            Some(rest) => {
                for (field, part) in &mut self.0 {
                    if let (true, Part::Object(body)) = (field == name, part) {
                        body.remove(rest);
                    }
                }
            }
        }
    }

    /// Compact JSON.
    pub(super) fn render(&self) -> String {
        self.spell(":", ",")
    }

    /// The same value in another field order and with other spacing.
    pub(super) fn respell(&mut self, rng: &mut ChaCha8Rng) -> String {
        self.shuffle(rng);
        self.spell(" : ", " ,\n  ")
    }

    fn shuffle(&mut self, rng: &mut ChaCha8Rng) {
        self.0.shuffle(rng);
        for (_, part) in &mut self.0 {
            if let Part::Object(body) = part {
                body.shuffle(rng);
            }
        }
    }

    fn spell(&self, colon: &str, comma: &str) -> String {
        let fields: Vec<String> = self
            .0
            .iter()
            .map(|(name, part)| match part {
                Part::Raw(json) => format!("{}{colon}{json}", quoted(name)),
                Part::Object(body) => {
                    format!("{}{colon}{}", quoted(name), body.spell(colon, comma))
                }
            })
            .collect();
        format!("{{{}}}", fields.join(comma))
    }
}

fn split(path: &str) -> (&str, Option<&str>) {
    match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    }
}
