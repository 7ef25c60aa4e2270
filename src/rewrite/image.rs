/*!
The wrapper image in place of the user's, in the variant whose config carries the user image's
STOPSIGNAL: the runtime reads the stop signal from the config of the image that it started.
*/

use k8s_openapi::api::core::v1::{Container, LocalObjectReference, PodSpec};

use super::Wrapper;

/// Signals for which the wrapper image has a variant: name without SIG, number on Linux, suffix of
/// the tag.
const VARIANTS: [(&str, i32, &str); 9] = [
    ("TERM", 15, ""),
    ("QUIT", 3, "-sigquit"),
    ("INT", 2, "-sigint"),
    ("HUP", 1, "-sighup"),
    ("USR1", 10, "-sigusr1"),
    ("USR2", 12, "-sigusr2"),
    ("WINCH", 28, "-sigwinch"),
    ("KILL", 9, "-sigkill"),
    // The glibc number (SIGRTMIN is 34), which is what the runtimes' tables of signal names have
    // too.
    ("RTMIN+3", 37, "-sigrtmin-3"),
];

/// Replaces the image of the main container.
pub(super) fn set(
    container: &mut Container,
    wrapper: &Wrapper,
    stop_signal: &str,
    warnings: &mut Vec<String>,
) {
    let image = match suffix(stop_signal) {
        Some("") => wrapper.image.clone(),
        Some(suffix) => with_suffix(&wrapper.image, suffix).unwrap_or_else(|| {
            warnings.push(format!(
                "STOPSIGNAL {stop_signal} of the image is replaced by SIGTERM: the wrapper image is configured by digest, \
                 so its variants are not known"
            ));
            wrapper.image.clone()
        }),
        None => {
            warnings.push(format!(
                "STOPSIGNAL {stop_signal} of the image is not supported by StoppableContainer: the container is stopped with \
                 SIGTERM"
            ));
            wrapper.image.clone()
        }
    };
    container.image = Some(image);
    container.image_pull_policy = Some("IfNotPresent".to_owned());
}

/// Whether the container runs the wrapper image or one of its variants.
pub(super) fn is_ours(container: &Container, wrapper: &Wrapper) -> bool {
    let Some(image) = &container.image else {
        return false;
    };
    VARIANTS
        .iter()
        .any(|(_, _, suffix)| with_suffix(&wrapper.image, suffix).as_ref() == Some(image))
        || *image == wrapper.image
}

/// Adds the Secret that pulls the wrapper image, if one is configured.
pub(super) fn add_pull_secret(spec: &mut PodSpec, wrapper: &Wrapper) {
    let Some(name) = &wrapper.pull_secret else { return };
    let secrets = spec.image_pull_secrets.get_or_insert_default();
    if !secrets.iter().any(|s| s.name == *name) {
        secrets.push(LocalObjectReference { name: name.clone() });
    }
}

/// The tag suffix for a STOPSIGNAL as images write it: with or without SIG, in any case, or a
/// number.
fn suffix(stop_signal: &str) -> Option<&'static str> {
    let upper = stop_signal.trim().to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if name.is_empty() {
        return Some("");
    }
    let number = name.parse::<i32>().ok();
    VARIANTS
        .iter()
        .find(|(n, number_of, _)| *n == name || Some(*number_of) == number)
        .map(|(_, _, suffix)| *suffix)
}

/// `reference` with `suffix` on its tag; `None` for one by digest.
fn with_suffix(reference: &str, suffix: &str) -> Option<String> {
    if reference.contains('@') {
        return None;
    }
    let name_at = reference.rfind('/').map_or(0, |slash| slash + 1);
    let tag = if reference[name_at..].contains(':') {
        ""
    } else {
        ":latest"
    };
    Some(format!("{reference}{tag}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("", Some(""))]
    #[case("SIGTERM", Some(""))]
    #[case("15", Some(""))]
    #[case("SIGQUIT", Some("-sigquit"))]
    #[case("quit", Some("-sigquit"))]
    #[case("3", Some("-sigquit"))]
    #[case("SIGRTMIN+3", Some("-sigrtmin-3"))]
    #[case("37", Some("-sigrtmin-3"))]
    #[case("SIGSEGV", None)]
    #[case("999", None)]
    fn stop_signals(#[case] written: &str, #[case] expected: Option<&str>) {
        assert_eq!(suffix(written), expected);
    }

    #[rstest::rstest]
    #[case("r/wrapper:1", Some("r/wrapper:1-sigint"))]
    #[case("host:5000/r/wrapper", Some("host:5000/r/wrapper:latest-sigint"))]
    #[case("wrapper@sha256:00", None)]
    fn suffixes_go_on_the_tag(#[case] reference: &str, #[case] expected: Option<&str>) {
        assert_eq!(with_suffix(reference, "-sigint").as_deref(), expected);
    }
}
