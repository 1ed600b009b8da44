//! The frame of a process: what must be set up before anything else, and an end that says why.

use std::{process::ExitCode, sync::Once};

/// Runs a program, or says its version when that is asked for. When it fails, one message on
/// standard error says why, and the exit code is 1.
pub fn run<F>(program: &str, main: impl FnOnce() -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    if std::env::args().nth(1).as_deref() == Some("--version") {
        println!("{program} {}", crate::version());
        return ExitCode::SUCCESS;
    }
    install_crypto();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            let outcome = runtime.block_on(main());
            // What is still under way after a drain must not keep the process.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {}", message(&error));
            ExitCode::FAILURE
        }
    }
}

/// Chooses the cryptography of every TLS connection of this process, once.
pub fn install_crypto() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // Fails only when somebody else has chosen already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// The error and its causes in one line. Causes that the error has said already are left out.
fn message(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error
        .chain()
        .map(|cause| cause.to_string().replace('\n', "; "))
    {
        if message.contains(&cause) {
            continue;
        }
        if !message.is_empty() {
            message.push_str(": ");
        }
        message.push_str(&cause);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_with_its_causes() {
        let error =
            anyhow::anyhow!("the cause\nand more").context("the middle: the cause; and more");
        assert_eq!(
            message(&error.context("what failed")),
            "what failed: the middle: the cause; and more"
        );
    }
}
