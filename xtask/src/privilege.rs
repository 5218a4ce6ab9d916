//! Root, or what stands in for it.

use std::process::Command;

use nix::unistd::geteuid;

/// Whether we are root.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// A command that runs as root with these variables: directly, or through sudo. None where there is neither.
pub fn command(program: &str, variables: &[(&str, &str)]) -> Option<Command> {
    if is_root() {
        let mut command = Command::new(program);
        command.envs(variables.iter().copied());
        return Some(command);
    }
    which::which("sudo").ok()?;
    let mut command = Command::new("sudo");
    // sudo clears the environment, so the variables go through env.
    command.arg("env").args(variables.iter().map(|(name, value)| format!("{name}={value}"))).arg(program);
    Some(command)
}
