//! Who shares the cached prefixes of whose prompts.
//!
//! That a prefix is cached shows in the time of the first token and in `cached_tokens`. So it is
//! found only by those who are meant to know: the holder of the same key, and of these, those who
//! name the same `cache_salt`.

use sha2::{Digest, Sha256};

use crate::entropy::random_u128;
use crate::gate::TenantId;

/// Makes the scheduler's salts. They are keyed with a secret of the process: so nobody can name
/// another's salt or find two names for one, and the prefix index can build on their secrecy.
#[derive(Debug)]
pub(crate) struct CacheSalts {
    secret: [u128; 2],
    /// Keys do not matter.
    shared: bool,
}

impl CacheSalts {
    /// Salts for a process; `shared` between all keys or not.
    pub(crate) fn new(shared: bool) -> Self {
        Self {
            secret: [random_u128(), random_u128()],
            shared,
        }
    }

    /// The salt for a tenant's request, and the name that it gives.
    pub(crate) fn salt(&self, tenant: TenantId, name: Option<&str>) -> u64 {
        let mut hash = Sha256::new();
        self.secret
            .iter()
            .for_each(|part| hash.update(part.to_le_bytes()));
        let tenant = if self.shared { 0 } else { tenant };
        hash.update(tenant.to_le_bytes());
        // No name is another one than any name.
        hash.update([u8::from(name.is_some())]);
        hash.update(name.unwrap_or_default());
        let digest = hash.finalize();
        digest
            .iter()
            .take(8)
            .fold(0, |salt, &byte| salt << 8 | u64::from(byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salts_differ_by_holder_name_and_process() {
        let salts = CacheSalts::new(false);
        assert_eq!(salts.salt(1, Some("a")), salts.salt(1, Some("a")));
        let all = [
            salts.salt(1, None),
            salts.salt(1, Some("")),
            salts.salt(1, Some("a")),
            salts.salt(1, Some("b")),
            salts.salt(2, None),
            salts.salt(2, Some("a")),
            CacheSalts::new(false).salt(1, None),
        ];
        let distinct: std::collections::BTreeSet<u64> = all.into();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn shared_salts_differ_by_name_alone() {
        let salts = CacheSalts::new(true);
        assert_eq!(salts.salt(1, None), salts.salt(2, None));
        assert_ne!(salts.salt(1, Some("a")), salts.salt(1, None));
    }
}
