//! Host-side accounting of paged KV blocks and the prefix index.
