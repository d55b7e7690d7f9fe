//! Who is who on the wire: the built-in CA, certificates bound to roles, client tokens.
//!
//! - Every connection is TLS 1.3. Services prove a role with a certificate whose only URI name is that role
//!   (`warren://control`, `warren://worker/<host-id>`); people prove themselves with a bearer token.
//! - A worker can only speak for itself: [`require_worker`] returns the host id its certificate names.
//! - Server names are role names too ([`Peer::server_name`]), so an agent cannot pose as control on one machine.
//! - A service takes up renewed files while it runs ([`Credentials`]): new connections show them, those that exist go on.
//! - The control side keeps only the hash of a token, and compares hashes in constant time.
//! - What a worker leaves for others to read later is signed with the same key ([`StatementSigner`]), and believed for the CA's sake.
//! - A service keeps its secrets to itself: no core dumps, no key that others can read, no open folder ([`close_folder`]).
//! - One secret of the fleet ([`FleetSecret`]) is every worker's; keys of what they share are derived from it.
//!
//! It deliberately knows nothing of permissions: it says who calls, not what they may do.
#![forbid(unsafe_code)]

mod authority;
mod check;
mod credentials;
mod error;
mod files;
mod line;
mod local;
mod material;
mod private;
mod role;
mod secret;
mod statement;
mod tls;
mod token;

pub use check::{Gate, WorkersOnly, require_client, require_control, require_worker};
pub use credentials::{Credentials, Looked};
pub use error::IdentityError;
pub use files::{FILES, FileRule, Owner, Owners, give_files};
pub use line::{Incoming, Line};
pub use local::{CERTIFICATE_LIFETIME, LocalIdentity, ensure_local, ensure_local_at};
pub use material::Unfit;
pub use private::{close_folder, keep_from_core_dumps};
pub use role::{HostId, Peer, Service};
pub use secret::FleetSecret;
pub use statement::{STATEMENT_OVERHEAD, Statement, StatementError, StatementSigner, StatementVerifier};
pub use tls::{client_tls, host_id, server_tls, use_tls13_only, user_tls};
pub use token::{ClientToken, TokenHashes};
