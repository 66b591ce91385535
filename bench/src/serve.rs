//! Echo servers.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{Target, protocol::Protocol};

/// Serves until it is killed.
pub(crate) async fn run(target: &Target) -> anyhow::Result<()> {
    let listener = TcpListener::bind(target.address).await?;
    println!("READY");
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let protocol = target.protocol;
        tokio::task::spawn_local(async move {
            // A client that goes is no failure.
            let _ = answer(stream, protocol).await;
        });
    }
}

async fn answer(mut stream: TcpStream, protocol: Protocol) -> std::io::Result<()> {
    let (mut input, mut output) = (Vec::with_capacity(4096), Vec::new());
    while stream.read_buf(&mut input).await? > 0 {
        let mut read = 0;
        while let Some(rest) = input.get(read..)
            && let Some(length) = protocol.message_length(rest)
        {
            protocol.reply(rest.get(..length).unwrap_or_default(), &mut output);
            read += length;
        }
        input.drain(..read);
        stream.write_all(&output).await?;
        output.clear();
    }
    Ok(())
}
