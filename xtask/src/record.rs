/*!
`record`: records a session with `kubectl stopc` on a real cluster, and makes the animated picture
of the README from it.
*/

mod line;
mod picture;
mod terminal;
mod timeline;

use std::fs;
use std::io::Write;
use std::num::NonZeroU16;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::plugin;
use crate::progress::{Progress, Step};
use crate::target::Target;
use crate::workspace::Workspace;

use picture::Texts;
use terminal::{Size, Terminal};
use timeline::Timeline;

/// The picture.
const PICTURE: &str = "docs/pictures/session.svg";
/// Readers of the README download it.
const LARGEST: usize = 200_000;
const ROWS: NonZeroU16 = NonZeroU16::new(30).unwrap();
const COLUMNS: NonZeroU16 = NonZeroU16::new(100).unwrap();
/// Namespace of the session, which is deleted at the end.
const NAMESPACE: &str = "stoppablecontainer-record";
/// What shows whether the chart is installed.
const KIND: &str = "customresourcedefinition/stoppablecontainers.stoppablecontainer.xtlsoft.top";
const PATIENCE: &str = "--timeout=180s";

/// The session: commands, and for how many milliseconds the reader has time for their output. The
/// image is one of `cargo xtask demo`. What matters most is on the last screen.
const SESSION: &[(&str, u64)] = &[
    ("kubectl stopc create dev --image nginx:1.25", 1200),
    ("kubectl stopc status dev", 1800),
    ("clear", 300),
    (
        "kubectl stopc exec dev -- sh -c 'echo remember the milk > /root/notes.txt'",
        800,
    ),
    ("kubectl stopc stop dev", 1500),
    ("kubectl stopc list", 1800),
    ("kubectl stopc start dev", 1200),
    ("kubectl stopc exec dev -- cat /root/notes.txt", 1500),
    ("kubectl stopc diff dev", 1800),
    ("kubectl stopc delete dev -y", 1500),
];
const TEXTS: Texts<'_> = Texts {
    title: "kubectl stopc",
    description: "A terminal session: a container is created, a file is written in it, it is stopped and started \
                  again, and the file is still there.",
};

/// Records the session with this plugin, or with the one of this clone, and writes the picture.
///
/// # Errors
/// If the product is not installed, or a command fails.
pub(crate) fn run(workspace: &Workspace, progress: &Progress, plugin: Option<&Path>) -> Result<()> {
    let target = Target::choose(workspace, progress, None, None, None)?;
    ensure!(
        target.kubectl_output(&["get", KIND]).is_ok(),
        "the cluster does not have the product and the image of the session: run `cargo xtask demo` first"
    );
    progress.expect(1);
    let plugin = if let Some(path) = plugin {
        std::path::absolute(path).with_context(|| format!("reading {}", path.display()))?
    } else {
        progress.expect(1);
        plugin::build(workspace, progress)?
    };
    ensure!(plugin.is_file(), "{} is not a file", plugin.display());
    let home = Home::make(&target, &plugin)?;
    let timeline = progress.step("Record a session", |step| {
        prepare(&target)?;
        let recorded = session(&home, step);
        let deleted = target.kubectl_output(&["delete", "namespace", NAMESPACE, "--wait=false"]);
        recorded.and_then(|timeline| deleted.map(|_| timeline))
    })?;
    let svg = picture::draw(&timeline, COLUMNS.get(), TEXTS);
    ensure!(
        svg.len() < LARGEST,
        "the picture has {} bytes, more than {LARGEST}: shorten the session in {}",
        svg.len(),
        file!()
    );
    let path = workspace.join(PICTURE);
    let dir = path.parent().unwrap_or(workspace.root());
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    fs::write(&path, &svg).with_context(|| format!("writing {}", path.display()))?;
    println!(
        "{PICTURE}: {} bytes, {:.0} s",
        svg.len(),
        timeline.length().as_secs_f64()
    );
    Ok(())
}

/// Makes an empty namespace in which pods can start at once.
fn prepare(target: &Target<'_>) -> Result<()> {
    target.kubectl_output(&["delete", "namespace", NAMESPACE, "--ignore-not-found", PATIENCE])?;
    target.kubectl_output(&["create", "namespace", NAMESPACE])?;
    for object in ["configmap/kube-root-ca.crt", "serviceaccount/default"] {
        target.kubectl_output(&["-n", NAMESPACE, "wait", "--for=create", PATIENCE, object])?;
    }
    Ok(())
}

fn session(home: &Home, step: &Step<'_>) -> Result<Timeline> {
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", home.dir.display());
    let directory = home.dir.display().to_string();
    let kubeconfig = home.kubeconfig().display().to_string();
    let size = Size {
        rows: ROWS,
        columns: COLUMNS,
    };
    let variables = [
        ("PATH", path.as_str()),
        ("HOME", &directory),
        ("KUBECONFIG", &kubeconfig),
        ("LANG", "C.UTF-8"),
    ];
    let mut terminal = Terminal::open(size, &variables)?;
    for (command, reading) in SESSION {
        step.note(command);
        terminal.run(command, Duration::from_millis(*reading))?;
    }
    Ok(Timeline::of(terminal.into_frames()))
}

/// A home directory for the session, with the programs and a kubeconfig whose namespace is that of
/// the session. It is removed when this is dropped.
struct Home {
    dir: PathBuf,
}

// === impl Home ===

impl Home {
    fn make(target: &Target<'_>, plugin: &Path) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("stoppablecontainer-record-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
        let home = Self { dir };
        for (name, program) in [("kubectl", target.kubectl_path()), ("kubectl-stopc", plugin)] {
            let link = home.dir.join(name);
            symlink(program, &link).with_context(|| format!("linking {}", link.display()))?;
        }
        let kubeconfig = home.kubeconfig();
        let text = target.kubectl_output(&["config", "view", "--raw", "--minify", "--flatten"])?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&kubeconfig)
            .with_context(|| format!("making {}", kubeconfig.display()))?;
        file.write_all(text.as_bytes())
            .with_context(|| format!("writing {}", kubeconfig.display()))?;
        let file = format!("--kubeconfig={}", kubeconfig.display());
        let namespace = format!("--namespace={NAMESPACE}");
        target.kubectl_output(&["config", "set-context", "--current", &file, &namespace])?;
        Ok(home)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo;

    #[test]
    fn commands_fit_into_a_line_and_use_the_image_of_the_demo() {
        for (command, _) in SESSION {
            assert!(command.len() < usize::from(COLUMNS.get()) - 3, "{command}");
        }
        let image = demo::IMAGE.strip_prefix("docker.io/library/").unwrap();
        assert!(SESSION[0].0.ends_with(&format!(" --image {image}")), "{image}");
    }
}
