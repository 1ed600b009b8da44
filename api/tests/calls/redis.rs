//! A Redis for tests.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A Redis of the test's own; the tests need the program `redis-server`.
pub struct Redis {
    port: u16,
    process: Child,
}

impl Redis {
    pub async fn new() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut redis = Self {
            port,
            process: spawn(port),
        };
        redis.answers().await;
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub async fn start(&mut self) {
        self.process = spawn(self.port);
        self.answers().await;
    }

    async fn answers(&mut self) {
        for _ in 0..300 {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port))
                .await
                .is_ok()
            {
                return;
            }
            assert!(
                self.process.try_wait().unwrap().is_none(),
                "redis-server has ended"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("redis-server does not answer");
    }

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

impl Drop for Redis {
    fn drop(&mut self) {
        self.end();
    }
}
