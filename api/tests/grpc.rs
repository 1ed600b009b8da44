//! `AddTransaction` with a generated client: once for each id, never below zero, and over mTLS.

#[path = "support/mod.rs"]
mod support;

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use api::grpc::{
    self,
    transactions::{
        AddTransactionRequest, AddTransactionResponse, TransactionType,
        transactions_client::TransactionsClient,
    },
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use support::Api;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

const SERVICE: &str = "meed.transactions.v1.Transactions";

/// A server over a database of its own; it ends with this.
struct Served {
    api: Api,
    address: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn served(tls: Option<ServerTlsConfig>) -> Served {
    let api = Api::new(&[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let stop = CancellationToken::new();
    let app = std::sync::Arc::clone(&api.app);
    let drain = Duration::from_secs(5);
    tokio::spawn(grpc::serve(app, listener, tls, drain, stop.clone()));
    Served { api, address, stop }
}

impl Served {
    async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address));
        let endpoint = endpoint.expect("an address");
        endpoint.connect().await.expect("it serves")
    }

    async fn add(&self, request: AddTransactionRequest) -> Result<AddTransactionResponse, Status> {
        let mut client = TransactionsClient::new(self.channel().await);
        client
            .add_transaction(request)
            .await
            .map(tonic::Response::into_inner)
    }
}

fn credit(id: &str, amount: &str) -> AddTransactionRequest {
    AddTransactionRequest {
        transaction_id: id.to_owned(),
        user_id: "C1".to_owned(),
        amount: amount.to_owned(),
        transaction_type: TransactionType::Credit.into(),
        description: "A tournament".to_owned(),
        additional_data: [("table".to_owned(), "7".to_owned())].into(),
    }
}

fn debit(id: &str, amount: &str) -> AddTransactionRequest {
    AddTransactionRequest {
        transaction_type: TransactionType::Debit.into(),
        ..credit(id, amount)
    }
}

#[tokio::test]
async fn credits_and_debits_are_posted_once_for_each_id() {
    let served = served(None).await;
    let first = served.add(credit("T1", "100.75")).await.expect("posted");
    assert_eq!(
        first,
        AddTransactionResponse {
            transaction_id: "T1".to_owned(),
            points: 100,
            balance_after: 100,
            repeated: false,
        }
    );
    let taken = served.add(debit("T2", "30")).await.expect("posted");
    assert_eq!((taken.points, taken.balance_after), (30, 70));
    let again = served.add(credit("T1", "100.75")).await.expect("known");
    assert_eq!(
        again,
        AddTransactionResponse {
            repeated: true,
            ..first
        }
    );
    for other in [
        credit("T1", "100.76"),
        debit("T1", "100.75"),
        AddTransactionRequest {
            description: String::new(),
            ..credit("T1", "100.75")
        },
        AddTransactionRequest {
            user_id: "C2".to_owned(),
            ..credit("T1", "100.75")
        },
    ] {
        let refused = served.add(other).await.expect_err("another content");
        assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    }
    let poor = served.add(debit("T3", "71")).await.expect_err("too much");
    assert_eq!(poor.code(), Code::FailedPrecondition);
    assert_eq!(
        poor.message(),
        "customer C1 can spend 70 points, and no more"
    );
    let nobody = AddTransactionRequest {
        user_id: "C9".to_owned(),
        ..debit("T3", "1")
    };
    let nobody = served.add(nobody).await.expect_err("no account");
    assert_eq!(nobody.code(), Code::NotFound);
    // What was refused has not used up the id.
    let posted = served.add(debit("T3", "70")).await.expect("posted");
    assert_eq!(posted.balance_after, 0);

    let api = &served.api;
    let (description, data): (String, serde_json::Value) = sqlx::query_as(
        "SELECT description, additional_data FROM transactions WHERE transaction_id = 'T1'",
    )
    .fetch_one(&api.database.pool)
    .await
    .expect("a row");
    assert_eq!(description, "A tournament");
    assert_eq!(data, serde_json::json!({ "table": "7" }));
    let told = "SELECT count(*) FROM outbox WHERE topic = 'loyalty.pointsAdded.v2'";
    assert_eq!(api.count(told).await, 3);
    let audited = "SELECT count(*) FROM audit_records
                   WHERE action = 'transaction.add' AND actor = 'grpc' AND address = '127.0.0.1'";
    assert_eq!(api.count(audited).await, 3);
    for check in store::verify::verify(&api.database.pool)
        .await
        .expect("read")
    {
        assert_eq!(check.violations, 0, "{}", check.property);
    }
}

#[tokio::test]
async fn a_transaction_that_makes_no_sense_is_refused() {
    type Change = fn(&mut AddTransactionRequest);
    let served = served(None).await;
    let changes: [(&str, Change); 12] = [
        ("transaction_id", |t| t.transaction_id.clear()),
        ("transaction_id", |t| t.transaction_id = "x".repeat(129)),
        ("user_id", |t| t.user_id = " C1".to_owned()),
        ("amount", |t| t.amount = "0".to_owned()),
        ("amount", |t| t.amount = "0.5".to_owned()),
        ("amount", |t| t.amount = "-1".to_owned()),
        ("amount", |t| t.amount = "ten".to_owned()),
        ("amount", |t| t.amount = "1e18".to_owned()),
        ("transaction_type", |t| t.transaction_type = 0),
        ("transaction_type", |t| t.transaction_type = 7),
        ("description", |t| t.description = "x".repeat(501)),
        ("additional_data", |t| {
            t.additional_data.insert(String::new(), String::new());
        }),
    ];
    for (field, change) in changes {
        let mut request = credit("T1", "10");
        change(&mut request);
        let refused = served.add(request).await.expect_err(field);
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().starts_with(field), "{refused}");
    }
    let huge = AddTransactionRequest {
        description: "x".repeat(300_000),
        ..credit("T1", "10")
    };
    let refused = served.add(huge).await.expect_err("too large");
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    let nothing = "SELECT count(*) FROM transactions";
    assert_eq!(served.api.count(nothing).await, 0);
}

/// Whether nothing is said of what became of it.
fn is_given_up(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable
    )
}

#[tokio::test]
async fn a_hundred_at_once_are_one_and_never_below_zero() {
    let served = served(None).await;
    let channel = served.channel().await;
    let given_up = AtomicUsize::new(0);
    let add = |request: AddTransactionRequest| {
        let mut client = TransactionsClient::new(channel.clone());
        let given_up = &given_up;
        async move {
            // Where the machine is slow, one that waits behind the others is given up. It may have
            // been posted, so it comes again with its id.
            for _ in 0..20 {
                match client.add_transaction(request.clone()).await {
                    Err(status) if is_given_up(&status) => {
                        given_up.fetch_add(1, Ordering::Relaxed);
                    }
                    answer => return answer,
                }
            }
            client.add_transaction(request).await
        }
    };
    let same = (0..100).map(|_| add(credit("T1", "10")));
    let same = futures::future::join_all(same).await;
    let new = same
        .iter()
        .filter(|answer| answer.as_ref().is_ok_and(|a| !a.get_ref().repeated));
    let new = new.count();
    // The answer that said so may be one that did not come.
    let is_lost = new == 0 && given_up.load(Ordering::Relaxed) > 0;
    assert!(new == 1 || is_lost, "{same:?}");
    assert!(same.iter().all(Result::is_ok), "{same:?}");
    let transactions = "SELECT count(*) FROM transactions";
    assert_eq!(served.api.count(transactions).await, 1);
    let debits = (0..20).map(|n| add(debit(&format!("D{n}"), "3")));
    let debits = futures::future::join_all(debits).await;
    let posted = debits.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(posted, 3, "ten points are three times three");
    assert_eq!(served.api.count(transactions).await, 1 + 3);
    assert_eq!(served.api.count("SELECT available FROM customers").await, 1);
}

#[tokio::test]
async fn health_and_reflection_are_served() {
    let served = served(None).await;
    let channel = served.channel().await;
    let mut health = HealthClient::new(channel.clone());
    for service in ["", SERVICE] {
        let service = service.to_owned();
        let check = HealthCheckRequest { service };
        let answer = health.check(check).await.expect("it answers");
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
    }
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let asked = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let asked = futures::stream::iter([asked]);
    let answers = reflection.server_reflection_info(asked).await;
    let mut answers = answers.expect("it answers").into_inner();
    let answer = answers.message().await.expect("readable").expect("one");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<&str> = list.service.iter().map(|s| s.name.as_str()).collect();
    assert!(names.contains(&SERVICE), "{names:?}");
    assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");
    let mut nowhere = tonic::client::Grpc::new(channel);
    nowhere.ready().await.expect("connected");
    let path = "/meed.transactions.v2.Transactions/AddTransaction";
    let codec = tonic_prost::ProstCodec::<AddTransactionRequest, AddTransactionResponse>::default();
    let refused = nowhere
        .unary(
            Request::new(credit("T1", "1")),
            path.parse().expect("a path"),
            codec,
        )
        .await
        .expect_err("no such service");
    assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
}

/// An authority and certificates of it.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        Self { issuer }
    }

    fn certificate(&self) -> Certificate {
        Certificate::from_pem(self.issuer.pem())
    }

    fn identity(&self, name: &str) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        Identity::from_pem(certificate.pem(), key.serialize_pem())
    }
}

#[tokio::test]
async fn with_certificates_only_those_are_served_who_show_one_of_the_authority() {
    boot::process::install_crypto();
    let (house, elsewhere) = (Authority::new(), Authority::new());
    let tls = ServerTlsConfig::new()
        .identity(house.identity("localhost"))
        .client_ca_root(house.certificate());
    let served = served(Some(tls)).await;
    let ask = async |identity: Option<Identity>| {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(house.certificate())
            .domain_name("localhost");
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", served.address));
        let endpoint = endpoint.expect("an address").tls_config(tls);
        let channel = endpoint.expect("certificates").connect().await;
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut client = TransactionsClient::new(channel);
        client.add_transaction(credit("T1", "10")).await
    };
    ask(None).await.expect_err("no certificate");
    ask(Some(elsewhere.identity("a-service")))
        .await
        .expect_err("of another authority");
    let plain = Endpoint::from_shared(format!("http://{}", served.address)).expect("an address");
    if let Ok(channel) = plain.connect().await {
        let mut client = TransactionsClient::new(channel);
        let answer = client.add_transaction(credit("T1", "10")).await;
        answer.expect_err("without TLS");
    }
    assert_eq!(
        served.api.count("SELECT count(*) FROM transactions").await,
        0
    );
    let answer = ask(Some(house.identity("a-service")))
        .await
        .expect("posted");
    assert_eq!(answer.into_inner().points, 10);
    let audited = "SELECT count(*) FROM audit_records WHERE actor LIKE 'grpc sha256:%'";
    assert_eq!(
        served.api.count(audited).await,
        1,
        "who it was is written down"
    );
}

#[tokio::test]
async fn told_to_stop_it_says_so_and_ends() {
    let served = served(None).await;
    let channel = served.channel().await;
    let mut health = HealthClient::new(channel);
    let watched = HealthCheckRequest {
        service: SERVICE.to_owned(),
    };
    let mut seen = health
        .watch(watched)
        .await
        .expect("it answers")
        .into_inner();
    let first = seen.message().await.expect("readable").expect("one");
    assert_eq!(first.status(), ServingStatus::Serving);
    served.stop.cancel();
    let next = seen.message().await.expect("readable").expect("one");
    assert_eq!(next.status(), ServingStatus::NotServing);
    while tokio::net::TcpStream::connect(served.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
