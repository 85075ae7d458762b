//! adit-lab: see `adit-lab --help`.
//!
//! All that it can do is in the library; here the environment is read, and what came of it becomes an exit code.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use clap::Parser as _;

    let cli = adit_lab::Cli::parse();
    #[allow(clippy::disallowed_methods, reason = "the environment is read here and nowhere else")]
    let surroundings = adit_lab::Surroundings {
        path: std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect(),
        program: std::env::current_exe().unwrap_or_else(|_| "adit-lab".into()),
    };
    match adit_lab::run(cli, &surroundings) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("adit-lab: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("adit-lab: the lab is made of Linux's network namespaces, and this is another system");
    std::process::ExitCode::FAILURE
}
