//! Whole screens of a terminal in which a user runs the plugin with kubectl.

use std::ffi::OsStr;

use anyhow::{Context, Result, ensure};
use stoppablecontainer_api::StoppableContainer;
use testkit::{Namespace, Size, Terminal, comparable, in_namespace};

use super::home::Home;
use crate::support::running;

const WIDE: Size = Size {
    columns: 100,
    rows: 30,
};
const NARROW: Size = Size {
    columns: 60,
    rows: 30,
};
const CREATE: &str = "kubectl stopc create dev --image ubuntu:22.04 --command -- /bin/sleep infinity";
/// An image that the registry does not have.
const CREATE_BROKEN: &str = "kubectl stopc create broken --image ubuntu:no-such-tag";
/// The line of a container whose image cannot be pulled.
const PULLING: &str = "* broken: choosing the node and pulling the image";
/// The kubelet alternates between these reasons.
const PULL_ERRORS: [(&str, &str); 2] = [("ErrImagePull", "PULL-ERROR"), ("ImagePullBackOff", "PULL-ERROR")];

/// A user of the test's namespace.
struct User<'a> {
    ns: &'a Namespace,
    home: Home,
}

// === impl User ===

impl<'a> User<'a> {
    async fn of(ns: &'a Namespace) -> Result<Self> {
        let home = Home::make(ns).await?;
        Ok(Self { ns, home })
    }

    /// A terminal with these variables beside those that the programs need.
    async fn terminal(&self, size: Size, variables: &[(&str, &str)]) -> Result<Terminal> {
        let (path, kubeconfig) = (self.home.path()?, self.home.kubeconfig());
        let own = [
            ("HOME", self.home.dir().as_os_str()),
            ("PATH", path.as_os_str()),
            ("KUBECONFIG", kubeconfig.as_os_str()),
        ];
        let others = variables.iter().map(|(name, value)| (*name, OsStr::new(value)));
        let all: Vec<_> = own.into_iter().chain(others).collect();
        Terminal::open(size, &all).await
    }

    /// Runs a command on a terminal of its own, and compares the whole screen at its end with
    /// `expected`, behind the command. Each screen before that ends with one of `lines`.
    async fn sees(&self, command: &str, lines: &[&str], expected: &str) -> Result<()> {
        let mut terminal = self.terminal(WIDE, &[]).await?;
        terminal.command(command).await?;
        self.see_end(&terminal, command, lines, expected).await
    }

    /// The same after a question, to which the user types `answer`.
    async fn asked(&self, command: &str, question: &str, answer: &str, then: &str) -> Result<()> {
        let mut terminal = self.terminal(WIDE, &[]).await?;
        terminal.command(command).await?;
        let screen = terminal
            .wait("it asks", |screen| screen.ends_with("[y/N]"))
            .await?;
        self.same(&screen, &format!("$ {command}\n{question} [y/N]"))?;
        terminal.answer(answer).await?;
        let expected = format!("{question} [y/N] {answer}\n{then}");
        self.see_end(&terminal, command, &WAITS, &expected).await
    }

    async fn see_end(
        &self,
        terminal: &Terminal,
        command: &str,
        lines: &[&str],
        expected: &str,
    ) -> Result<()> {
        let mut before = Vec::new();
        let screen = terminal.ended(|screen| before.push(screen.to_owned())).await?;
        self.same(&screen, &format!("$ {command}\n{expected}\n$"))?;
        // Before the first line of the command, and after its last, the cursor is alone.
        for screen in before {
            let screen = self.comparable(&screen);
            let last = screen.lines().last().unwrap_or_default();
            let progresses = last.strip_prefix("* ");
            ensure!(
                progresses.is_none_or(|line| lines.contains(&line)),
                "another line of progress: {screen}"
            );
        }
        Ok(())
    }

    fn same(&self, screen: &str, expected: &str) -> Result<()> {
        let seen = self.comparable(screen);
        ensure!(seen == expected, "the screen:\n{seen}\nexpected:\n{expected}");
        Ok(())
    }

    fn comparable(&self, screen: &str) -> String {
        let names = [&[(self.ns.name.as_str(), "NAMESPACE")][..], &PULL_ERRORS].concat();
        comparable(screen, &names)
    }
}

/// The steps of waits for the container of [`CREATE`], with their times.
const WAITS: [&str; 7] = [
    "dev: waiting for the controller  TIME",
    "dev: choosing the node and pulling the image  TIME",
    "dev: preparing the filesystem  TIME",
    "dev: starting the pod  TIME",
    "dev: stopping the pod and writing its files to the disk  TIME",
    "dev: waiting for the deletion  TIME",
    "dev: deleting the pods and the files  TIME",
];

/// From `create` to `delete`: what is on the screen while a command waits, and when it has ended.
#[tokio::test]
async fn plugin_screens_of_a_container_from_create_to_delete() {
    in_namespace("plugin-screens", async |ns| -> Result<()> {
        let user = User::of(&ns).await?;
        let created = "stoppablecontainer/dev created, running (TIME)";
        user.sees(CREATE, &WAITS, created).await?;
        running(&ns, "dev").await?;
        let object = measured(&ns).await?;
        let node = object.status.and_then(|status| status.node_name);
        let node = node.context("a running container without a node")?;
        list_and_status(&user, &node).await?;

        let stop = "kubectl stopc stop --all --grace-period=5";
        let question = "Stop 1 container (dev)?";
        let cancelled = "error: cancelled; nothing was changed";
        user.asked(stop, question, "n", cancelled).await?;
        let object = ns.api::<StoppableContainer>().get("dev").await?;
        ensure!(object.spec.running, "a `no` has stopped it");
        stop_with_its_progress(&user, stop, question).await?;
        let again = "stoppablecontainer/dev already stopped (TIME)";
        user.sees("kubectl stopc stop dev", &WAITS, again).await?;
        let started = "stoppablecontainer/dev started (TIME)";
        user.sees("kubectl stopc start dev", &WAITS, started).await?;

        measured(&ns).await?;
        let delete = "kubectl stopc delete dev";
        let question = "Delete dev (SIZE)? All its files are lost.";
        user.asked(delete, question, "no", cancelled).await?;
        let deleted = "stoppablecontainer/dev deleted (TIME)";
        user.asked(delete, question, "yes", deleted).await?;
        let nothing =
            "No containers in namespace NAMESPACE. Create one with: kubectl stopc create NAME --image IMAGE";
        user.sees("kubectl stopc list", &[], nothing).await
    })
    .await;
}

/// Waits until the usage of the files is known.
async fn measured(ns: &Namespace) -> Result<StoppableContainer> {
    ns.wait("dev", "its usage was measured", |object: &StoppableContainer| {
        let status = object.status.as_ref();
        status.is_some_and(|status| {
            status
                .filesystem
                .as_ref()
                .is_some_and(|files| files.usage.is_some())
        })
    })
    .await
}

/// What `list` and `status` print of the running container, and their colours.
async fn list_and_status(user: &User<'_>, node: &str) -> Result<()> {
    let mut terminal = user.terminal(WIDE, &[]).await?;
    terminal.command("kubectl stopc list").await?;
    let screen = terminal.ended(|_| {}).await?;
    let table = "NAME  PHASE  READY  NODE  USED  AGE  REASON\ndev  Running  True  NODE  SIZE  TIME";
    let seen = comparable(&screen, &[(node, "NODE")]);
    ensure!(seen == format!("$ kubectl stopc list\n{table}\n$"), "{screen}");

    let mut terminal = user.terminal(WIDE, &[]).await?;
    terminal.command("kubectl stopc status dev").await?;
    let screen = terminal.ended(|_| {}).await?;
    let names = [(node, "NODE"), (user.ns.name.as_str(), "NAMESPACE")];
    let seen = comparable(&screen, &names);
    // The filesystem is listed if the controller has reported it before it created the pod.
    let seen = seen.replace("    CLOCK  +TIME  filesystem ready\n", "");
    let expected = "\
$ kubectl stopc status dev
NAMESPACE/dev
  State:  Running on NODE, ready
  Image:  ubuntu:22.04
  Files:  SIZE in COUNT entries
  Age:  TIME
  Last start:
    UTC  TIME  STEP
    CLOCK  +TIME  object created
    CLOCK  +TIME  provider created
    CLOCK  +TIME  image pulled, provider started
    CLOCK  +TIME  pod created
    CLOCK  +TIME  pod assigned to its node
    CLOCK  +TIME  command started
    CLOCK  +TIME  ready
  Events:
    AGE  TYPE  OBJECT  REASON  MESSAGE
";
    let events = seen
        .strip_prefix(expected)
        .with_context(|| format!("the screen:\n{seen}\nexpected:\n{expected}"))?;
    // Which events are the last ones differs from run to run.
    let mut events = events.lines().take_while(|line| line.starts_with("    TIME  "));
    ensure!(
        events.any(|line| line.contains("  StoppableContainer/dev  ")),
        "no event of the object:\n{seen}"
    );
    ensure!(seen.ends_with("\n$"), "more than the events:\n{seen}");
    let coloured = terminal.coloured_screen().await?;
    ensure!(
        coloured.contains("\u{1b}[32mRunning on "),
        "the state is not green: {coloured:?}"
    );
    Ok(())
}

/// A stop that takes a while, because the process ignores the signal: the line says what happens.
async fn stop_with_its_progress(user: &User<'_>, stop: &str, question: &str) -> Result<()> {
    let mut terminal = user.terminal(WIDE, &[]).await?;
    terminal.command(stop).await?;
    terminal
        .wait("it asks", |screen| screen.ends_with("[y/N]"))
        .await?;
    terminal.answer("y").await?;
    let line = "dev: stopping the pod and writing its files to the disk  TIME";
    let expected = format!("$ {stop}\n{question} [y/N] y\n* {line}");
    let shows = |screen: &str| user.comparable(screen) == expected;
    terminal
        .wait("it shows that the pod is being stopped", shows)
        .await?;
    let end = format!("{question} [y/N] y\nstoppablecontainer/dev stopped (TIME)");
    user.see_end(&terminal, stop, &WAITS, &end).await
}

/// A wait that does not come on: the time of its line runs, the cause appears, a narrow terminal
/// does not wrap the line, and Ctrl-C says how to continue.
#[tokio::test]
async fn plugin_screens_of_a_wait_without_progress() {
    in_namespace("plugin-waits", async |ns| -> Result<()> {
        let user = User::of(&ns).await?;
        let mut terminal = user.terminal(WIDE, &[]).await?;
        terminal.command(CREATE_BROKEN).await?;
        let expected = format!("$ {CREATE_BROKEN}\n{PULLING}  TIME");
        let shows = |screen: &str| user.comparable(screen) == expected;
        let first = terminal.wait("the step has a line", shows).await?;
        let time = |screen: &str| screen.split_whitespace().last().map(str::to_owned);
        let runs = |screen: &str| shows(screen) && time(screen) != time(&first);
        terminal.wait("the time of the line runs", runs).await?;

        let caused = format!("$ {CREATE_BROKEN}\n{PULLING}: PULL-ERROR: ");
        let has_cause = |screen: &str| {
            let seen = user.comparable(screen);
            seen.starts_with(&caused) && seen.ends_with(" TIME") && seen.lines().count() == 2
        };
        terminal.wait("the line has the cause", has_cause).await?;
        on_a_narrow_terminal(&user).await?;

        terminal.press("C-c").await?;
        let screen = terminal.ended(|_| {}).await?;
        let expected = format!(
            "$ {CREATE_BROKEN}\nerror: broken: not running yet; the cluster continues without this command; \
             continue to wait: kubectl stopc wait broken -n NAMESPACE --for=running\n$"
        );
        user.same(&screen, &expected)?;
        let object = ns.api::<StoppableContainer>().get("broken").await?;
        ensure!(object.spec.running, "Ctrl-C has stopped it");
        colours(&user).await
    })
    .await;
}

/// The line has one row, also with a cause that is longer than the row.
async fn on_a_narrow_terminal(user: &User<'_>) -> Result<()> {
    let mut terminal = user.terminal(NARROW, &[]).await?;
    let command = "kubectl stopc wait broken --for=running";
    terminal.command(command).await?;
    let caused = format!("{PULLING}: ");
    let has_cause = |screen: &str| user.comparable(screen).contains(&caused);
    terminal.wait("the line has the cause", has_cause).await?;
    let rows = terminal.rows().await?;
    let seen: Vec<_> = rows.iter().map(|row| user.comparable(row)).collect();
    ensure!(
        seen.len() == 2 && seen[0] == format!("$ {command}") && seen[1].starts_with(&caused),
        "the line does not have one row: {rows:#?}"
    );
    ensure!(seen[1].ends_with(" TIME"), "the row has no time: {rows:#?}");
    terminal.press("C-c").await?;
    terminal.ended(|_| {}).await.map(drop)
}

/// Colours for what needs attention, and none with `NO_COLOR`, with the same text.
async fn colours(user: &User<'_>) -> Result<()> {
    let list = "kubectl stopc list";
    let mut texts = Vec::new();
    for (variables, coloured) in [(&[][..], true), (&[("NO_COLOR", "1")][..], false)] {
        let mut terminal = user.terminal(WIDE, variables).await?;
        terminal.command(list).await?;
        let screen = terminal.ended(|_| {}).await?;
        texts.push(user.comparable(&screen));
        let screen = terminal.coloured_screen().await?;
        let (yellow, any) = (screen.contains("\u{1b}[33mbroken "), screen.contains('\u{1b}'));
        ensure!(
            (yellow, any) == (coloured, coloured),
            "colours with {variables:?}: {screen:?}"
        );
    }
    ensure!(texts[0] == texts[1], "NO_COLOR changes the text: {texts:#?}");
    Ok(())
}
