/*!
The table at the end of the demo.
*/

use std::time::Duration;

/// The measured times of a StoppableContainer and of a plain pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    /// The StoppableContainer.
    pub ours: Row,
    /// A plain pod of the same image.
    pub plain: Row,
}

/// The times of one of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    /// From the request to Ready, the first time.
    pub start: Duration,
    /// From the request until the pod is gone.
    pub stop: Duration,
    /// From the request to Ready, the second time.
    pub start_again: Duration,
}

/// The table as text.
pub(super) fn render(times: &Times) -> String {
    let row = |name: &str, row: &Row, files: &str| {
        let [start, stop, again] =
            [row.start, row.stop, row.start_again].map(|time| format!("{:.1} s", time.as_secs_f32()));
        format!("| {name:<18} | {start:>11} | {stop:>7} | {again:>11} | {files:<5} |\n")
    };
    let mut text = format!(
        "| {:<18} | {:>11} | {:>7} | {:>11} | {:<5} |\n",
        "", "first start", "stop", "start again", "files"
    );
    text.push_str("|--------------------|-------------|---------|-------------|-------|\n");
    text.push_str(&row("StoppableContainer", &times.ours, "kept"));
    text.push_str(&row("plain pod", &times.plain, "lost"));
    text.push_str(
        "Times from the request until Ready, or until the pod was deleted. This is a single run: compare the rows, not machines.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let text = render(&Times::default());
        let widths: Vec<_> = text.lines().take(4).map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }
}
