//! Which dead letters are meant.

use std::{fmt, str::FromStr};

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, builder::PossibleValuesParser};
use domain::{RefusalClass, inbound::topic};

use super::letter::Letter;

/// Where a dead letter stands in its topic: what people call it by. It is short, it is found without
/// reading the topic, and no two letters share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.partition, self.offset)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (partition, offset) = text.split_once('-')?;
            let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            if !number(partition) || !number(offset) {
                return None;
            }
            Some(Self {
                partition: partition.parse().ok()?,
                offset: offset.parse().ok()?,
            })
        };
        read().ok_or_else(|| {
            "a dead letter is called PARTITION-OFFSET, such as 2-1205; `meed dlq list` shows them"
                .to_owned()
        })
    }
}

/// By reason, topic and time; everything when nothing is said.
#[derive(Debug, Clone, Default, Args)]
pub struct Filter {
    /// Only those refused with this error class (may be given several times)
    #[arg(long, value_name = "CLASS", ignore_case = true,
          value_parser = PossibleValuesParser::new(RefusalClass::ALL.map(RefusalClass::as_str)))]
    pub reason: Vec<String>,
    /// Only those that came from this topic (may be given several times)
    #[arg(long, value_name = "SOURCE", value_parser = PossibleValuesParser::new(topic::ALL))]
    pub topic: Vec<String>,
    /// Only those refused at or after this time: RFC 3339, or how long ago, such as 2h or 3days
    #[arg(long, value_name = "T", value_parser = moment)]
    pub since: Option<DateTime<Utc>>,
    /// Only those refused before this time, written in the same way
    #[arg(long, value_name = "T", value_parser = moment)]
    pub until: Option<DateTime<Utc>>,
}

impl Filter {
    /// Whether a letter is meant.
    pub fn takes(&self, letter: &Letter) -> bool {
        let one_of = |wanted: &[String], value: &str| {
            wanted.is_empty()
                || wanted
                    .iter()
                    .any(|wanted| wanted.eq_ignore_ascii_case(value))
        };
        one_of(&self.reason, &letter.class())
            && one_of(&self.topic, &letter.source_topic())
            && self.since.is_none_or(|since| letter.refused_at >= since)
            && self.until.is_none_or(|until| letter.refused_at < until)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = Vec::new();
        words.extend(self.reason.iter().map(|class| format!("--reason {class}")));
        words.extend(self.topic.iter().map(|topic| format!("--topic {topic}")));
        words.extend(self.since.map(|at| format!("--since {}", at.to_rfc3339())));
        words.extend(self.until.map(|at| format!("--until {}", at.to_rfc3339())));
        if words.is_empty() {
            words.push("--all".to_owned());
        }
        f.write_str(&words.join(" "))
    }
}

/// Which letters to replay: there is no default, so that nothing is sent by a slip.
#[derive(Debug, Clone, Args)]
#[command(group(clap::ArgGroup::new("choice").required(true).multiple(true)
    .args(["ids", "reason", "topic", "since", "until", "all"])))]
pub struct Choice {
    /// These: PARTITION-OFFSET, as `list` shows them
    #[arg(value_name = "ID", conflicts_with_all = ["reason", "topic", "since", "until", "all"])]
    pub ids: Vec<Place>,
    #[command(flatten)]
    pub filter: Filter,
    /// All of them
    #[arg(long, conflicts_with_all = ["reason", "topic", "since", "until"])]
    pub all: bool,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ids.is_empty() {
            return self.filter.fmt(f);
        }
        let ids: Vec<String> = self.ids.iter().map(Place::to_string).collect();
        f.write_str(&ids.join(" "))
    }
}

/// A time: RFC 3339, or how long ago it was.
fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    moment_at(text, Utc::now())
}

fn moment_at(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.to_utc());
    }
    humantime::parse_duration(text)
        .ok()
        .and_then(|ago| now.checked_sub_signed(TimeDelta::from_std(ago).ok()?))
        .ok_or_else(|| {
            "expected a time such as 2026-03-14T10:00:00Z, or how long ago, such as 90s, 15m, 2h, \
             3days"
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::*;
    use crate::dlq::letter::tests::letter;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        choice: Choice,
    }

    fn choice(line: &[&str]) -> Result<Choice, String> {
        let words = [&["replay"][..], line].concat();
        Line::command()
            .try_get_matches_from(words)
            .and_then(|matches| Line::from_arg_matches(&matches))
            .map(|line| line.choice)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_place_is_read_as_it_is_written() {
        let place = Place {
            partition: 2,
            offset: 1205,
        };
        assert_eq!(place.to_string(), "2-1205");
        assert_eq!("2-1205".parse(), Ok(place));
        for wrong in [
            "",
            "2",
            "2-",
            "-5",
            "a-1",
            "2-1-3",
            "2--1",
            "+2-1",
            "2-99999999999999999999",
        ] {
            let error = wrong.parse::<Place>().expect_err(wrong);
            assert!(error.contains("PARTITION-OFFSET"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_time_is_a_date_or_a_while_ago() {
        let noon = DateTime::parse_from_rfc3339("2026-03-14T12:00:00Z").expect("a time");
        let noon = noon.to_utc();
        for (text, hours_before_noon) in [
            ("2026-03-14T12:00:00Z", 0),
            ("2026-03-14T12:00:00+02:00", 2),
            ("2h", 2),
            ("120m", 2),
            ("1day 12h", 36),
        ] {
            let at = noon - TimeDelta::hours(hours_before_noon);
            assert_eq!(moment_at(text, noon), Ok(at), "{text}");
        }
        for wrong in ["", "2", "yesterday", "2026-03-14", "-2h", "999999999999y"] {
            assert!(moment_at(wrong, noon).is_err(), "{wrong}");
        }
    }

    #[test]
    fn letters_are_chosen_by_reason_topic_and_time() {
        let letter = letter(0, "orders", "DATA_ERROR", b"{}");
        let takes = |line: &[&str]| choice(line).expect("a choice").filter.takes(&letter);
        assert!(takes(&["--all"]));
        assert!(takes(&["--reason", "DATA_ERROR"]));
        assert!(takes(&["--reason", "data_error"]));
        assert!(takes(&["--reason", "WRONG_TYPE", "--reason", "DATA_ERROR"]));
        assert!(!takes(&["--reason", "WRONG_TYPE"]));
        assert!(takes(&["--topic", "orders", "--reason", "DATA_ERROR"]));
        assert!(!takes(&["--topic", "players", "--reason", "DATA_ERROR"]));
        // It was refused at 2026-03-14T12:00:00Z.
        assert!(takes(&["--since", "2026-03-14T12:00:00Z"]));
        assert!(!takes(&["--since", "2026-03-14T12:00:00.001Z"]));
        assert!(takes(&["--until", "2026-03-14T12:00:00.001Z"]));
        assert!(!takes(&["--until", "2026-03-14T12:00:00Z"]));
    }

    #[test]
    fn a_replay_says_what_it_means_and_only_one_thing() {
        assert_eq!(choice(&["2-5", "0-1"]).expect("ids").ids.len(), 2);
        for (wrong, says) in [
            (&[][..], "required"),
            (&["2-5", "--all"], "cannot be used"),
            (&["2-5", "--reason", "DATA_ERROR"], "cannot be used"),
            (&["--all", "--topic", "orders"], "cannot be used"),
            (&["--reason", "NO_SUCH"], "MALFORMED_JSON"),
            (&["--topic", "nowhere"], "reward-events"),
            (&["latest"], "PARTITION-OFFSET"),
        ] {
            let error = choice(wrong).expect_err("refused");
            assert!(error.contains(says), "{wrong:?}: {error}");
        }
    }

    #[test]
    fn a_choice_is_told_as_it_was_written() {
        for line in [
            &["2-5", "0-1"][..],
            &["--all"],
            &["--reason", "DATA_ERROR", "--topic", "orders"],
            &["--since", "2026-03-14T12:00:00+00:00"],
        ] {
            assert_eq!(choice(line).expect("a choice").to_string(), line.join(" "));
        }
    }
}
