//! One address for several servers, as a Service of Kubernetes is: each new connection goes to the next server that takes it, and
//! stays with it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// See the module. Dropping it cuts all connections.
pub struct Front {
    url: String,
    _serving: JoinSet<()>,
}

impl Front {
    /// Before the servers at these addresses.
    pub async fn of(servers: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let (servers, next) = (Arc::new(servers), AtomicUsize::new(0));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (servers, first) = (Arc::clone(&servers), next.fetch_add(1, Ordering::Relaxed));
                connections.spawn(pass(client, servers, first));
            }
        });
        Self {
            url,
            _serving: serving,
        }
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }
}

async fn pass(mut client: TcpStream, servers: Arc<Vec<SocketAddr>>, first: usize) {
    for offset in 0..servers.len() {
        let server = servers[(first + offset) % servers.len()];
        if let Ok(mut server) = TcpStream::connect(server).await {
            // Either side may break off.
            let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}
