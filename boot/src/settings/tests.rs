use super::*;

const SHIPPED: &str = include_str!("../../../meed.toml");

fn environment(name: &str) -> Result<Option<String>, String> {
    let value = match name {
        "DATABASE_URL" => "postgres://meed:pass%22word@127.0.0.1:5432/meed",
        "PARTNERS_URL" => "http://127.0.0.1:9",
        name if name.ends_with("_SECRET") => "from outside",
        "UNREADABLE" => return Err("UNREADABLE_FILE names /x, which cannot be read".to_owned()),
        _ => return Ok(None),
    };
    Ok(Some(value.to_owned()))
}

/// The shipped file as it may run in production: its secrets come from variables.
fn production(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let (name, _) = line.split_once(" = ").unwrap_or_default();
        if faults::SECRETS
            .iter()
            .any(|path| path.last() == Some(&name))
            && !["url", "payload_keys", "password"].contains(&name)
        {
            format!("{name} = \"${{A_SECRET}}\"")
        } else {
            line.replace("enabled = true", "enabled = false")
                .replace("${MEED_PROFILE:-dev}", "production")
        }
    });
    lines.collect::<Vec<_>>().join("\n")
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
fn a_file_of_a_secret_that_cannot_be_read_is_named() {
    let message = fault(
        "customer_key = \"dev-visibility-key\"",
        "customer_key = \"${UNREADABLE}\"",
    );
    assert!(
        message.ends_with("UNREADABLE_FILE names /x, which cannot be read"),
        "{message}"
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
fn a_worker_works_on_the_queues_that_it_is_told() {
    let line = "task_queues = \"${MEED_WORKER_TASK_QUEUES:-}\"";
    let queues = |text: &str| read(text).expect("it is right").worker.task_queues;
    assert_eq!(queues(SHIPPED), workflows::id::WORKER_TASK_QUEUES);
    let (text, _) = with(line, "task_queues = \"relay, award\"");
    assert_eq!(queues(&text), ["relay", "award"]);
    assert!(fault(line, "task_queues = \"awards\"").contains("\"awards\" is not a task queue"));
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

/// The shipped file with these values for what it takes from variables.
fn with_variables(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    Settings::parse(Path::new("conf/meed.toml"), SHIPPED, |name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        Ok(found.map(|(_, value)| (*value).to_owned()))
    })
}

#[test]
fn kafka_is_told_who_meed_is_over_tls_only() {
    let shipped = read(SHIPPED).expect("it is right").kafka;
    assert!(shipped.tls.is_none());
    let kafka = with_variables(&[
        ("KAFKA_CA_FILE", "ca.pem"),
        ("KAFKA_CERT_FILE", "/keys/meed.pem"),
        ("KAFKA_KEY_FILE", "meed.key"),
        ("KAFKA_SASL_MECHANISM", "SCRAM-SHA-256"),
        ("KAFKA_SASL_USER", "meed"),
        ("KAFKA_SASL_PASSWORD", "never to be seen"),
    ])
    .expect("it is right")
    .kafka;
    let files: Vec<&Path> = kafka.files().into_iter().map(|(_, file)| file).collect();
    assert_eq!(
        files,
        [
            Path::new("conf/ca.pem"),
            Path::new("/keys/meed.pem"),
            Path::new("conf/meed.key")
        ]
    );
    assert!(!format!("{kafka:?}").contains("never to be seen"));
    let sasl = kafka.tls.and_then(|tls| tls.sasl).expect("a login");
    assert_eq!(sasl.mechanism, ScramMechanism::Sha256);
    assert_eq!(sasl.password.expose(), "never to be seen");

    let ca = ("KAFKA_CA_FILE", "ca.pem");
    let cert = ("KAFKA_CERT_FILE", "meed.pem");
    let key = ("KAFKA_KEY_FILE", "meed.key");
    let user = ("KAFKA_SASL_USER", "meed");
    let password = ("KAFKA_SASL_PASSWORD", "never to be seen");
    for (variables, why) in [
        (&[ca, cert][..], "KAFKA_KEY_FILE"),
        (&[ca, key], "KAFKA_CERT_FILE"),
        (&[ca, user], "KAFKA_SASL_PASSWORD"),
        (&[ca, password], "KAFKA_SASL_USER"),
        (&[cert, key], "KAFKA_CA_FILE"),
        (&[user, password], "KAFKA_CA_FILE"),
        (
            &[("KAFKA_SASL_MECHANISM", "PLAIN")],
            "unknown variant `PLAIN`",
        ),
    ] {
        let message = with_variables(variables).expect_err("refused").to_string();
        assert!(message.contains(why), "{message}");
        assert!(message.contains("line "), "{message}");
        assert!(!message.contains("never to be seen"), "{message}");
    }

    let text = production(SHIPPED).replace("${KAFKA_SASL_PASSWORD:-}", "never to be seen");
    let line = text
        .lines()
        .position(|line| line.starts_with("password = "))
        .expect("there")
        + 1;
    let message = read(&text).expect_err("refused").to_string();
    let said = format!("line {line}, column 12: a secret does not stand in the file");
    assert!(message.contains(&said), "{message}");
    assert!(!message.contains("never to be seen"), "{message}");
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
    let text = production(SHIPPED)
        .replace("enabled = false", "enabled = true")
        .replace(
            "signing_seed = \"dev-own-signing-seed\"",
            "key_files = [\"own.pem\"]",
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
    let off = text.replace("enabled = true", "enabled = false");
    assert!(read(&off).expect("it is right").auth.dev_issuer().is_none());
}

#[test]
fn every_fault_is_told_at_once() {
    let text = SHIPPED
        .replace("profile = \"${MEED_PROFILE:-dev}\"", "profile = \"test\"")
        .replace("max_connections = 16", "max_connections = 0")
        .replace("namespace = \"${TEMPORAL_NAMESPACE:-meed}\"", "")
        .replace("hold_ttl_seconds = 900", "hold_ttl = 900")
        .replace(
            "customer_key = \"dev-visibility-key\"",
            "customer_key = \"${NOT_SET}\"",
        )
        .replace("signing_key = \"dev-key-M3\"", "signing_key = 3")
        .replace(
            "base_url = \"${PARTNERS_URL:-http://127.0.0.1:21002}/merchants/M4\"",
            "",
        );
    let Err(SettingsError::Wrong { faults, .. }) = read(&text) else {
        panic!("refused")
    };
    let said: Vec<(usize, &str)> = faults
        .iter()
        .map(|fault| (fault.line, fault.reason.as_str()))
        .collect();
    let line_of = |code: &str| {
        let line = text.lines().position(|line| line.starts_with(code));
        line.unwrap_or_else(|| panic!("{code}")) + 1
    };
    let expected = [
        ("profile = ", "unknown variant `test`"),
        ("max_connections = 0", "0 is not a whole number"),
        ("[temporal]", "missing field `namespace`"),
        ("customer_key = ", "NOT_SET is not set"),
        ("hold_ttl = ", "unknown field `hold_ttl`"),
        ("signing_key = 3", "invalid type: integer"),
        ("[merchants.M4]", "missing field `base_url`"),
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for ((line, reason), (code, why)) in said.iter().zip(expected) {
        assert_eq!(*line, line_of(code), "{reason}");
        assert!(reason.contains(why), "{reason}");
    }
}

#[test]
fn broken_toml_is_told_line_by_line() {
    let text = SHIPPED
        .replace("max_connections = 16", "max_connections =")
        .replace("hold_ttl_seconds = 900", "hold_ttl_seconds 900");
    let Err(SettingsError::Wrong { faults, .. }) = read(&text) else {
        panic!("refused")
    };
    assert!(faults.len() >= 2, "{faults:#?}");
}

#[test]
fn in_production_no_secret_stands_in_the_file() {
    let text = production(SHIPPED).replace(
        "signing_seed = \"dev-own-signing-seed\"",
        "key_files = [\"own.pem\"]",
    );
    read(&text).expect("they come from outside");
    for (outside, inside) in [
        ("customer_key = \"${A_SECRET}\"", "customer_key = \"a key\""),
        (
            "orders_jwt_secret = \"${A_SECRET}\"",
            "orders_jwt_secret = \"${UNSET:-a default}\"",
        ),
        ("signing_key = \"${A_SECRET}\"", "signing_key = 'a key'"),
        (
            "url = \"${REDIS_URL:-}\"",
            "url = \"redis://:password@redis:6379\"",
        ),
        (
            "url = \"${DATABASE_URL:-",
            "url = \"postgres://meed:password@db/meed\" # \"${X:-",
        ),
    ] {
        let text = text.replacen(outside, inside, 1);
        assert!(text.contains(inside), "{outside}");
        let message = read(&text).expect_err("refused").to_string();
        assert!(
            message.contains("a secret does not stand in the file"),
            "{message}"
        );
        assert!(
            !message.contains("password") && !message.contains("a key"),
            "{message}"
        );
    }
    let without_password = text.replace("${REDIS_URL:-}", "redis://redis:6379");
    read(&without_password).expect("an address without a password is no secret");
}

/// Whoever adds a secret adds it to the list.
#[test]
fn every_secret_is_known_as_one() {
    let sources = [
        include_str!("mod.rs"),
        include_str!("auth.rs"),
        include_str!("cache.rs"),
        include_str!("grpc.rs"),
        include_str!("kafka.rs"),
        include_str!("limits.rs"),
        include_str!("promotions.rs"),
        include_str!("ranking.rs"),
        include_str!("sockets.rs"),
        include_str!("telemetry.rs"),
    ];
    let fields: BTreeSet<&str> = sources
        .iter()
        .flat_map(|source| source.lines())
        .filter_map(|line| line.trim().trim_start_matches("pub ").split_once(": "))
        .filter(|(_, kind)| ["Secret,", "Option<Secret>,"].contains(kind))
        .map(|(name, _)| name)
        .collect();
    let known = faults::SECRETS
        .iter()
        .filter_map(|path| path.last().copied());
    // Only the dev profile has seeds.
    let known: BTreeSet<&str> = known.chain(["signing_seed"]).collect();
    assert_eq!(fields, known);
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
