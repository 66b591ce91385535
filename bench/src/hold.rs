//! Idle connections.

use clap::Args;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::Target;

#[derive(Debug, Args)]
pub(crate) struct Hold {
    #[command(flatten)]
    target: Target,
    /// Connections.
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// Bytes of the payload of the one request of each.
    #[arg(long, default_value_t = 100)]
    payload: usize,
}

impl Hold {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let request = self.target.protocol.request(self.payload);
        let mut held = Vec::with_capacity(self.connections);
        // One after the other, so that servers need no more than one connection where these are shared.
        for _ in 0..self.connections {
            let mut stream = TcpStream::connect(self.target.address).await?;
            stream.write_all(&request).await?;
            let mut input = Vec::new();
            while self.target.protocol.message_length(&input).is_none() {
                anyhow::ensure!(stream.read_buf(&mut input).await? > 0, "the server hung up");
            }
            anyhow::ensure!(self.target.protocol.succeeded(&input), "the call failed");
            held.push(stream);
        }
        println!("held");
        tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
        Ok(())
    }
}
