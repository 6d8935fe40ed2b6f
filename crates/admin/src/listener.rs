//! Accepting on the admin listener.

use std::sync::Arc;
use std::time::Duration;

use log::warn;
use pingora_core::apps::ServerApp;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::server::ShutdownWatch;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::Admin;

/// Connections at a time: scrapers and people, not the public.
const CONNECTIONS_MAX: usize = 256;
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the operator's side until the process ends: while the gateway drains it still answers.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, shutdown: ShutdownWatch) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((tcp, _)) => {
                let (admin, shutdown) = (Arc::clone(&admin), shutdown.clone());
                tokio::spawn(async move {
                    admin.process_new(Box::new(Stream::from(tcp)), &shutdown).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(error:% = error; "a connection to the admin listener cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
