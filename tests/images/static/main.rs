//! The only file of the scratch test image: a web server, and a few commands for `kubectl exec`, in
//! one static program. As `pause` it holds the namespaces of a pod. No crate but std, so that rustc
//! alone builds it.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;

/// The parts of the C library that std links but does not show.
mod libc {
    pub const SIGINT: i32 = 2;
    pub const SIGTERM: i32 = 15;
    pub const SIGCHLD: i32 = 17;
    /// Disposition that makes the kernel reap children by itself.
    pub const SIG_IGN: usize = 1;

    unsafe extern "C" {
        pub fn signal(number: i32, handler: usize) -> usize;
        pub fn pause() -> i32;
        pub fn _exit(status: i32) -> !;
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        [] | ["serve"] => serve(8080),
        ["serve", port] => port.parse().map_err(|error| format!("{port}: {error}")).and_then(serve),
        ["pause"] => pause(),
        ["true"] => Ok(()),
        ["false"] => Err(String::new()),
        ["cat", file] => cat(file),
        ["write", file, text] => fs::write(file, format!("{text}\n")).map_err(|error| format!("{file}: {error}")),
        ["id"] => id(),
        ["env"] => {
            std::env::vars().for_each(|(name, value)| println!("{name}={value}"));
            Ok(())
        }
        ["ls", dir] => ls(dir),
        ["get", address] => get(address),
        _ => Err("usage: static [serve [PORT] | pause | true | false | cat FILE | write FILE TEXT | id | env | ls DIR | get HOST:PORT]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Answers every request with 200 and the content of `/page`, or a greeting where there is none.
fn serve(port: u16) -> Result<(), String> {
    end_on_signals();
    let listener = TcpListener::bind(("0.0.0.0", port)).map_err(|error| format!("port {port}: {error}"))?;
    println!("listening on {port}");
    for connection in listener.incoming().flatten() {
        thread::spawn(move || answer(connection));
    }
    Ok(())
}

fn answer(mut connection: TcpStream) {
    let mut request = [0; 4096];
    if !matches!(connection.read(&mut request), Ok(length) if length > 0) {
        return;
    }
    let page = fs::read("/page").unwrap_or_else(|_| b"hello from scratch\n".to_vec());
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", page.len());
    let _ = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(&page));
}

fn get(address: &str) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("{address}: {error}");
    let mut connection = TcpStream::connect(address).map_err(fail)?;
    connection.write_all(b"GET / HTTP/1.0\r\n\r\n").map_err(fail)?;
    let mut text = String::new();
    connection.read_to_string(&mut text).map_err(fail)?;
    print!("{}", text.split_once("\r\n\r\n").map_or("", |(_, body)| body));
    Ok(())
}

fn cat(file: &str) -> Result<(), String> {
    let content = fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    std::io::stdout().write_all(&content).map_err(|error| error.to_string())
}

fn ls(dir: &str) -> Result<(), String> {
    let entries = fs::read_dir(dir).map_err(|error| format!("{dir}: {error}"))?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names.iter().for_each(|name| println!("{name}"));
    Ok(())
}

/// The ids as the kernel tells them: `uid=`, `gid=` and `groups=` lines.
fn id() -> Result<(), String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|error| format!("/proc/self/status: {error}"))?;
    for (field, name) in [("Uid:", "uid"), ("Gid:", "gid"), ("Groups:", "groups")] {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        let words: Vec<_> = line.split_whitespace().collect();
        let value = if name == "groups" { words.join(",") } else { (*words.get(1).unwrap_or(&"")).to_owned() };
        println!("{name}={value}");
    }
    Ok(())
}

fn pause() -> Result<(), String> {
    end_on_signals();
    // SAFETY: neither call has a precondition; children of a shared PID namespace are reaped by the
    // kernel.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        loop {
            libc::pause();
        }
    }
}

/// The first process of a PID namespace has no default handlers: without this it could only be
/// killed.
fn end_on_signals() {
    extern "C" fn end(_: i32) {
        // SAFETY: _exit may be called from a signal handler.
        unsafe { libc::_exit(0) }
    }
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the handler only calls _exit.
        unsafe { libc::signal(signal, end as *const () as usize) };
    }
}
