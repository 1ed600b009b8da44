//! `up` and `down`.

use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use stack::cache::Cache;
use stack::{Plan, Stack, Step, command, provision};

use crate::{Extent, build, builder, ensure_needs, open, repository_command};

/// How much `up` brings up.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reach {
    /// Components only.
    Components,
    /// Components, services, and the demonstration if it is wanted.
    Everything {
        /// Whether the demonstration is wanted.
        demonstration: bool,
    },
}

static STAYING: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

pub(crate) fn up(plan: &Plan, detach: bool, extent: Extent, reach: Reach) -> Result<ExitCode> {
    let mut builder = builder(plan.clone())?.monitored(extent.with_observability);
    if let Some(brokers) = extent.brokers {
        builder = builder.brokers(brokers);
    }
    if let Some(replicas) = extent.replicas {
        builder = builder.replicas(replicas);
    }
    let stack = builder.open()?;
    let lock = stack
        .begin_change()
        .context("another `up` or `down` is at work on the same stack")?;
    ctrlc::set_handler(|| {
        INTERRUPTED.store(true, Ordering::SeqCst);
        if !STAYING.load(Ordering::SeqCst) {
            // What was started so far is ended by the stack's sentinel.
            eprintln!("\ninterrupted; ending what was started");
            std::process::exit(130);
        }
    })?;

    bring_up(plan, &stack, reach)?;
    let demonstrated = match reach {
        Reach::Everything {
            demonstration: true,
        } => demonstrate(plan, &stack),
        _ => Ok(()),
    };
    if let Err(error) = &demonstrated {
        stack
            .progress()
            .say(&format!("\nthe demonstration failed: {error:#}"));
    }
    print_closing(plan, &stack, reach)?;
    drop(lock);

    let code = if demonstrated.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    };
    let own_pid = i32::try_from(std::process::id()).ok();
    if let Some(owner) = stack.owner()?.filter(|owner| Some(*owner) != own_pid) {
        println!("\nIt goes on until the `up` of process {owner} ends, or `./dev down`.");
        stack.release();
        return Ok(code);
    }
    if detach {
        stack.detach()?;
        println!("\nIt goes on in the background. `./dev status` shows it, `./dev down` ends it.");
        return Ok(code);
    }
    stack.take_ownership()?;
    STAYING.store(true, Ordering::SeqCst);
    println!("\nCtrl-C ends it.");
    stay(&stack)?;
    Ok(code)
}

fn bring_up(plan: &Plan, stack: &Stack, reach: Reach) -> Result<()> {
    let progress = stack.progress();
    let cache = Cache::open()?;
    let with_services = matches!(reach, Reach::Everything { .. });
    if with_services {
        ensure_needs(&plan.needs, &cache, progress)?;
    }
    // Fetching mostly waits for the network, so it is done beside the compiling.
    let provisioned = thread::scope(|scope| {
        let building = with_services.then(|| scope.spawn(|| build(plan, progress)));
        let provisioned = provision(stack.components(), &cache, progress)?;
        if let Some(building) = building {
            building
                .join()
                .map_err(|_| anyhow!("building panicked"))??;
        }
        anyhow::Ok(provisioned)
    })?;
    stack.start_components(&provisioned)?;
    if !with_services {
        return Ok(());
    }
    for step in &plan.prepare {
        let task = progress.task(&step.name);
        command::run(&task, &mut stack_command(plan, stack, step)?, None)?;
        task.done("");
    }
    for service in stack.services() {
        stack.start_planned(&service)?;
    }
    Ok(())
}

fn stack_command(plan: &Plan, stack: &Stack, step: &Step) -> Result<Command> {
    let env = stack.env();
    let words = step
        .command
        .iter()
        .map(|word| plan.expand(word, stack.ports(), &env));
    let mut command = repository_command(plan, &words.collect::<Result<Vec<_>>>()?);
    command.envs(env);
    Ok(command)
}

fn demonstrate(plan: &Plan, stack: &Stack) -> Result<()> {
    for step in &plan.demonstration {
        println!("\n{}", step.name);
        let mut command = stack_command(plan, stack, step)?;
        let status = command
            .stdin(Stdio::null())
            .status()
            .with_context(|| step.command.join(" "))?;
        if !status.success() {
            bail!("`{}` ended with {status}", step.command.join(" "));
        }
    }
    Ok(())
}

fn print_closing(plan: &Plan, stack: &Stack, reach: Reach) -> Result<()> {
    println!();
    let env = stack.env();
    if matches!(reach, Reach::Components) {
        for (name, value) in env {
            println!("{name}={value}");
        }
        return Ok(());
    }
    let runs = |component| stack.components().contains(&component);
    let addresses: Vec<_> = plan
        .addresses
        .iter()
        .filter(|address| address.component.is_none_or(runs))
        .collect();
    let width = addresses
        .iter()
        .map(|address| address.name.chars().count())
        .max()
        .unwrap_or(0);
    for address in addresses {
        println!(
            "  {:width$}  {}",
            address.name,
            plan.expand(&address.url, stack.ports(), &env)?
        );
    }
    for step in &plan.closing {
        println!("\n{}", step.name);
        println!(
            "{}",
            command::output(&mut stack_command(plan, stack, step)?)?
        );
    }
    Ok(())
}

/// Watches until somebody interrupts, or ends the stack from elsewhere.
fn stay(stack: &Stack) -> Result<()> {
    const LOOK_EVERY: Duration = Duration::from_millis(300);
    while !INTERRUPTED.load(Ordering::SeqCst) {
        if stack.was_ended()? {
            println!("Everything was ended by `./dev down`.");
            stack.release();
            return Ok(());
        }
        for (name, last_words) in stack.unexpected_ends()? {
            eprintln!(
                "\n{name} ended by itself{last_words}\n`./dev restart {name}` starts it again."
            );
        }
        // A restart from elsewhere has made new processes.
        stack.hold_all()?;
        thread::sleep(LOOK_EVERY);
    }
    eprintln!();
    stack.end_all()
}

pub(crate) fn down(plan: Plan, wipe: bool) -> Result<ExitCode> {
    let stack = open(plan)?;
    let _lock = stack
        .begin_change()
        .context("an `up` is still at work on this stack")?;
    let ran = stack
        .status()?
        .iter()
        .filter(|status| status.pid.is_some())
        .count();
    stack.end_all()?;
    if ran == 0 {
        println!("Nothing was running.");
    }
    if wipe {
        stack.wipe()?;
        println!("The data in {} is gone.", stack.data_dir().display());
    }
    Ok(ExitCode::SUCCESS)
}
