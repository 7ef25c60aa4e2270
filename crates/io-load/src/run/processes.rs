//! System calls, programs and connections.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Instant;

use super::{Place, Timed, timed};
use crate::error::{Error, at};

pub(super) fn getpid(count: u32) -> Timed {
    let begin = Instant::now();
    for _ in 0..count {
        black_box(rustix::process::getpid());
    }
    Timed {
        operations: count,
        elapsed: begin.elapsed(),
    }
}

pub(super) fn spawn(place: &Place, count: u32) -> Result<Timed, Error> {
    let program = &place.program;
    timed(0..count, |_| {
        let status = Command::new(program).arg("true").status();
        let status = status.map_err(at(program))?;
        if status.success() {
            return Ok(());
        }
        let program = program.clone();
        Err(Error::Program { program, status })
    })
}

pub(super) fn loopback(count: u32) -> Result<Timed, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::Loopback)?;
    let address = listener.local_addr().map_err(Error::Loopback)?;
    let echo = thread::spawn(move || -> io::Result<()> {
        let (mut connection, _) = listener.accept()?;
        connection.set_nodelay(true)?;
        let mut byte = [0];
        while connection.read(&mut byte)? > 0 {
            connection.write_all(&byte)?;
        }
        Ok(())
    });
    let mut connection = TcpStream::connect(address).map_err(Error::Loopback)?;
    connection.set_nodelay(true).map_err(Error::Loopback)?;
    let mut byte = [0];
    let mut there_and_back = |_| {
        connection.write_all(b"x").map_err(Error::Loopback)?;
        connection.read_exact(&mut byte).map_err(Error::Loopback)
    };
    // The other thread accepts the connection.
    there_and_back(0)?;
    let result = timed(0..count, &mut there_and_back);
    drop(connection);
    let ended = echo.join();
    let timed = result?;
    match ended {
        Ok(ended) => ended.map_err(Error::Loopback).map(|()| timed),
        Err(_) => Err(Error::Loopback(io::Error::other("the thread panicked"))),
    }
}
