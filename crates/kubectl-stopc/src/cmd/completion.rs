//! `completion`: the scripts of shells, and kubectl's completion of this plugin.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use clap_complete::env::{Bash, EnvCompleter, Fish, Powershell, Zsh};

use crate::failure::Failure;
use crate::screen::Screen;

/// Names of the programs that kubectl asks for completions of `kubectl stopc` and `kubectl sc`.
pub const COMPLETERS: [&str; 2] = ["kubectl_complete-stopc", "kubectl_complete-sc"];
/// The variable that has the plugin complete a command line of its own.
pub const VARIABLE: &str = "KUBECTL_STOPC_COMPLETE";

/// Arguments of `completion`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl stopc completion --install\n  source <(kubectl-stopc completion bash)"
)]
pub struct CompletionArgs {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL", required_unless_present = "install")]
    pub shell: Option<Shell>,
    /// Installs kubectl_complete-stopc and kubectl_complete-sc.
    #[arg(long)]
    pub install: bool,
    /// Directory for --install, which must be in the PATH. [default: that of the plugin]
    #[arg(long, value_name = "DIR", requires = "install", value_hint = clap::ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
}

/// A shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
    /// PowerShell
    #[value(name = "powershell")]
    PowerShell,
}

/// `completion`
///
/// # Errors
/// If the file cannot be written.
pub fn run(screen: &mut Screen, args: &CompletionArgs) -> Result<(), Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::failed(format!("cannot find the path of the plugin: {error}")))?;
    if args.install {
        let own = program.parent().unwrap_or(Path::new("/"));
        let dir = args.dir.as_deref().unwrap_or(own);
        for name in COMPLETERS {
            let path = dir.join(name);
            install(&path, &program)?;
            screen.print(&format!("installed {}", path.display()));
        }
        screen.note(
            "kubectl now completes `kubectl stopc` if its own completion is set up (`kubectl completion --help`)",
        );
    }
    if let Some(shell) = args.shell {
        screen.print_raw(&script(shell, &program)?);
    }
    Ok(())
}

/// The script that registers the plugin with a shell.
fn script(shell: Shell, program: &Path) -> Result<String, Failure> {
    let completer: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
        Shell::PowerShell => &Powershell,
    };
    let mut script = Vec::new();
    let name = "kubectl-stopc";
    let program = program.display().to_string();
    completer
        .write_registration(VARIABLE, name, name, &program, &mut script)
        .map_err(|error| Failure::failed(format!("cannot write the script: {error}")))?;
    Ok(String::from_utf8_lossy(&script).into_owned())
}

/// Makes the program that kubectl calls: a link to the plugin, which knows it by its name.
fn install(path: &Path, program: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::failed(format!(
            "cannot install {}: {error}; choose a writable directory of the PATH with --dir",
            path.display()
        ))
    };
    // krew replaces the plugin's own path at an upgrade, and keeps the link in its bin directory.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    std::os::unix::fs::symlink(program, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_replaces_an_older_one() {
        let dir = std::env::temp_dir().join(format!("stopc-completion-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let args = CompletionArgs {
            shell: None,
            install: true,
            dir: Some(dir.clone()),
        };
        for _ in 0..2 {
            let mut screen = Screen::new(std::io::sink(), std::io::sink(), None);
            run(&mut screen, &args).unwrap();
        }
        let own = std::env::current_exe().unwrap();
        let links: Vec<_> = COMPLETERS
            .iter()
            .map(|name| std::fs::read_link(dir.join(name)).unwrap())
            .collect();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(links, [own.clone(), own]);
    }

    #[test]
    fn every_shell_has_a_script_that_calls_the_plugin() {
        for shell in Shell::value_variants() {
            let script = script(*shell, Path::new("/opt/kubectl-stopc")).unwrap();
            assert!(script.contains("/opt/kubectl-stopc"), "{shell:?}: {script}");
            assert!(script.contains(VARIABLE), "{shell:?}: {script}");
        }
    }
}
