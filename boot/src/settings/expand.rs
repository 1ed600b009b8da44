//! `${VAR}` and `${VAR:-default}` in the text of a configuration file, before it is read as TOML.
//!
//! Comments stay as they are, and so do line numbers: a value cannot bring a line break with it.

use std::ops::Range;

/// What is wrong with a placeholder, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExpandError {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) reason: String,
}

/// A text with the values of variables in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) text: String,
    /// What of it are values of variables, which were not in the file.
    pub(super) from_variables: Vec<Range<usize>>,
    pub(super) errors: Vec<ExpandError>,
}

/// Where in a line of TOML the reader is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Bare,
    /// Inside "…", where quotes and backslashes of a value can be escaped.
    Basic,
    /// Inside '…', where nothing can be escaped.
    Literal,
}

/// Puts the values of variables into the text. Where that is not possible, nothing is put in.
pub(super) fn expand(
    text: &str,
    variable: impl Fn(&str) -> Result<Option<String>, String>,
) -> Expanded {
    let mut expanded = Expanded {
        text: String::with_capacity(text.len()),
        ..Expanded::default()
    };
    for (index, line) in text.split_inclusive('\n').enumerate() {
        expand_line(index + 1, line, &variable, &mut expanded);
    }
    expanded
}

fn expand_line(
    number: usize,
    line: &str,
    variable: &impl Fn(&str) -> Result<Option<String>, String>,
    expanded: &mut Expanded,
) {
    let mut place = Place::Bare;
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("${") {
            let column = line[..line.len() - rest.len()].chars().count() + 1;
            let fault = |reason: String| ExpandError {
                line: number,
                column,
                reason,
            };
            let placeholder = rest[2..]
                .split_once('}')
                .filter(|(placeholder, _)| !placeholder.contains('\n'));
            let Some((placeholder, after)) = placeholder else {
                expanded.errors.push(fault("${ without its }".to_owned()));
                expanded.text.push_str(rest);
                return;
            };
            match value(placeholder, variable, place) {
                Ok((value, from_variable)) => {
                    let start = expanded.text.len();
                    expanded.text.push_str(&value);
                    if from_variable {
                        expanded.from_variables.push(start..expanded.text.len());
                    }
                }
                Err(reason) => expanded.errors.push(fault(reason)),
            }
            rest = after;
            continue;
        }
        match (place, c) {
            (Place::Bare, '#') => {
                expanded.text.push_str(rest);
                return;
            }
            (Place::Bare, '"') => place = Place::Basic,
            (Place::Bare, '\'') => place = Place::Literal,
            (Place::Basic, '"') | (Place::Literal, '\'') => place = Place::Bare,
            (Place::Basic, '\\') => {
                // The next character is escaped and says nothing of where the text ends.
                let escaped = rest.chars().nth(1).map_or(0, char::len_utf8);
                expanded.text.push_str(&rest[..=escaped]);
                rest = &rest[1 + escaped..];
                continue;
            }
            _ => {}
        }
        expanded.text.push(c);
        rest = &rest[c.len_utf8()..];
    }
}

/// What stands for a placeholder, and whether it is a variable's value.
fn value(
    placeholder: &str,
    variable: &impl Fn(&str) -> Result<Option<String>, String>,
    place: Place,
) -> Result<(String, bool), String> {
    let (name, default) = match placeholder.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (placeholder, None),
    };
    if !is_variable_name(name) {
        return Err(format!("{name:?} is not the name of a variable"));
    }
    let set = variable(name)?.filter(|value| !value.is_empty());
    match (set, default) {
        (Some(value), _) => Ok((fit(name, &value, place)?, true)),
        (None, Some(default)) => Ok((default.to_owned(), false)),
        (None, None) => Err(format!(
            "the environment variable {name} is not set and has no default"
        )),
    }
}

fn is_variable_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Makes the value stand for itself at this place.
fn fit(name: &str, value: &str, place: Place) -> Result<String, String> {
    if value.chars().any(char::is_control) {
        return Err(format!(
            "the environment variable {name} holds a control character"
        ));
    }
    match place {
        Place::Basic => Ok(value.replace('\\', "\\\\").replace('"', "\\\"")),
        Place::Literal if value.contains('\'') => Err(format!(
            "the environment variable {name} holds a quote; write \"${{{name}}}\" with double quotes"
        )),
        Place::Bare if value.contains(['"', '\'', '#', '\\']) => Err(format!(
            "the environment variable {name} holds a quote, # or backslash; write \"${{{name}}}\""
        )),
        Place::Literal | Place::Bare => Ok(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str, variables: &[(&str, &str)]) -> Result<String, ExpandError> {
        let mut expanded = expand(text, |name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            Ok(found.map(|(_, value)| (*value).to_owned()))
        });
        match expanded.errors.pop() {
            Some(error) => Err(error),
            None => Ok(expanded.text),
        }
    }

    #[test]
    fn every_fault_is_told_and_what_came_from_outside_is_known() {
        let text = "a = \"${A}\"\nb = \"${B}\"\nc = \"${C:-file}\"\nd = \"x${D}\"\n";
        let expanded = expand(text, |name| match name {
            "A" | "B" => Ok(None),
            "D" => Ok(Some("outside".to_owned())),
            _ => Err("it cannot be read".to_owned()),
        });
        let lines: Vec<usize> = expanded.errors.iter().map(|error| error.line).collect();
        assert_eq!(lines, [1, 2, 3]);
        let [range] = &expanded.from_variables[..] else {
            panic!("{expanded:?}")
        };
        assert_eq!(&expanded.text[range.clone()], "outside");
    }

    #[test]
    fn puts_values_and_defaults_in() {
        let text = "a = \"${A}\"\nb = ${B:-7}\nc = \"${C:-http://x:1/y}/z\"\n";
        assert_eq!(
            with(text, &[("A", "one")]),
            Ok("a = \"one\"\nb = 7\nc = \"http://x:1/y/z\"\n".to_owned())
        );
        assert_eq!(with("b = ${B:-7}", &[("B", "8")]), Ok("b = 8".to_owned()));
        assert_eq!(
            with("b = ${B:-7}", &[("B", "")]),
            Ok("b = 7".to_owned()),
            "empty is unset"
        );
    }

    #[test]
    fn leaves_comments_alone_and_lines_where_they_are() {
        let text = "# ${NOT_SET}\na = 1 # ${NOR_THIS}\n\nb = \"#${B}\"\n";
        assert_eq!(
            with(text, &[("B", "x")]),
            Ok("# ${NOT_SET}\na = 1 # ${NOR_THIS}\n\nb = \"#x\"\n".to_owned())
        );
    }

    #[test]
    fn names_line_column_and_variable_of_what_is_not_set() {
        let error = with("a = 1\n\nb = \"x${MISSING}\"\n", &[]).unwrap_err();
        assert_eq!((error.line, error.column), (3, 7));
        assert_eq!(
            error.reason,
            "the environment variable MISSING is not set and has no default"
        );
    }

    #[test]
    fn a_value_cannot_break_out_of_its_place() {
        assert_eq!(
            with(r#"a = "${A}""#, &[("A", r#"x" = \ "#)]),
            Ok(r#"a = "x\" = \\ ""#.to_owned())
        );
        for (text, value) in [
            ("a = '${A}'", "it's"),
            ("a = ${A}", "1 # 2"),
            ("a = \"${A}\"", "1\nb"),
        ] {
            let error = with(text, &[("A", value)]).unwrap_err();
            assert!(
                error.reason.contains("variable A holds"),
                "{}",
                error.reason
            );
        }
    }

    #[test]
    fn refuses_broken_placeholders() {
        assert_eq!(with("a = ${A", &[]).unwrap_err().reason, "${ without its }");
        assert!(
            with("a = ${1A}", &[])
                .unwrap_err()
                .reason
                .contains("not the name of a variable")
        );
    }

    #[test]
    fn an_escaped_quote_ends_nothing() {
        let text = "a = \"x\\\" # ${A}\" # ${B}\n";
        assert_eq!(
            with(text, &[("A", "y")]),
            Ok("a = \"x\\\" # y\" # ${B}\n".to_owned())
        );
    }
}
