//! The REST API through its front door.

mod auth;
mod body;
mod hashes;
mod sessions;
mod users;
