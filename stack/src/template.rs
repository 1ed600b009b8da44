//! `${NAME}` and `${NAME:-default}` in configuration files and in the plan.

use anyhow::{Result, bail};

/// Replaces every `${NAME}` by what `lookup` knows of it; an unknown name without a default is an error. A default may
/// hold names itself.
pub(crate) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let Some(end) = closing_brace(after) else {
            bail!("`${{` without `}}` in `{text}`");
        };
        let (name, default) = match after[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&after[..end], None),
        };
        match (lookup(name), default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(&expand(default, lookup)?),
            (None, None) => bail!("`${{{name}}}` is not known here"),
        }
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 1;
    for (at, character) in text.char_indices() {
        match character {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> Option<String> {
        (name == "PORT").then(|| "42".to_owned())
    }

    #[test]
    fn names_and_defaults_are_replaced() {
        assert_eq!(expand("a:${PORT}/b", &known).unwrap(), "a:42/b");
        assert_eq!(expand("${NONE:-x}${PORT:-y}", &known).unwrap(), "x42");
        assert_eq!(expand("${NONE:-p=${PORT}}!", &known).unwrap(), "p=42!");
        assert_eq!(expand("nothing", &known).unwrap(), "nothing");
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        let error = expand("${NONE}", &known).unwrap_err();
        assert!(error.to_string().contains("NONE"));
        assert!(expand("${NONE", &known).is_err());
    }
}
