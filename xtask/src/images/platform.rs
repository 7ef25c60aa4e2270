/*!
The platforms of the product's images: the Rust target of each, and what a machine of another
platform needs to compile for it.
*/

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::progress::Step;
use crate::tools::Tools;

/// A platform, named as in the OCI image index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Platform {
    /// `linux/amd64`
    Amd64,
    /// `linux/arm64`
    Arm64,
}

// === impl Platform ===

impl Platform {
    /// All of them.
    pub(crate) const ALL: &[Self] = &[Self::Amd64, Self::Arm64];

    /// The one of this machine.
    pub(crate) const OF_MACHINE: Self = if cfg!(target_arch = "aarch64") {
        Self::Arm64
    } else {
        Self::Amd64
    };

    /// The architecture in an image's configuration.
    pub(crate) fn architecture(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Directory of the programs: that of the Dockerfile for this machine, and one below it for
    /// another platform.
    pub(super) fn dist(self, dist: PathBuf) -> PathBuf {
        if self == Self::OF_MACHINE {
            dist
        } else {
            dist.join(self.architecture())
        }
    }

    /// Directory of the compiled programs, in cargo's target directory.
    pub(super) fn compiled(self, target: &Path, profile: &str) -> PathBuf {
        target.join(self.target()).join(profile)
    }

    /// Installs what this machine needs to compile for the platform.
    pub(super) fn prepare(self, step: &Step<'_>) -> Result<()> {
        if self == Self::OF_MACHINE {
            return Ok(());
        }
        let compiler = self.compiler();
        let packages = match self {
            Self::Amd64 => ["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"],
            Self::Arm64 => ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        };
        Tools::prepare_compiler(step, &compiler, &packages)?;
        step.run(Command::new("rustup").args(["target", "add", self.target()]))
    }

    /// A command of cargo that compiles static programs for the platform.
    pub(super) fn cargo(self) -> Command {
        let mut command = Command::new("cargo");
        command.args(["build", "--target", self.target()]);
        let variable = self.target().replace('-', "_");
        let of_target = |name: &str| format!("CARGO_TARGET_{}_{name}", variable.to_uppercase());
        command.env(of_target("RUSTFLAGS"), "-C target-feature=+crt-static");
        if self != Self::OF_MACHINE {
            command.env(of_target("LINKER"), self.compiler());
            command.env(format!("CC_{variable}"), self.compiler());
        }
        command
    }

    /// Debian's compiler for the platform on another one.
    fn compiler(self) -> String {
        self.target().replace("-unknown", "") + "-gcc"
    }

    /// The target of the binaries. It is always passed to cargo, because otherwise build scripts
    /// and macros would be static as well.
    fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_platform_has_a_compiler_and_a_directory_of_its_own() {
        for platform in Platform::ALL {
            let other = *platform != Platform::OF_MACHINE;
            let command = platform.cargo();
            let linker = command
                .get_envs()
                .any(|(name, _)| name.to_string_lossy().ends_with("_LINKER"));
            assert_eq!(linker, other, "{platform:?}");
            let dist = platform.dist(PathBuf::from("dist"));
            assert_eq!(dist != Path::new("dist"), other, "{platform:?}");
        }
        assert_eq!(Platform::Arm64.compiler(), "aarch64-linux-gnu-gcc");
    }
}
