//! Kafka with certificates on both sides, and with a user and a password: a broker of its own with
//! a listener for each, reached as `[kafka]` asks for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use boot::settings::KafkaSettings;
use rdkafka::{
    ClientConfig, Message,
    consumer::{Consumer, StreamConsumer},
    producer::{FutureProducer, FutureRecord},
};
use serde_json::json;
use stack::{Component, Service, Stack, cache::Cache, probe};
use tests::system::{PATIENCE, System, system, unique};

use super::{KAFKA_PORTS, certificates, meed, refused, until_said};

/// The broker, in the stack's list of processes.
const NAME: &str = "kafka-tls";
/// Sixteen bytes in the alphabet of Kafka's cluster ids.
const CLUSTER_ID: &str = "a2Fma2Etb3Zlci10bHMtMQ";
const USER: &str = "meed";
const PASSWORD: &str = "the right password";
const WRONG_PASSWORD: &str = "not that password";

/// The ports of the broker.
struct Listeners {
    plain: u16,
    controller: u16,
    /// Asks for a certificate.
    certificates: u16,
    /// Asks for a user and a password.
    passwords: u16,
}

impl Listeners {
    fn of(stack: &Stack) -> Self {
        let first = stack.ports().base() + KAFKA_PORTS;
        Self {
            plain: first,
            controller: first + 1,
            certificates: first + 2,
            passwords: first + 3,
        }
    }
}

/// What this broker has beside the stack's: of two lines for a property the later one counts.
fn properties(dir: &Path, listeners: &Listeners) -> String {
    let Listeners {
        plain,
        controller,
        certificates,
        passwords,
    } = listeners;
    let for_clients = format!(
        "CLIENTS://127.0.0.1:{plain},CERTIFICATES://127.0.0.1:{certificates},\
         PASSWORDS://127.0.0.1:{passwords}"
    );
    let dir = dir.display();
    format!(
        "
controller.quorum.voters=1@127.0.0.1:{controller}
listeners={for_clients},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={for_clients}
listener.security.protocol.map=CLIENTS:PLAINTEXT,CERTIFICATES:SSL,PASSWORDS:SASL_SSL,CONTROLLER:PLAINTEXT
log.dirs={dir}/data
ssl.keystore.type=PEM
ssl.keystore.location={dir}/keystore.pem
ssl.truststore.type=PEM
ssl.truststore.location={dir}/authority.pem
listener.name.certificates.ssl.client.auth=required
listener.name.passwords.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.passwords.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
"
    )
}

/// Formats its storage, with the user, and starts it.
fn start(stack: &Stack, dir: &Path, listeners: &Listeners) {
    let text = |name: &str| fs::read_to_string(dir.join(name)).expect("it was made");
    let keystore = text("server.key") + &text("server.pem");
    fs::write(dir.join("keystore.pem"), keystore).expect("written");
    let of_the_stack = stack.data_dir().join("kafka");
    let shared = fs::read_to_string(of_the_stack.join("broker.properties")).expect("the stack's");
    let file = dir.join("broker.properties");
    fs::write(&file, shared + &properties(dir, listeners)).expect("written");

    let cache = Cache::open().expect("a cache");
    let programs = stack::provision(&[Component::Kafka], &cache, stack.progress());
    let kafka = programs.expect("it is there").kafka.expect("Kafka");
    let logging = of_the_stack.join("log4j2.properties");
    let java = [
        "-Xmx256m".to_owned(),
        "-XX:+UseSerialGC".to_owned(),
        "-XX:TieredStopAtLevel=1".to_owned(),
        format!("-Dlog4j2.configurationFile={}", logging.display()),
        "-cp".to_owned(),
        kafka.classpath,
    ];
    let user = format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]");
    let formatted = Command::new(&kafka.java)
        .args(&java)
        .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
        .arg(&file)
        .args(["--add-scram", &user])
        .output()
        .expect("Java runs");
    assert!(formatted.status.success(), "{formatted:?}");

    let mut service = Service::new(NAME, kafka.java);
    service.args = java.into();
    service.args.push("kafka.Kafka".to_owned());
    service.args.push(file.display().to_string());
    service.directory = Some(dir.to_owned());
    service.port = Some(listeners.plain);
    stack.start_service(service).expect("it starts");
}

async fn started(system: &System, dir: PathBuf) -> Listeners {
    let stack = &system.components.stack;
    let listeners = tokio::task::spawn_blocking(move || {
        certificates(&dir);
        let listeners = Listeners::of(stack);
        start(stack, &dir, &listeners);
        listeners
    });
    let listeners = listeners.await.expect("it starts");
    let port = listeners.plain;
    system
        .until("the broker answers", async || {
            tokio::task::spawn_blocking(move || probe::kafka_answers(port).is_ok())
                .await
                .expect("it does not panic")
        })
        .await;
    listeners
}

fn client(settings: serde_json::Value) -> ClientConfig {
    let settings: KafkaSettings = serde_json::from_value(settings).expect("it is right");
    boot::kafka::properties(&settings).into_iter().collect()
}

#[tokio::test]
async fn kafka_is_told_who_meed_is_and_no_stranger_is_believed() {
    let system = system().await;
    let stack = &system.components.stack;
    let dir = stack.data_dir().join(NAME);
    let listeners = started(&system, dir.clone()).await;
    let file = |name: &str| dir.join(name).display().to_string();
    let apply: &[&str] = &["topics", "apply"];

    let brokers = format!("127.0.0.1:{}", listeners.certificates);
    let certificates = |ca: &str, own: Option<&str>| {
        let mut variables = vec![
            ("KAFKA_BROKERS", brokers.clone()),
            ("KAFKA_CA_FILE", file(ca)),
        ];
        if let Some(own) = own {
            variables.push(("KAFKA_CERT_FILE", file(&format!("{own}.pem"))));
            variables.push(("KAFKA_KEY_FILE", file(&format!("{own}.key"))));
        }
        meed(apply, variables)
    };
    let login_brokers = format!("127.0.0.1:{}", listeners.passwords);
    let password = |ca: &str, password: &str| {
        let written = dir.join(unique("password"));
        fs::write(&written, password).expect("written");
        meed(
            apply,
            vec![
                ("KAFKA_BROKERS", login_brokers.clone()),
                ("KAFKA_CA_FILE", file(ca)),
                ("KAFKA_SASL_USER", USER.to_owned()),
                ("KAFKA_SASL_PASSWORD_FILE", written.display().to_string()),
            ],
        )
    };

    // A broker that is busy may not make them all in time, and shows them a moment later.
    let declared = "topics are declared";
    let with_certificate = async || certificates("authority.pem", Some("meed")).await;
    let (succeeded, said) = until_said(declared, with_certificate).await;
    assert!(succeeded, "{said}");
    system
        .until("the right password shows every topic", async || {
            let (succeeded, said) = password("authority.pem", PASSWORD).await;
            if !succeeded {
                eprintln!("{said}");
            }
            succeeded && said.contains(" 0 created")
        })
        .await;

    // What is written with the certificate is read with the password.
    let producer: FutureProducer = client(json!({
        "brokers": brokers, "ca_file": file("authority.pem"),
        "cert_file": file("meed.pem"), "key_file": file("meed.key"),
    }))
    .create()
    .expect("a producer");
    let consumer: StreamConsumer = client(json!({
        "brokers": login_brokers, "ca_file": file("authority.pem"),
        "sasl": { "user": USER, "password": PASSWORD },
    }))
    .set("group.id", "tls")
    .set("auto.offset.reset", "earliest")
    .create()
    .expect("a consumer");
    let record = FutureRecord::to("reward-events").key("C").payload("a stay");
    producer
        .send(record, Duration::from_secs(30))
        .await
        .map_err(|(error, _)| error)
        .expect("Kafka takes it");
    consumer.subscribe(&["reward-events"]).expect("subscribed");
    let read = tokio::time::timeout(PATIENCE, consumer.recv()).await;
    let read = read.expect("it comes").expect("it is read");
    assert_eq!(read.payload(), Some(&b"a stay"[..]));
    drop(read);

    let ours = "the certificates of [kafka]";
    let theirs = "certificate verify failed";
    let login = "invalid credentials";
    let misled = async || certificates("stranger.pem", Some("meed")).await;
    let wrong = async || password("authority.pem", WRONG_PASSWORD).await;
    let misled_login = async || password("stranger.pem", PASSWORD).await;
    // Each takes as long as an answer may take, so all at once.
    let (none, impostor, misled, wrong, misled_login) = tokio::join!(
        certificates("authority.pem", None),
        certificates("authority.pem", Some("impostor")),
        until_said(theirs, misled),
        until_said(login, wrong),
        until_said(theirs, misled_login),
    );
    drop((producer, consumer));
    stack.stop(NAME).expect("it ends");
    for (said, port, why) in [
        (none, listeners.certificates, ours),
        (impostor, listeners.certificates, ours),
        (misled, listeners.certificates, theirs),
        (wrong, listeners.passwords, login),
        (misled_login, listeners.passwords, theirs),
    ] {
        let said = refused(said);
        assert!(
            said.contains(&format!("Kafka at 127.0.0.1:{port} does not answer")),
            "{said}"
        );
        assert!(said.contains(why), "{why}: {said}");
        assert!(
            !said.contains(PASSWORD) && !said.contains(WRONG_PASSWORD),
            "{said}"
        );
    }
}
