//! Access rules of a broker with an authorizer, set by a `CreateAcls` request made by hand: no client here binds it.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Result, ensure};

/// What a rule is about: the protocol's number, and its name.
#[derive(Clone, Copy, Debug)]
pub enum Resource<'a> {
    /// A topic.
    Topic(&'a str),
    /// A transactional id.
    TransactionalId(&'a str),
}

/// What a rule allows.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    /// Produce, or use the transactional id.
    Write,
    /// Look at it.
    Describe,
    /// Look at its configuration.
    DescribeConfigs,
}

/// Allows everyone these operations on the resource, and with `allow.everyone.if.no.acl.found=true` no others.
pub fn allow_only(bootstrap: &str, resource: Resource<'_>, operations: &[Operation]) -> Result<()> {
    const CREATE_ACLS: i16 = 30;
    const VERSION: i16 = 1;
    const LITERAL: u8 = 3;
    const ALLOW: u8 = 3;
    let (kind, name) = match resource {
        Resource::Topic(name) => (2, name),
        Resource::TransactionalId(name) => (5, name),
    };
    let mut request = Vec::new();
    request.extend(CREATE_ACLS.to_be_bytes());
    request.extend(VERSION.to_be_bytes());
    request.extend(1_i32.to_be_bytes());
    text(&mut request, "tidegate-tests")?;
    request.extend(i32::try_from(operations.len())?.to_be_bytes());
    for operation in operations {
        request.push(kind);
        text(&mut request, name)?;
        request.push(LITERAL);
        text(&mut request, "User:ANONYMOUS")?;
        text(&mut request, "*")?;
        request.push(match operation {
            Operation::Write => 4,
            Operation::Describe => 8,
            Operation::DescribeConfigs => 10,
        });
        request.push(ALLOW);
    }
    let mut stream = TcpStream::connect(bootstrap)?;
    stream.write_all(&i32::try_from(request.len())?.to_be_bytes())?;
    stream.write_all(&request)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut response = vec![0; usize::try_from(i32::from_be_bytes(length))?];
    stream.read_exact(&mut response)?;
    // Correlation id, throttle time, number of results; then for each an error code and a message, empty where all is well.
    let results: Vec<_> = response.get(12..).unwrap_or_default().chunks(4).collect();
    let fine = results.len() == operations.len() && results.iter().all(|result| result.starts_with(&[0, 0]));
    ensure!(fine, "the broker refuses {resource:?} {operations:?}: {response:?}");
    Ok(())
}

fn text(out: &mut Vec<u8>, text: &str) -> Result<()> {
    out.extend(i16::try_from(text.len())?.to_be_bytes());
    out.extend(text.as_bytes());
    Ok(())
}
