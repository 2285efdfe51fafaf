//! Runs the development broker until Ctrl-C: `cargo run -p tidegate-devbroker --example devbroker -- 9092`.

use std::error::Error;
use std::net::SocketAddr;

use tidegate_devbroker::{Config, DevBroker};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = match std::env::args().nth(1) {
        Some(port) => port.parse()?,
        None => 9092,
    };
    let config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], port)),
        auto_create_topics: true,
        ..Config::default()
    };
    let broker = DevBroker::start(config).await?;
    println!("bootstrap.servers={}", broker.address());
    tokio::signal::ctrl_c().await?;
    broker.stop().await;
    Ok(())
}
