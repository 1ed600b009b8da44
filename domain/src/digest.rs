//! A hash over parsed values. Every value is written with its kind and length, so that two
//! different bodies never share an encoding. Hashes are stored for good: the encoding may not
//! change.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::{json::Json, number::Number};

pub(crate) struct Digest(Sha256);

impl Digest {
    /// Begins a digest; `of` names what it is of.
    pub(crate) fn new(of: &str) -> Self {
        let mut digest = Self(Sha256::new());
        digest.text(of);
        digest
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }

    fn count(&mut self, count: usize) {
        self.0.update((count as u64).to_be_bytes());
    }

    fn bytes(&mut self, kind: u8, bytes: &[u8]) {
        self.0.update([kind]);
        self.count(bytes.len());
        self.0.update(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(b's', text.as_bytes());
    }

    pub(crate) fn integer(&mut self, integer: i64) {
        self.0.update([b'i']);
        self.0.update(integer.to_be_bytes());
    }

    pub(crate) fn optional_text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.0.update([b'0']),
        }
    }

    pub(crate) fn hash(&mut self, hash: &[u8; 32]) {
        self.bytes(b'h', hash);
    }

    fn number(&mut self, number: &Number) {
        let (negative, digits, point) = number.parts();
        self.bytes(if negative { b'-' } else { b'+' }, digits.as_bytes());
        self.0.update(point.to_be_bytes());
    }

    pub(crate) fn members<'a>(
        &mut self,
        members: impl ExactSizeIterator<Item = (&'a String, &'a Json)>,
    ) {
        self.0.update([b'o']);
        self.count(members.len());
        for (name, value) in members {
            self.text(name);
            self.json(value);
        }
    }

    pub(crate) fn texts(&mut self, entries: &BTreeMap<String, String>) {
        self.0.update([b'o']);
        self.count(entries.len());
        for (name, value) in entries {
            self.text(name);
            self.text(value);
        }
    }

    fn json(&mut self, json: &Json) {
        match json {
            Json::Null => self.0.update([b'0']),
            Json::Flag(flag) => self.0.update([if *flag { b't' } else { b'f' }]),
            Json::Number(number) => self.number(number),
            Json::Text(text) => self.text(text),
            Json::List(items) => {
                self.0.update([b'l']);
                self.count(items.len());
                for item in items {
                    self.json(item);
                }
            }
            Json::Object(members) => self.members(members.iter()),
        }
    }
}
