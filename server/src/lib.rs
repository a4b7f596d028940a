//! Swiftlet.
