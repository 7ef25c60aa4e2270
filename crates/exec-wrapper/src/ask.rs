/*!
`ask`: passes a request of the plugin of kubectl on to the node agent, and the answer to standard
output.

The plugin executes it in the provider pod. It asks once: the user can repeat the command. What the
answer means, the plugin knows.
*/

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use exec_wrapper::protocol::{Answer, MAX_LINE, SOCKET, VOLUME_MOUNT_PATH};
use kept_files::Request;

use crate::{Failure, container_log};

/// Asks, and copies the answer. Succeeds once the agent has nothing more to send: whether that is
/// all, the answer says itself.
pub(crate) fn ask(request: &OsString) -> Result<(), Failure> {
    let request = request.to_string_lossy();
    // The agent checks it as well. Here it makes sure that it is one line.
    let request = Request::parse(&request).map_err(Failure::wrapper)?;
    let path = format!("{VOLUME_MOUNT_PATH}/{SOCKET}");
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::wrapper(
            "the node agent is not running on the node of the files; look at its DaemonSet, and try again",
        ),
        _ => Failure::wrapper(format_args!("cannot reach the node agent at {path}: {error}")),
    };
    let mut stream = UnixStream::connect(&path).map_err(failed)?;
    writeln!(stream, "{}", request.to_line()).map_err(failed)?;
    let mut answer = BufReader::new(stream);
    while let Answer::Wait(reason) = head(&mut answer)? {
        container_log::print(reason);
    }
    match io::copy(&mut answer, &mut io::stdout().lock()) {
        Ok(_) => Ok(()),
        // The user interrupted the command.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::wrapper(format_args!(
            "cannot pass the answer of the node agent on: {error}"
        ))),
    }
}

/// A line before the data.
fn head(answer: &mut impl BufRead) -> Result<Answer, Failure> {
    let mut line = Vec::new();
    let read = answer.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line);
    match (read, line.strip_suffix(b"\n")) {
        (Ok(_), Some(line)) => match Answer::parse(&String::from_utf8_lossy(line)) {
            Ok(Answer::Error(message)) => Err(Failure::Wrapper(message)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(Failure::wrapper(format_args!(
                "the node agent does not speak the wrapper protocol: {error}"
            ))),
        },
        _ => Err(Failure::wrapper(
            "the node agent ended the connection before it answered; try again",
        )),
    }
}
