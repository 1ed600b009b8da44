//! The documentation in a browser: whoever reads it can authorise and try calls.

use serde_json::Value;

use crate::{api_system::api_system, browser::Browser};

#[tokio::test]
async fn a_reader_of_the_documentation_authorises_and_calls() {
    let system = api_system().await;
    let customer = system.customer_with(3).await;
    let browser = Browser::open(1280, 900).await;
    browser.goto(&system.url("/docs")).await;

    let read = "#operations-rewards-readRewards";
    let call = async |status: &str| {
        browser.click(&format!("{read} .execute")).await;
        let answer = format!("{read} .live-responses-table tr.response .response-col_status");
        browser.says(&answer, status).await;
    };
    browser
        .click(&format!("{read} .opblock-summary-control"))
        .await;
    let parameter = format!("{read} tr[data-param-name=customerId] input");
    let parameter = browser.find(&parameter).await;
    parameter.clear().await.expect("it can be");
    parameter.send_keys(&customer).await.expect("it takes text");
    call("401").await;
    let refused = browser.complaints().await;
    assert_eq!(
        refused.len(),
        1,
        "the call without a token alone: {refused:?}"
    );
    assert!(refused[0].contains("401"), "{refused:?}");

    let token = system.token("reader", "rewards.read").await;
    browser.click(".scheme-container .authorize").await;
    let field = browser.find(".auth-container #auth-bearer-value").await;
    field.send_keys(&token).await.expect("it takes text");
    browser
        .click(".auth-container:has(#auth-bearer-value) [aria-label='Apply credentials']")
        .await;
    browser.says(".modal-ux-content h6", "Authorized").await;
    browser.click(".modal-ux-content .btn-done").await;
    call("200").await;
    let body =
        format!("{read} .live-responses-table tr.response .response-col_description .microlight");
    let body = browser.find(&body).await.text().await.expect("text");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body["totalPoints"], 300);
    assert_eq!(browser.complaints().await, [""; 0]);
    browser.close().await;
}
