//! Who has earned most, from orders on Kafka to the two calls, against a plain recomputation: with
//! the ranking in the memory of the api, and with it in Redis.

use std::collections::BTreeMap;

use samples::{feed::Delivery, recompute::recompute};
use serde_json::{Value, json};
use temporalio_client::{
    RpcOptions, WorkflowDescribeOptions, WorkflowExecutionStatus, WorkflowFetchHistoryOptions,
    schedules::{ScheduleOverlapPolicy, TriggerScheduleOptions},
};
use tests::{
    breakable::{Blow, breakable},
    components::{meed, temporal},
    history,
    system::{System, system, unique},
};
use workflows::{
    RebuildRanking,
    id::{RANKING_BY_HAND_WORKFLOW_ID, RANKING_SCHEDULE_ID},
};

/// More than anybody else in these tests spends.
const LARGE: i64 = 100_000_000_000;

/// Orders of customers who are all ahead of everybody else: with ties, orders that come twice,
/// amounts that give nothing, and one without an id.
fn orders(names: &[String]) -> Vec<Delivery> {
    let order = |customer: &String, amount: String, id: Option<String>| {
        let mut body = json!({ "customerId": customer, "amount": amount });
        if let Some(id) = id {
            body["orderId"] = json!(id);
        }
        Delivery {
            topic: "orders".to_owned(),
            key: customer.clone(),
            headers: BTreeMap::new(),
            value: body.to_string().into_bytes(),
        }
    };
    let mut orders = Vec::new();
    for (customer, number) in names.iter().zip(0..) {
        // Pairs of the same total, by other orders: 99.99 more is no point more.
        let total = LARGE + number / 2 * 1_000;
        let first = total - 5_000 - number * 100;
        let id = |part: &str| Some(format!("{customer}-{part}"));
        orders.push(order(customer, format!("{first}.99"), id("one")));
        orders.push(order(customer, format!("{}", total - first), id("two")));
        orders.push(order(customer, "99.99".to_owned(), id("none")));
    }
    orders.push(orders[1].clone());
    orders.push(orders[3].clone());
    orders.push(order(&names[4], "250".to_owned(), None));
    orders
}

/// The customers with their points, in the order of the ranking.
fn recomputed(orders: &[Delivery]) -> Vec<(String, i64)> {
    let customers = recompute(orders).customers.into_iter();
    let mut all: Vec<(String, i64)> = customers
        .map(|(customer, standing)| (customer, standing.lifetime))
        .collect();
    all.sort_by(|a, b| {
        b.1.cmp(&a.1)
            .then_with(|| a.0.as_bytes().cmp(b.0.as_bytes()))
    });
    all
}

fn places(ranked: &[(String, i64)], first: usize) -> Value {
    let places = ranked.iter().zip(first + 1..);
    places
        .map(|((customer, points), rank)| {
            json!({ "customerId": customer, "points": points, "rank": rank })
        })
        .collect()
}

async fn shows(system: &System, expected: &[(String, i64)]) {
    let top = places(&expected[..10], 0);
    system
        .until(&format!("the first ten are {top}"), async || {
            let (status, shown) = system.get("/top-customers?N=10").await;
            status == 200 && shown["customers"] == top
        })
        .await;
    let (_, versioned) = system.get("/api/v1/top-customers").await;
    assert_eq!(versioned["customers"], top, "ten when nothing is said");
    // Below the last ones stand others.
    for at in 0..expected.len() - 2 {
        let customer = &expected[at].0;
        for path in ["/customer-info", "/api/v1/customer-info"] {
            let (status, info) = system.get(&format!("{path}?id={customer}")).await;
            assert_eq!(status, 200, "{info}");
            assert!(info["asOf"].is_string(), "{info}");
            let above = at.saturating_sub(2);
            let shown = json!({
                "customerId": customer, "points": expected[at].1, "rank": at + 1,
                "above": places(&expected[above..at], above),
                "below": places(&expected[at + 1..at + 3], at + 1),
                "asOf": info["asOf"],
            });
            assert_eq!(info, shown);
        }
    }
}

/// Sends orders and looks who stands where: how it is recomputed.
async fn journey(system: &System) -> Vec<(String, i64)> {
    let names: Vec<String> = (0..14).map(|_| unique("ranked")).collect();
    let orders = orders(&names);
    for order in &orders {
        system.send("orders", &order.key, &[], &order.value).await;
    }
    let expected = recomputed(&orders);
    assert_eq!(expected.len(), names.len());
    shows(system, &expected).await;

    // One who has spent nothing worth a point has an account and no place.
    let poor = unique("poor");
    let order = json!({ "customerId": poor, "amount": "99", "orderId": unique("order") });
    system
        .send("orders", &poor, &[], order.to_string().as_bytes())
        .await;
    system
        .until("the account is open", async || {
            system.get(&format!("/customer-info?id={poor}")).await.0 == 200
        })
        .await;
    let (_, info) = system.get(&format!("/customer-info?id={poor}")).await;
    assert_eq!((&info["points"], &info["rank"]), (&json!(0), &Value::Null));

    for (path, status, code) in [
        ("/top-customers?N=0", 400, "INVALID_PARAMETER"),
        ("/top-customers?N=1001", 400, "INVALID_PARAMETER"),
        ("/api/v1/top-customers?N=10001", 400, "INVALID_PARAMETER"),
        ("/customer-info", 400, "INVALID_PARAMETER"),
        (
            "/customer-info?id=nobody-of-this-name",
            404,
            "CUSTOMER_NOT_FOUND",
        ),
        ("/api/v1/customer-info?id=", 404, "CUSTOMER_NOT_FOUND"),
    ] {
        let (got, problem) = system.get(path).await;
        assert_eq!(
            (got.as_u16(), problem["code"].as_str()),
            (status, Some(code)),
            "{path}"
        );
    }
    let (status, all) = system.get("/top-customers?N=1000").await;
    assert_eq!(status, 200);
    assert!(
        all["customers"]
            .as_array()
            .is_some_and(|all| all.len() >= names.len())
    );
    expected
}

async fn meed_of(system: &System, arguments: &'static [&'static str]) -> String {
    let env = system.components.env.clone();
    tokio::task::spawn_blocking(move || meed(&env, arguments))
        .await
        .expect("it runs")
}

#[tokio::test]
async fn orders_make_a_ranking_in_memory_and_it_is_made_anew_by_hand_and_by_the_schedule() {
    let system = system().await;
    let mut expected = journey(&system).await;

    let told = meed_of(&system, &["ranking", "rebuild"]).await;
    assert!(told.contains("made anew with"), "{told}");
    shows(&system, &expected).await;
    let status = meed_of(&system, &["ranking", "status"]).await;
    assert!(status.contains("api 127.0.0.1:"), "{status}");

    let client = temporal().await;
    let schedule = client.get_schedule_handle(RANKING_SCHEDULE_ID);
    let described = async || {
        schedule
            .describe(RpcOptions::default())
            .await
            .expect("it is there")
    };
    let (before, trigger) = (
        described().await.recent_actions().len(),
        TriggerScheduleOptions::default(),
    );
    let triggered = schedule.trigger(ScheduleOverlapPolicy::Skip, trigger).await;
    triggered.expect("it is triggered");
    system
        .until("it has run", async || {
            let now = described().await;
            now.recent_actions().len() > before && now.running_actions().is_empty()
        })
        .await;
    let run = described().await.recent_actions().pop().expect("one");
    let scheduled = client.get_workflow_handle::<RebuildRanking>(&run.workflow_id);
    let ended = scheduled
        .describe(WorkflowDescribeOptions::default())
        .await
        .expect("it is known");
    assert_eq!(ended.status(), WorkflowExecutionStatus::Completed);
    assert_eq!(
        ended.static_summary(),
        Some("Makes the ranking anew from the ledger, for the schedule")
    );
    let options = WorkflowFetchHistoryOptions::default;
    history::record("RebuildRanking", scheduled.fetch_history(options())).await;
    let by_hand = client.get_workflow_handle::<RebuildRanking>(RANKING_BY_HAND_WORKFLOW_ID);
    history::record("RebuildRanking", by_hand.fetch_history(options())).await;

    // What was made anew goes on to be fed.
    let (last, _) = expected.pop().expect("one");
    let leap = LARGE * 2;
    let order = json!({ "customerId": last, "amount": leap, "orderId": unique("order") });
    system
        .send("orders", &last, &[], order.to_string().as_bytes())
        .await;
    let first = format!("{last} is first");
    system
        .until(&first, async || {
            let (_, top) = system.get("/top-customers?N=1").await;
            top["customers"][0]["customerId"] == *last
        })
        .await;
}

#[tokio::test]
async fn orders_make_a_ranking_in_redis_which_may_be_wrong_lost_hang_and_be_gone() {
    let system = breakable().await;
    let expected = journey(&system).await;
    let port = system.components.stack.ports().base() + 7;
    let redis = async |command: &[&str]| {
        let output = std::process::Command::new("redis-cli")
            .args(["-p", &port.to_string()])
            .args(command)
            .output()
            .expect("redis-cli, which ./dev test installs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let status = meed_of(&system, &["ranking", "status"]).await;
    assert!(status.contains("| redis"), "{status}");

    // Somebody has more in it than in the ledger.
    let (wrong, points) = &expected[9];
    redis(&["ZADD", "meed:{ranking}", "-9000000000000", wrong]).await;
    let (_, info) = system.get(&format!("/customer-info?id={wrong}")).await;
    assert_eq!(
        (&info["rank"], &info["points"]),
        (&json!(1), &json!(points))
    );
    let told = meed_of(&system, &["ranking", "rebuild"]).await;
    assert!(told.contains("redis: made anew with"), "{told}");
    shows(&system, &expected).await;

    assert_eq!(redis(&["FLUSHALL"]).await, "OK");
    shows(&system, &expected).await;

    for blow in [Blow::Pause, Blow::Kill] {
        system.blow("redis", blow).await;
        let (status, problem) = system.get_once("/top-customers").await;
        assert_eq!(
            (status.as_u16(), problem["code"].as_str()),
            (503, Some("UNAVAILABLE"))
        );
        let customer = system.customer_with(1).await;
        assert_eq!(
            system.available(&customer).await,
            Some(100),
            "nothing else suffers"
        );
    }
    system.blow("redis", Blow::Restart).await;
    shows(&system, &expected).await;
}
