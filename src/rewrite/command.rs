/*!
What the main container runs: the argv that Kubernetes' rules give from template and image, behind
the wrapper; and its exec hooks and probes, behind the wrapper's `hook`, which waits until the
container is on its kept filesystem.
*/

use k8s_openapi::api::core::v1::{Container, ExecAction, LifecycleHandler, Probe};
use stoppablecontainer_api::ImageFacts;
use stoppablecontainer_api::names::{WRAPPER_IN_IMAGE, WRAPPER_IN_VOLUME};

use super::environment::Names;
use super::{Denial, Main, Wrapper, expansion, image};

/// Between the wrapper and the command that it execs.
const END_OF_OPTIONS: &str = "--";
/// Makes the wrapper look HOME up in the kept filesystem, as a runtime does when no variable
/// defines it.
const DEFAULT_HOME: &str = "--default-home";
/// Tells the wrapper where the container's termination message goes, if not to the API's default.
const TERMINATION_LOG: &str = "--termination-log";
/// That default.
const DEFAULT_TERMINATION_LOG: &str = "/dev/termination-log";

/// Sets `command` to the wrapper and `args` to the argv of the workload.
///
/// A pod that was rewritten before keeps its `args`. If another webhook has since put a program of
/// its own in front, the wrapper goes in front of that.
pub(super) fn wrap(
    container: &mut Container,
    main: &Main<'_>,
    image: &ImageFacts,
    wrapper: &Wrapper,
    names: &Names,
    path: &str,
) -> Result<(), Denial> {
    let command = container.command.take().unwrap_or_default();
    let args = container.args.take().unwrap_or_default();
    let is_wrapped = main.rewritten && wrapper_length(&command) == Some(command.len());
    // Without a command of ours another webhook removed it, and args still hold the whole argv.
    let is_bare = main.rewritten && command.is_empty() && image::is_ours(container, wrapper);
    let workload = if is_wrapped || is_bare {
        args.iter().map(|a| names.keep_literal(a)).collect()
    } else {
        let words = argv(&command, &args, image, names);
        if main.rewritten {
            without_inner_wrapper(words)
        } else {
            words
        }
    };
    if workload.is_empty() {
        return Err(Denial::NothingToRun(path.to_owned()));
    }
    let home = if names.home {
        None
    } else {
        Some(DEFAULT_HOME.to_owned())
    };
    let path = container.termination_message_path.as_deref().unwrap_or_default();
    let message = (!path.is_empty() && path != DEFAULT_TERMINATION_LOG)
        .then(|| [TERMINATION_LOG.to_owned(), expansion::escape(path)]);
    let command = [WRAPPER_IN_IMAGE, "run"].map(str::to_owned).into_iter();
    let options = home.into_iter().chain(message.into_iter().flatten());
    container.command = Some(
        command
            .chain(options)
            .chain([END_OF_OPTIONS.to_owned()])
            .collect(),
    );
    container.args = Some(workload);
    Ok(())
}

/// Whether the container's command is the wrapper, as [`wrap`] sets it.
pub(super) fn is_wrapped(container: &Container) -> bool {
    let command = container.command.as_deref().unwrap_or_default();
    wrapper_length(command) == Some(command.len())
}

/// Puts `hook` in front of the commands of exec hooks and probes.
pub(super) fn wrap_hooks(container: &mut Container, names: &Names) {
    // The kubelet expands references in the commands of probes (with the values as written in
    // `env`), not in those of hooks.
    let probes = [
        &mut container.startup_probe,
        &mut container.liveness_probe,
        &mut container.readiness_probe,
    ];
    for Probe { exec, .. } in probes.into_iter().flatten() {
        wrap_exec(exec.as_mut(), |text| names.keep_literal(text));
    }
    let lifecycle = container.lifecycle.as_mut();
    let hooks = lifecycle.map(|l| [&mut l.post_start, &mut l.pre_stop]);
    for LifecycleHandler { exec, .. } in hooks.into_iter().flatten().flatten() {
        wrap_exec(exec.as_mut(), str::to_owned);
    }
}

fn wrap_exec(exec: Option<&mut ExecAction>, literal: impl Fn(&str) -> String) {
    let prefix = [WRAPPER_IN_VOLUME, "hook", END_OF_OPTIONS];
    let Some(command) = exec.and_then(|e| e.command.as_mut()).filter(|c| !c.is_empty()) else {
        return;
    };
    let own: Vec<String> = command.iter().map(|c| literal(c)).collect();
    *command = if own.starts_with(&prefix.map(str::to_owned)) {
        own
    } else {
        prefix.into_iter().map(str::to_owned).chain(own).collect()
    };
}

/// The argv of a container by Kubernetes' rules: `command` replaces ENTRYPOINT and CMD, `args`
/// replaces CMD.
fn argv(command: &[String], args: &[String], image: &ImageFacts, names: &Names) -> Vec<String> {
    let ours = |texts: &[String]| texts.iter().map(|t| names.keep_literal(t)).collect::<Vec<_>>();
    let theirs = |texts: &[String]| texts.iter().map(|t| expansion::escape(t)).collect::<Vec<_>>();
    // containerd takes an ENTRYPOINT of one empty string for none (`WithProcessArgs` of its CRI
    // plugin).
    let entrypoint = if image.entrypoint == [""] {
        &[][..]
    } else {
        &image.entrypoint
    };
    match (command.is_empty(), args.is_empty()) {
        (false, _) => [ours(command), ours(args)].concat(),
        (true, false) => [theirs(entrypoint), ours(args)].concat(),
        (true, true) => [theirs(entrypoint), theirs(&image.cmd)].concat(),
    }
}

/// `argv` without our wrapper where a webhook that ran after us has pushed it into the arguments of
/// its own program.
fn without_inner_wrapper(argv: Vec<String>) -> Vec<String> {
    let inner = (0..argv.len()).find_map(|at| wrapper_length(&argv[at..]).map(|length| (at, length)));
    match inner {
        Some((at, length)) => [&argv[..at], &argv[at + length..]].concat(),
        None => argv,
    }
}

/// How many words at the beginning of `words` are our wrapper with its options.
fn wrapper_length(words: &[String]) -> Option<usize> {
    let words: Vec<_> = words.iter().map(String::as_str).take(6).collect();
    let [WRAPPER_IN_IMAGE, "run", options @ ..] = &words[..] else {
        return None;
    };
    let after_home = options.strip_prefix(&[DEFAULT_HOME]).unwrap_or(options);
    let after_message = match after_home {
        [TERMINATION_LOG, _path, rest @ ..] => rest,
        rest => rest,
    };
    (after_message.first() == Some(&END_OF_OPTIONS)).then(|| words.len() - after_message.len() + 1)
}
