//! Which version and build of Meed this is.

use std::sync::LazyLock;

use crate::temporal::build_id;

/// Version and build, as `--version` prints them.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> =
        LazyLock::new(|| format!("{} ({})", env!("CARGO_PKG_VERSION"), build_id()));
    &VERSION
}
