//! A Chromium without a window, for what only a browser shows: a page, its scripts, what a keyboard does with it, and
//! what it complains of.

use std::{
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use fantoccini::{
    Client, ClientBuilder, Locator,
    actions::{InputSource, KeyAction, KeyActions},
    elements::Element,
    error::CmdError,
    wd::{Capabilities, WebDriverCompatibleCommand},
};
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::{Method, Url};
use serde_json::{Value, json};
use stack::{Progress, cache::Cache, toolchain};
use tests::system::PATIENCE;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use uuid::Uuid;

/// On the way through a page there are fewer places than this where the keyboard stops.
const STOPS_MAX: usize = 150;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// A browser; it ends with this.
pub(crate) struct Browser {
    /// What steers it.
    pub client: Client,
    driver: Driver,
}

/// The driver, with the directory where the browser keeps everything. Its name is short: the addresses of sockets in it
/// have little room.
struct Driver {
    process: Child,
    home: PathBuf,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.process.start_kill().ok();
        std::fs::remove_dir_all(&self.home).ok();
    }
}

/// A command that the driver of Chromium knows beside those of the standard.
#[derive(Debug)]
struct OwnCommand {
    name: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for OwnCommand {
    fn endpoint(
        &self,
        base: &Url,
        session: Option<&str>,
    ) -> Result<Url, <Url as std::str::FromStr>::Err> {
        base.join(&format!(
            "session/{}/{}",
            session.unwrap_or_default(),
            self.name
        ))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

/// Starts the driver; it takes a free port and says which.
async fn driver() -> (Driver, String) {
    let name = Uuid::new_v4().simple().to_string();
    let home = std::env::temp_dir().join(format!("browser-{}", &name[..8]));
    std::fs::create_dir_all(&home).expect("a directory");
    let mut process = Command::new("chromedriver")
        .arg("--port=0")
        .env("HOME", &home)
        .env("TMPDIR", &home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("chromedriver runs; `./dev test` installs it");
    let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
    let driver = Driver { process, home };
    let port = loop {
        let line = lines.next_line().await.expect("text");
        let line = line.expect("it says its port before it ends");
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            break port.trim_end_matches('.').to_owned();
        }
    };
    // Whoever does not listen to it would hold it up.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (driver, format!("http://127.0.0.1:{port}"))
}

impl Browser {
    /// Opens one with a screen of this size, in pixels; one that is higher than wide is a phone's.
    pub async fn open(width: u32, height: u32) -> Self {
        let (driver, address) = driver().await;
        let mut arguments = vec![
            "--headless=new".to_owned(),
            format!("--window-size={width},{height}"),
            // It ends with its driver, however that ends.
            "--remote-debugging-pipe".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
        ];
        // Chromium does not sandbox what root runs.
        if stack::places::is_root() {
            arguments.push("--no-sandbox".to_owned());
        }
        let capabilities = json!({
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let capabilities: Capabilities =
            serde_json::from_value(capabilities).expect("capabilities");
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let client = builder.capabilities(capabilities).connect(&address);
        let browser = Self {
            client: client.await.expect("a session"),
            driver,
        };
        // A window is never as narrow as a phone.
        let screen = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < height
        });
        browser
            .devtools("Emulation.setDeviceMetricsOverride", screen)
            .await;
        browser
    }

    async fn own(&self, name: &'static str, body: Value) -> Value {
        let answer = self.client.issue_cmd(OwnCommand { name, body }).await;
        answer.expect("the driver answers")
    }

    /// Everything that the page and the browser have complained of since this was last asked: errors and warnings of
    /// the console, requests that failed, breaches of its content security policy. That the api asked to come again
    /// (503) is no such thing: a machine that has too much to do may bring that about.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.own("se/log", json!({ "type": "browser" })).await;
        let log = log.as_array().expect("a list").clone();
        log.into_iter()
            .filter(|entry| entry["level"] != "INFO" && entry["level"] != "DEBUG")
            .map(|entry| entry["message"].as_str().expect("text").to_owned())
            .filter(|message| {
                !message.contains("a status of 503") && !message.contains("response code: 503")
            })
            .collect()
    }

    /// Asks the browser itself for something (Chrome DevTools Protocol).
    pub async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.own("goog/cdp/execute", body).await
    }

    /// Pretends that its user prefers this, such as `prefers-color-scheme` to be `dark`.
    pub async fn prefers(&self, feature: &str, value: &str) {
        let features = json!({ "features": [{ "name": feature, "value": value }] });
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// Presses and releases keys, one after the other, wherever the focus is.
    pub async fn press(&self, keys: impl IntoIterator<Item = char>) {
        let mut actions = KeyActions::new("keyboard".to_owned());
        for key in keys {
            actions = actions
                .then(KeyAction::Down { value: key })
                .then(KeyAction::Up { value: key });
        }
        self.client.perform_actions(actions).await.expect("pressed");
    }

    /// Presses a key until this has the focus.
    pub async fn focus_by(&self, key: char, css: &str) {
        let focused = format!(
            "return document.activeElement?.matches({}) === true;",
            json!(css)
        );
        for _ in 0..STOPS_MAX {
            if self.evaluate(&focused).await == json!(true) {
                return;
            }
            self.press([key]).await;
        }
        panic!("the keyboard does not lead to {css}");
    }

    /// Goes on in the tab that a link has opened.
    pub async fn go_on_in_new_tab(&self) {
        let this = self.client.window().await.expect("a window");
        let what = "there is another tab";
        let other = self.until(what, async || {
            let all = self.client.windows().await?;
            let mut others = all.into_iter().filter(|window| *window != this);
            others.next().ok_or_else(|| CmdError::WaitTimeout)
        });
        let other = other.await;
        self.client.switch_to_window(other).await.expect("gone on");
    }

    /// Runs a script in the page; what it returns.
    pub async fn evaluate(&self, script: &str) -> Value {
        let run = self.client.execute(script, Vec::new()).await;
        run.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// What stands in the way of people who use the page in another way: axe-core's findings.
    pub async fn barriers(&self) -> Vec<String> {
        let tool = tokio::task::spawn_blocking(|| {
            let cache = Cache::open().expect("a cache");
            toolchain::tool("axe-core", &cache, &Progress::quiet()).expect("the tool")
        });
        let source = tool.await.expect("it is had").join("axe.min.js");
        let source = std::fs::read_to_string(source).expect("it is readable");
        self.evaluate(&source).await;
        let look = "const [done] = arguments;
            axe.run({ resultTypes: ['violations'] }).then(({ violations }) => done(
                violations.flatMap(({ id, nodes }) => nodes.map((node) =>
                    `${id} at ${node.target}: ${node.failureSummary}`))),
                (error) => done([String(error)]));";
        let found = self.client.execute_async(look, Vec::new()).await;
        serde_json::from_value(found.expect("it looks")).expect("texts")
    }

    /// Goes to an address.
    pub async fn goto(&self, url: &str) {
        self.client.goto(url).await.expect("it is opened");
    }

    /// The first element of a selector, once it is there.
    pub async fn find(&self, css: &str) -> Element {
        let wait = self.client.wait().at_most(PATIENCE);
        let found = wait.for_element(Locator::Css(css)).await;
        found.unwrap_or_else(|error| panic!("{css} does not come: {error}"))
    }

    /// Clicks, once it can be clicked.
    pub async fn click(&self, css: &str) {
        let what = format!("{css} can be clicked");
        self.until(&what, async || {
            self.client.find(Locator::Css(css)).await?.click().await
        })
        .await;
    }

    /// Waits until the page has said this to whoever listens to it, which nobody sees.
    pub async fn announces(&self, text: &str) {
        let what = format!("it says {text:?} to whoever listens");
        self.until(&what, async || {
            let announcer = self.client.find(Locator::Css("#announcer")).await?;
            let said = announcer.prop("textContent").await?.unwrap_or_default();
            said.contains(text)
                .then_some(())
                .ok_or(CmdError::WaitTimeout)
        })
        .await;
    }

    /// Waits until an element says this.
    pub async fn says(&self, css: &str, text: &str) {
        let started = Instant::now();
        let mut said = String::new();
        loop {
            // Between being found and being read it may be replaced.
            if let Ok(element) = self.client.find(Locator::Css(css)).await
                && let Ok(now) = element.text().await
            {
                if now.contains(text) {
                    return;
                }
                said = now;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{css} does not say {text:?} but {said:?}"
            );
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }

    /// Tries until it succeeds.
    async fn until<T>(&self, what: &str, attempt: impl AsyncFn() -> Result<T, CmdError>) -> T {
        let started = Instant::now();
        loop {
            match attempt().await {
                Ok(done) => return done,
                Err(error) => assert!(started.elapsed() < PATIENCE, "never {what}: {error}"),
            }
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }

    /// Ends it, and waits until it has ended.
    pub async fn close(mut self) {
        self.client.close().await.expect("it ends");
        self.driver.process.kill().await.expect("its driver ends");
    }
}
