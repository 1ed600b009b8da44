use super::*;

const SHIPPED: &str = include_str!("../../../meed.toml");

fn environment(name: &str) -> Option<String> {
    match name {
        "DATABASE_URL" => Some("postgres://meed:pass%22word@127.0.0.1:5432/meed".to_owned()),
        "PARTNERS_URL" => Some("http://127.0.0.1:9".to_owned()),
        _ => None,
    }
}

fn read(text: &str) -> Result<Settings, SettingsError> {
    Settings::parse(Path::new("conf/meed.toml"), text, environment)
}

/// The shipped file with one line replaced, and the number of that line.
fn with(line: &str, replacement: &str) -> (String, usize) {
    let at = SHIPPED
        .lines()
        .position(|candidate| {
            candidate
                .split('#')
                .next()
                .is_some_and(|code| code.trim() == line)
        })
        .unwrap_or_else(|| panic!("meed.toml has the line {line}"));
    let text: Vec<&str> = SHIPPED
        .lines()
        .enumerate()
        .map(|(index, candidate)| if index == at { replacement } else { candidate })
        .collect();
    (text.join("\n"), at + 1)
}

fn fault(line: &str, replacement: &str) -> String {
    let (text, number) = with(line, replacement);
    let message = read(&text).expect_err("refused").to_string();
    let place = format!("conf/meed.toml, line {number}, column ");
    assert!(
        message.starts_with(&place),
        "{message} does not start with {place}"
    );
    assert!(!message.contains('\n'), "one line: {message}");
    message
}

#[test]
fn the_shipped_file_is_read() {
    let settings = read(SHIPPED).expect("it is right");
    assert_eq!(settings.profile, Profile::Dev);
    assert_eq!(settings.kafka.group, "meed-intake");
    assert_eq!(settings.merchants.len(), 7);
    assert_eq!(settings.programme_file(), Path::new("conf/programme.toml"));
    let m1 = MerchantId::new("M1").expect("an id");
    let m5 = MerchantId::new("M5").expect("an id");
    assert_eq!(
        settings.merchants[&m1].base_url,
        "http://127.0.0.1:9/merchants/M1"
    );
    assert_eq!(
        settings.redeem_limits(&m5),
        RedeemLimits {
            hold_ttl_ms: 900_000,
            confirm_within_ms: 3_000,
            callback_within_ms: 300_000,
            quick_attempt_ms: 250
        }
    );
    let unlisted = MerchantId::new("M99").expect("an id");
    assert_eq!(settings.redeem_limits(&unlisted).confirm_within_ms, 30_000);
    assert!(settings.auth.dev_issuer().is_some());
    assert_eq!(
        settings.worker.outbox.keep_published(),
        Duration::from_hours(35 * 24)
    );
}

#[test]
fn secrets_do_not_stand_in_logs() {
    let text = format!("{:?}", read(SHIPPED).expect("it is right"));
    for secret in ["pass%22word", "dev-key-M1", "dev-order-service-secret"] {
        assert!(!text.contains(secret), "{secret} is printed");
    }
}

#[test]
fn an_unset_variable_is_named() {
    let (text, line) = with("[tier]", "[tier] \nx = \"${NOT_SET_ANYWHERE}\"");
    let message = read(&text).expect_err("refused").to_string();
    assert_eq!(
        message,
        format!(
            "conf/meed.toml, line {}, column 6: the environment variable NOT_SET_ANYWHERE is not \
             set and has no default",
            line + 1
        )
    );
}

#[test]
fn unknown_fields_wrong_types_and_broken_toml_name_their_line() {
    assert!(fault("hold_ttl_seconds = 900", "hold_ttl = 900").contains("unknown field `hold_ttl`"));
    assert!(
        fault("hold_ttl_seconds = 900", "hold_ttl_seconds = \"long\"").contains("invalid type")
    );
    assert!(fault("hold_ttl_seconds = 900", "hold_ttl_seconds = -1").contains("-1 is not a whole"));
    assert!(fault("hold_ttl_seconds = 900", "hold_ttl_seconds = 1.5").contains("invalid type"));
    fault("hold_ttl_seconds = 900", "hold_ttl_seconds = ");
    assert!(
        fault("quick_attempt_ms = 250", "quick_attempt_ms = 301").contains("from 0 to 300"),
        "a quick attempt is quick"
    );
    assert!(
        fault("keep_published_days = 35", "keep_published_days = 29").contains("from 30 to 3650"),
        "what reconciliation compares is kept"
    );
    assert!(
        fault(
            "algorithms = [\"EdDSA\", \"ES256\", \"RS256\"]",
            "algorithms = [\"HS256\"]"
        )
        .contains("unknown variant `HS256`")
    );
}

#[test]
fn a_wrong_profile_and_wrong_addresses_name_their_line() {
    assert!(fault("profile = \"${MEED_PROFILE:-dev}\"", "profile = \"test\"").contains("`test`"));
    assert!(
        fault(
            "listen = \"${MEED_API_LISTEN:-127.0.0.1:21000}\"",
            "listen = \"here\""
        )
        .contains("invalid socket address")
    );
    assert!(
        fault(
            "public_url = \"${MEED_API_URL:-http://127.0.0.1:21000}\"",
            "public_url = \"ftp://x\""
        )
        .contains("not an http:// or https:// address")
    );
    assert!(
        fault(
            "customer_key = \"dev-visibility-key\"",
            "customer_key = \"\""
        )
        .contains("a secret may not be empty")
    );
}

#[test]
fn the_built_in_merchant_cannot_be_configured() {
    assert!(fault("[merchants.M1]", "[merchants.meed]").contains("built in"));
    assert!(fault("[merchants.M1]", "[merchants.\"a/b\"]").contains("merchantId holds"));
}

#[test]
fn an_issuer_has_keys_in_one_place() {
    let one =
        |keys: &str| format!("issuers = [{{ issuer = \"http://i\", audience = \"a\"{keys} }}]");
    let both = one(", jwks_url = \"http://x\", jwks_file = \"y\"");
    assert!(fault("issuers = []", &both).contains("either jwks_url or jwks_file"));
    let nowhere = one(", jwks_url = \"ftp://x\"");
    assert!(fault("issuers = []", &nowhere).contains("not an http:// or https:// address"));
    let no_address = one("").replace("http://i", "i");
    assert!(fault("issuers = []", &no_address).contains("not an http:// or https:// address"));
    for (keys, source) in [
        ("", KeySource::Discovery),
        (
            ", jwks_file = \"keys.json\"",
            KeySource::File("keys.json".into()),
        ),
        (
            ", jwks_url = \"https://x/y\"",
            KeySource::Url("https://x/y".to_owned()),
        ),
    ] {
        let (text, _) = with("issuers = []", &one(keys));
        assert_eq!(
            read(&text).expect("it is right").auth.issuers[0].keys,
            source
        );
    }
}

#[test]
fn other_services_are_reached_on_this_machine_or_with_certificates() {
    let line = "listen = \"${MEED_GRPC_LISTEN:-127.0.0.1:21005}\"";
    let with_files = |listen: &str, files: &[&str]| {
        let (text, _) = with(line, &format!("listen = {listen:?}"));
        files.iter().fold(text, |text, name| {
            let variable = format!("${{MEED_GRPC_{}:-}}", name.to_uppercase());
            assert!(text.contains(&variable), "{variable}");
            text.replace(&variable, &format!("{name}.pem"))
        })
    };
    let shipped = read(SHIPPED).expect("it is right").grpc;
    assert_eq!(shipped.listen.map(|at| at.port()), Some(21_005));
    assert!(shipped.tls.is_none());
    let off = read(&with_files("", &[])).expect("turned off").grpc;
    assert_eq!(off.listen, None);
    let all = ["cert_file", "key_file", "client_ca_file"];
    let open = read(&with_files("0.0.0.0:1", &all))
        .expect("it is right")
        .grpc;
    let tls = open.tls.expect("certificates");
    assert_eq!(tls.client_ca_file, Path::new("client_ca_file.pem"));
    for (listen, files, why) in [
        ("0.0.0.0:1", &[][..], "reached from other machines"),
        ("127.0.0.1:1", &all[..2], "together"),
        ("127.0.0.1:1", &all[2..], "together"),
        ("here", &[], "not address:port"),
    ] {
        let message = read(&with_files(listen, files)).expect_err("refused");
        let message = message.to_string();
        assert!(message.contains(why), "{message}");
        assert!(message.contains("line "), "{message}");
    }
}

#[test]
fn the_types_of_promotions_are_types() {
    let settings = read(SHIPPED).expect("it is right").promotions;
    assert!(settings.exclusive_types.contains(&settings.welcome_type));
    let line = "welcome_type = \"WELCOME_BONUS\"";
    assert!(fault(line, "welcome_type = \"welcome\"").contains("capital letters"));
}

#[test]
fn meeds_own_keys_are_files_or_a_seed_for_the_dev_profile() {
    let seed = "signing_seed = \"dev-own-signing-seed\"";
    let files = "key_files = [\"own.pem\", \"old.pem\"]";
    let (text, _) = with(seed, "");
    let message = read(&text).expect_err("refused").to_string();
    assert!(
        message.contains("either key_files or signing_seed"),
        "{message}"
    );
    let (text, _) = with(seed, &format!("{seed}\n{files}"));
    let message = read(&text).expect_err("refused").to_string();
    assert!(
        message.contains("either key_files or signing_seed"),
        "{message}"
    );

    let production = |text: &str| {
        text.replace(
            "profile = \"${MEED_PROFILE:-dev}\"",
            "profile = \"production\"",
        )
        .replace("enabled = true", "enabled = false")
    };
    let (text, line) = with(seed, seed);
    let message = read(&production(&text)).expect_err("refused").to_string();
    assert!(
        message.starts_with(&format!("conf/meed.toml, line {line}, ")) && message.contains("seed"),
        "{message}"
    );
    let (text, _) = with(seed, files);
    let own = read(&production(&text))
        .expect("it is right")
        .auth
        .own
        .expect("there");
    let OwnKeys::Files(read) = own.keys else {
        panic!("files")
    };
    assert_eq!(read, [Path::new("own.pem"), Path::new("old.pem")]);
    assert!(fault("memory_kib = 19456", "memory_kib = 4").contains("from 8 to"));
    assert!(fault("trusted_proxies = []", "trusted_proxies = [\"proxy\"]").contains("invalid"));
}

#[test]
fn tokens_for_the_asking_are_for_the_dev_profile() {
    let (text, _) = with(
        "profile = \"${MEED_PROFILE:-dev}\"",
        "profile = \"production\"",
    );
    let line = text
        .lines()
        .position(|line| line.starts_with("enabled = true"))
        .expect("there")
        + 1;
    let message = read(&text).expect_err("refused").to_string();
    assert!(
        message.starts_with(&format!("conf/meed.toml, line {line}, column 11: ")),
        "{message}"
    );
    let off = text.replace("enabled = true", "enabled = false").replace(
        "signing_seed = \"dev-own-signing-seed\"",
        "key_files = [\"own.pem\"]",
    );
    assert!(read(&off).expect("it is right").auth.dev_issuer().is_none());
}

#[test]
fn a_missing_file_is_named() {
    let message = Settings::read(Path::new("no/such/meed.toml"))
        .expect_err("refused")
        .to_string();
    assert!(
        message.starts_with("no/such/meed.toml cannot be read: "),
        "{message}"
    );
    assert!(
        message.ends_with("MEED_CONFIG names the configuration file"),
        "{message}"
    );
}
