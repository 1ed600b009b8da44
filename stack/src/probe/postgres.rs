//! Enough of PostgreSQL's protocol to ask simple questions of a server on this machine that trusts its callers: the
//! binaries from Maven come without `psql`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, bail, ensure};

use super::LIMIT;

const PROTOCOL_3: u32 = 196_608;
const MESSAGE_LIMIT_BYTES: usize = 1 << 20;

/// Where and as whom to ask.
#[derive(Debug, Clone, Copy)]
pub struct PostgresAddress<'a> {
    /// Port on this machine.
    pub port: u16,
    /// Role.
    pub user: &'a str,
    /// Database.
    pub database: &'a str,
}

/// Runs one statement and returns its rows as text, a null as an empty string.
pub fn query(address: PostgresAddress<'_>, sql: &str) -> Result<Vec<Vec<String>>> {
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], address.port)), LIMIT)?;
    stream.set_read_timeout(Some(LIMIT * 15))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let mut startup = PROTOCOL_3.to_be_bytes().to_vec();
    for word in ["user", address.user, "database", address.database, ""] {
        startup.extend_from_slice(word.as_bytes());
        startup.push(0);
    }
    stream.write_all(&with_length(&startup)?)?;
    read_until_ready(&mut stream)?;
    let mut question = sql.as_bytes().to_vec();
    question.push(0);
    stream.write_all(b"Q")?;
    stream.write_all(&with_length(&question)?)?;
    let rows = read_until_ready(&mut stream)?;
    stream.write_all(&[b'X', 0, 0, 0, 4]).ok();
    Ok(rows)
}

fn with_length(body: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(body.len() + 4).context("too long a statement")?;
    Ok([length.to_be_bytes().as_slice(), body].concat())
}

fn read_until_ready(stream: &mut TcpStream) -> Result<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    let mut failure = None;
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        ensure!(
            (4..MESSAGE_LIMIT_BYTES).contains(&length),
            "not a PostgreSQL server"
        );
        let mut body = vec![0; length - 4];
        stream.read_exact(&mut body)?;
        match head[0] {
            b'Z' => return failure.map_or(Ok(rows), |failure| bail!("PostgreSQL: {failure}")),
            b'D' => rows.push(row(&body)?),
            b'R' => ensure!(
                body.starts_with(&[0, 0, 0, 0]),
                "PostgreSQL asks for a password"
            ),
            b'E' => {
                let message = error_message(&body);
                // A refused start-up is not followed by anything else.
                if !message.starts_with("ERROR") {
                    bail!("PostgreSQL: {message}");
                }
                failure = Some(message);
            }
            _ => {}
        }
    }
}

fn row(body: &[u8]) -> Result<Vec<String>> {
    let mut rest = body.get(2..).context("a short row")?;
    let mut values = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        let value = after.get(..length).context("a short value")?;
        values.push(String::from_utf8_lossy(value).into_owned());
        rest = &after[length..];
    }
    Ok(values)
}

/// Severity and message out of the fields of an error.
fn error_message(body: &[u8]) -> String {
    let fields: Vec<String> = body
        .split(|byte| *byte == 0)
        .map(|field| String::from_utf8_lossy(field).into_owned())
        .collect();
    let field = |kind: char| {
        fields
            .iter()
            .find_map(|field| field.strip_prefix(kind))
            .unwrap_or_default()
    };
    format!("{}: {}", field('V'), field('M'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_errors_are_read() {
        assert_eq!(
            row(&[0, 2, 0, 0, 0, 1, b'7', 255, 255, 255, 255]).unwrap(),
            ["7", ""]
        );
        assert_eq!(
            error_message(b"SERROR\0VERROR\0C42P01\0Mno such table\0\0"),
            "ERROR: no such table"
        );
        assert!(row(&[0, 1, 0, 0, 0, 9, b'7']).is_err());
    }
}
