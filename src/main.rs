//! `portcullis`: one match on the subcommand.

mod allocator;

use portcullis::{Arguments, Command, finish_log, init_log};

/// Faster than the system's by about a tenth of a request's CPU time (benches/results).
#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

fn main() -> std::process::ExitCode {
    allocator::keep_memory();
    let arguments = Arguments::of_process();
    init_log(arguments.quiet);
    let code = match arguments.command {
        Command::Run(run) => run.execute(),
        Command::Proxy(proxy) => proxy.execute(),
        Command::Init(init) => init.execute(),
        Command::Check(check) => check.execute(),
        Command::Reload(reload) => reload.execute(),
        Command::Diff(diff) => diff.execute(),
        Command::Purge(purge) => purge.execute(),
        Command::Show(show) => show.execute(),
        Command::Upgrade(upgrade) => upgrade.execute(),
        Command::Explain(explain) => explain.execute(),
        Command::Health(health) => health.execute(),
        Command::Demo(demo) => demo.execute(),
        Command::Hash(hash) => hash.execute(),
        Command::Schema(schema) => schema.execute(),
        Command::Reference(reference) => reference.execute(),
        Command::Completions(completions) => completions.execute(),
        Command::Man(man) => man.execute(),
        Command::Version(version) => version.execute(),
    };
    finish_log();
    code.into()
}
