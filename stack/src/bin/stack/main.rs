//! The program behind `./dev`: runs what the plan (`dev.toml`) declares.

mod show;
mod test;
mod up;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use stack::cache::Cache;
use stack::{
    Component, Plan, Progress, Stack, StackBuilder, command, places, provision, toolchain,
};

#[derive(Debug, Parser)]
#[command(bin_name = "./dev", disable_help_subcommand = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Dev,
}

const AFTER_HELP: &str = "\
Variables:
  MEED_PORT_BASE       first port of the block; two copies with different blocks run side by side.
                       A port in use is named together with the variable that moves it alone
  MEED_CACHE_DIR       what was fetched and built, shared by all copies
  MEED_DATA_DIR        databases, logs and state, one directory per block of ports
  MEED_POSTGRES_BIN    the programs of a certain PostgreSQL
  MEED_EXTERNAL_DATABASE_URL, MEED_EXTERNAL_KAFKA_BROKERS, MEED_EXTERNAL_TEMPORAL_ADDRESS,
  MEED_EXTERNAL_TEMPORAL_HTTP_URL, MEED_EXTERNAL_TEMPORAL_UI_URL
                       running servers to use in place of own ones";

#[derive(Debug, Subcommand)]
enum Dev {
    /// Fetch and build what is missing, start everything, run the demonstration, stay until Ctrl-C
    Up {
        /// Return when everything is up instead of staying; `down` ends it
        #[arg(long)]
        detach: bool,
        /// Leave the demonstration out
        #[arg(long)]
        no_demo: bool,
        #[command(flatten)]
        extent: Extent,
    },
    /// End what `up` has started, and keep the data
    Down {
        /// Remove the data too
        #[arg(long)]
        wipe: bool,
    },
    /// Show what runs where, since when, and whether it serves
    Status,
    /// Print the addresses as KEY=VALUE lines
    Env,
    /// Run the tests, setting up whatever they need
    Test {
        /// Which of them; `--help` of this command lists the suites
        #[arg(default_value = "all")]
        suite: String,
    },
    /// Print the output of one process, or of all
    Logs {
        /// Its name as `status` shows it
        name: Option<String>,
        /// Go on as more comes
        #[arg(short, long)]
        follow: bool,
        /// How many of the last lines to begin with
        #[arg(short = 'n', long, default_value_t = 100)]
        lines: usize,
    },
    /// Kill a process (SIGKILL) with all its children
    Kill {
        /// Its name as `status` shows it
        name: String,
    },
    /// End a process, if it runs, and start it again in the same way
    Restart {
        /// Its name as `status` shows it
        name: String,
    },
    /// Ask a process to end (SIGTERM); `restart` starts it again
    Stop {
        /// Its name as `status` shows it
        name: String,
    },
    /// Stop a process (SIGSTOP) without ending it
    Pause {
        /// Its name as `status` shows it
        name: String,
    },
    /// Let a paused process go on
    Resume {
        /// Its name as `status` shows it
        name: String,
    },
    /// The components alone, without the services
    #[command(subcommand)]
    Components(Components),
}

/// How many there are of what there may be several of; as many as there are already, or one.
#[derive(Debug, Clone, Copy, Default, Args)]
struct Extent {
    /// Of how many brokers Kafka consists; fixed once it has data
    #[arg(long, env = "MEED_BROKERS")]
    brokers: Option<u16>,
    /// How many of each service of which there may be several, behind nginx
    #[arg(long, env = "MEED_REPLICAS")]
    replicas: Option<u16>,
    /// With Prometheus, which watches the services, evaluates the alerts and keeps what was measured
    #[arg(long)]
    with_observability: bool,
}

#[derive(Debug, Subcommand)]
enum Components {
    /// Fetch and build what is missing, and start nothing
    Provision,
    /// Start the components and stay until Ctrl-C
    Up {
        /// Return when they are up instead of staying
        #[arg(long)]
        detach: bool,
        #[command(flatten)]
        extent: Extent,
    },
    /// The same as `down`
    Down {
        /// Remove the data too
        #[arg(long)]
        wipe: bool,
    },
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let plan = Plan::load(&plan_file()?)?;
    let mut cli = Cli::command().about(plan.about.clone());
    let suites = plan
        .test
        .suites
        .iter()
        .map(|(name, suite)| format!("  {name:<8} {}", suite.about));
    let suites = format!("Suites:\n{}", suites.collect::<Vec<_>>().join("\n"));
    cli = cli.mut_subcommand("test", |test| test.after_help(suites));
    for (name, spec) in &plan.commands {
        let arguments = Arg::new("arguments")
            .action(ArgAction::Append)
            .num_args(0..)
            .trailing_var_arg(true)
            .allow_hyphen_values(true)
            .value_parser(clap::value_parser!(std::ffi::OsString));
        // The names live as long as the process.
        let name: &'static str = name.clone().leak();
        let command = clap::Command::new(name).about(spec.about.clone());
        // `--help` after it is the program's own.
        cli = cli.subcommand(command.disable_help_flag(true).arg(arguments));
    }
    let matches = cli.get_matches();
    if let Some((name, arguments)) = matches.subcommand()
        && plan.commands.contains_key(name)
    {
        return hand_over(&plan, name, arguments);
    }
    let Cli { command } = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match command {
        Dev::Up {
            detach,
            no_demo,
            extent,
        } => up::up(
            &plan,
            detach,
            extent,
            up::Reach::Everything {
                demonstration: !no_demo,
            },
        ),
        Dev::Down { wipe } | Dev::Components(Components::Down { wipe }) => up::down(plan, wipe),
        Dev::Status => show::status(&open(plan)?),
        Dev::Env => Ok(show::env(&open(plan)?)),
        Dev::Test { suite } => test::test(&plan, &suite),
        Dev::Logs {
            name,
            follow,
            lines,
        } => show::logs(&open(plan)?, name.as_deref(), follow, lines),
        Dev::Kill { name } => done(open(plan)?.kill(&name), &format!("{name} was killed")),
        Dev::Stop { name } => done(open(plan)?.stop(&name), &format!("{name} has ended")),
        Dev::Restart { name } => {
            let stack = open(plan)?;
            stack.restart(&name)?;
            stack.release();
            Ok(ExitCode::SUCCESS)
        }
        Dev::Pause { name } => done(open(plan)?.pause(&name), &format!("{name} is paused")),
        Dev::Resume { name } => done(open(plan)?.resume(&name), &format!("{name} goes on")),
        Dev::Components(Components::Up { detach, extent }) => {
            up::up(&plan, detach, extent, up::Reach::Components)
        }
        Dev::Components(Components::Provision) => {
            provision(&used_components(&plan), &Cache::open()?, &Progress::shown())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn done(result: Result<()>, text: &str) -> Result<ExitCode> {
    result?;
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// `MEED_PLAN`, or the nearest `dev.toml` from here upwards.
fn plan_file() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("MEED_PLAN") {
        return Ok(path.into());
    }
    let here = std::env::current_dir()?;
    let found = here
        .ancestors()
        .map(|dir| dir.join("dev.toml"))
        .find(|file| file.exists());
    found.context("there is no dev.toml here or above; name one with MEED_PLAN")
}

/// The stack that the environment asks for, with the plan's data directory.
fn builder(plan: Plan) -> Result<StackBuilder> {
    let ports = plan.ports()?;
    let data_dir = places::data_dir(&plan.root, ports.base())?;
    let builder = Stack::builder()
        .plan(plan)
        .chosen_ports(ports)
        .data_dir(data_dir);
    Ok(builder
        .external_from_environment()
        .progress(Progress::shown()))
}

fn open(plan: Plan) -> Result<Stack> {
    builder(plan)?.open()
}

/// Everything that a stack of this plan may run.
fn used_components(plan: &Plan) -> Vec<Component> {
    let proxy = plan.proxy.as_ref().map(|_| Component::Nginx);
    let monitor = plan.monitor.as_ref().map(|_| Component::Prometheus);
    let beside = proxy.into_iter().chain(monitor);
    Component::ALL.into_iter().chain(beside).collect()
}

/// Becomes a program of the repository, which sees the stack's variables.
fn hand_over(plan: &Plan, name: &str, arguments: &ArgMatches) -> Result<ExitCode> {
    let spec = plan
        .commands
        .get(name)
        .context("a command that is not there")?
        .clone();
    let stack = open(plan.clone())?;
    ensure_needs(&spec.needs, &Cache::open()?, stack.progress())?;
    let program = in_repository(&plan.root, &spec.command[0]);
    if !program.exists() {
        build(plan, stack.progress())?;
    }
    let user_arguments = arguments
        .get_many::<std::ffi::OsString>("arguments")
        .into_iter()
        .flatten();
    let mut command = Command::new(&program);
    command
        .args(&spec.command[1..])
        .args(user_arguments)
        .envs(stack.env());
    let error = command.exec();
    bail!("`{}` cannot be run: {error}", program.display())
}

/// A program given with a directory is the repository's, another one is looked for in `PATH`.
fn in_repository(root: &Path, program: &str) -> PathBuf {
    if program.contains('/') {
        root.join(program)
    } else {
        program.into()
    }
}

fn build(plan: &Plan, progress: &Progress) -> Result<()> {
    let task = progress.task(&plan.build.name);
    command::run(
        &task,
        &mut repository_command(plan, &plan.build.command),
        None,
    )?;
    task.done("");
    Ok(())
}

/// Fails unless these programs are there.
fn ensure_needs(needs: &[String], cache: &Cache, progress: &Progress) -> Result<()> {
    let needs = needs
        .iter()
        .map(|need| toolchain::Need::named(need))
        .collect::<Result<Vec<_>>>()?;
    toolchain::ensure(&needs, cache, progress)
}

fn repository_command(plan: &Plan, words: &[String]) -> Command {
    let mut command = Command::new(in_repository(&plan.root, &words[0]));
    command.args(&words[1..]).current_dir(&plan.root);
    command
}
