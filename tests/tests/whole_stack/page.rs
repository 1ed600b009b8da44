//! The page at `/app` in a browser, on the whole system: what players and staff do there, with a mouse, a keyboard alone
//! or whatever reads to them.

use fantoccini::key::Key;
use reqwest::Response;
use serde_json::{Value, json};
use tests::system::{System, patiently, unique};

use crate::{api_system::api_system, browser::Browser};

const PASSWORD: &str = "correct horse battery";

/// A phone's screen and a desk's, in pixels.
const PHONE: (u32, u32) = (390, 844);
const DESK: (u32, u32) = (1280, 900);

async fn open(system: &System, (width, height): (u32, u32)) -> Browser {
    let browser = Browser::open(width, height).await;
    browser.goto(&system.url("/app")).await;
    browser
}

async fn fill(browser: &Browser, css: &str, text: &str) {
    let field = browser.find(css).await;
    field.clear().await.expect("it can be");
    field.send_keys(text).await.expect("it takes text");
}

async fn enter(browser: &Browser, name: &str, password: &str) {
    fill(browser, "#username", name).await;
    fill(browser, "#password", password).await;
    browser.click("#entrance-form button").await;
}

/// Nothing is wider than the screen, or in anybody's way, in the light or in the dark.
async fn is_for_everybody(browser: &Browser) {
    for scheme in ["light", "dark"] {
        browser.prefers("prefers-color-scheme", scheme).await;
        let barriers = browser.barriers().await;
        assert_eq!(barriers, [""; 0], "in the {scheme}");
    }
    let wide = "const { scrollWidth, clientWidth } = document.documentElement;
        if (scrollWidth <= clientWidth) return [];
        return Array.from(document.body.querySelectorAll('*'))
            .filter((one) => one.getBoundingClientRect().right > clientWidth)
            .map((one) => `${one.tagName} ${one.id} ${one.className}`);";
    assert_eq!(browser.evaluate(wide).await, json!([]), "it is too wide");
}

/// A name that nobody has, with the password of all.
async fn registered(system: &System, path: &str, token: Option<&str>) -> (String, String) {
    let name = unique(path);
    let url = system.url(&format!("/api/v1/auth/{path}"));
    let mut request = system.http.post(url).header("idempotency-key", &name);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let credentials = json!({ "username": name, "password": PASSWORD });
    let answer = patiently(request.json(&credentials)).await;
    let answer = answer.error_for_status().expect("it is done");
    let answer: Value = answer.json().await.expect("JSON");
    (name, answer["userId"].as_str().expect("an id").to_owned())
}

async fn user_id(system: &System, name: &str) -> String {
    let (id,): (String,) = sqlx::query_as("SELECT user_id::text FROM users WHERE username = $1")
        .bind(name)
        .fetch_one(&system.pool)
        .await
        .expect("a user");
    id
}

async fn admin(system: &System) -> String {
    let url = system.url("/dev/token?sub=admin&role=admin");
    let request = system.http.get(url);
    let answer: Value = patiently(request).await.json().await.expect("JSON");
    answer["access_token"].as_str().expect("a token").to_owned()
}

/// Somebody who works for the programme.
async fn staff(system: &System) -> String {
    let admin = admin(system).await;
    registered(system, "register-staff", Some(&admin)).await.0
}

#[tokio::test]
async fn somebody_registers_and_watches_points_arrive() {
    let system = api_system().await;
    let browser = open(&system, DESK).await;
    is_for_everybody(&browser).await;

    // What cannot be is said where it is, and to whoever hears the page.
    browser.click("#entrance-switch").await;
    enter(&browser, "ab", PASSWORD).await;
    browser
        .says("#entrance-form .problem[role=alert]", "Name")
        .await;
    is_for_everybody(&browser).await;
    let name = unique("anna");
    enter(&browser, &name, PASSWORD).await;
    browser.says("#points", "0").await;
    browser.says("#tier", "Bronze").await;
    browser.says("#name", &name).await;
    assert_eq!(browser.complaints().await, [""; 0]);

    system.stay(&user_id(&system, &name).await, 16).await;
    browser.says("#points", "1,600").await;
    browser.says("#tier", "Gold").await;
    browser.says("#history", "Hotel stay").await;
    browser.announces("You are Gold now.").await;
    is_for_everybody(&browser).await;

    // The session goes on, and nothing of it can be read by a script or seen in the address.
    browser.client.refresh().await.expect("it is loaded again");
    browser.says("#points", "1,600").await;
    let kept = browser
        .evaluate("return [document.cookie, location.href, JSON.stringify({ ...localStorage, ...sessionStorage })]")
        .await;
    assert_eq!(
        kept,
        json!([
            "",
            system.url("/app"),
            json!({ "meed.name": name }).to_string()
        ])
    );
    // What is still being opened would complain about being closed.
    browser.says("#live", "Live").await;
    browser.click("#leave").await;
    browser.find("#entrance-form").await;
    browser.client.refresh().await.expect("it is loaded again");
    browser.find("#entrance-form").await;
    assert_eq!(browser.complaints().await, [""; 0]);
    browser.close().await;
}

#[tokio::test]
async fn a_password_that_is_wrong_lets_nobody_in() {
    let system = api_system().await;
    let (name, id) = registered(&system, "register", None).await;
    let browser = open(&system, PHONE).await;
    enter(&browser, &name, "something else entirely").await;
    let problem = "#entrance-form .problem";
    browser.says(problem, "INVALID_CREDENTIALS").await;
    let complaints = browser.complaints().await;
    assert!(
        complaints.len() == 1 && complaints[0].contains("401"),
        "the refusal alone: {complaints:?}"
    );
    enter(&browser, &name, PASSWORD).await;
    browser.says("#tier", "Bronze").await;

    // Whoever is put out is told so.
    let deactivate = system.url(&format!("/api/v1/users/{id}/deactivate"));
    let request = system
        .http
        .post(deactivate)
        .bearer_auth(admin(&system).await);
    let done = patiently(request.header("idempotency-key", &name)).await;
    assert_eq!(done.status(), 200);
    browser.says(problem, "session has ended").await;
    browser.close().await;
}

#[tokio::test]
async fn staff_read_a_redemptions_story_with_the_keyboard_alone() {
    let system = api_system().await;
    let customer = system.customer_with(5).await;
    let id = unique("R");
    let redemption = json!({
        "redeemRequestId": id, "customerId": customer, "requestedPoints": 250,
        "merchantContext": { "merchantId": "M2", "orderId": "ORD-77" }
    });
    // The merchant's word comes late enough to be waited for, however slow this machine is.
    let late = json!({ "mode": "pending-confirm", "callbackDelayMs": 5_000 });
    system.tell_merchant("M2", &late).await;
    system.redeem(&unique("key"), &redemption).await;
    assert_eq!(system.ended(&id).await["status"], "SUCCESS");
    let usual = json!({ "mode": "pending-confirm" });
    system.tell_merchant("M2", &usual).await;

    let browser = open(&system, PHONE).await;
    let name = staff(&system).await;
    let tab = char::from(Key::Tab);
    let enter = char::from(Key::Enter);
    // The skip link, then the form; Enter sends it.
    browser.find("#username").await;
    browser.focus_by(tab, "#username").await;
    browser
        .press(
            name.chars()
                .chain([tab])
                .chain(PASSWORD.chars())
                .chain([enter]),
        )
        .await;
    browser.find("#create").await;
    is_for_everybody(&browser).await;
    browser.focus_by(tab, "#sections a:nth-of-type(2)").await;
    browser.press([enter]).await;
    browser.focus_by(tab, "#redemption").await;
    browser.press(unique("nobody").chars().chain([enter])).await;
    browser.says("#find .problem", "REDEMPTION_NOT_FOUND").await;
    let complaints = browser.complaints().await;
    assert!(
        complaints.len() == 1 && complaints[0].contains("404"),
        "{complaints:?}"
    );
    // What was not found is selected, so that typing takes its place.
    browser.press(id.chars().chain([enter])).await;
    browser.says("#story .summary", "Success").await;
    let told = browser
        .find("#story .timeline")
        .await
        .text()
        .await
        .expect("text");
    for part in [
        "QUEUED: 250 points at M2 for its order ORD-77",
        "250 points from AVAILABLE to HELD",
        "AWAITING_CALLBACK",
        "the merchant called back: CONFIRMED",
        "SUCCESS: 250 points deducted",
        "redeem-confirmed",
    ] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    is_for_everybody(&browser).await;

    assert_eq!(browser.complaints().await, [""; 0]);

    // The link leads to the flow.
    let link = "#story a[target=_blank]";
    let address = browser.find(link).await.attr("href").await.expect("asked");
    let address = address.expect("it leads somewhere");
    assert!(
        address.starts_with(&system.components.env["TEMPORAL_UI_URL"]),
        "{address}"
    );
    browser.focus_by(tab, link).await;
    browser.press([enter]).await;
    browser.go_on_in_new_tab().await;
    browser.says("main", &id).await;
    browser.close().await;
}

/// A promotion that staff make with the API.
async fn promotion(system: &System, kind: &str, title: &str, amount: &str) -> Response {
    let request = system.http.post(system.url("/api/v1/promotions"));
    let request = request.bearer_auth(admin(system).await);
    let request = request.header("idempotency-key", unique("key"));
    let body = json!({
        "title": title, "description": "", "type": kind, "amount": amount,
        "startDate": "2026-01-01", "endDate": "2100-01-01"
    });
    patiently(request.json(&body)).await
}

/// The title of the promotion that whoever registers is given. There may be one already, and no second one beside it.
async fn welcome(system: &System) -> String {
    promotion(system, "WELCOME_BONUS", "Welcome to the programme", "50.00").await;
    let path = "/api/v1/promotions?type=WELCOME_BONUS&active=true";
    let request = system.http.get(system.url(path));
    let answer = patiently(request.bearer_auth(admin(system).await)).await;
    let answer: Value = answer.json().await.expect("JSON");
    let now = chrono::Utc::now().to_rfc3339();
    let all = answer["promotions"].as_array().expect("a list");
    let holds = |one: &&Value| {
        let at = |name: &str| one[name].as_str().expect("an instant").to_owned();
        at("startDate") <= now && now < at("endDate")
    };
    let one = all.iter().find(holds).expect("there is one");
    one["title"].as_str().expect("text").to_owned()
}

#[tokio::test]
async fn a_player_is_welcomed_and_staff_offer_more_while_both_watch() {
    let system = api_system().await;
    let title = welcome(&system).await;
    let player = open(&system, PHONE).await;
    player.click("#entrance-switch").await;
    let name = unique("anna");
    enter(&player, &name, PASSWORD).await;
    player.says("#promotions", &title).await;
    player.says("#notifications .unread", &title).await;
    player.says("#live", "Live").await;
    is_for_everybody(&player).await;

    // With the keyboard; the focus stays where it was, and what came of it is said.
    let [tab, enter_key] = [Key::Tab, Key::Enter].map(char::from);
    player.focus_by(tab, "#promotions button").await;
    player.press([enter_key]).await;
    player.says("#promotions .done", "Claimed").await;
    player.says("#history", "+").await;
    let points = player.find("#points").await.text().await.expect("text");
    assert_ne!(points, "0");
    assert_eq!(
        player
            .evaluate("return document.activeElement.tagName")
            .await,
        json!("H3")
    );
    is_for_everybody(&player).await;

    let staff_name = staff(&system).await;
    let desk = open(&system, DESK).await;
    enter(&desk, &staff_name, PASSWORD).await;
    let offer = unique("Ten more");
    fill(&desk, "#title", &offer).await;
    fill(&desk, "#type", "DEPOSIT_MATCH").await;
    fill(&desk, "#amount", "10.50").await;
    desk.click("#create button").await;
    desk.says("#all li:first-child h3", &offer).await;
    desk.click("#all li:first-child button").await;
    let id = user_id(&system, &name).await;
    fill(
        &desk,
        "#all textarea",
        &format!("{id}, nobody-of-that-name"),
    )
    .await;
    is_for_everybody(&desk).await;
    desk.click("#all .assign button").await;
    let told = "Done: 1 assigned, 1 without an account (nobody-of-that-name), of 2.";
    desk.says("#all .assign [role=status]", told).await;
    assert_eq!(desk.complaints().await, [""; 0]);

    // It is there without having been asked for, and is said.
    player.says("#notifications li:first-child", &offer).await;
    player.says("#promotions li:first-child h3", &offer).await;
    player.click("#promotions li:first-child button").await;
    player
        .says("#promotions li:first-child .done", "10 points")
        .await;
    player.says("#history", "+10").await;
    player.click("#read-all").await;
    player
        .announces("All notifications are marked as read.")
        .await;
    let unread = "return document.querySelectorAll('.unread').length";
    assert_eq!(player.evaluate(unread).await, json!(0));
    assert_eq!(player.complaints().await, [""; 0]);

    // Whoever was away for a moment misses nothing, and is told nothing twice.
    system.components.stack.stop("api").expect("it ends");
    player.says("#live", "Connecting").await;
    system
        .components
        .stack
        .start_planned("api")
        .expect("it starts");
    let after = unique("After a while");
    let made = promotion(&system, "DEPOSIT_MATCH", &after, "1").await;
    let made: Value = made.json().await.expect("JSON");
    let assign = format!(
        "/api/v1/promotions/{}/assign",
        made["id"].as_str().expect("an id")
    );
    let request = system
        .http
        .post(system.url(&assign))
        .bearer_auth(admin(&system).await);
    let request = request.header("idempotency-key", unique("key"));
    patiently(request.json(&json!({ "playerIds": [id] }))).await;
    player.says("#live", "Live").await;
    player.says("#notifications li:first-child", &after).await;
    let all = "return Array.from(document.querySelectorAll('[data-notification]'), (one) => +one.dataset.notification)";
    assert_eq!(player.evaluate(all).await, json!([3, 2, 1]));
    player.close().await;
    desk.close().await;
}

#[tokio::test]
async fn staff_take_a_job_back() {
    let system = api_system().await;
    let title = unique("Nobody’s");
    promotion(&system, "DEPOSIT_MATCH", &title, "5").await;
    let name = staff(&system).await;
    let desk = open(&system, DESK).await;
    enter(&desk, &name, PASSWORD).await;
    desk.says("#all li:first-child h3", &title).await;
    // Nothing goes on while it is being taken back.
    system
        .components
        .stack
        .pause("worker")
        .expect("it stands still");
    desk.click("#all li:first-child button").await;
    let players: Vec<String> = (0..500).map(|number| format!("P{number}")).collect();
    fill(&desk, "#all textarea", &players.join("\n")).await;
    desk.click("#all .assign button").await;
    desk.says("#all .assign [role=status]", "Under way: 0 assigned")
        .await;
    desk.click("#all .assign .quiet").await;
    desk.says("#all .assign .quiet", "Cancelling").await;
    system
        .components
        .stack
        .resume("worker")
        .expect("it goes on");
    desk.says("#all .assign [role=status]", "Cancelled: 0 assigned")
        .await;
    assert_eq!(desk.complaints().await, [""; 0]);
    desk.close().await;
}

/// What the page must not do is refused by the browser, and would be seen by these tests.
#[tokio::test]
async fn what_must_not_be_is_refused_and_noticed() {
    let system = api_system().await;
    let browser = open(&system, DESK).await;
    browser.find("#entrance-form").await;
    assert_eq!(browser.complaints().await, [""; 0]);
    let elsewhere = "const { promise, resolve } = Promise.withResolvers();
        addEventListener('securitypolicyviolation', ({ violatedDirective }) => resolve(violatedDirective));
        new Image().src = 'http://127.0.0.1:1/elsewhere.png';
        return promise;";
    assert_eq!(browser.evaluate(elsewhere).await, json!("img-src"));
    let complaints = browser.complaints().await;
    assert!(
        complaints.len() == 1 && complaints[0].contains("Content Security Policy"),
        "{complaints:?}"
    );
    let from_text = "try { document.body.innerHTML = '<b>text</b>'; return 'made'; }
        catch (error) { return error.name; }";
    assert_eq!(browser.evaluate(from_text).await, json!("TypeError"));
    browser
        .evaluate("document.querySelector('label[for=username]').remove()")
        .await;
    let barriers = browser.barriers().await;
    assert!(!barriers.is_empty());
    for barrier in barriers {
        assert!(barrier.contains("#username"), "{barrier}");
    }
    browser.close().await;
}
