//! The answer cache: bytes by key, bounded in bytes, expiring by time; knows no DNS.
