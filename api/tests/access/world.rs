//! What the calls are tried on: an api that trusts an issuer elsewhere, with a customer, a
//! redemption, callbacks, users and clients.

use std::{
    net::Ipv4Addr,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use activities::signature;
use axum::{
    body::Body,
    http::{Method, Request},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{TimeDelta, Utc};
use domain::{
    AssignmentJobId, CustomerId, PromotionId, PromotionType, RedeemRequestId, money::Amount,
    promotion::Terms,
};
use serde_json::{Value, json};
use store::{
    assignments,
    promotions::{self, Created},
    redemptions,
};
use tokio_util::sync::CancellationToken;

use crate::{
    support::{self, Answer, Api, keys::Key},
    table::{PARTNER_CALLBACK, READ, REDEEM, Row, TIER_CALLBACKS, Who},
};

/// The issuer elsewhere.
pub const ISSUER: &str = "https://issuer.example";
/// What its tokens for Meed are for.
pub const AUDIENCE: &str = "meed-api";
pub const ALL_SCOPES: &str = "rewards.read rewards.write rewards.redeem callbacks.write";
const PASSWORD: &str = "correct horse battery";
pub const SECRET: &str = "s3cret-of-the-client";

/// The keys of the issuer elsewhere.
pub static RSA: LazyLock<Key> = LazyLock::new(|| Key::rsa("rsa", 2_048));
pub static ED: LazyLock<Key> = LazyLock::new(|| Key::ed("ed"));

static NUMBER: AtomicU32 = AtomicU32::new(1);

fn number() -> u32 {
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// What a token of the issuer elsewhere says.
pub fn claims(sub: &str, scope: &str, roles: &[&str], merchants: Option<&[&str]>) -> Value {
    let now = Utc::now().timestamp();
    let mut claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": sub, "scope": scope, "roles": roles,
        "iat": now, "nbf": now, "exp": now + 300,
    });
    if let Some(merchants) = merchants {
        claims["merchants"] = json!(merchants);
    }
    claims
}

/// How somebody proves who they are.
#[derive(Debug, Clone)]
pub enum Proof {
    Nothing,
    /// A token of the issuer elsewhere, with these claims.
    Token(Value),
    /// The header `Authorization`, as often as there are values.
    Authorization(Vec<String>),
    /// A client and its secret.
    Secret(&'static str, &'static str),
    /// A signature with this key, so many seconds from now.
    Signature(&'static str, i64),
}

impl Proof {
    fn headers(&self, body: &str) -> Vec<(&'static str, String)> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Token(claims) => {
                vec![("authorization", format!("Bearer {}", RSA.sign(claims)))]
            }
            Self::Authorization(values) => values
                .iter()
                .map(|value| ("authorization", value.clone()))
                .collect(),
            Self::Secret(client, secret) => {
                let pair = BASE64_STANDARD.encode(format!("{client}:{secret}"));
                vec![("authorization", format!("Basic {pair}"))]
            }
            Self::Signature(key, seconds) => {
                let at = Utc::now().timestamp() + seconds;
                let signed = signature::sign(key.as_bytes(), at, body.as_bytes());
                vec![
                    ("meed-timestamp", at.to_string()),
                    ("meed-signature", signed),
                ]
            }
        }
    }
}

/// Everybody who may make the call, by name.
pub fn whoever_may(row: &Row) -> Vec<(String, Proof)> {
    let token = |name: &str, claims| (name.to_owned(), Proof::Token(claims));
    match row.who {
        Who::Open => vec![("nobody".to_owned(), Proof::Nothing)],
        Who::Scope(scope) => {
            let mut all = vec![
                token("a client", claims("client", scope, &[], None)),
                token(
                    "a partner of M1",
                    claims("partner", scope, &[], Some(&["M9", "M1"])),
                ),
                token("staff", claims("staff", scope, &["staff"], None)),
                token("an admin", claims("admin", scope, &["admin"], None)),
            ];
            if row.players {
                all.push(token("player C1", claims("C1", scope, &["player"], None)));
            }
            all
        }
        Who::Role(roles) => roles
            .iter()
            .map(|role| {
                let sub = if *role == "player" { "C1" } else { role };
                token(role, claims(sub, "", &[role], None))
            })
            .collect(),
        Who::ClientSecret => vec![("a client".to_owned(), Proof::Secret("partner-1", SECRET))],
        Who::Signature => vec![("M1".to_owned(), Proof::Signature("dev-key-M1", 0))],
    }
}

/// A request that is right but for who makes it.
#[derive(Debug, Clone)]
pub struct Ask {
    pub method: Method,
    pub uri: String,
    pub body: String,
}

/// What the calls are tried on.
pub struct World {
    pub api: Api,
    /// The token of one of Meed's own users who has logged out.
    pub logged_out: String,
    /// A refresh token that counts.
    pub refresh_token: String,
    user: String,
}

impl World {
    pub async fn new() -> Self {
        let file = std::env::temp_dir().join(format!("meed-access-{}", uuid::Uuid::new_v4()));
        let keys = json!({ "keys": [RSA.public, ED.public] });
        std::fs::write(&file, keys.to_string()).expect("written");
        let issuer = format!(
            "issuers = [{{ issuer = {ISSUER:?}, audience = {AUDIENCE:?}, jwks_file = {:?}, without_roles = \"client\" }}]",
            file.display().to_string()
        );
        let unlimited = support::unlimited();
        let mut replace = vec![
            ("issuers = []", issuer.as_str()),
            ("max_lag_seconds = 60", "max_lag_seconds = 86400"),
        ];
        replace.extend(
            unlimited
                .iter()
                .map(|(old, new)| (old.as_str(), new.as_str())),
        );
        let api = Api::new(&replace).await;
        std::fs::remove_file(&file).expect("removed");
        let mut world = Self {
            api,
            logged_out: String::new(),
            refresh_token: String::new(),
            user: String::new(),
        };
        world.fill().await;
        world
    }

    async fn fill(&mut self) {
        let pool = &self.api.database.pool;
        for customer in ["C1", "C2"] {
            sqlx::query(
                "INSERT INTO customers (customer_id, available, lifetime_earned, version)
                 VALUES ($1, 1000, 1000, 1)",
            )
            .bind(customer)
            .execute(pool)
            .await
            .expect("a customer");
        }
        for id in ["R1", "R2"] {
            let body = json!({
                "redeemRequestId": id, "customerId": "C1", "requestedPoints": 10,
                "merchantContext": { "merchantId": "M1", "orderId": "O1" }
            });
            let proof = Proof::Token(claims("client", REDEEM, &[], None));
            let answer = self.post("/api/v1/redeem", &proof, &body).await;
            assert_eq!(answer.status, 202, "{}", answer.body);
            let id = RedeemRequestId::new(id).expect("an id");
            redemptions::reserve(pool, &id, Duration::from_secs(600), |_| true)
                .await
                .expect("reserved");
        }
        for (id, kind, merchant, subject) in [
            (TIER_CALLBACKS[0], "TIER_UPGRADE", None, "1"),
            (TIER_CALLBACKS[1], "TIER_UPGRADE", None, "2"),
            (PARTNER_CALLBACK, "PARTNER", Some("M1"), "R2"),
        ] {
            sqlx::query(
                "INSERT INTO callbacks (callback_id, kind, workflow_id, subject, merchant_id,
                     expires_at)
                 VALUES ($1, $2, 'flow/' || $1, $3, $4, clock_timestamp() + interval '1 hour')",
            )
            .bind(id)
            .bind(kind)
            .bind(subject)
            .bind(merchant)
            .execute(pool)
            .await
            .expect("a callback");
        }
        self.promote().await;
        sqlx::raw_sql(
            "INSERT INTO notification_inboxes (user_id, last_id) VALUES ('C1', 1);
             INSERT INTO notifications (user_id, notification_id, identity, body_hash, kind, content)
             VALUES ('C1', 1, ' 1', sha256(''), 'PROMOTION', '{\"title\": \"Welcome\"}')",
        )
        .execute(pool)
        .await
        .expect("a notification");
        let hash = self.api.app.passwords.hash(SECRET.to_owned()).await;
        let hash = hash.expect("a hash");
        let mut conn = pool.acquire().await.expect("a connection");
        for client in ["partner-1", "partner-2"] {
            let scopes = [READ.to_owned()];
            let added = store::clients::add(&mut conn, client, &hash, &scopes, None).await;
            assert!(added.expect("added"));
        }
        drop(conn);
        let bert = json!({ "username": "bert", "password": PASSWORD });
        let bert = self
            .post("/api/v1/auth/register", &Proof::Nothing, &bert)
            .await;
        self.user = bert.text("userId");
        let anna = json!({ "username": "anna", "password": PASSWORD });
        self.post("/api/v1/auth/register", &Proof::Nothing, &anna)
            .await;
        let session = self.log_in().await;
        let token = json!({ "refreshToken": session.text("refreshToken") });
        let ended = self
            .post("/api/v1/auth/logout", &Proof::Nothing, &token)
            .await;
        assert_eq!(ended.status, 204);
        self.logged_out = session.text("accessToken");
        self.refresh_token = self.log_in().await.text("refreshToken");
        // The ranking is kept until it is there; then it stays as it is.
        let app = &self.api.app;
        let stop = CancellationToken::new();
        let shown = async {
            while app.ranking.top(1).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            stop.cancel();
        };
        tokio::join!(app.keep_ranking(&stop), shown);
    }

    /// A promotion of C1, and a job to assign it to C2.
    async fn promote(&self) {
        let terms = Terms {
            kind: PromotionType::welcome(),
            title: "Welcome".to_owned(),
            description: String::new(),
            amount: Amount::parse("50").expect("an amount"),
            currency: None,
            starts_at: Utc::now() - TimeDelta::days(1),
            ends_at: Utc::now() + TimeDelta::days(1),
            is_active: true,
        };
        let promotion = PromotionId::new("P1").expect("an id");
        let job = AssignmentJobId::new("J1").expect("an id");
        let customer = |id: &str| CustomerId::new(id).expect("an id");
        let mut tx = self.api.database.pool.begin().await.expect("begun");
        let made = promotions::create(&mut tx, &promotion, &terms, true).await;
        assert_eq!(made.expect("made"), Created::New);
        let given = assignments::welcome(&mut tx, &terms.kind, &[&customer("C1")]).await;
        assert_eq!(given.expect("assigned"), 1);
        assignments::order(&mut tx, &job, &promotion, &[customer("C2")])
            .await
            .expect("ordered");
        tx.commit().await.expect("committed");
    }

    async fn log_in(&self) -> Answer {
        let anna = json!({ "username": "anna", "password": PASSWORD });
        let answer = self
            .post("/api/v1/auth/login", &Proof::Nothing, &anna)
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer
    }

    async fn post(&self, path: &str, proof: &Proof, body: &Value) -> Answer {
        let ask = Ask {
            method: Method::POST,
            uri: path.to_owned(),
            body: body.to_string(),
        };
        self.send(&ask, proof).await
    }

    /// The request of a row.
    pub async fn ask(&self, row: &Row) -> Ask {
        let (method, path) = row.call.split_once(' ').expect("a method and a path");
        let mut path = path.to_owned();
        for (name, value) in row.parameters {
            path = path.replace(&format!("{{{name}}}"), value);
        }
        let mut texts = [path + row.query, row.body.to_owned()];
        for text in &mut texts {
            *text = text
                .replace("{n}", &number().to_string())
                .replace("{user}", &self.user);
            if text.contains("{refreshToken}") {
                let token = self.log_in().await.text("refreshToken");
                *text = text.replace("{refreshToken}", &token);
            }
        }
        let [uri, body] = texts;
        assert!(!uri.contains('{'), "{uri}");
        Ask {
            method: method.parse().expect("a method"),
            uri,
            body,
        }
    }

    /// Sends it from an address of its own, under an idempotency key of its own.
    pub async fn send(&self, ask: &Ask, proof: &Proof) -> Answer {
        let n = number();
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(&ask.uri)
            .header("idempotency-key", format!("key-{n}"));
        let kind = match ask.body.get(..1) {
            Some("{" | "[") => Some("application/json"),
            Some(_) => Some("application/x-www-form-urlencoded"),
            None => None,
        };
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        for (name, value) in proof.headers(&ask.body) {
            request = request.header(name, value);
        }
        let request = request
            .body(Body::from(ask.body.clone()))
            .expect("a request");
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + n).to_string();
        self.api.send_from(&address, request).await
    }

    /// All that is in these tables; `attempts` may change with every refusal.
    pub async fn contents(&self, tables: &[&str]) -> String {
        let pool = &self.api.database.pool;
        let mut contents = String::new();
        for table in tables {
            let rows = format!(
                "SELECT coalesce(string_agg(t::text, '|' ORDER BY t::text), '') FROM {table} t"
            );
            let (rows,): (String,) = sqlx::query_as(sqlx::AssertSqlSafe(rows))
                .fetch_one(pool)
                .await
                .expect("rows");
            for part in [table, ": ", rows.as_str(), "\n"] {
                contents.push_str(part);
            }
        }
        contents
    }

    /// What stands in the books of a customer.
    pub async fn of_customer(&self, customer: &str) -> Vec<String> {
        let mut all = Vec::new();
        for (table, column) in [
            ("customers", "customer_id"),
            ("transfers", "customer_id"),
            ("redemptions", "customer_id"),
            ("notifications", "user_id"),
        ] {
            let rows = format!("SELECT t::text FROM {table} t WHERE {column} = $1 ORDER BY 1");
            let rows: Vec<(String,)> = sqlx::query_as(sqlx::AssertSqlSafe(rows))
                .bind(customer)
                .fetch_all(&self.api.database.pool)
                .await
                .expect("rows");
            assert!(!rows.is_empty(), "{customer} is in {table}");
            all.extend(rows.into_iter().map(|(row,)| row));
        }
        all
    }

    /// The tables that no refusal may change.
    pub async fn tables(&self) -> Vec<String> {
        let tables: Vec<(String,)> = sqlx::query_as(
            "SELECT tablename::text FROM pg_tables
             WHERE schemaname = current_schema() AND tablename NOT IN ('attempts') ORDER BY 1",
        )
        .fetch_all(&self.api.database.pool)
        .await
        .expect("tables");
        assert!(tables.len() > 10, "{tables:?}");
        tables.into_iter().map(|(name,)| name).collect()
    }

    /// All that no refusal may change.
    pub async fn everything(&self) -> String {
        let tables = self.tables().await;
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        self.contents(&tables).await
    }
}
