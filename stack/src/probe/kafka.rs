//! The smallest question that Kafka's protocol has.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Result, ensure};

use super::LIMIT;

/// Asks the broker at this port of this machine for its API versions. It answers only once it is registered with the
/// controller and has opened for clients.
pub fn kafka_answers(port: u16) -> Result<()> {
    const CORRELATION: [u8; 4] = *b"ping";
    // Length; API key 18 and version 0; correlation id; client id of zero characters.
    let mut request = vec![0, 0, 0, 10, 0, 18, 0, 0];
    request.extend_from_slice(&CORRELATION);
    request.extend_from_slice(&[0, 0]);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(&request)?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer)?;
    ensure!(answer[4..8] == CORRELATION, "not a Kafka broker");
    ensure!(
        answer[8..10] == [0, 0],
        "the broker answered with error {}",
        i16::from_be_bytes([answer[8], answer[9]])
    );
    Ok(())
}
