//! The address a process serves at.

use std::{io::ErrorKind, net::SocketAddr};

use tokio::net::TcpListener;

/// Listens at `address`, which the setting of this name says.
///
/// # Errors
/// When the address is in use or cannot be had.
pub async fn bind(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => anyhow::anyhow!(
            "{address} is in use: stop what listens there, or choose another address with {setting}"
        ),
        _ => anyhow::anyhow!("cannot listen at {address} ({setting}): {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_said_clearly() {
        let first = bind("api.listen", "127.0.0.1:0".parse().expect("an address"))
            .await
            .unwrap();
        let address = first.local_addr().unwrap();
        let message = bind("api.listen", address)
            .await
            .expect_err("it is in use")
            .to_string();
        assert_eq!(
            message,
            format!(
                "{address} is in use: stop what listens there, or choose another address with \
                 api.listen"
            )
        );
    }
}
