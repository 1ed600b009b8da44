//! `meed rules check FILE`.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use domain::{Programme, Tier};

/// Reads a rule file and says what is in it.
///
/// # Errors
/// What is wrong with it, and where.
pub fn check(file: &Path) -> Result<()> {
    let programme = read(file)?;
    println!("{}", summary(&file.display().to_string(), &programme));
    Ok(())
}

/// Reads a rule file.
///
/// # Errors
/// What is wrong with it, and where.
pub fn read(file: &Path) -> Result<Programme> {
    let path = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("{path} cannot be read"))?;
    Programme::parse(&text).map_err(|fault| anyhow!("{path}, {fault}"))
}

fn summary(path: &str, programme: &Programme) -> String {
    let rules: Vec<&str> = programme.rule_names().collect();
    let tiers: Vec<String> = Tier::ALL
        .into_iter()
        .map(|tier| format!("{tier} from {}", programme.tiers().threshold(tier)))
        .collect();
    format!(
        "{path} is good: version {}, {} rules ({}), tiers {}.",
        programme.version(),
        rules.len(),
        rules.join(", "),
        tiers.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_rules_are_good_and_summed_up_in_a_line() {
        let programme =
            Programme::parse(include_str!("../../programme.toml")).expect("the default rules");
        let summary = summary("programme.toml", &programme);
        assert!(
            summary.starts_with("programme.toml is good: version 2026-11, "),
            "{summary}"
        );
        assert!(summary.contains("SILVER from 500"), "{summary}");
        assert!(!summary.contains('\n'), "{summary}");
    }

    #[test]
    fn a_fault_is_told_with_its_line() {
        let path = std::env::temp_dir().join(format!("meed-check-{}.toml", std::process::id()));
        std::fs::write(&path, "version = \"x\"\nnonsense = 1\n").expect("written");
        let error = check(&path).expect_err("it is no rule file").to_string();
        std::fs::remove_file(&path).expect("removed");
        assert!(error.contains(", line "), "{error}");
    }
}
