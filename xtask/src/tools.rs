/*!
The programs that the commands need, and where they come from: Go modules pinned in
`xtask/cluster-tools`, Debian packages that are only unpacked (they would start services on the
developer's machine), and Debian packages that are installed because they bring nothing but
programs. Each is made once and again only when its source changes.
*/

mod apt;
pub(crate) mod golang;
mod machine;
mod release;
mod runtime;
mod stamp;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress::{Progress, Step};
use crate::workspace::Workspace;

pub(crate) use golang::go as go_version;
pub(crate) use machine::Lsm;
pub(crate) use release::Release;
pub(crate) use runtime::Runtime;
pub(crate) use stamp::{Fingerprint, Stamp};

/// The oldest Kubernetes that the chart allows.
const OLDEST_KUBERNETES: &str = "v1.32.0";
/// Packages that the local cluster runs without installing them.
const UNPACKED: &[&str] = &["containerd", "runc", "etcd-server", "docker-registry"];
/// Programs and the packages that bring them for the local cluster.
const CLUSTER_PROGRAMS: &[(&str, &str)] =
    &[("nft", "nftables"), ("ip", "iproute2"), ("iptables", "iptables")];
/// Programs and the packages that bring them for building runc.
const RUNC_BUILD_PROGRAMS: &[(&str, &str)] = &[("cc", "gcc"), ("pkg-config", "pkg-config")];
/// Programs and the packages that bring them for building images.
const IMAGE_PROGRAMS: &[(&str, &str)] = &[
    ("buildah", "buildah"),
    ("skopeo", "skopeo"),
    ("debootstrap", "debootstrap"),
];

/// Programs and the packages that bring them for the tests: disks of their own, a look at every
/// system call, and terminals.
const TEST_PROGRAMS: &[(&str, &str)] = &[
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("losetup", "mount"),
    ("fsfreeze", "util-linux"),
    ("strace", "strace"),
    ("tmux", "tmux"),
];
/// Programs and the packages that bring them for virtual machines: QEMU, a disk, and modules of the
/// kernel.
const VIRTUAL_MACHINE_PROGRAMS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mkfs.ext4", "e2fsprogs"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
];
/// Programs and the packages that bring them for nodes that are virtual machines: their files, and
/// disks that remember what was written.
const MACHINE_PROGRAMS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("mkfs.ext4", "e2fsprogs"),
    ("debootstrap", "debootstrap"),
];
/// Where virtiofsd is: in a package of its own, or before Debian 13 with QEMU.
const VIRTIOFSD: [&str; 2] = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"];

/// Version of cargo-fuzz.
const CARGO_SBOM: &str = "0.10.0";
const CARGO_FUZZ: &str = "0.13.2";

/// Version of mdBook.
const MDBOOK: &str = "0.5.4";

/// The programs below `target/tools`.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    dir: PathBuf,
    release: Release,
    runtime: Runtime,
}

// === impl Tools ===

impl Tools {
    /// The tools of a clone, made or not, with the default release of Kubernetes.
    pub(crate) fn of(workspace: &Workspace) -> Self {
        Self {
            dir: workspace.tools(),
            release: Release::default(),
            runtime: Runtime::default(),
        }
    }

    /// The same with another release.
    pub(crate) fn with_release(self, release: Release) -> Self {
        Self { release, ..self }
    }

    /// The same with another container runtime.
    pub(crate) fn with_runtime(self, runtime: Runtime) -> Self {
        Self { runtime, ..self }
    }

    /// The container runtime of the nodes.
    pub(crate) fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// The release of Kubernetes.
    pub(crate) fn release(&self) -> Release {
        self.release
    }

    /// Steps that [`Tools::prepare_cluster`] takes.
    pub(crate) const CLUSTER_STEPS: usize = 5;

    /// Makes what the local cluster needs: `kube`, the unpacked packages and the installed ones.
    pub(crate) fn prepare_cluster(&self, workspace: &Workspace, progress: &Progress) -> Result<()> {
        progress.step("Debian programs of the cluster", |step| {
            apt::install(step, CLUSTER_PROGRAMS)?;
            apt::install_files(step, &[("/usr/lib/cni/bridge", "containernetworking-plugins")])
        })?;
        progress.step("Unpack containerd, runc, etcd and the registry", |step| {
            apt::unpack(step, UNPACKED, &self.dir.join("deb"))
        })?;
        self.prepare_runtime(progress)?;
        self.prepare_kube(workspace, progress)
    }

    fn prepare_runtime(&self, progress: &Progress) -> Result<()> {
        match (self.runtime, self.release.containerd()) {
            (Runtime::CriO, _) => progress.step("Find CRI-O, and unpack conmon", |step| {
                runtime::link_cri_o(&self.dir.join("cri-o"))?;
                apt::unpack(step, &["conmon"], &self.dir.join("conmon"))
            })?,
            (Runtime::Containerd, Some(version)) => progress
                .step(&format!("Build containerd: {version}"), |step| {
                    golang::install_containerd(step, version, &self.containerd_dir(version))
                })?,
            (Runtime::Containerd, None) => progress.step("Build containerd: Debian's", |_| Ok(()))?,
        }
        let runc = self.release.runc();
        let version = runc.unwrap_or("Debian's");
        progress.step(&format!("Build runc: {version}"), |step| match runc {
            Some(version) => self.build_runc(step, version),
            None => Ok(()),
        })
    }

    fn build_runc(&self, step: &Step<'_>, version: &str) -> Result<()> {
        apt::install(step, RUNC_BUILD_PROGRAMS)?;
        let libraries = self.dir.join("libseccomp");
        apt::unpack(step, &["libseccomp-dev"], &libraries)?;
        golang::install_runc(step, version, &libraries.join("root"), &self.runc_dir(version))
    }

    /// Makes what a control plane without nodes needs.
    pub(crate) fn prepare_control_plane(&self, workspace: &Workspace, progress: &Progress) -> Result<()> {
        progress.step("Unpack containerd, runc, etcd and the registry", |step| {
            apt::unpack(step, UNPACKED, &self.dir.join("deb"))
        })?;
        self.prepare_kube(workspace, progress)
    }

    /// Makes `kwok`.
    pub(crate) fn prepare_kwok(&self, progress: &Progress) -> Result<()> {
        progress.step("Build kwok (about 7 minutes the first time)", |step| {
            golang::install(step, &golang::KWOK, &self.dir)
        })
    }

    /// kwok, which lets nodes and pods that do not exist look as if they ran.
    pub(crate) fn kwok(&self) -> Command {
        Command::new(self.dir.join("kwok"))
    }

    /// Makes the Kubernetes programs.
    pub(crate) fn prepare_kube(&self, workspace: &Workspace, progress: &Progress) -> Result<()> {
        progress.step("Build Kubernetes (about 6 minutes the first time)", |step| {
            let sources = workspace.join("xtask/cluster-tools");
            golang::build_kube(step, self.release, &sources, &self.dir)
        })
    }

    /// kubectl under its own name, for people and for programs that start it by path.
    pub(crate) fn kubectl_link(&self) -> Result<PathBuf> {
        let dir = self.dir.join("bin").join(self.release.name());
        let link = dir.join("kubectl");
        if !link.exists() {
            std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
            let program = format!("../../{}", self.release.program());
            symlink(program, &link).with_context(|| format!("linking {}", link.display()))?;
        }
        Ok(link)
    }

    /// Makes `etcdctl`. It is not a part of the cluster: its presence does not change the cluster.
    pub(crate) fn prepare_etcdctl(&self, progress: &Progress) -> Result<()> {
        progress.step("Unpack etcdctl", |step| {
            apt::unpack(step, &["etcd-client"], &self.dir.join("etcd-client"))
        })
    }

    /// etcdctl.
    pub(crate) fn etcdctl(&self) -> Command {
        Command::new(self.dir.join("etcd-client/root/usr/bin/etcdctl"))
    }

    /// Unpacks Prometheus with its promtool.
    pub(crate) fn prepare_prometheus(&self, progress: &Progress) -> Result<()> {
        progress.step("Unpack Prometheus", |step| {
            apt::unpack(step, &["prometheus"], &self.dir.join("prometheus"))
        })
    }

    /// Directory of `prometheus` and `promtool`.
    pub(crate) fn prometheus(&self) -> PathBuf {
        self.dir.join("prometheus/root/usr/bin")
    }

    /// Makes sure that images can be built.
    pub(crate) fn prepare_images(progress: &Progress) -> Result<()> {
        progress.step("Programs that build images", |step| {
            apt::install(step, IMAGE_PROGRAMS)
        })
    }

    /// Makes sure that this compiler exists, which these packages have.
    pub(crate) fn prepare_compiler(step: &Step<'_>, compiler: &str, packages: &[&str]) -> Result<()> {
        let programs: Vec<_> = packages.iter().map(|package| (compiler, *package)).collect();
        apt::install(step, &programs)
    }

    /// Makes sure that the tests have their programs.
    pub(crate) fn prepare_tests(progress: &Progress) -> Result<()> {
        progress.step("Programs that tests use", |step| {
            apt::install(step, TEST_PROGRAMS)
        })
    }

    /// Makes sure that virtual machines can be run, with the programs of tests in them.
    pub(crate) fn prepare_virtual_machines(progress: &Progress) -> Result<()> {
        progress.step("Programs of virtual machines", |step| {
            apt::install(step, TEST_PROGRAMS)?;
            apt::install(step, VIRTUAL_MACHINE_PROGRAMS)?;
            if virtiofsd().is_none() {
                apt::install_files(step, &[(VIRTIOFSD[0], "virtiofsd")])?;
            }
            Ok(())
        })
    }

    /// Makes what nodes that are virtual machines with this security module need.
    pub(crate) fn prepare_machine(&self, progress: &Progress, lsm: Lsm) -> Result<()> {
        progress.step("Programs of virtual machines", |step| {
            apt::install(step, MACHINE_PROGRAMS)
        })?;
        progress.step(
            "Debian of virtual machines (about 2 minutes the first time)",
            |step| machine::provide(step, &self.dir, lsm),
        )
    }

    /// The files of such a node.
    pub(crate) fn machine_root(&self, lsm: Lsm) -> PathBuf {
        machine::root(&self.dir, lsm)
    }

    /// Makes `helm`.
    pub(crate) fn prepare_helm(&self, progress: &Progress) -> Result<()> {
        progress.step("Build helm (about 2 minutes the first time)", |step| {
            golang::install(step, &golang::HELM, &self.dir)
        })
    }

    /// Gets Kubernetes' descriptions of its API, of the oldest release that the chart allows and of
    /// the newest one of the local cluster.
    pub(crate) fn prepare_schemas(&self, progress: &Progress) -> Result<()> {
        progress.step("Schemas of Kubernetes", |step| {
            let dir = self.schemas();
            std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
            for version in [OLDEST_KUBERNETES, Release::V1_36.version()] {
                let minor = version.trim_start_matches('v').rsplit_once('.');
                let minor = minor.map_or(version, |(minor, _)| minor);
                golang::copy_schema(step, version, &dir.join(minor).with_added_extension("json"))?;
            }
            Ok(())
        })
    }

    /// Directory of these descriptions, a file for each minor release.
    pub(crate) fn schemas(&self) -> PathBuf {
        self.dir.join("schemas")
    }

    /// Makes `cargo fuzz`, and what it compiles libFuzzer with.
    pub(crate) fn prepare_cargo_fuzz(&self, progress: &Progress) -> Result<()> {
        progress.step("Build cargo-fuzz (about a minute the first time)", |step| {
            apt::install(step, &[("c++", "g++")])?;
            self.cargo_install(step, "cargo-fuzz", CARGO_FUZZ, &[])
        })
    }

    /// Makes mdBook, without its server.
    pub(crate) fn prepare_mdbook(&self, progress: &Progress) -> Result<()> {
        progress.step("Build mdBook (about 3 minutes the first time)", |step| {
            let features = ["--no-default-features", "--features", "search"];
            self.cargo_install(step, "mdbook", MDBOOK, &features)
        })
    }

    /// Makes cargo-sbom.
    pub(crate) fn prepare_cargo_sbom(&self, progress: &Progress) -> Result<()> {
        progress.step("Build cargo-sbom (about a minute the first time)", |step| {
            self.cargo_install(step, "cargo-sbom", CARGO_SBOM, &[])
        })
    }

    /// cargo-sbom, to be called as cargo calls it: with `sbom` as its first argument.
    pub(crate) fn cargo_sbom(&self) -> Command {
        Command::new(self.dir.join("bin/cargo-sbom"))
    }

    /// Builds a program of a package with its name, unless this version is there.
    fn cargo_install(&self, step: &Step<'_>, package: &str, version: &str, options: &[&str]) -> Result<()> {
        let stamp = Stamp::new(self.dir.join(format!("{package}.stamp")));
        if self.dir.join("bin").join(package).is_file() && stamp.is(version) {
            return Ok(());
        }
        let mut command = Command::new("cargo");
        command.args(["install", package, "--locked", "--force", "--version", version]);
        command.args(options).arg("--root").arg(&self.dir);
        step.run(&mut command)?;
        stamp.set(version)
    }

    /// mdBook.
    pub(crate) fn mdbook(&self) -> Command {
        Command::new(self.dir.join("bin/mdbook"))
    }

    /// cargo-fuzz, to be called as cargo calls it: with `fuzz` as its first argument.
    pub(crate) fn cargo_fuzz(&self) -> Command {
        Command::new(self.dir.join("bin/cargo-fuzz"))
    }

    /// One of the Kubernetes programs: `kube-apiserver`, `kubelet`, `kubectl` and so on.
    pub(crate) fn kube(&self, program: &str) -> Command {
        let mut command = Command::new(self.kube_program());
        command.arg(program);
        command
    }

    /// The file that holds all Kubernetes programs, made or not.
    pub(crate) fn kube_program(&self) -> PathBuf {
        self.dir.join(self.release.program())
    }

    /// containerd or one of the programs that come with it.
    pub(crate) fn containerd(&self, program: &str) -> PathBuf {
        match self.release.containerd() {
            Some(version) => self.containerd_dir(version).join(program),
            None => self.unpacked("usr/bin").join(program),
        }
    }

    /// The container runtime's program, in a directory of [`Tools::path`] with those beside it.
    pub(crate) fn runtime_program(&self) -> PathBuf {
        match self.runtime {
            Runtime::Containerd => self.containerd(self.runtime.program()),
            Runtime::CriO => self.dir.join("cri-o").join(self.runtime.program()),
        }
    }

    fn containerd_dir(&self, version: &str) -> PathBuf {
        self.dir.join(format!("containerd-{version}"))
    }

    fn runc_dir(&self, version: &str) -> PathBuf {
        self.dir.join(format!("runc-{version}"))
    }

    /// Helm.
    pub(crate) fn helm(&self) -> Command {
        Command::new(self.helm_program())
    }

    /// The path of helm, made or not.
    pub(crate) fn helm_program(&self) -> PathBuf {
        self.dir.join("helm")
    }

    /// A program of an unpacked package.
    pub(crate) fn unpacked(&self, path: &str) -> PathBuf {
        self.dir.join("deb/root").join(path)
    }

    /// What the container runtime and the kubelet find programs by: the unpacked packages before
    /// the machine's own.
    pub(crate) fn path(&self) -> String {
        let root = self.dir.join("deb/root");
        let root = root.display();
        let mut built = Vec::new();
        built.extend(self.release.runc().map(|version| self.runc_dir(version)));
        match (self.runtime, self.release.containerd()) {
            (Runtime::CriO, _) => {
                built.extend(["cri-o", "conmon/root/usr/bin"].map(|dir| self.dir.join(dir)));
            }
            (Runtime::Containerd, Some(version)) => built.push(self.containerd_dir(version)),
            (Runtime::Containerd, None) => {}
        }
        let built = built.iter().map(|dir| dir.display().to_string());
        let others = format!(
            "{root}/usr/bin:{root}/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        );
        built.chain([others]).collect::<Vec<_>>().join(":")
    }

    /// Changes whenever a program of the cluster does.
    pub(crate) fn fingerprint(&self) -> String {
        let mut fingerprint = Fingerprint::new();
        fingerprint.text(self.release.containerd().unwrap_or_default());
        fingerprint.text(self.release.runc().unwrap_or_default());
        let mut stamps = vec![
            format!("{}.stamp", self.release.program()),
            "deb.stamp".to_owned(),
        ];
        if self.runtime == Runtime::CriO {
            fingerprint.text(self.runtime.program());
            stamps.extend(["cri-o.stamp", "conmon.stamp"].map(str::to_owned));
        }
        for stamp in stamps {
            fingerprint.text(&std::fs::read_to_string(self.dir.join(stamp)).unwrap_or_default());
        }
        fingerprint.finish()
    }
}

/// The daemon that serves files to virtual machines.
pub(crate) fn virtiofsd() -> Option<&'static Path> {
    VIRTIOFSD.iter().map(Path::new).find(|path| path.is_file())
}
