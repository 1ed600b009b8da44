//! How many files and connections a process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More than any process needs; some systems have no limit, and take none as high as that.
const ENOUGH: u64 = 1_048_576;

/// Raises this process's limit as far as it may, which many systems keep low for programs that know
/// no better; answers what it is now.
///
/// # Errors
/// When the system does not tell, or does not allow it.
pub fn raise() -> anyhow::Result<u64> {
    let (now, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = most.min(ENOUGH);
    if now >= wanted {
        return Ok(now);
    }
    setrlimit(Resource::RLIMIT_NOFILE, wanted, most)?;
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_high_as_it_may_be() {
        let raised = raise().expect("it may be raised");
        let (now, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("the system tells");
        assert_eq!(now, raised);
        assert!(now == most || now >= ENOUGH);
    }
}
