//! A TCP proxy whose connections can be dropped, refused and stalled.
//!
//! The crates for this (noxious, toxiproxy clients) drive a server of their own; what is needed
//! here is one listener and three switches.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const BUFFER_BYTES: usize = 32 * 1024;

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// They work.
    Open,
    /// None is taken, and those there were are closed.
    Refused,
    /// They stay open and nothing passes.
    Stalled,
}

/// What the connections follow.
#[derive(Debug, Clone, Copy)]
struct Switch {
    way: Way,
    /// Connections made before this number was reached are closed.
    closed_before: u64,
}

/// A proxy in front of one address.
#[derive(Debug)]
pub struct Proxy {
    switch: watch::Sender<Switch>,
    cut: AtomicU64,
}

impl Proxy {
    /// Listens on loopback and passes everything on.
    pub async fn start(port: u16, target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let (switch, follow) = watch::channel(Switch {
            way: Way::Open,
            closed_before: 0,
        });
        let mut gone = follow.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = accept(listener, target, follow) => {}
                // The proxy was dropped.
                () = async { while gone.changed().await.is_ok() {} } => {}
            }
        });
        Ok(Self {
            switch,
            cut: AtomicU64::new(0),
        })
    }

    /// Closes every connection; new ones work.
    pub fn drop_all(&self) {
        self.cut.fetch_add(1, Ordering::SeqCst);
        let closed_before = self.cut.load(Ordering::SeqCst);
        self.switch
            .send_modify(|switch| switch.closed_before = closed_before);
    }

    /// Closes every connection and takes no new one.
    pub fn refuse(&self) {
        self.switch.send_modify(|switch| switch.way = Way::Refused);
        self.drop_all();
    }

    /// Lets nothing pass.
    pub fn stall(&self) {
        self.switch.send_modify(|switch| switch.way = Way::Stalled);
    }

    /// Everything works again.
    pub fn heal(&self) {
        self.switch.send_modify(|switch| switch.way = Way::Open);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, follow: watch::Receiver<Switch>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let now = *follow.borrow();
        if now.way == Way::Refused {
            continue;
        }
        let mut follow = follow.clone();
        tokio::spawn(async move {
            let passing = pass(client, target, follow.clone());
            tokio::select! {
                _ = passing => {}
                _ = follow.wait_for(|switch| switch.closed_before > now.closed_before) => {}
            }
        });
    }
}

async fn pass(
    client: TcpStream,
    target: SocketAddr,
    follow: watch::Receiver<Switch>,
) -> io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        one_way(from_client, to_server, follow.clone()),
        one_way(from_server, to_client, follow),
    )?;
    Ok(())
}

async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut follow: watch::Receiver<Switch>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if follow
            .wait_for(|switch| switch.way != Way::Stalled)
            .await
            .is_err()
        {
            return Ok(());
        }
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A server that says back what it hears, and a proxy before it.
    async fn echo() -> (Proxy, SocketAddr) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = server.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = server.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        (Proxy::start(address.port(), target).await.unwrap(), address)
    }

    async fn says_back(stream: &mut TcpStream) -> bool {
        let mut heard = [0; 2];
        stream.write_all(b"hi").await.is_ok()
            && tokio::time::timeout(PATIENCE, stream.read_exact(&mut heard))
                .await
                .is_ok_and(|read| read.is_ok() && heard == *b"hi")
    }

    #[tokio::test]
    async fn connections_are_dropped_and_refused() {
        let (proxy, address) = echo().await;
        let mut first = TcpStream::connect(address).await.unwrap();
        assert!(says_back(&mut first).await);
        proxy.drop_all();
        assert!(!says_back(&mut first).await);
        let mut second = TcpStream::connect(address).await.unwrap();
        assert!(says_back(&mut second).await);
        proxy.refuse();
        assert!(!says_back(&mut second).await);
        let mut third = TcpStream::connect(address).await.unwrap();
        assert!(!says_back(&mut third).await);
        proxy.heal();
        let mut fourth = TcpStream::connect(address).await.unwrap();
        assert!(says_back(&mut fourth).await);
    }

    #[tokio::test]
    async fn a_stalled_connection_goes_on_later() {
        let (proxy, address) = echo().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(says_back(&mut stream).await);
        proxy.stall();
        stream.write_all(b"hi").await.unwrap();
        let mut heard = [0; 2];
        let soon = Duration::from_millis(300);
        let nothing = tokio::time::timeout(soon, stream.read_exact(&mut heard)).await;
        assert!(nothing.is_err());
        proxy.heal();
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hi");
    }
}
