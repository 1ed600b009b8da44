//! `meed config check`.

use std::path::Path;

use anyhow::{Result, bail};
use boot::{
    Profile, Settings,
    settings::{KeySource, OwnKeys, SettingsError},
};
use domain::MerchantId;

/// Reads a configuration and the files that it names, and says what is in it, or everything that
/// is wrong.
///
/// # Errors
/// When something is.
pub fn check(file: Option<&Path>) -> Result<()> {
    let file = file.map_or_else(Settings::file, Path::to_path_buf);
    let faults = match Settings::read(&file) {
        Ok(settings) => {
            let faults = files(&settings);
            if faults.is_empty() {
                println!("{}", summary(&file, &settings));
                return Ok(());
            }
            faults
        }
        Err(error @ SettingsError::Unreadable { .. }) => bail!(error),
        Err(error) => error.to_string().lines().map(str::to_owned).collect(),
    };
    for fault in &faults {
        eprintln!("{fault}");
    }
    let count = faults.len();
    let faults = if count == 1 { "fault" } else { "faults" };
    bail!("{} has {count} {faults}", file.display())
}

/// What is wrong with the files that the configuration names.
fn files(settings: &Settings) -> Vec<String> {
    let mut faults = Vec::new();
    if let Err(error) = crate::rules::read(&settings.programme_file()) {
        faults.push(format!("programme.file: {error:#}"));
    }
    let keys = settings.auth.own.iter().flat_map(|own| match &own.keys {
        OwnKeys::Files(files) => files.as_slice(),
        OwnKeys::Seed(_) => &[],
    });
    let issuers = settings
        .auth
        .issuers
        .iter()
        .filter_map(|issuer| match &issuer.keys {
            KeySource::File(file) => Some(file),
            KeySource::Discovery | KeySource::Url(_) => None,
        });
    let of_auth = keys
        .map(|file| ("auth.own.key_files", file))
        .chain(issuers.map(|file| ("auth.issuers, jwks_file", file)))
        .map(|(setting, file)| (setting, settings.path(file)));
    let of_kafka = settings.kafka.files().into_iter();
    let of_kafka = of_kafka.map(|(setting, file)| (setting, file.to_path_buf()));
    let of_grpc = settings.grpc.tls.iter().flat_map(|tls| {
        [
            ("grpc.cert_file", settings.path(&tls.cert_file)),
            ("grpc.key_file", settings.path(&tls.key_file)),
            ("grpc.client_ca_file", settings.path(&tls.client_ca_file)),
        ]
    });
    for (setting, path) in of_auth.chain(of_kafka).chain(of_grpc) {
        if let Err(error) = std::fs::read_to_string(&path) {
            faults.push(format!(
                "{setting}: {} cannot be read: {error}",
                path.display()
            ));
        }
    }
    faults
}

fn summary(file: &Path, settings: &Settings) -> String {
    let profile = match settings.profile {
        Profile::Dev => "dev",
        Profile::Production => "production",
    };
    let merchants: Vec<&str> = settings.merchants.keys().map(MerchantId::as_str).collect();
    format!(
        "{} is good: profile {profile}, {} merchants ({}), {} issuers beside Meed's own, rules in {}.",
        file.display(),
        merchants.len(),
        merchants.join(", "),
        settings.auth.issuers.len(),
        settings.programme_file().display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_configuration_is_good_and_summed_up_in_a_line() {
        let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../meed.toml"));
        let settings = Settings::read(file).expect("it is right");
        assert!(files(&settings).is_empty());
        let summary = summary(file, &settings);
        assert!(
            summary.contains("profile dev, 7 merchants (M1, "),
            "{summary}"
        );
        assert!(!summary.contains('\n'), "{summary}");
    }

    #[test]
    fn files_that_are_not_there_are_all_named() {
        let text = include_str!("../../meed.toml")
            .replace("programme.toml", "no-rules.toml")
            .replace("${KAFKA_CA_FILE:-}", "no-authority.pem")
            .replace("${MEED_GRPC_CERT_FILE:-}", "no-grpc.pem")
            .replace("${MEED_GRPC_KEY_FILE:-}", "no-grpc-key.pem")
            .replace("${MEED_GRPC_CLIENT_CA_FILE:-}", "no-grpc-ca.pem")
            .replace(
                "issuers = []",
                "issuers = [{ issuer = \"i\", audience = \"a\", jwks_file = \"no-keys.json\" }]",
            );
        let settings = Settings::parse(Path::new("/nowhere/meed.toml"), &text, |_| Ok(None));
        let faults = files(&settings.expect("it is right"));
        assert_eq!(faults.len(), 6, "{faults:#?}");
        assert!(faults[0].contains("/nowhere/no-rules.toml"), "{faults:#?}");
        assert!(faults[1].contains("/nowhere/no-keys.json"), "{faults:#?}");
        assert!(
            faults[2].contains("kafka.ca_file") && faults[2].contains("/nowhere/no-authority.pem"),
            "{faults:#?}"
        );
        for (fault, file) in faults[3..].iter().zip(["grpc", "grpc-key", "grpc-ca"]) {
            assert!(
                fault.contains(&format!("/nowhere/no-{file}.pem")),
                "{fault}"
            );
        }
    }
}
