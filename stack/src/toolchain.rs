//! The programs that fetch and build the components: found, or installed by the system's package manager where this
//! process may do that, or asked for by name.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cache::{self, Cache};
use crate::command;
use crate::go_tool;
use crate::maven;
use crate::places;
use crate::progress::{Progress, Task};
use crate::python;
use crate::versions::{Versions, required_go};

/// A program that something cannot be built or run without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A Java runtime for the broker.
    Java,
    /// Maven, which fetches the broker and, where none is installed, PostgreSQL.
    Maven,
    /// Any Go; the version that the module asks for is fetched by it.
    Go,
    /// A C compiler and linker.
    CCompiler,
    /// make.
    Make,
    /// What tells a build where libraries are.
    PkgConfig,
    /// OpenSSL's library, with its headers.
    Libssl,
    /// nginx.
    Nginx,
    /// PostgreSQL's client programs, such as `pg_dump`.
    PostgresClient,
    /// Python, with what makes virtual environments.
    Python,
    /// curl.
    Curl,
    /// jq.
    Jq,
    /// OpenSSL's program.
    Openssl,
    /// A server for what replicas share.
    Redis,
    /// Prometheus, with promtool.
    Prometheus,
    /// A browser, with the driver that tests steer it by.
    Chromium,
    /// What asks a server as fast as it answers.
    Wrk,
}

impl Need {
    /// Reads the name that a plan uses.
    pub fn named(name: &str) -> Result<Self> {
        Ok(match name {
            "java" => Self::Java,
            "maven" => Self::Maven,
            "go" => Self::Go,
            "cc" => Self::CCompiler,
            "make" => Self::Make,
            "pkg-config" => Self::PkgConfig,
            "libssl" => Self::Libssl,
            "nginx" => Self::Nginx,
            "postgresql-client" => Self::PostgresClient,
            "python" => Self::Python,
            "curl" => Self::Curl,
            "jq" => Self::Jq,
            "openssl" => Self::Openssl,
            "redis" => Self::Redis,
            "prometheus" => Self::Prometheus,
            "chromium" => Self::Chromium,
            "wrk" => Self::Wrk,
            _ => bail!("nothing is known about how to install `{name}`"),
        })
    }

    fn is_met(self) -> bool {
        match self {
            Self::Java => find_java().is_some(),
            Self::Maven => runs("mvn", "--version"),
            Self::Go => find_go().is_some(),
            Self::CCompiler => runs("cc", "--version"),
            Self::Make => runs("make", "--version"),
            Self::PkgConfig => runs("pkg-config", "--version"),
            Self::Libssl => has_libssl(),
            Self::Nginx => find_nginx().is_some(),
            Self::PostgresClient => runs("pg_dump", "--version") && runs("psql", "--version"),
            Self::Python => python::find().is_some(),
            Self::Curl => runs("curl", "--version"),
            Self::Jq => runs("jq", "--version"),
            Self::Openssl => runs("openssl", "version"),
            Self::Redis => runs("redis-server", "--version"),
            Self::Prometheus => runs("prometheus", "--version") && runs("promtool", "--version"),
            // It is packaged with the browser that it fits, and finds it by itself.
            Self::Chromium => runs("chromedriver", "--version"),
            Self::Wrk => is_there("wrk"),
        }
    }

    fn title(self) -> String {
        match self {
            Self::Java => format!(
                "Java {} or newer",
                Versions::get().toolchain.java_minimum_major
            ),
            Self::Maven => "Maven".into(),
            Self::Go => "Go".into(),
            Self::CCompiler => "a C compiler".into(),
            Self::Make => "make".into(),
            Self::PkgConfig => "pkg-config".into(),
            Self::Libssl => "OpenSSL's headers".into(),
            Self::Nginx => "nginx".into(),
            Self::PostgresClient => "PostgreSQL's client programs".into(),
            Self::Python => format!(
                "Python 3.{} or newer with venv",
                Versions::get().toolchain.python_minimum_minor
            ),
            Self::Curl => "curl".into(),
            Self::Jq => "jq".into(),
            Self::Openssl => "openssl".into(),
            Self::Redis => "Redis".into(),
            Self::Prometheus => "Prometheus".into(),
            Self::Chromium => "Chromium with its driver".into(),
            Self::Wrk => "wrk".into(),
        }
    }

    /// Debian's packages for it; the first that exists is taken.
    fn debian_packages(self) -> &'static [&'static str] {
        match self {
            Self::Java => &[
                "openjdk-17-jre-headless",
                "openjdk-21-jre-headless",
                "openjdk-25-jre-headless",
                "default-jre-headless",
            ],
            Self::Maven => &["maven"],
            Self::Go => &["golang-go"],
            Self::CCompiler | Self::Make => &["build-essential"],
            Self::PkgConfig => &["pkg-config"],
            Self::Libssl => &["libssl-dev"],
            Self::Nginx => &["nginx", "nginx-light"],
            Self::PostgresClient => &["postgresql-client"],
            Self::Python => &["python3-venv"],
            Self::Curl => &["curl"],
            Self::Jq => &["jq"],
            Self::Openssl => &["openssl"],
            Self::Redis => &["redis-server"],
            Self::Prometheus => &["prometheus"],
            Self::Chromium => &["chromium-driver", "chromium-chromedriver"],
            Self::Wrk => &["wrk"],
        }
    }

    fn homebrew_package(self) -> &'static str {
        match self {
            Self::Java => "openjdk",
            Self::Maven => "maven",
            Self::Go => "go",
            Self::PkgConfig => "pkgconf",
            Self::Libssl => "openssl@3",
            Self::Nginx => "nginx",
            Self::PostgresClient => "libpq",
            Self::Python => "python",
            Self::Curl => "curl",
            Self::Jq => "jq",
            Self::Openssl => "openssl",
            Self::Redis => "redis",
            Self::Prometheus => "prometheus",
            Self::Chromium => "chromium chromedriver",
            Self::Wrk => "wrk",
            Self::CCompiler | Self::Make => "(xcode-select --install)",
        }
    }
}

/// For a program that ends with a failure even when it is only asked for its version.
fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

fn runs(program: &str, argument: &str) -> bool {
    Command::new(program)
        .arg(argument)
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Makes sure that all of these are there: installs what is missing when this process is root and the system has
/// `apt-get`, otherwise fails with the names of the packages.
pub fn ensure(needs: &[Need], cache: &Cache, progress: &Progress) -> Result<()> {
    let missing = |needs: &[Need]| -> Vec<Need> {
        needs
            .iter()
            .copied()
            .filter(|need| !need.is_met())
            .collect()
    };
    if missing(needs).is_empty() {
        return Ok(());
    }
    let _lock = cache::lock(&cache.dir().join("locks").join("packages"), || {
        progress.say("… waiting for another copy that is installing packages");
    })?;
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    let titles: Vec<String> = missing.iter().map(|need| need.title()).collect();
    let titles = titles.join(", ");
    if !runs("apt-get", "--version") {
        let packages: BTreeSet<&str> = missing.iter().map(|need| need.homebrew_package()).collect();
        let packages = Vec::from_iter(packages).join(" ");
        bail!(
            "missing: {titles}. With Homebrew: brew install {packages}; elsewhere your system's packages of these"
        );
    }
    if !places::is_root() {
        let packages: BTreeSet<&str> = missing
            .iter()
            .map(|need| available_package(*need))
            .collect();
        let packages = Vec::from_iter(packages).join(" ");
        bail!(
            "missing: {titles}. Install with: sudo apt-get update && sudo apt-get install -y {packages}"
        );
    }
    let task = progress.task(&format!("installing {titles} with apt-get"));
    command::run(&task, Command::new("apt-get").args(["update", "-q"]), None)?;
    let packages: BTreeSet<&str> = missing
        .iter()
        .map(|need| available_package(*need))
        .collect();
    let _silence = no_service_starts()?;
    command::run(
        &task,
        Command::new("apt-get")
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(&packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
        None,
    )?;
    if let Some(need) = missing.iter().find(|need| !need.is_met()) {
        bail!(
            "{} was installed and is still not usable; install it by hand",
            need.title()
        );
    }
    task.done(&Vec::from_iter(packages).join(" "));
    Ok(())
}

/// Debian's way to install a package without starting the service that comes with it: while this file is there, none
/// is. It is removed with the returned value, unless it was there before.
fn no_service_starts() -> Result<Option<RemovedAtTheEnd>> {
    const POLICY: &str = "/usr/sbin/policy-rc.d";
    const FORBIDDEN: &str = "#!/bin/sh\nexit 101\n";
    let path = PathBuf::from(POLICY);
    if path.exists() {
        return Ok(None);
    }
    fs::write(&path, FORBIDDEN).with_context(|| format!("{POLICY} cannot be written"))?;
    let file = RemovedAtTheEnd(path);
    fs::set_permissions(&file.0, fs::Permissions::from_mode(0o755))?;
    Ok(Some(file))
}

struct RemovedAtTheEnd(PathBuf);

impl Drop for RemovedAtTheEnd {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// OpenSSL's headers, also where Homebrew keeps them apart.
fn has_libssl() -> bool {
    let packaged = Command::new("pkg-config")
        .args(["--exists", "openssl"])
        .status()
        .is_ok_and(|status| status.success());
    packaged
        || ["/opt/homebrew/opt/openssl@3", "/usr/local/opt/openssl@3"]
            .into_iter()
            .any(|dir| Path::new(dir).join("include/openssl/ssl.h").exists())
}

/// nginx, also where only administrators have it in their path.
pub(crate) fn find_nginx() -> Option<PathBuf> {
    let places = [
        "nginx",
        "/usr/sbin/nginx",
        "/usr/local/sbin/nginx",
        "/opt/homebrew/bin/nginx",
    ];
    places
        .into_iter()
        .find(|program| runs(program, "-v"))
        .map(PathBuf::from)
}

fn available_package(need: Need) -> &'static str {
    let packages = need.debian_packages();
    let exists = |package: &&&str| {
        command::output(Command::new("apt-cache").args(["policy", package]))
            .is_ok_and(|text| text.contains("Candidate:") && !text.contains("Candidate: (none)"))
    };
    packages.iter().find(exists).unwrap_or(&packages[0])
}

/// A Java runtime new enough for the broker.
#[derive(Debug, Clone)]
pub struct Java {
    /// The `java` program.
    pub program: PathBuf,
    /// All that `java -version` says, which tells one build from another.
    pub version: String,
}

/// Looks for Java in `JAVA_HOME`, in `PATH` and where systems install it.
pub fn find_java() -> Option<Java> {
    let home = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
    let mut candidates: Vec<PathBuf> = home.into_iter().collect();
    candidates.push(PathBuf::from("java"));
    for parent in ["/usr/lib/jvm", "/opt/homebrew/opt", "/usr/local/opt"] {
        candidates.extend(
            children(Path::new(parent))
                .into_iter()
                .map(|dir| dir.join("bin/java")),
        );
    }
    candidates.into_iter().find_map(|program| {
        let output = Command::new(&program)
            .arg("-version")
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        let version = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let new_enough = java_major(&version)? >= Versions::get().toolchain.java_minimum_major;
        new_enough.then_some(Java { program, version })
    })
}

/// 17 out of `openjdk version "17.0.15" 2025-04-15`, 8 out of `java version "1.8.0_402"`.
fn java_major(version: &str) -> Option<u32> {
    let number = version.split('"').nth(1)?;
    let mut parts = number.split(['.', '_', '-', '+']);
    let first: u32 = parts.next()?.parse().ok()?;
    if first == 1 {
        parts.next()?.parse().ok()
    } else {
        Some(first)
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// A Go of some version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Go {
    /// The `go` program.
    pub program: PathBuf,
    version: Vec<u32>,
}

fn find_go() -> Option<Go> {
    let mut candidates = vec![PathBuf::from("go"), PathBuf::from("/usr/local/go/bin/go")];
    candidates.extend(
        children(Path::new("/usr/lib"))
            .into_iter()
            .filter_map(|dir| {
                let is_go = dir.file_name()?.to_str()?.starts_with("go-");
                is_go.then(|| dir.join("bin/go"))
            }),
    );
    let found = candidates.into_iter().filter_map(|program| {
        let text = command::output(
            Command::new(&program)
                .arg("version")
                .env("GOTOOLCHAIN", "local"),
        )
        .ok()?;
        Some(Go {
            version: go_version(text.split_whitespace().nth(2)?)?,
            program,
        })
    });
    found.max_by(|one, other| one.version.cmp(&other.version))
}

/// `go1.26.8` and `1.26.8` as numbers.
fn go_version(text: &str) -> Option<Vec<u32>> {
    text.trim_start_matches("go")
        .split('.')
        .map(|part| part.parse().ok())
        .collect()
}

/// The Go that the module asks for: the installed one if it is new enough, else the toolchain that any installed Go
/// fetches through the module proxy, checked there like every module.
pub(crate) fn go(cache: &Cache, task: &Task) -> Result<Go> {
    let wanted = required_go();
    let version = go_version(wanted).context("tools/temporal/go.mod has an odd go line")?;
    let installed = find_go().context("Go is not installed")?;
    if installed.version >= version {
        return Ok(installed);
    }
    let platform = go_platform()?;
    let name = format!("go-{wanted}-{platform}");
    let dir = cache.entry(&name, task, |dir| {
        task.line(&format!("fetching Go {wanted}: the installed one is older"));
        fetch_toolchain(&installed, wanted, &platform, dir)
    })?;
    let marker = fs::read_to_string(dir.join("toolchain"))
        .context("the fetched Go toolchain is incomplete")?;
    Ok(Go {
        program: dir.join(marker).join("bin/go"),
        version,
    })
}

fn fetch_toolchain(installed: &Go, wanted: &str, platform: &str, dir: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Download {
        #[serde(rename = "Dir")]
        dir: PathBuf,
    }
    let module = format!("golang.org/toolchain@v0.0.1-go{wanted}.{platform}");
    let mut report = String::new();
    let json = command::output(
        Command::new(&installed.program)
            .args(["mod", "download", "-json", &module])
            .current_dir(dir)
            .env("GOTOOLCHAIN", "local")
            .env("GOMODCACHE", dir.join("modules"))
            .env("GOFLAGS", "-modcacherw"),
    )
    .with_context(|| {
        format!("Go {wanted} could not be fetched; install Go {wanted} or newer yourself")
    })?;
    let download: Download =
        serde_json::from_str(&json).context("`go mod download` answered something else")?;
    fs::remove_dir_all(dir.join("modules/cache")).ok();
    // Modules carry no right to execute.
    for programs in ["bin", &format!("pkg/tool/{}", platform.replace('-', "_"))] {
        for program in children(&download.dir.join(programs)) {
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        }
    }
    let inside = download
        .dir
        .strip_prefix(dir)
        .context("the toolchain was put somewhere else")?;
    write!(report, "{}", inside.display())?;
    Ok(fs::write(dir.join("toolchain"), report)?)
}

/// `linux-amd64`, as Go names platforms.
pub(crate) fn go_platform() -> Result<String> {
    let system = match std::env::consts::OS {
        "macos" => "darwin",
        system => system,
    };
    let processor = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("processor `{other}` is not supported"),
    };
    Ok(format!("{system}-{processor}"))
}

/// What has to be installed before [`tool`] can make this one.
pub fn needs_of_tool(name: &str) -> &'static [Need] {
    let versions = Versions::get();
    if versions.python_tools.contains_key(name) {
        &[Need::Python]
    } else if versions.go_tools.contains_key(name) {
        &[Need::Go]
    } else if versions.maven_tools.contains_key(name) {
        &[Need::Maven]
    } else {
        &[]
    }
}

/// A tool of the version that `tools/versions.toml` names, made in the cache where it is missing; returns the directory
/// to put into `PATH`, or that of its files where it is no program.
pub fn tool(name: &str, cache: &Cache, progress: &Progress) -> Result<PathBuf> {
    let versions = Versions::get();
    if let Some(artifact) = versions.maven_tools.get(name) {
        return maven::tool(name, artifact, cache, progress);
    }
    ensure(needs_of_tool(name), cache, progress)?;
    if versions.python_tools.contains_key(name) {
        python::tool(name, cache, progress)
    } else if versions.go_tools.contains_key(name) {
        go_tool::tool(name, cache, progress)
    } else {
        cargo_tool(name, cache, progress)
    }
}

/// A `cargo` tool of the version that `tools/versions.toml` names, compiled into the cache where it is missing; returns
/// the directory to put into `PATH`.
fn cargo_tool(name: &str, cache: &Cache, progress: &Progress) -> Result<PathBuf> {
    let version = Versions::get()
        .cargo_tools
        .get(name)
        .with_context(|| format!("tools/versions.toml says nothing about `{name}`"))?;
    let entry = format!("{name}-{version}");
    if let Some(dir) = cache.find(&entry) {
        return Ok(dir.join("bin"));
    }
    let task = progress.task(&format!("compiling {name} {version}"));
    let dir = cache.entry(&entry, &task, |dir| {
        // Outside of the repository, whose own cargo configuration and target directory are none of its business.
        let mut cargo = Command::new("cargo");
        cargo
            // As it is quickest to compile: it runs for seconds, and its release profile takes many minutes.
            .args(["install", "--debug", "--locked", "--root"])
            .arg(dir)
            .args([name, "--version", version]);
        cargo.current_dir(dir).env_remove("CARGO_TARGET_DIR");
        command::run(&task, &mut cargo, None)
    })?;
    task.done("");
    Ok(dir.join("bin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_versions_are_read() {
        assert_eq!(
            java_major("openjdk version \"17.0.15\" 2025-04-15"),
            Some(17)
        );
        assert_eq!(java_major("java version \"1.8.0_402\""), Some(8));
        assert_eq!(java_major("openjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(java_major("command not found"), None);
    }

    #[test]
    fn go_versions_compare_as_numbers() {
        assert!(go_version("go1.26.8").unwrap() > go_version("1.9.12").unwrap());
        assert!(go_version("go1.26").unwrap() < go_version("1.26.8").unwrap());
    }
}
