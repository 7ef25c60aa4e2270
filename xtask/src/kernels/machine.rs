/*!
A virtual machine: QEMU, and the daemon that serves this machine's files to it.
*/

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::progress::Step;
use crate::tools;

/// How long it may run. Tests take a tenth of that on a machine with nothing else to do.
const SECONDS: u32 = 1800;
/// Its memory.
const MEBIBYTES: u32 = 2048;
/// Its disk, of which the image takes what is written.
const DISK: u64 = 8 << 30;
/// How long the daemon may take to listen.
const LISTENS: Duration = Duration::from_secs(10);

/// Files of a run, below its directory. Both programs run there: a socket's path has little room.
const SOCKET: &str = "files.socket";
const IMAGE: &str = "disk.image";
const SCRIPT: &str = "script";

/// What `timeout` ends with.
const TIMED_OUT: i32 = 124;
/// What `init.c` ends with if it did not come to run the script.
const NOT_RUN: i32 = 99;

/// The daemon; ends when this is dropped.
struct Daemon(Child);

/// Why a script did not end well.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The virtual machine did not get to its end, which says nothing about the script.
    Machine(String),
    /// The script's own exit code.
    Script(String),
}

/// Runs a script under a kernel, once more if the virtual machine ends before the script: the
/// emulation of two processors made kernels panic now and then. Its output goes to the log of the
/// step.
pub(super) fn run(step: &Step<'_>, kernel: &Path, initramfs: &Path, script: &str, dir: &Path) -> Result<()> {
    for again in [true, false] {
        let (status, quote) = boot(step, kernel, initramfs, script, dir)?;
        match judge(status) {
            Ok(()) => return Ok(()),
            Err(End::Machine(said)) if again => step.say(format!("      {said}; trying once more")),
            Err(End::Machine(said) | End::Script(said)) => bail!("{said}\n{quote}"),
        }
    }
    Ok(())
}

/// Boots the virtual machine and waits for its end. Returns how QEMU ended, and the last lines.
fn boot(
    step: &Step<'_>,
    kernel: &Path,
    initramfs: &Path,
    script: &str,
    dir: &Path,
) -> Result<(ExitStatus, String)> {
    let dir = dir.join("run");
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let script_file = dir.join(SCRIPT);
    fs::write(&script_file, script).with_context(|| format!("writing {}", script_file.display()))?;
    let image = dir.join(IMAGE);
    fs::File::create(&image)
        .and_then(|file| file.set_len(DISK))
        .with_context(|| format!("making {}", image.display()))?;
    step.run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
    let daemon = Daemon::start(&dir)?;
    let mut command = Command::new("timeout");
    command
        .current_dir(&dir)
        .args(["--foreground", &SECONDS.to_string(), "nice"])
        .args(["qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-no-reboot"])
        .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
        .args(["-smp", "2", "-m", &MEBIBYTES.to_string()])
        .arg("-object")
        .arg(format!(
            "memory-backend-memfd,id=memory,size={MEBIBYTES}M,share=on"
        ))
        .args(["-numa", "node,memdev=memory"])
        .arg("-chardev")
        .arg(format!("socket,id=files,path={SOCKET}"))
        .args(["-device", "vhost-user-fs-pci,chardev=files,tag=host"])
        .arg("-drive")
        .arg(format!("file={IMAGE},if=virtio,format=raw,cache=unsafe"))
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .arg("-append")
        .arg(format!(
            "console=ttyS0 loglevel=1 panic=-1 oops=panic script=\"{}\"",
            script_file.display()
        ));
    let status = step.status(&mut command);
    drop(daemon);
    fs::remove_file(&image).with_context(|| format!("removing {}", image.display()))?;
    Ok((status?, step.quote()))
}

/// Derives the script's result from QEMU's exit status. The device doubles the code that the script
/// wrote to it and adds one.
fn judge(status: ExitStatus) -> Result<(), End> {
    let code = status.code().unwrap_or_default();
    match (code, code >> 1) {
        (TIMED_OUT, _) => Err(End::Machine(format!(
            "the virtual machine did not end within {SECONDS} seconds"
        ))),
        (code, _) if code & 1 == 0 || status.signal().is_some() => Err(End::Machine(format!(
            "the virtual machine ended with {status}: its kernel panicked, or QEMU did not start it"
        ))),
        (_, 0) => Ok(()),
        (_, NOT_RUN) => Err(End::Machine(
            "the virtual machine did not come to run the tests".to_owned(),
        )),
        (_, code) => Err(End::Script(format!("the tests ended with {code}"))),
    }
}

// === impl Daemon ===

impl Daemon {
    fn start(dir: &Path) -> Result<Self> {
        let program = tools::virtiofsd().context("virtiofsd is missing")?;
        let socket = dir.join(SOCKET);
        let _ = fs::remove_file(&socket);
        let log = dir.join("virtiofsd.log");
        let log = fs::File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let child = Command::new(program)
            .current_dir(dir)
            .arg(format!("--socket-path={SOCKET}"))
            .args(["-o", "source=/", "-o", "sandbox=chroot", "-o", "cache=always"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("copying a descriptor")?)
            .stderr(log)
            .spawn()
            .context("starting virtiofsd")?;
        let mut daemon = Self(child);
        let begun = Instant::now();
        while !socket.exists() {
            let ended = daemon.0.try_wait().context("waiting for virtiofsd")?;
            if ended.is_some() || begun.elapsed() > LISTENS {
                bail!(
                    "virtiofsd does not listen; {} says why",
                    dir.join("virtiofsd.log").display()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It ends by itself with QEMU, unless that never started.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::{End, judge};

    #[test]
    fn only_a_machine_that_says_so_passed() {
        let exited = |code: i32| judge(ExitStatus::from_raw(code << 8));
        assert!(exited(1).is_ok());
        for (code, said) in [
            (0, "panicked"),
            (3, "ended with 1"),
            (124, "within"),
            (199, "did not come"),
        ] {
            let (End::Machine(error) | End::Script(error)) = exited(code).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        assert!(judge(ExitStatus::from_raw(9)).is_err());
        assert!(
            matches!(exited(3), Err(End::Script(_))),
            "a test that failed is not tried again"
        );
    }
}
