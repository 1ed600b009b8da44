//! What the names and passwords of Meed's own users may be.

use std::fmt;

use unicode_normalization::UnicodeNormalization;

/// The shortest password, in characters.
pub const PASSWORD_MIN_CHARS: usize = 12;
/// The longest password, in characters.
pub const PASSWORD_MAX_CHARS: usize = 128;
/// The shortest name, in characters.
pub const USERNAME_MIN_CHARS: usize = 3;
/// The longest name, in characters.
pub const USERNAME_MAX_CHARS: usize = 64;

/// The passwords of at least twelve characters that are tried first; one a line, in lower case.
const COMMON: &str = include_str!("common_passwords.txt");

/// A name to log in with; an e-mail address can be one. Two that differ only in their case are the
/// same name.
#[derive(Clone, PartialEq, Eq)]
pub struct Username(String);

/// Why a name or a password cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAllowed(pub String);

impl Username {
    /// Checks a name: letters, digits and `.`, `_`, `@`, `+`, `-` of ASCII, so that no two names
    /// look alike.
    ///
    /// # Errors
    /// [`NotAllowed`] with the reason.
    pub fn new(name: &str) -> Result<Self, NotAllowed> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._@+-".contains(c);
        if (USERNAME_MIN_CHARS..=USERNAME_MAX_CHARS).contains(&name.len())
            && name.chars().all(allowed)
        {
            Ok(Self(name.to_owned()))
        } else {
            Err(NotAllowed(format!(
                "username has {USERNAME_MIN_CHARS} to {USERNAME_MAX_CHARS} characters: letters, \
                 digits and . _ @ + -"
            )))
        }
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as it is compared.
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

/// Names may be addresses of people, which do not stand in logs.
impl fmt::Debug for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(username)")
    }
}

/// A password as it is hashed: the same characters, however the keyboard composed them (NFKC).
pub fn normalised(password: &str) -> String {
    password.nfkc().collect()
}

/// Checks a new password as NIST SP 800-63B asks: long enough, not the name, not one of the
/// commonest; no rules on what it is composed of.
///
/// # Errors
/// [`NotAllowed`] with the reason, which does not repeat the password.
pub fn check_password(password: &str, username: &Username) -> Result<(), NotAllowed> {
    let chars = password.chars().count();
    if !(PASSWORD_MIN_CHARS..=PASSWORD_MAX_CHARS).contains(&chars) {
        return Err(NotAllowed(format!(
            "password has {PASSWORD_MIN_CHARS} to {PASSWORD_MAX_CHARS} characters"
        )));
    }
    let lower = normalised(password).to_lowercase();
    let name = username.key();
    let before_at = name.split('@').next().unwrap_or_default();
    if lower == name || lower == before_at {
        return Err(NotAllowed("password is the username".to_owned()));
    }
    let mut all = lower.chars();
    let first = all.next();
    if all.all(|c| Some(c) == first) || COMMON.lines().any(|common| common == lower) {
        return Err(NotAllowed("password is one of the commonest".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Username {
        Username::new(text).expect("a name")
    }

    #[test]
    fn names_are_of_ascii_and_compared_without_case() {
        assert_eq!(name("Anna.B+x@example.org").key(), "anna.b+x@example.org");
        let long = "a".repeat(65);
        for wrong in ["", "ab", "a b c", "änne", "a/b/c", "abc\n", long.as_str()] {
            assert!(Username::new(wrong).is_err(), "{wrong:?}");
        }
        assert!(!format!("{:?}", name("anna")).contains("anna"));
    }

    #[test]
    fn passwords_are_long_and_not_what_is_tried_first() {
        let user = name("a.long.username@example.org");
        let check = |password: &str| check_password(password, &user);
        for right in ["correct horse battery", "............a", "üüüüüüüüüüüx"] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
        assert_eq!(check(&"xy".repeat(64)), Ok(()));
        assert_eq!(normalised("u\u{308}"), normalised("ü"));
        let too_long = "xy".repeat(64) + "x";
        let cases = [
            ("elevenchars", "12 to 128"),
            (too_long.as_str(), "12 to 128"),
            ("A.Long.Username@example.org", "username"),
            ("a.long.username", "username"),
            ("Password1234", "commonest"),
            ("123456789012", "commonest"),
            ("zzzzzzzzzzzzzz", "commonest"),
        ];
        for (wrong, why) in cases {
            let refused = check(wrong).expect_err(wrong);
            assert!(refused.0.contains(why), "{wrong}: {refused}");
        }
    }

    #[test]
    fn the_commonest_could_be_passwords_otherwise() {
        for common in COMMON.lines() {
            assert!(common.chars().count() >= PASSWORD_MIN_CHARS, "{common}");
            assert_eq!(common, common.to_lowercase());
        }
        assert!(COMMON.lines().count() >= 100);
    }
}
