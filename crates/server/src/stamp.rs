//! What every answer and every chunk of it repeats.

use std::time::{SystemTime, UNIX_EPOCH};

use backstop_protocol::ResponseStamp;

use crate::entropy::random_u128;
use crate::server::Server;

/// The stamp of a new answer whose id begins with `prefix`.
pub(crate) fn stamp(server: &Server, prefix: &str, model: String) -> ResponseStamp {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    ResponseStamp {
        id: format!("{prefix}-{:032x}", random_u128()),
        created_s: now.as_secs(),
        model,
        system_fingerprint: Some(server.provenance().fingerprint()),
    }
}
