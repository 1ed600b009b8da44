//! A Redis for tests: each test has its own.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long it may take to start.
const START_WITHIN: Duration = Duration::from_secs(60);

/// A Redis of the test's own; it ends with this. The tests need the program `redis-server`.
pub struct RedisServer {
    port: u16,
    process: Child,
}

impl RedisServer {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// When it cannot be started: a test that cannot run has failed.
    pub async fn new() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("there is a free port")
            .port();
        let mut server = Self {
            port,
            process: spawn(port),
        };
        server.answers().await;
        server
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Starts it again, with nothing in it.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(&mut self) {
        self.process = spawn(self.port);
        self.answers().await;
    }

    async fn answers(&mut self) {
        let deadline = Instant::now() + START_WITHIN;
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port))
            .await
            .is_err()
        {
            let ended = self.process.try_wait().expect("it is a child");
            assert!(ended.is_none(), "redis-server has ended");
            assert!(Instant::now() < deadline, "redis-server does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it.
    pub fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(port: u16) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server, which ./dev test installs")
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.end();
    }
}
