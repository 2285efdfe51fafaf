//! What the integration tests share: brokers to run against, clients with short timeouts.

#![allow(clippy::disallowed_methods, reason = "tests measure real time and run threads of their own")]

pub mod acls;
mod apache;
mod authority;
pub mod clients;
mod dev;
mod https;
mod identity;
mod registry;
mod requirement;

pub use apache::{ApacheKafka, Place, Secured, apache_kafka, free_port};
pub use authority::{Authority, Pem};
pub use dev::{DevKafka, dev_kafka};
pub use identity::IdentityProvider;
pub use registry::SchemaRegistry;
pub use requirement::Requirement;
