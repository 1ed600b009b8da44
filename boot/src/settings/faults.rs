//! Reading a configuration to its end, whatever is wrong with it, so that every fault is told at
//! once.
//!
//! What is wrong is replaced by what stands in its place in the configuration of the dev profile,
//! which has everything that must be there, and the rest is read as if it had been right.

use std::{collections::BTreeSet, ops::Range};

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Settings, expand};

/// What is right everywhere.
const RIGHT: &str = include_str!("../../../meed.toml");
/// The merchant of [`RIGHT`] that stands for any.
const ANY_MERCHANT: &str = "M1";
/// Where the merchants are.
const MERCHANTS: &str = "merchants";
/// More than anybody wants to read.
const FAULTS_MAX: usize = 200;

/// The secrets of a configuration, `*` for any merchant. Outside the dev profile each comes from a
/// variable or a file, so that the configuration itself is none.
pub(super) const SECRETS: [&[&str]; 7] = [
    &["database", "url"],
    &["redis", "url"],
    &["kafka", "sasl", "password"],
    &["temporal", "payload_keys"],
    &["visibility", "customer_key"],
    &["services", "orders_jwt_secret"],
    &["merchants", "*", "signing_key"],
];

/// Something that is wrong, at this place of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) span: Range<usize>,
    pub(super) reason: String,
}

impl Found {
    fn new(span: Range<usize>, reason: impl Into<String>) -> Self {
        Self {
            span,
            reason: reason.into(),
        }
    }
}

/// Reads the text: what it says, when nothing is wrong, or everything that is.
pub(super) fn read(text: &str, from_variables: &[Range<usize>]) -> Result<Settings, Vec<Found>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What else seems wrong may come from these.
        let found = errors.into_iter().map(|error| {
            let start = error.span().map_or(0, |span| span.start);
            Found::new(start..start, error.message())
        });
        return Err(found.collect());
    }
    let right = expand::expand(RIGHT, |_| Ok(None)).text;
    let (right, _) = DeTable::parse_recoverable(&right);
    let mut found = of_production(table.get_ref(), from_variables);
    let mut mended = table;
    let mut places = BTreeSet::new();
    loop {
        match Settings::deserialize(toml::Deserializer::from(mended.clone())) {
            Ok(settings) if found.is_empty() => return Ok(settings),
            Ok(_) => break,
            Err(error) => {
                let span = error.span().unwrap_or_default();
                found.push(Found::new(span.clone(), error.message()));
                let goes_on = mend(
                    mended.get_mut(),
                    right.get_ref(),
                    &span,
                    error.message(),
                    &mut places,
                );
                if !goes_on || found.len() >= FAULTS_MAX {
                    break;
                }
            }
        }
    }
    found.sort_by_key(|found| found.span.start);
    Err(found)
}

/// What is refused outside the dev profile: tokens for the asking, keys from seeds, and secrets
/// that stand in the file.
fn of_production(table: &DeTable<'_>, from_variables: &[Range<usize>]) -> Vec<Found> {
    let mut found = Vec::new();
    if !matches!(at(table, &["profile"]).map(Spanned::get_ref), Some(DeValue::String(profile)) if profile == "production")
    {
        return found;
    }
    if let Some(enabled) = at(table, &["auth", "dev", "enabled"])
        && matches!(enabled.get_ref(), DeValue::Boolean(true))
    {
        found.push(Found::new(
            enabled.span(),
            "tokens for the asking are for the dev profile only: set auth.dev.enabled to false or \
             leave [auth.dev] out",
        ));
    }
    if let Some(seed) = at(table, &["auth", "own", "signing_seed"]) {
        found.push(Found::new(
            seed.span(),
            "a key from a seed is for the dev profile only: name files that `meed keys generate` \
             wrote in auth.own.key_files",
        ));
    }
    for path in SECRETS {
        for secret in all_at(table, path) {
            let DeValue::String(text) = secret.get_ref() else {
                continue;
            };
            let span = secret.span();
            let from_outside = from_variables
                .iter()
                .any(|range| span.start <= range.start && range.end <= span.end);
            // An address without a password is none.
            let is_secret = path[1] != "url" || has_password(text);
            let is_secret = is_secret && !text.is_empty();
            if is_secret && !from_outside {
                found.push(Found::new(
                    span,
                    "a secret does not stand in the file: write \"${NAME}\", and set the variable \
                     NAME, or NAME_FILE to the path of a file that holds it",
                ));
            }
        }
    }
    found
}

fn has_password(url: &str) -> bool {
    url.split_once("://")
        .and_then(|(_, rest)| rest.rsplit_once('@'))
        .is_some_and(|(user, _)| user.contains(':'))
}

/// The value at a path.
fn at<'t, 'i>(table: &'t DeTable<'i>, path: &[&str]) -> Option<&'t Spanned<DeValue<'i>>> {
    let (first, rest) = path.split_first()?;
    let value = table.get(*first)?;
    match (rest, value.get_ref()) {
        ([], _) => Some(value),
        (rest, DeValue::Table(table)) => at(table, rest),
        _ => None,
    }
}

/// The values at a path in which `*` stands for any name.
fn all_at<'t, 'i>(table: &'t DeTable<'i>, path: &[&str]) -> Vec<&'t Spanned<DeValue<'i>>> {
    let Some(star) = path.iter().position(|name| *name == "*") else {
        return at(table, path).into_iter().collect();
    };
    let Some(DeValue::Table(many)) = at(table, &path[..star]).map(Spanned::get_ref) else {
        return Vec::new();
    };
    let tables = many.values().filter_map(|value| match value.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    });
    tables
        .filter_map(|table| at(table, &path[star + 1..]))
        .collect()
}

/// Puts right what the error at this place is about. False when nothing can be done.
fn mend<'i>(
    table: &mut DeTable<'i>,
    right: &DeTable<'i>,
    span: &Range<usize>,
    message: &str,
    places: &mut BTreeSet<Vec<String>>,
) -> bool {
    let missing = message
        .strip_prefix("missing field `")
        .and_then(|rest| rest.split_once('`'))
        .map(|(name, _)| name.to_owned());
    let mut path = place(table, span).unwrap_or_default();
    path.extend(missing);
    if path.is_empty() || !places.insert(path.clone()) {
        return false;
    }
    let same_place: Vec<&str> = path
        .iter()
        .enumerate()
        .map(|(depth, name)| {
            let any = depth == 1 && path[0] == MERCHANTS;
            if any { ANY_MERCHANT } else { name.as_str() }
        })
        .collect();
    let Some((name, above)) = path.split_last() else {
        return false;
    };
    let mut here = table;
    for name in above {
        let Some(DeValue::Table(inner)) = here.get_mut(name.as_str()).map(Spanned::get_mut) else {
            return false;
        };
        here = inner;
    }
    let key = here
        .keys()
        .find(|key| key.get_ref() == name)
        .cloned()
        .unwrap_or_else(|| Spanned::new(0..0, name.clone().into()));
    here.remove(name.as_str());
    // A name that is wrong has nothing right in its place.
    let wrong_name = key.span() == *span && !span.is_empty();
    if let Some(instead) = at(right, &same_place).filter(|_| !wrong_name) {
        here.insert(key, instead.clone());
    }
    true
}

/// The path of the innermost entry with this place.
fn place(table: &DeTable<'_>, span: &Range<usize>) -> Option<Vec<String>> {
    for (key, value) in table {
        let inside = match value.get_ref() {
            DeValue::Table(inner) => place(inner, span),
            _ => None,
        };
        let covers = value.span().start <= span.start && span.end <= value.span().end;
        let here = || (key.span() == *span || covers).then(Vec::new);
        if let Some(mut path) = inside.or_else(here) {
            path.insert(0, key.get_ref().to_string());
            return Some(path);
        }
    }
    None
}
