//! The REST API through its front door.

mod auth;
