/*!
The protocol between the wrapper and the node agent: lines of UTF-8 over the stream socket
[`SOCKET`] in the pod's volume, one request per connection.

```text
wrapper:  <verb> SP <version> LF          verb: hold | run | hook; version: 1
wrapper:  a request about kept files LF   see the crate `kept-files`
agent:    wait SP <message> LF            any number of times; the message is for the container log
agent:    ok LF                           or
agent:    error SP <message> LF           final: trying again will not help
```

A connection that ends before `ok` or `error` means that the agent restarted: connect again. After
`ok` the connection of `hold` stays open until the provider or the agent ends; those of `run` and
`hook` are closed.

- `hold`: the peer is the provider's main container. `ok`: the filesystem is prepared.
- `run`: the peer is the consumer's main container. `ok`: the root of the peer's mount namespace is
  now the kept filesystem.
- `hook`: the peer is an exec hook or probe of the consumer. `ok`: as for `run`.
- A request about kept files: the peer is a process in the provider's main container. After `ok` the
  agent sends frames with the data, and then closes the connection.
*/

/// File name of the socket in the volume.
pub const SOCKET: &str = "agent.sock";
/// File name of the wrapper in the volume.
pub const WRAPPER: &str = "exec-wrapper";
/// File name of a line in the volume for the container's log. The agent writes it if the container
/// cannot connect.
pub const NOTICE: &str = "notice";
/// Where the volume is mounted in provider and consumer.
pub const VOLUME_MOUNT_PATH: &str = "/.stoppablecontainer";
/// Version of the protocol.
pub const VERSION: u32 = 1;
/// Longest line in bytes, the line feed included. A longer one is an error of the peer.
pub const MAX_LINE: usize = 4096;
/// Source of the kept root in `/proc/PID/mountinfo` (the field after the file system type). Only a
/// process that may mount can make a mount with this source.
pub const KEPT_ROOT_SOURCE: &str = "stoppablecontainer";

/// How the wrapper's lines begin, in the container's log and in its termination message.
pub const LINE_PREFIX: &str = "stoppablecontainer: ";

/// Longest request in bytes, the line feed included.
pub const MAX_REQUEST: usize = kept_files::request::MAX_REQUEST + 1;

/// What a wrapper asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Something about its container.
    Container(Verb),
    /// Something about the kept files.
    Files(kept_files::Request),
}

/// What a wrapper asks for its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Prepare the filesystem and keep the connection.
    Hold,
    /// Move this container onto the kept filesystem.
    Run,
    /// Wait until this container is on the kept filesystem.
    Hook,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not yet; the text says what is waited for.
    Wait(String),
    /// Done.
    Done,
    /// Refused for good; the text says why.
    Error(String),
}

/// A line that is not of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed;

// === impl Request ===

impl Request {
    /// Reads a request without its line feed.
    ///
    /// # Errors
    /// If it is not one of these.
    pub fn parse(line: &str) -> Result<Self, Malformed> {
        match kept_files::Request::parse(line) {
            Ok(request) => Ok(Self::Files(request)),
            Err(_) => Verb::parse(line).map(Self::Container),
        }
    }

    /// The verb as it stands in the request.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Container(verb) => verb.as_str(),
            Self::Files(request) => request.verb(),
        }
    }
}

// === impl Verb ===

impl Verb {
    /// The request as a line.
    pub fn to_line(self) -> String {
        format!("{} {VERSION}\n", self.as_str())
    }

    /// Reads a request without its line feed.
    pub fn parse(line: &str) -> Result<Self, Malformed> {
        match line.split_once(' ') {
            Some(("hold", "1")) => Ok(Self::Hold),
            Some(("run", "1")) => Ok(Self::Run),
            Some(("hook", "1")) => Ok(Self::Hook),
            _ => Err(Malformed),
        }
    }

    /// The verb as it stands in a request.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Run => "run",
            Self::Hook => "hook",
        }
    }
}

// === impl Answer ===

impl Answer {
    /// The answer as a line. Line feeds in a message become spaces; a message too long for a line
    /// is cut.
    pub fn to_line(&self) -> String {
        let (word, message) = match self {
            Self::Done => return "ok\n".to_owned(),
            Self::Wait(message) => ("wait", message),
            Self::Error(message) => ("error", message),
        };
        let room = MAX_LINE - word.len() - 2;
        let end = message
            .char_indices()
            .map(|(at, c)| at + c.len_utf8())
            .take_while(|end| *end <= room)
            .last();
        format!("{word} {}\n", message[..end.unwrap_or(0)].replace('\n', " "))
    }

    /// Reads an answer without its line feed.
    pub fn parse(line: &str) -> Result<Self, Malformed> {
        match line.split_once(' ') {
            None if line == "ok" => Ok(Self::Done),
            Some(("wait", message)) => Ok(Self::Wait(message.to_owned())),
            Some(("error", message)) => Ok(Self::Error(message.to_owned())),
            _ => Err(Malformed),
        }
    }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not a line of the wrapper protocol, version 1")
    }
}

impl std::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written() {
        for verb in [Verb::Hold, Verb::Run, Verb::Hook] {
            assert_eq!(Verb::parse(verb.to_line().trim_end()), Ok(verb));
        }
        for answer in [
            Answer::Done,
            Answer::Wait("a b".into()),
            Answer::Error(String::new()),
        ] {
            assert_eq!(Answer::parse(answer.to_line().trim_end_matches('\n')), Ok(answer));
        }
    }

    #[test]
    fn requests_about_files_and_containers_are_told_apart() {
        let line = "diff 1 - /etc";
        let files = kept_files::Request::parse(line).unwrap();
        assert_eq!(Request::parse(line), Ok(Request::Files(files)));
        assert_eq!(Request::parse("run 1"), Ok(Request::Container(Verb::Run)));
        assert_eq!(Request::parse("diff 1"), Err(Malformed));
    }

    #[test]
    fn anything_else_is_malformed() {
        for line in ["", "hold", "hold 2", "hold 1 ", "stop 1", "HOLD 1"] {
            assert_eq!(Verb::parse(line), Err(Malformed), "{line:?}");
        }
        for line in ["", "ok ", "okay", "wait", "error", "no x"] {
            assert_eq!(Answer::parse(line), Err(Malformed), "{line:?}");
        }
    }

    #[test]
    fn h9_a_message_is_one_line_of_bounded_length() {
        let line = Answer::Error("a\nb".to_owned() + &"ü".repeat(MAX_LINE)).to_line();
        assert!(line.len() <= MAX_LINE && line.ends_with('\n') && line.matches('\n').count() == 1);
        assert!(line.starts_with("error a b"));
    }
}
